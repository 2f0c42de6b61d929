//! The list of conversations.

use std::{cmp::Reverse, collections::HashMap};

use serde_json::Value;

use super::{Applied, Members, expected::Expectations, is_true, number, text};
use crate::domain::{ids::ConversationId, patch::merge};

/// One conversation in the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Of the newest piece that was merged.
    pub version: i64,
    /// The newest one that was heard of, whatever the fields are now.
    pub epoch: Option<i64>,
    /// As the server names them: `title`, `unread`, `last_message`, …
    pub fields: Members,
}

/// All conversations that are known. Rows may come from pages, patches and reconciliation.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// As the server has said.
    pub(super) rows: HashMap<ConversationId, Row>,
    pub(super) expected: Expectations,
}

impl Inbox {
    /// Merges a row or a patch of one. It must have `conversation` and `version`. Versions are
    /// compared within an epoch; what names none, as a removal, is of the one that is known. A
    /// patch that names `since_version` tells what has changed since then, to who holds just that.
    pub fn apply(&mut self, mut patch: Members) -> Applied {
        let conversation = text(&patch, "conversation").and_then(|id| id.parse().ok());
        let (Some(conversation), Some(version)) = (conversation, number(&patch, "version")) else {
            return Applied::Unreadable;
        };
        patch.remove("version");
        let since = number(&patch, "since_version");
        patch.remove("since_version");
        let Some(row) = self.rows.get_mut(&conversation) else {
            if since.is_some() {
                return Applied::Missed;
            }
            let row = Row {
                version,
                epoch: number(&patch, "epoch"),
                fields: patch,
            };
            self.rows.insert(conversation, row);
            self.settle(conversation);
            return Applied::Changed;
        };
        // Most patches do not name the epoch: nor does that of the end.
        let epoch = number(&patch, "epoch").or(row.epoch);
        let is_new_epoch = row.epoch.is_some() && epoch > row.epoch;
        if epoch < row.epoch || version <= row.version && !is_new_epoch {
            return Applied::Stale;
        }
        let was_removed = is_true(&row.fields, "removed");
        if since.is_some_and(|since| since != row.version || is_new_epoch || was_removed) {
            return Applied::Missed;
        }
        if is_true(&patch, "removed") || was_removed || is_new_epoch {
            row.fields = patch; // begins anew
        } else {
            merge(&mut row.fields, patch);
        }
        (row.version, row.epoch) = (version, epoch);
        self.settle(conversation);
        if is_new_epoch {
            Applied::Anew
        } else {
            Applied::Changed
        }
    }

    /// The user does not take part any more, as an answer to reconciliation says.
    pub fn forget(&mut self, conversation: ConversationId) {
        self.rows.remove(&conversation);
        self.show(conversation);
    }

    /// Hides what the newest messages said whose time is over, in milliseconds since 1970. The
    /// counts follow when the server has erased them.
    pub fn hide_expired(&mut self, now_millis: i64) {
        for row in self.rows.values_mut() {
            let last = row.fields.get_mut("last_message");
            let Some(last) = last.and_then(Value::as_object_mut) else {
                continue;
            };
            if number(last, "expires_at").is_some_and(|at| at <= now_millis) {
                last.insert("preview".to_owned(), Value::Null);
                last.insert("expired".to_owned(), true.into());
                last.insert("expires_at".to_owned(), Value::Null);
            }
        }
        self.show_all();
    }

    /// The row of a conversation that the user takes part in, with what is expected of it.
    #[must_use]
    pub fn row(&self, conversation: ConversationId) -> Option<&Row> {
        let row = self.rows.get(&conversation);
        let row = row.filter(|row| !is_true(&row.fields, "removed"))?;
        Some(self.expected.shown(conversation).unwrap_or(row))
    }

    /// The conversations in the order of the server, the newest activity first.
    #[must_use]
    pub fn rows(&self) -> Vec<(ConversationId, &Row)> {
        let shown = self.rows.keys().map(|id| (*id, self.row(*id)));
        let mut shown: Vec<_> = shown.filter_map(|(id, row)| Some((id, row?))).collect();
        shown.sort_by_key(|(id, row)| Reverse((number(&row.fields, "activity_at"), *id)));
        shown
    }

