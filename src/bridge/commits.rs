//! Who is told of a commit.
//!
//! ```text
//!   writer ── notice ──▶ participants ──▶ mailboxes of their connected devices
//! ```

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use prometheus_client::metrics::counter::Counter;

use super::{
    inbox::patches::Dirty,
    mailbox::{Event, Mailbox, Notice, ReceiptNotice, TypingNotice},
};
use crate::domain::ids::{ConversationId, DeviceId, UserId};

/// Locks are short and shared by few tasks; a handful of shards keeps them apart.
const SHARDS: usize = 16;

/// The connected devices of every user.
#[derive(Debug)]
pub struct Commits {
    users: [Mutex<HashMap<UserId, Vec<Arc<Mailbox>>>>; SHARDS],
    hasher: RandomState,
    /// How far commits were told of, until the outbox has been read up to there.
    told: Mutex<HashMap<ConversationId, i64>>,
    /// The inbox rows that changed, of users who want to know.
    dirty: Dirty,
}

impl Default for Commits {
    fn default() -> Self {
        Self {
            users: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            told: Mutex::default(),
            dirty: Dirty::default(),
        }
    }
}

/// Part of a conversation's log that a user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub user: UserId,
    pub joined: i64,
    pub left: Option<i64>,
}

impl Member {
    /// The part of `from..=to` that this member may see.
    fn visible(&self, from: i64, to: i64) -> Option<(i64, i64)> {
        let from = from.max(self.joined);
        let to = self.left.map_or(to, |left| to.min(left));
        (from <= to).then_some((from, to))
    }
}

impl Commits {
    /// Counts inbox rows that nobody is told of with `dropped`.
    pub(super) fn new(dropped: Counter) -> Self {
        Self {
            dirty: Dirty::new(dropped),
            ..Self::default()
        }
    }

    /// A device of `user` is connected: its mailbox hears of every commit from now on.
    pub fn subscribe(&self, user: UserId, mailbox: Arc<Mailbox>) {
        self.shard(user).entry(user).or_default().push(mailbox);
    }

    /// A device is gone.
    pub fn unsubscribe(&self, user: UserId, mailbox: &Arc<Mailbox>) {
        let mut shard = self.shard(user);
        if let Some(mailboxes) = shard.get_mut(&user) {
            mailboxes.retain(|known| !Arc::ptr_eq(known, mailbox));
            if mailboxes.is_empty() {
                shard.remove(&user);
            }
        }
    }

    pub(super) fn publish(&self, notice: &Arc<Notice>, members: &[Member]) {
        for member in members {
            if let Some((from, to)) = member.visible(notice.from, notice.to) {
                let mut wants_inbox = false;
                for mailbox in self
                    .shard(member.user)
                    .get(&member.user)
                    .into_iter()
                    .flatten()
                {
                    mailbox.notice(notice, from, to, member.joined >= notice.from);
                    wants_inbox |= mailbox.wants_inbox();
                }
                if wants_inbox {
                    self.dirty.mark(member.user, notice.conversation);
                }
            }
        }
    }

    /// Tells the participants that are there now; says how many devices had no room.
    pub(super) fn publish_receipt(&self, receipt: &Arc<ReceiptNotice>, members: &[Member]) -> u64 {
        let present = members.iter().filter(|member| member.left.is_none());
        present
            .map(|member| self.tell_receipt(member.user, receipt))
            .sum()
    }

    /// Tells one user; says how many devices had no room.
    pub(super) fn tell_receipt(&self, user: UserId, receipt: &Arc<ReceiptNotice>) -> u64 {
        let mut dropped = 0;
        for mailbox in self.shard(user).get(&user).into_iter().flatten() {
            dropped += u64::from(!mailbox.receipt(receipt));
        }
        dropped
    }

