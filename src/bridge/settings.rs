//! What users decide about themselves, wherever they take part.
//!
//! Nothing of it is kept here: who tells others of a user reads it then, so that a change takes
//! effect with the next thing told. Those who watch the user's presence are told at once.

use super::{
    Bridge,
    conversations::{Caller, ConversationError},
};
use crate::{
    domain::settings::{UserSettings, UserSettingsChange},
    store::users,
};

impl Bridge {
    /// What others learn of the caller.
    pub async fn own_settings(&self, caller: &Caller) -> Result<UserSettings, ConversationError> {
        let mut conn = self.pool().acquire().await?;
        Ok(users::settings(&mut conn, caller.user).await?)
    }

    /// Changes what others learn of the caller, and answers what it is then.
    pub async fn change_own_settings(
        &self,
        caller: &Caller,
        change: UserSettingsChange,
    ) -> Result<UserSettings, ConversationError> {
        let mut conn = self.pool().acquire().await?;
        // Before it takes effect, and for a device that goes meanwhile once more.
        let forget = || {
            if change.invisible.is_some() {
                self.presence().forget_departure(caller.user);
            }
        };
        forget();
        let changed = users::change_settings(&mut conn, caller.user, change).await?;
        forget();
        self.presence().settings_changed(caller.user);
        Ok(changed)
    }
}