    /// What reconciliation sends of all that is known. `held` says up to where the messages of a
    /// conversation are held, as [`Thread::synced`](super::Thread::synced) does; none if they are not.
    #[must_use]
    pub fn known(&self, held: impl Fn(ConversationId) -> Option<i64>) -> Vec<Value> {
        let known = self.rows.iter().map(|(id, row)| {
            let seq = held(*id);
            let epoch = row.epoch.unwrap_or(1);
            serde_json::json!({
                "conversation": id, "seq": seq, "version": row.version, "epoch": epoch
            })
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ID: &str = "AZjzwgAAcACAAAAAAAAAAQ";

    fn patch(version: i64, fields: &Value) -> Members {
        let mut patch = fields.as_object().unwrap().clone();
        patch.insert("conversation".into(), ID.into());
        patch.insert("version".into(), version.into());
        patch
    }

    fn shown(inbox: &Inbox) -> Option<Value> {
        let row = inbox.row(ID.parse().unwrap())?;
        Some(Value::Object(row.fields.clone()))
    }

    #[test]
    fn stale_and_repeated_patches_change_nothing() {
        let mut inbox = Inbox::default();
        let row = json!({"title": "Team", "unread": 1});
        assert_eq!(inbox.apply(patch(5, &row)), Applied::Changed);
        assert_eq!(
            inbox.apply(patch(7, &json!({"unread": 0}))),
            Applied::Changed
        );
        for (version, unread) in [(7, 9), (6, 9), (5, 1)] {
            let stale = patch(version, &json!({ "unread": unread }));
            assert_eq!(inbox.apply(stale), Applied::Stale);
        }
        let expected = json!({"conversation": ID, "title": "Team", "unread": 0});
        assert_eq!(shown(&inbox), Some(expected));
    }

    #[test]
    fn who_was_removed_is_not_brought_back_by_a_late_patch() {
        let mut inbox = Inbox::default();
        inbox.apply(patch(5, &json!({"title": "Team", "epoch": 1})));
        inbox.apply(patch(8, &json!({"removed": true})));
        for late in [json!({"unread": 1}), json!({"unread": 1, "epoch": 1})] {
            assert_eq!(inbox.apply(patch(7, &late)), Applied::Stale);
        }
        assert_eq!(shown(&inbox), None);
        inbox.apply(patch(12, &json!({"title": "Team", "unread": 0})));
        let anew = json!({"conversation": ID, "title": "Team", "unread": 0});
        assert_eq!(shown(&inbox), Some(anew));
    }

    /// Goal: whoever missed a patch takes nothing of the next one, and learns of it.
    #[test]
    fn a_patch_needs_what_it_builds_on() {
        let mut inbox = Inbox::default();
        let unread = |version: i64, since: i64, unread: i64| {
            patch(
                version,
                &json!({"since_version": since, "epoch": 1, "unread": unread}),
            )
        };
        assert_eq!(inbox.apply(unread(5, 4, 1)), Applied::Missed);
        assert_eq!(inbox.known(|_| None), Vec::<Value>::new());
        inbox.apply(patch(5, &json!({"epoch": 1, "title": "Team", "unread": 1})));
        assert_eq!(inbox.apply(unread(8, 7, 3)), Applied::Missed);
        // What has changed and changed back since version 4 stands in none of these.
        assert_eq!(inbox.apply(unread(7, 4, 2)), Applied::Missed);
        assert_eq!(inbox.apply(unread(7, 5, 2)), Applied::Changed);
        assert_eq!(inbox.apply(unread(8, 7, 3)), Applied::Changed);
        assert_eq!(inbox.apply(unread(8, 7, 4)), Applied::Stale);
        let expected = json!({"conversation": ID, "epoch": 1, "title": "Team", "unread": 3});
        assert_eq!(shown(&inbox), Some(expected));
        let anew = json!({"since_version": 8, "epoch": 2, "unread": 9});
        assert_eq!(inbox.apply(patch(9, &anew)), Applied::Missed);
        inbox.apply(patch(10, &json!({"removed": true})));
        assert_eq!(inbox.apply(unread(11, 10, 1)), Applied::Missed);
        assert_eq!(shown(&inbox), None);
    }

    /// Goal: a log that lost its end counts on from a lower version, whatever comes late.
    #[test]
    fn a_new_epoch_begins_anew_and_the_old_one_does_not_come_back() {
        let mut inbox = Inbox::default();
        let row = |version: i64, epoch: i64| {
            let fields = json!({"epoch": epoch, "last_seq": version, "title": epoch.to_string()});
            patch(version, &fields)
        };
        assert_eq!(inbox.apply(row(9, 1)), Applied::Changed);
        inbox.apply(patch(10, &json!({"muted_until": 5})));
        assert_eq!(inbox.apply(row(7, 2)), Applied::Anew);
        for (version, epoch) in [(11, 1), (6, 2), (7, 2)] {
            assert_eq!(inbox.apply(row(version, epoch)), Applied::Stale);
        }
        let expected = json!({"conversation": ID, "epoch": 2, "last_seq": 7, "title": "2"});
        assert_eq!(shown(&inbox), Some(expected));
        assert_eq!(inbox.apply(row(8, 2)), Applied::Changed);
    }

    /// Goal: rows as the server sends them; only a removal does not name its epoch.
    #[test]
    fn a_removal_is_of_the_epoch_that_is_known() {
        let mut inbox = Inbox::default();
        let row = json!({"title": "Team", "epoch": 2});
        inbox.apply(patch(5, &row));
        inbox.apply(patch(8, &json!({"removed": true})));
        assert_eq!(inbox.known(|_| None)[0]["epoch"], 2);
        for late in [row.clone(), json!({"title": "Old", "epoch": 1})] {
            assert_eq!(inbox.apply(patch(7, &late)), Applied::Stale);
            assert_eq!(shown(&inbox), None);
        }
        assert_eq!(inbox.apply(patch(9, &row)), Applied::Changed);
        let anew = json!({"conversation": ID, "title": "Team", "epoch": 2});
        assert_eq!(shown(&inbox), Some(anew));
    }

    #[test]
    fn what_was_not_known_is_new_whatever_its_version() {
        let mut inbox = Inbox::default();
        let empty = json!({"title": null, "unread": 0});
        assert_eq!(inbox.apply(patch(0, &empty)), Applied::Changed);
        assert_eq!(inbox.apply(patch(0, &empty)), Applied::Stale);
        assert!(inbox.row(ID.parse().unwrap()).is_some());
    }

    #[test]
    fn what_expires_is_hidden_before_the_server_says_so() {
        let mut inbox = Inbox::default();
        let last = json!({"seq": 4, "preview": "secret", "expires_at": 70});
        inbox.apply(patch(5, &json!({"last_message": last})));
        inbox.hide_expired(69);
        let preview = |inbox: &Inbox| shown(inbox).unwrap()["last_message"].clone();
        assert_eq!(preview(&inbox), last);
        inbox.hide_expired(70);
        let hidden = json!({"seq": 4, "preview": null, "expired": true, "expires_at": null});
        assert_eq!(preview(&inbox), hidden);
        assert_eq!(
            inbox.apply(patch(5, &json!({"last_message": last}))),
            Applied::Stale
        );
        inbox.apply(patch(6, &json!({"last_message": hidden, "unread": 0})));
        assert_eq!(preview(&inbox), hidden);
    }

    /// Goal: the order of the server's pages, also among those of one millisecond.
    #[test]
    fn the_newest_activity_stands_first_and_of_two_the_later_id() {
        let mut inbox = Inbox::default();
        let ids = [
            "AZjzwgAAcACAAAAAAAAAAQ",
            "AZjzwgAAcACAAAAAAAAAAg",
            "AZjzwgAAcACAAAAAAAAAAw",
        ];
        for (id, activity) in ids.iter().zip([20, 20, 10]) {
            let row = json!({"conversation": id, "version": 1, "activity_at": activity});
            inbox.apply(row.as_object().unwrap().clone());
        }
        let shown: Vec<_> = inbox.rows().iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(shown, [ids[1], ids[0], ids[2]]);
    }

    #[test]
    fn what_has_no_version_is_unreadable() {
        let mut inbox = Inbox::default();
        for piece in [
            json!({}),
            json!({"conversation": ID}),
            json!({"conversation": "x", "version": 1}),
        ] {
            let piece = piece.as_object().unwrap().clone();
            assert_eq!(inbox.apply(piece), Applied::Unreadable);
        }
    }

    proptest! {
        /// Goal: whole rows end up the same in whatever order, and however often, they come.
        #[test]
        fn rows_converge_in_any_order(order in proptest::collection::vec(1..8_i64, 1..40)) {
            let mut inbox = Inbox::default();
            for version in &order {
                inbox.apply(patch(*version, &json!({"unread": version, "muted_until": null})));
            }
            let newest = order.iter().max().unwrap();
            prop_assert_eq!(&shown(&inbox).unwrap()["unread"], &json!(newest));
        }
    }
}
