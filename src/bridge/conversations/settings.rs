//! What is decided for everybody in a conversation: title, archive, receipts, history, retention.

use super::{
    Bridge, Caller, Condition, ConversationError, SettingsChange, What,
    create::{check_depth, check_title},
};
use crate::domain::{ids::ConversationId, message::Sequence};

/// The longest retention: a hundred years.
const RETENTION_SECONDS_MAX: i64 = 3_155_760_000;

impl Bridge {
    /// Changes the settings of a conversation. Answers the sequence of the entry that says so,
    /// or nothing if they are so already.
    pub async fn change_settings(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        change: SettingsChange,
        condition: Option<&Condition>,
    ) -> Result<Option<Sequence>, ConversationError> {
        check_title(change.title.as_ref().and_then(Option::as_deref))?;
        if let Some(Some(depth)) = change.history_depth {
            check_depth(depth)?;
        }
        if let Some(Some(seconds)) = change.retention_seconds
            && !(1..=RETENTION_SECONDS_MAX).contains(&seconds)
        {
            return Err(ConversationError::Invalid(format!(
                "`retention_seconds` lies between 1 and {RETENTION_SECONDS_MAX}; null keeps everything"
            )));
        }
        self.ask_if(caller, conversation, What::Set(change), condition)
            .await
    }
}