    /// Tells the participants that are there now, but not who types, on none of their
    /// devices; says how many devices had no room.
    pub(super) fn publish_typing(
        &self,
        typing: &Arc<TypingNotice>,
        members: &[Member],
        who: UserId,
    ) -> u64 {
        let mut dropped = 0;
        let others = members
            .iter()
            .filter(|member| member.left.is_none() && member.user != who);
        for Member { user, .. } in others {
            for mailbox in self.shard(*user).get(user).into_iter().flatten() {
                dropped += u64::from(!mailbox.typing(typing));
            }
        }
        dropped
    }

    /// Whether a device of the user is connected here.
    pub(super) fn is_connected(&self, user: UserId) -> bool {
        self.shard(user).contains_key(&user)
    }

    /// Lets the connection of a device end that is signed out.
    pub(super) fn sign_out(&self, user: UserId, device: DeviceId) {
        for mailbox in self.shard(user).get(&user).into_iter().flatten() {
            mailbox.tell(Event::SignedOut(device));
        }
    }

    /// Whether a connected device of the user subscribes to `me/inbox`.
    pub fn wants_inbox(&self, user: UserId) -> bool {
        let shard = self.shard(user);
        let mailboxes = shard.get(&user).into_iter().flatten();
        mailboxes.into_iter().any(|mailbox| mailbox.wants_inbox())
    }

    /// Those of the connected devices of the user that subscribe to `me/inbox`.
    pub(super) fn inbox_mailboxes(&self, user: UserId) -> Vec<Arc<Mailbox>> {
        let shard = self.shard(user);
        let mailboxes = shard.get(&user).into_iter().flatten();
        mailboxes
            .filter(|mailbox| mailbox.wants_inbox())
            .cloned()
            .collect()
    }

    /// A row of the user's inbox shows something else now: tells the devices that want to know.
    pub(super) fn inbox_changed(&self, user: UserId, conversation: ConversationId) {
        if self.wants_inbox(user) {
            self.dirty.mark(user, conversation);
        }
    }

    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    pub(super) fn remember_told(&self, conversation: ConversationId, to: i64) {
        let mut told = lock(&self.told);
        let known = told.entry(conversation).or_insert(to);
        *known = to.max(*known);
    }

    /// Whether the commit of `to` was told; forgets it if it was the last one.
    pub(super) fn was_told(&self, conversation: ConversationId, to: i64) -> bool {
        let mut told = lock(&self.told);
        let known = told.get(&conversation).copied();
        if known == Some(to) {
            told.remove(&conversation);
        }
        known.is_some_and(|known| known >= to)
    }

    fn shard(&self, user: UserId) -> MutexGuard<'_, HashMap<UserId, Vec<Arc<Mailbox>>>> {
        let place = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).unwrap_or(0);
        lock(&self.users[place])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_connected_devices_those_are_told_that_want_to_know() {
        let commits = Commits::default();
        let [phone, tablet, other]: [Arc<Mailbox>; 3] = Default::default();
        commits.subscribe(UserId(1), phone.clone());
        commits.subscribe(UserId(1), tablet.clone());
        commits.subscribe(UserId(2), other.clone());
        assert!(!commits.wants_inbox(UserId(1)));
        tablet.set_wants_inbox(true);
        assert!(commits.wants_inbox(UserId(1)) && !commits.wants_inbox(UserId(2)));

        let told = commits.inbox_mailboxes(UserId(1));
        assert!(matches!(&told[..], [one] if Arc::ptr_eq(one, &tablet)));
        commits.unsubscribe(UserId(1), &tablet);
        assert!(!commits.wants_inbox(UserId(1)));
    }

    #[test]
    fn a_member_sees_from_joining_to_leaving() {
        let member = Member {
            user: UserId(1),
            joined: 5,
            left: Some(7),
        };
        assert_eq!(member.visible(1, 10), Some((5, 7)));
        assert_eq!(member.visible(1, 4), None);
        assert_eq!(member.visible(8, 9), None);
        assert_eq!(
            Member {
                left: None,
                ..member
            }
            .visible(6, 10),
            Some((6, 10))
        );
    }
}
