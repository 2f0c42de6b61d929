//! A row of an inbox as JSON, the same on a page, in a patch, and in what reconciles.

use schemars::JsonSchema;
use serde::Serialize;

use super::preview::preview;
use crate::{
    bridge::push_settings::Muted,
    domain::{
        change::Until,
        ids::{ConversationId, Subject},
    },
    store::{
        conversations::{Kind, Role},
        inbox::{LastMessage, Row, Settings},
        push::settings::Mute,
    },
};

/// What an inbox shows of a conversation. Of two rows of a conversation the one with the higher
/// epoch is right, and of the same epoch the one with the higher version; any other changes
/// nothing. A removal names no epoch: it is of the one that is known.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InboxRow {
    pub conversation: ConversationId,
    pub version: i64,
    /// The user takes part no more: there is nothing else to show.
    pub removed: bool,
    #[serde(flatten)]
    pub shows: Option<Shows>,
}

/// What changes of a row. Times are milliseconds since 1970.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shows {
    pub kind: Kind,
    pub title: Option<String>,
    /// The other one of a direct conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<Subject>,
    pub epoch: i32,
    /// The first entry that can be read.
    pub first_seq: i64,
    pub last_seq: i64,
    pub activity_at: i64,
    pub last_message: Option<LastMessageShown>,
    /// Messages of others that wait to be read; 1000 is that many or more.
    pub unread: i64,
    /// Those of them that mention the user.
    pub mentions: i64,
    pub read: i64,
    pub role: Role,
    /// No notification before; a time that is over mutes nothing.
    pub muted_until: Option<Muted>,
    /// Whether a message that names the user is notified all the same.
    pub notify_mentions: bool,
    /// May not write before: milliseconds since 1970, or "forever".
    pub silenced_until: Option<Until>,
    /// The latest stands first.
    pub pinned_at: Option<i64>,
    pub archived: bool,
    pub settings: SettingsShown,
}

/// The newest message of a conversation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LastMessageShown {
    pub seq: i64,
    pub from: Subject,
    pub at: i64,
    #[serde(rename = "type")]
    pub kind: String,
    /// How it begins, if it is a text: at most 200 characters.
    pub preview: Option<String>,
    pub retracted: bool,
    pub expired: bool,
    /// From then on it is not shown, and the server counts it no more.
    pub expires_at: Option<i64>,
}

/// What holds for everybody in a conversation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SettingsShown {
    pub receipts: bool,
    /// How many entries before their own beginning newcomers may read; null is all of them.
    pub history_depth: Option<i64>,
    pub retention_seconds: Option<i64>,
    /// Nobody writes messages to it since.
    pub archived_at: Option<i64>,
}

impl From<Row> for InboxRow {
    fn from(row: Row) -> Self {
        Self {
            conversation: row.conversation,
            version: row.version,
            removed: row.is_removed,
            shows: (!row.is_removed).then(|| row.into()),
        }
    }
}

impl From<Row> for Shows {
    fn from(row: Row) -> Self {
        Self {
            kind: row.kind,
            title: row.title,
            with: row.other,
            epoch: row.epoch,
            first_seq: row.first_seq,
            last_seq: row.last_seq,
            activity_at: row.activity_micros / 1000,
            last_message: row.last_message.map(Into::into),
            unread: row.unread,
            mentions: row.mentions,
            read: row.read,
            role: row.role,
            muted_until: row.mute.map(|mute| match mute {
                Mute::Until(millis) => Muted::Until(millis),
                Mute::Forever => Muted::Forever,
            }),
            notify_mentions: row.mentions_break_mute,
            silenced_until: row.silenced_until,
            pinned_at: row.pinned_at_millis,
            archived: row.is_archived,
            settings: row.settings.into(),
        }
    }
}

impl From<LastMessage> for LastMessageShown {
    fn from(message: LastMessage) -> Self {
        let is_gone = message.is_retracted || message.is_expired;
        Self {
            seq: message.seq,
            from: message.from,
            at: message.at_millis,
            kind: message.kind,
            preview: message
                .body
                .filter(|_| !is_gone)
                .and_then(|json| preview(&json)),
            retracted: message.is_retracted,
            expired: message.is_expired && !message.is_retracted,
            expires_at: message.expires_at_millis.filter(|_| !is_gone),
        }
    }
}

impl From<Settings> for SettingsShown {
    fn from(settings: Settings) -> Self {
        Self {
            receipts: settings.receipts,
            history_depth: settings.history_depth,
            retention_seconds: settings.retention_seconds,
            archived_at: settings.archived_at_millis,
        }
    }
}
