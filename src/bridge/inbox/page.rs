//! Pages of the inbox, one row of it, and what its user sets there.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Bridge, Caller, ConversationError, InboxRow, MILLIS_MAX, check_millis, invalid};
use crate::{
    bridge::push_settings::{Muted, NotificationSettingsChange},
    domain::{
        ids::{ConversationId, DeviceId},
        message::Sequence,
        problem::ProblemKind,
        receipt::Report,
    },
    store::{
        conversations::Kind,
        inbox::{self, Place, Row, Wanted},
        inbox_settings::{self, Changed, InboxChange},
    },
};

/// Rows of one page.
const ROWS_MAX: i64 = 100;
const ROWS_DEFAULT: i64 = 50;

/// Which part of an inbox is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InboxWanted {
    /// Only conversations with unread messages.
    unread: Option<bool>,
    /// Only archived ones; if it is not said, only others.
    archived: Option<bool>,
    /// Only pinned ones.
    pinned: Option<bool>,
    kind: Option<Kind>,
    /// Only rows that changed after this `as_of`: archived ones too, and those of conversations
    /// that the user was removed from.
    #[schemars(range(min = 0, max = 253_402_300_799_999_i64))]
    changed_since: Option<i64>,
    /// `next_after` of the page before.
    #[schemars(regex(pattern = "^A[A-Za-z0-3][A-Za-z0-9_-]{30}$"))]
    after: Option<String>,
    #[schemars(range(min = 1, max = 100))]
    limit: Option<i64>,
}

/// Rows of an inbox, the newest activity first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InboxPage {
    /// What changes later is found by `changed_since` this time; of several pages, that of the
    /// first one.
    pub as_of: i64,
    pub conversations: Vec<InboxRow>,
    /// Where to go on, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<String>,
}

/// What to change: a member that is absent stays as it is, null is the default.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InboxSettings {
    #[serde(default, deserialize_with = "present")]
    pinned: Option<Option<bool>>,
    /// Until there is another message, unless the conversation is muted.
    #[serde(default, deserialize_with = "present")]
    archived: Option<Option<bool>>,
    #[serde(default, deserialize_with = "present")]
    muted_until: Option<Option<Muted>>,
    /// Whether a message that names the user is notified although it is muted.
    #[serde(default, deserialize_with = "present")]
    notify_mentions: Option<Option<bool>>,
    /// Everything up to here has been read.
    pub(in crate::bridge) read: Option<Sequence>,
    /// Only if the row has this version.
    if_version: Option<i64>,
}

/// Tells null from absent.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl InboxWanted {
    fn check(&self) -> Result<Wanted, ConversationError> {
        let limit = self.limit.unwrap_or(ROWS_DEFAULT);
        if !(1..=ROWS_MAX).contains(&limit) {
            return Err(invalid(format!("`limit` lies between 1 and {ROWS_MAX}")));
        }
        let since = self.changed_since;
        let since_millis = since.map(|millis| check_millis("changed_since", millis));
        let after = self.after.as_deref().map(|cursor| {
            place(cursor).ok_or_else(|| invalid("`after` is `next_after` of an earlier page"))
        });
        Ok(Wanted {
            kind: self.kind,
            archived: self.archived.or(since.is_none().then_some(false)),
            is_unread: self.unread.unwrap_or_default(),
            is_pinned: self.pinned.unwrap_or_default(),
            since_millis: since_millis.transpose()?,
            after: after.transpose()?,
            limit,
        })
    }
}

/// A place as a text that means nothing to a client.
fn cursor(row: &Row) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&row.activity_micros.to_be_bytes());
    bytes[8..].copy_from_slice(row.conversation.0.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn place(cursor: &str) -> Option<Place> {
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
    let (time, id) = bytes.split_first_chunk()?;
    let activity_micros = i64::from_be_bytes(*time);
    (0..=MILLIS_MAX * 1000)
        .contains(&activity_micros)
        .then_some(Place {
            activity_micros,
            conversation: ConversationId(Uuid::from_slice(id).ok()?),
        })
}

impl Bridge {
    /// A page of the caller's inbox.
    ///
    /// While it changes, a conversation may move from a page that was not read yet to the front;
    /// none appears twice. `changed_since` the `as_of` of the first page finds it.
    pub async fn inbox(
        &self,
        caller: &Caller,
        wanted: &InboxWanted,
    ) -> Result<InboxPage, ConversationError> {
        let mut wanted = wanted.check()?;
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        // One more than wanted says whether there is more.
        wanted.limit += 1;
        let mut conn = self.pool().acquire().await?;
        let as_of = inbox::as_of_millis(&mut conn).await?;
        let known = if wanted.is_of_unread() {
            let walks = &self.0.walks;
            walks.unread(&mut conn, caller.user, as_of).await?
        } else {
            None
        };
        let mut rows = match known {
            Some(known) => inbox::page_of_unread(&mut conn, caller.user, &wanted, &known).await?,
            None => inbox::page(&mut conn, caller.user, &wanted).await?,
        };
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Ok(InboxPage {
            as_of,
            next_after: rows.last().filter(|_| has_more).map(cursor),
            conversations: rows.into_iter().map(Into::into).collect(),
        })
    }

    /// The row of one conversation in the caller's inbox.
    pub async fn inbox_row(
        &self,
        caller: &Caller,
        conversation: ConversationId,
    ) -> Result<InboxRow, ConversationError> {
        let mut conn = self.pool().acquire().await?;
        let rows = inbox::rows(&mut conn, &[(caller.user, conversation)]).await?;
        let row = rows.into_iter().next();
        row.map(Into::into).ok_or(ConversationError::NotFound)
    }

    /// Changes what the caller has set for a conversation, or has read, on a device if it is
    /// known which, and answers its row.
    pub async fn set_inbox(
        &self,
        caller: &Caller,
        device: Option<DeviceId>,
        conversation: ConversationId,
        settings: InboxSettings,
    ) -> Result<InboxRow, ConversationError> {
        let notifications = NotificationSettingsChange {
            muted_until: settings.muted_until,
            mentions: settings.notify_mentions,
        };
        let change = InboxChange {
            pinned: settings.pinned.map(Option::unwrap_or_default),
            archived: settings.archived.map(Option::unwrap_or_default),
            notifications: notifications
                .checked()
                .map_err(|error| invalid(error.to_string()))?,
            if_version: settings.if_version,
        };
        let changed = {
            let mut conn = self.pool().acquire().await?;
            inbox_settings::change(&mut conn, conversation, caller.user, change).await?
        };
        match changed {
            Changed::Changed => self.commits().inbox_changed(caller.user, conversation),
            Changed::Unchanged => {}
            Changed::NotParticipant => return Err(ConversationError::NotFound),
            Changed::Stale => {
                return Err(ConversationError::Refused(
                    ProblemKind::PreconditionFailed,
                    "the row has another version; look at it again".to_owned(),
                ));
            }
        }
        if let Some(read) = settings.read {
            let report = Report {
                delivered: None,
                read: Some(read),
            };
            self.report(caller, device, conversation, report).await?;
        }
        self.inbox_row(caller, conversation).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cursor_is_no_place() {
        for text in ["", "x", &"A".repeat(31), &"_".repeat(32), &"A".repeat(33)] {
            assert_eq!(place(text), None, "{text}");
        }
        assert!(place(&"A".repeat(32)).is_some());
    }
}
