//! What users decide about themselves.

use super::{Ask, Nothing, Operation, OperationError, ok, operation};
use crate::domain::{
    request::Answer,
    settings::{UserSettings, UserSettingsChange},
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "settings/get",
        Get,
        "/me/settings",
        "What others learn of the caller.",
        show,
        Nothing,
        UserSettings
    ),
    operation!(
        "settings/set",
        Patch,
        "/me/settings",
        "Changes what others learn of the caller: what is not named stays, null is the default.",
        change,
        UserSettingsChange,
        UserSettings
    ),
];

async fn show(ask: Ask<'_>, _: Nothing) -> Result<Answer, OperationError> {
    ok(&ask.bridge.own_settings(ask.caller).await?)
}

async fn change(ask: Ask<'_>, change: UserSettingsChange) -> Result<Answer, OperationError> {
    ok(&ask.bridge.change_own_settings(ask.caller, change).await?)
}
