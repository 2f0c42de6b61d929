//! What must hold when everything is quiet.

use crate::{
    people::{Index, Message},
    world::World,
};

/// Of all notifications, how many may tell what the device has acknowledged.
const LATE_PERCENT_MAX: usize = 1;

impl World {
    pub(crate) async fn violations(&mut self) -> Vec<String> {
        let mut violations = self.watch.violations.clone();
        violations.extend(self.provider.violations.iter().cloned());
        violations.extend(self.missed());
        violations.extend(self.still_shown());
        let delivered = self.provider.delivered.len();
        let late = self.provider.delivered.iter().filter(|one| one.is_late);
        let late = late.count();
        if late * 100 > delivered * LATE_PERCENT_MAX {
            violations.push(format!(
                "{late} of {delivered} came after an acknowledgement"
            ));
        }
        let unexplained: i64 = sqlx::query_scalar(
            "select count(*) from push_jobs j
             where not exists (
                 select from push_attempts a
                 where a.conversation_id = j.conversation_id and a.user_id = j.user_id
                   and a.device_id = j.device_id and a.kind = j.kind and a.to_seq >= j.to_seq
                   and a.outcome <> 'postponed'
             )",
        )
        .fetch_one(&mut self.conn)
        .await
        .unwrap();
        if unexplained > 0 {
            violations.push(format!(
                "{unexplained} jobs ended without a word in the ledger"
            ));
        }
        violations
    }

    /// Messages that a device neither acknowledged nor was told of, without a rule against it.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for (index, conversation) in self.people.conversations.iter().enumerate() {
            for &user in conversation.members.keys() {
                for &device in &self.people.users[user].devices {
                    let told = self.provider.newest.get(&(device, index));
                    let told = told.map_or(0, |(seq, _)| *seq);
                    let lost = conversation.messages.iter().filter(|message| {
                        message.seq > told && self.must_be_told(message, index, device)
                    });
                    missed.extend(lost.map(|message| {
                        let is = &self.people.devices[device];
                        format!("device {device} was not told of {index}, {message:?}; {is:?}")
                    }));
                }
            }
        }
        missed
    }

    fn must_be_told(&self, message: &Message, conversation: Index, index: Index) -> bool {
        let device = &self.people.devices[index];
        let member = &self.people.conversations[conversation].members[&device.user];
        let excused = self.people.excused.get(&(index, conversation));
        let is_mentioned = message.mentions == Some(device.user);
        let is_silenced = member.is_muted || message.seq <= member.excused_by_mute;
        device.is_installed
            && message.sender != device.user
            && !member.is_removed
            && message.seq > member.excused
            && message.seq > excused.copied().unwrap_or_default()
            && message.seq > member.read
            && message.seq > self.people.acknowledged(index, conversation)
            && !message.expires
            && (!is_silenced || is_mentioned)
    }

    /// Notifications of what has been read, on devices that have not been there since.
    fn still_shown(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for (index, device) in self.people.devices.iter().enumerate() {
            for (&conversation, &seq) in &device.shown {
                let member = &self.people.conversations[conversation].members[&device.user];
                if device.connection.is_none() && device.is_installed && member.read >= seq {
                    shown.push(format!("device {index} still shows {conversation}, {seq}"));
                }
            }
        }
        shown
    }
}
