//! What a device was told of a row last: the next patch names only what has changed since.
//!
//! ```text
//!   row ─▶ the same as told? nothing ─▶ told to this device? what differs ─▶ otherwise: all of it
//! ```

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hashbrown::HashMap;

use super::InboxRow;
use crate::{
    bridge::mailbox::Mailbox,
    domain::{
        ids::{ConversationId, UserId},
        patch::{self, Members},
    },
};

const TOPIC: &str = "me/inbox";
/// Rows of a generation, of about a kilobyte each.
const GENERATION_MAX: usize = 8192;
/// In each patch: what it is about, what shows that it does not fit, and what changes with time alone,
/// so that who has read the row meanwhile may hold another value than was told.
const ALWAYS: [&str; 6] = [
    "conversation",
    "version",
    "epoch",
    "unread",
    "mentions",
    "archived",
];

type Pair = (UserId, ConversationId);

/// The rows as they were told last. Those that have not changed for longest are forgotten when
/// there are too many; their next patch is whole.
#[derive(Default)]
pub(in crate::bridge) struct Bases {
    young: HashMap<Pair, Base>,
    old: HashMap<Pair, Base>,
}

struct Base {
    version: i64,
    epoch: Option<i32>,
    /// As JSON.
    row: Bytes,
    /// The devices that have it.
    told: Vec<Weak<Mailbox>>,
}

impl Bases {
    /// Tells these devices of a user of a row; says how many had no room.
    pub(super) fn tell(&mut self, user: UserId, row: &InboxRow, mailboxes: &[Arc<Mailbox>]) -> u64 {
        let pair = (user, row.conversation);
        let base = self.young.remove(&pair).or_else(|| self.old.remove(&pair));
        let whole: Bytes = serde_json::to_vec(row).unwrap_or_default().into();
        let epoch = row.shows.as_ref().map(|shows| shows.epoch);
        // Neither a removal nor another epoch is a change of what was there.
        let base = base
            .filter(|base| epoch.is_some() && base.epoch == epoch && base.version <= row.version);
        let mut changes = None;
        let mut dropped = 0;
        let has_it = |mailbox: &&Arc<Mailbox>| {
            let has_base = base.as_ref().filter(|base| base.was_told(mailbox));
            let is_told = match has_base {
                Some(base) if base.version == row.version => true,
                Some(base) => {
                    let changes = changes.get_or_insert_with(|| base.changes(&whole));
                    mailbox.mine(TOPIC, changes)
                }
                None => mailbox.mine(TOPIC, &whole),
            };
            dropped += u64::from(!is_told);
            is_told
        };
        let told = mailboxes
            .iter()
            .filter(has_it)
            .map(Arc::downgrade)
            .collect();
        // Of the same version nothing was told to those who have it, whatever time has changed.
        let known = base.filter(|base| base.version == row.version);
        let base = Base {
            version: row.version,
            epoch,
            row: known.map_or(whole, |base| base.row),
            told,
        };
        self.keep(pair, base);
        dropped
    }

    fn keep(&mut self, pair: Pair, base: Base) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pair, base);
    }
}

impl Base {
    fn was_told(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mailbox = Arc::as_ptr(mailbox);
        self.told.iter().any(|told| told.as_ptr() == mailbox)
    }

    /// The patch from this row to `whole`.
    fn changes(&self, whole: &Bytes) -> Bytes {
        let members = |json: &Bytes| serde_json::from_slice::<Members>(json).unwrap_or_default();
        let (known, now) = (members(&self.row), members(whole));
        let mut changes = patch::difference(&known, &now);
        for name in ALWAYS {
            if let Some(value) = now.get(name) {
                changes.insert(name.to_owned(), value.clone());
            }
        }
        changes.insert("since_version".to_owned(), self.version.into());
        serde_json::to_vec(&changes).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        bridge::{
            inbox::{LastMessageShown, SettingsShown, Shows},
            mailbox::Event,
        },
        domain::ids::Subject,
        store::conversations::{Kind, Role},
    };

    const USER: UserId = UserId(1);

    fn row(number: u128, version: i64, epoch: i32, unread: i64) -> InboxRow {
        let message = |seq: i64| LastMessageShown {
            seq,
            from: Subject::new("bob").unwrap(),
            at: 70,
            kind: "text".to_owned(),
            preview: Some(format!("message {seq}")),
            retracted: false,
            expired: false,
            expires_at: None,
        };
        let shows = Shows {
            kind: Kind::Group,
            title: Some("Team".to_owned()),
            with: None,
            epoch,
            first_seq: 1,
            last_seq: version,
            activity_at: 70,
            last_message: (unread > 0).then(|| message(unread)),
            unread,
            mentions: 0,
            read: 0,
            role: Role::Member,
            muted_until: None,
            notify_mentions: true,
            silenced_until: None,
            pinned_at: None,
            archived: false,
            settings: SettingsShown {
                receipts: true,
                history_depth: None,
                retention_seconds: None,
                archived_at: None,
            },
        };
        InboxRow {
            conversation: ConversationId(uuid::Uuid::from_u128(number)),
            version,
            removed: false,
            shows: Some(shows),
        }
    }

