//! What people change: mutes, memberships, tokens, apps.

use homing::store::conversations::{self, Change, Role};
use rand::Rng as _;

use crate::{people::Index, setting_up::START, world::World};

impl World {
    /// Somebody mutes or unmutes, is removed or added; a token changes, or an app goes.
    pub(crate) async fn change_minds(&mut self) {
        let conversation = self.rng.random_range(0..self.people.conversations.len());
        let members = &self.people.conversations[conversation].members;
        let place = self.rng.random_range(0..members.len());
        let user = *members.keys().nth(place).unwrap();
        let device = self.rng.random_range(0..self.people.devices.len());
        match self.rng.random_range(0..10) {
            0..4 => self.toggle_mute(conversation, user).await,
            4 => self.toggle_membership(conversation, user).await,
            5..8 => self.register(device).await,
            8 => {
                self.people.devices[device].is_installed = false;
                self.people.devices[device].shown.clear();
            }
            _ => {}
        }
    }

    async fn toggle_mute(&mut self, index: Index, user: Index) {
        let conversation = &mut self.people.conversations[index];
        let member = conversation.members.get_mut(&user).unwrap();
        member.is_muted = !member.is_muted;
        member.excused_by_mute = conversation.head;
        sqlx::query(
            "update participants set muted_until = case when $3 then 'infinity'::timestamptz end
             where conversation_id = $1 and user_id = $2",
        )
        .bind(conversation.id.0)
        .bind(self.people.users[user].id.0)
        .bind(member.is_muted)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }

    async fn toggle_membership(&mut self, index: Index, user: Index) {
        let id = self.people.conversations[index].id;
        let (who, conn) = (&self.people.users[user], &mut self.conn);
        let who = (who.id, &who.name);
        let member = &self.people.conversations[index].members[&user];
        let changed = if member.is_removed {
            conversations::add(conn, id, who, Role::Member, who, 1000).await
        } else {
            conversations::remove(conn, id, who, who).await
        };
        let Ok(Change::Changed { entry, .. }) = changed else {
            panic!("{changed:?}");
        };
        let conversation = &mut self.people.conversations[index];
        conversation.head = entry.position.sequence.get();
        let member = conversation.members.get_mut(&user).unwrap();
        member.is_removed = !member.is_removed;
        member.is_muted &= member.is_removed;
        member.excused = conversation.head;
        for &device in &self.people.users[user].devices {
            self.people.devices[device].shown.remove(&index);
        }
        self.committed(1).await;
    }

    /// The app registers a token, which takes the place of the old one.
    async fn register(&mut self, index: Index) {
        if !self.people.devices[index].is_installed {
            self.people.excuse_device(index);
        }
        let device = &mut self.people.devices[index];
        device.is_installed = true;
        device.token = format!("token-{index}-{}", self.at);
        sqlx::query(
            "update push_tokens set token = $2, registered_at = to_timestamp($3 / 1000.0),
                 dead_since = null, dead_reason = null
             where device_id = $1",
        )
        .bind(device.id.0)
        .bind(&device.token)
        .bind(START + self.at)
        .execute(&mut self.conn)
        .await
        .unwrap();
    }
}
