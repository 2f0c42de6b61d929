//! The push tokens of a user's devices.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::Connection as _;

use super::{Apps, Bridge, CLIENT_ID_BYTES_MAX, Caller, PushSettingsError, Registration};
use crate::{
    domain::{format::WireFormat, ids::DeviceId},
    store::{
        push::tokens::{self, Device, PushToken, TooManyTokens},
        sessions,
    },
};

/// Devices of one user that have a push token.
pub const TOKENS_MAX: i64 = 100;

/// What is told of a token; the token itself is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenSummary {
    pub provider: String,
    pub app: String,
    pub environment: String,
    /// The first eight hexadecimal digits of the token's SHA-256, to recognise it by.
    pub fingerprint: String,
    pub voip: bool,
    pub locale: Option<String>,
    /// Since when it has been this token, in milliseconds since 1970.
    pub registered_at: i64,
    /// Since when the provider refuses it, and why; register it anew.
    pub dead_since: Option<i64>,
    pub dead_reason: Option<String>,
}

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeviceSummary {
    pub client_id: String,
    pub connected: bool,
    /// What it said of itself last: `active`, `background` or `away`.
    pub activity: String,
    /// What its payloads are written in, unless its CONNECT says so.
    pub format: WireFormat,
    /// When it connected last, in milliseconds since 1970.
    pub connected_at: Option<i64>,
    /// When it was there last, in milliseconds since 1970; null while it is connected.
    pub last_seen: Option<i64>,
    /// Tokens issued before this no longer connect it, in milliseconds since 1970.
    pub signed_out_at: Option<i64>,
    pub push_token: Option<TokenSummary>,
}

impl From<PushToken> for TokenSummary {
    fn from(token: PushToken) -> Self {
        let (dead_since, dead_reason) = token.dead.unzip();
        Self {
            provider: token.provider,
            app: token.app,
            environment: token.environment,
            fingerprint: token.fingerprint,
            voip: token.has_voip_token,
            locale: token.locale,
            registered_at: token.registered_at_millis,
            dead_since,
            dead_reason,
        }
    }
}

impl From<Device> for DeviceSummary {
    fn from(device: Device) -> Self {
        Self {
            client_id: device.client_id,
            connected: device.is_connected,
            activity: device.activity,
            format: device.format,
            connected_at: device.connected_at_millis,
            last_seen: device
                .disconnected_at_millis
                .filter(|_| !device.is_connected),
            signed_out_at: device.signed_out_at_millis,
            push_token: device.token.map(Into::into),
        }
    }
}

impl Bridge {
    /// Lets a device of the caller be woken. It need not have connected yet; whoever else
    /// registered the same token before loses it.
    pub async fn register_token(
        &self,
        caller: &Caller,
        client_id: &str,
        registration: Registration,
    ) -> Result<TokenSummary, PushSettingsError> {
        check_client_id(client_id)?;
        let checked = registration.checked(self.apps())?;
        let mut conn = self.pool().acquire().await?;
        let new = checked.as_new();
        let (user, issued_at) = (caller.user, caller.issued_at());
        let register = tokens::register(&mut conn, user, client_id, &new, issued_at, TOKENS_MAX);
        match register.await? {
            Ok(token) => Ok(token.into()),
            Err(TooManyTokens) => Err(PushSettingsError::TooManyTokens),
        }
    }

    /// What is known of the token of a device of the caller.
    pub async fn token(
        &self,
        caller: &Caller,
        client_id: &str,
    ) -> Result<TokenSummary, PushSettingsError> {
        check_client_id(client_id)?;
        let mut conn = self.pool().acquire().await?;
        let token = tokens::show(&mut conn, caller.user, client_id).await?;
        token.map(Into::into).ok_or(PushSettingsError::NoToken)
    }

    /// A device of the caller is not woken any more; nothing happens if it never was.
    pub async fn remove_token(
        &self,
        caller: &Caller,
        client_id: &str,
    ) -> Result<(), PushSettingsError> {
        check_client_id(client_id)?;
        let mut conn = self.pool().acquire().await?;
        tokens::remove(&mut conn, caller.user, client_id).await?;
        Ok(())
    }

    /// Ends the session of a device of the caller, takes its push token, and refuses the tokens
    /// that it has. False: there is no such device.
    pub async fn sign_out(
        &self,
        caller: &Caller,
        client_id: &str,
    ) -> Result<bool, PushSettingsError> {
        check_client_id(client_id)?;
        let mut conn = self.pool().acquire().await?;
        let mut tx = conn.begin().await?;
        // In the order of the locks of registrations: the token first.
        tokens::remove(&mut tx, caller.user, client_id).await?;
        let device = sessions::sign_out(&mut tx, caller.user, client_id).await?;
        tx.commit().await?;
        if let Some(device) = device {
            self.commits().sign_out(caller.user, device);
        }
        Ok(device.is_some())
    }

    /// What the payloads of a device of the caller are written in, from its next connection on.
    /// False: there is no such device.
    pub async fn set_format(
        &self,
        caller: &Caller,
        client_id: &str,
        format: WireFormat,
    ) -> Result<bool, PushSettingsError> {
        check_client_id(client_id)?;
        let mut conn = self.pool().acquire().await?;
        sessions::check_signed_out(&mut conn, caller.user, client_id, caller.issued_at()).await?;
        Ok(sessions::set_format(&mut conn, caller.user, client_id, format).await?)
    }

    /// The device of the caller that has this client id.
    pub async fn device(
        &self,
        caller: &Caller,
        client_id: &str,
    ) -> Result<Option<DeviceId>, PushSettingsError> {
        check_client_id(client_id)?;
        let mut conn = self.pool().acquire().await?;
        Ok(sessions::device(&mut conn, caller.user, client_id).await?)
    }

    /// The caller's devices, those that connected last first.
    pub async fn devices(&self, caller: &Caller) -> Result<Vec<DeviceSummary>, PushSettingsError> {
        let mut conn = self.pool().acquire().await?;
        let devices = tokens::devices(&mut conn, caller.user).await?;
        Ok(devices.into_iter().map(Into::into).collect())
    }

    fn apps(&self) -> &Apps {
        &self.0.apps
    }
}

/// As CONNECT has it.
fn check_client_id(text: &str) -> Result<(), PushSettingsError> {
    let fits = (1..=CLIENT_ID_BYTES_MAX).contains(&text.len());
    if fits && !text.contains(char::is_control) {
        Ok(())
    } else {
        Err(PushSettingsError::InvalidClientId)
    }
}