    fn whole(row: &InboxRow) -> Value {
        serde_json::to_value(row).unwrap()
    }

    /// All that a device was told meanwhile.
    fn told(mailbox: &Mailbox) -> Vec<Value> {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(events) = mailbox.poll_take(&mut cx) else {
            return Vec::new();
        };
        let payloads = events.iter().map(|event| match event {
            Event::Mine { topic, payload } if *topic == TOPIC => payload,
            other => panic!("{other:?}"),
        });
        payloads
            .map(|payload| serde_json::from_slice(payload).unwrap())
            .collect()
    }

    #[test]
    fn after_the_whole_row_a_device_is_told_what_has_changed() {
        let (mut bases, phone) = (Bases::default(), [Arc::new(Mailbox::default())]);
        let first = row(1, 4, 1, 1);
        assert_eq!(bases.tell(USER, &first, &phone), 0);
        assert_eq!(told(&phone[0]), [whole(&first)]);
        let second = row(1, 6, 1, 3);
        bases.tell(USER, &second, &phone);
        let conversation = first.conversation;
        let expected = json!({
            "conversation": conversation, "version": 6, "since_version": 4, "epoch": 1, "last_seq": 6,
            "unread": 3, "mentions": 0, "archived": false,
            "last_message": whole(&second)["last_message"],
        });
        assert_eq!(told(&phone[0]), [expected]);
        bases.tell(USER, &row(1, 6, 1, 3), &phone);
        assert_eq!(told(&phone[0]), Vec::<Value>::new());
    }

    #[test]
    fn a_device_that_comes_later_is_told_all_of_it() {
        let mut bases = Bases::default();
        let [phone, tablet] = [Arc::new(Mailbox::default()), Arc::new(Mailbox::default())];
        bases.tell(USER, &row(1, 4, 1, 1), std::slice::from_ref(&phone));
        told(&phone);
        let both = [phone, tablet];
        let second = row(1, 5, 1, 2);
        bases.tell(USER, &second, &both);
        assert_eq!(told(&both[0])[0]["since_version"], 4);
        assert_eq!(told(&both[1]), [whole(&second)]);
        // Nor does it get it if nothing has changed for the other one.
        let [phone, again] = [both[0].clone(), Arc::new(Mailbox::default())];
        bases.tell(USER, &second, &[phone.clone(), again.clone()]);
        assert_eq!((told(&phone), told(&again)), (vec![], vec![whole(&second)]));
    }

    #[test]
    fn who_had_no_room_is_told_all_of_it_the_next_time() {
        let (mut bases, phone) = (Bases::default(), [Arc::new(Mailbox::default())]);
        bases.tell(USER, &row(1, 4, 1, 1), &phone);
        told(&phone[0]);
        while phone[0].mine(TOPIC, &Bytes::from_static(b"{}")) {}
        assert_eq!(bases.tell(USER, &row(1, 5, 1, 2), &phone), 1);
        told(&phone[0]);
        let third = row(1, 6, 1, 3);
        assert_eq!(bases.tell(USER, &third, &phone), 0);
        assert_eq!(told(&phone[0]), [whole(&third)]);
    }

    /// Goal: a message expires by time, which is no version; whatever comes then tells of it.
    #[test]
    fn what_time_has_changed_is_told_with_the_next_version() {
        let (mut bases, phone) = (Bases::default(), [Arc::new(Mailbox::default())]);
        let expired = |version: i64| {
            let mut row = row(1, version, 1, 1);
            let shows = row.shows.as_mut().unwrap();
            shows.last_message.as_mut().unwrap().expired = true;
            row
        };
        bases.tell(USER, &row(1, 4, 1, 1), &phone);
        bases.tell(USER, &expired(4), &phone);
        told(&phone[0]);
        bases.tell(USER, &expired(5), &phone);
        let message = told(&phone[0])[0]["last_message"].clone();
        assert_eq!(message, json!({"expired": true}));
    }

    #[test]
    fn a_removal_a_return_and_another_epoch_begin_anew() {
        let (mut bases, phone) = (Bases::default(), [Arc::new(Mailbox::default())]);
        let removed = InboxRow {
            shows: None,
            removed: true,
            ..row(1, 6, 1, 0)
        };
        let rows = [row(1, 4, 1, 1), removed, row(1, 9, 1, 1), row(1, 7, 2, 1)];
        for row in rows {
            bases.tell(USER, &row, &phone);
            assert_eq!(told(&phone[0]), [whole(&row)]);
        }
    }

    #[test]
    fn past_its_bound_the_rows_of_longest_ago_are_forgotten() {
        let (mut bases, phone) = (Bases::default(), [Arc::new(Mailbox::default())]);
        let rows = 2 * GENERATION_MAX as u128 + 1;
        for number in 1..=rows {
            bases.tell(USER, &row(number, 4, 1, 1), &phone);
            told(&phone[0]);
        }
        assert!(bases.young.len() + bases.old.len() <= 2 * GENERATION_MAX);
        for (number, is_known) in [(rows, true), (1, false)] {
            bases.tell(USER, &row(number, 5, 1, 2), &phone);
            assert_eq!(told(&phone[0])[0].get("since_version").is_some(), is_known);
        }
    }
}
