//! The caller's devices, and where each can be woken.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ask, Nothing, OfDevice, Operation, OperationError, ok, operation};
use crate::{
    bridge::push_settings::{DeviceSummary, Registration, TokenSummary},
    domain::{format::WireFormat, ids::DeviceId, problem::ProblemKind, request::Answer},
    store::sessions,
};

pub(super) const OPERATIONS: &[Operation] = &[
    operation!(
        "devices",
        Get,
        "/devices",
        "The caller's devices, those that connected last first.",
        list,
        Nothing,
        Devices
    ),
    operation!(
        "devices/delete",
        Delete,
        "/devices/{client_id}",
        "Signs a device out: its session and its push token go, and it needs a new token.",
        sign_out,
        OfDevice
    ),
    operation!(
        "push/token/set",
        Put,
        "/devices/{client_id}/push-token",
        "Lets a device of the caller be woken.",
        register_token,
        OfDevice<Registration>,
        TokenSummary
    ),
    operation!(
        "push/token/get",
        Get,
        "/devices/{client_id}/push-token",
        "What is known of the push token of a device; never the token.",
        token,
        OfDevice,
        TokenSummary
    ),
    operation!(
        "push/token/delete",
        Delete,
        "/devices/{client_id}/push-token",
        "The device is not woken any more.",
        remove_token,
        OfDevice
    ),
    operation!(
        "devices/format",
        Put,
        "/devices/{client_id}/format",
        "What the payloads of a device are written in, from its next connection on.",
        set_format,
        OfDevice<Format>,
        Format
    ),
];

#[derive(Serialize, JsonSchema)]
struct Devices {
    devices: Vec<DeviceSummary>,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Format {
    format: WireFormat,
}

impl<R> OfDevice<R> {
    /// The device that is meant: the one that asks, unless another one is named.
    async fn client_id(&self, ask: &Ask<'_>) -> Result<String, OperationError> {
        if let Some(client_id) = &self.client_id {
            return Ok(client_id.clone());
        }
        let device = ask.device().ok_or_else(unknown)?;
        let mut conn = ask.bridge.pool().acquire().await?;
        let client_id = sessions::client_id(&mut conn, device).await?;
        client_id.ok_or_else(unknown)
    }

    /// The device of the caller on which something was read: the one that is named, else the
    /// one that asks, if it is one. A name goes only with something that was read.
    pub(super) async fn reader(
        &self,
        ask: &Ask<'_>,
        has_read: bool,
    ) -> Result<Option<DeviceId>, OperationError> {
        let Some(client_id) = &self.client_id else {
            return Ok(ask.device());
        };
        if !has_read {
            return Err(OperationError::invalid("`client_id` goes with `read`"));
        }
        let device = ask.bridge.device(ask.caller, client_id).await?;
        device.map(Some).ok_or_else(unknown)
    }
}

async fn list(ask: Ask<'_>, _: Nothing) -> Result<Answer, OperationError> {
    let devices = ask.bridge.devices(ask.caller).await?;
    ok(&Devices { devices })
}

async fn sign_out(ask: Ask<'_>, arguments: OfDevice) -> Result<Answer, OperationError> {
    let client_id = arguments.client_id(&ask).await?;
    if ask.bridge.sign_out(ask.caller, &client_id).await? {
        Ok(Answer::done())
    } else {
        Err(unknown())
    }
}

fn unknown() -> OperationError {
    OperationError::new(ProblemKind::NotFound, "there is no such device")
}

async fn register_token(
    ask: Ask<'_>,
    arguments: OfDevice<Registration>,
) -> Result<Answer, OperationError> {
    let client_id = arguments.client_id(&ask).await?;
    let register = ask
        .bridge
        .register_token(ask.caller, &client_id, arguments.rest);
    ok(&register.await?)
}

async fn token(ask: Ask<'_>, arguments: OfDevice) -> Result<Answer, OperationError> {
    let client_id = arguments.client_id(&ask).await?;
    ok(&ask.bridge.token(ask.caller, &client_id).await?)
}

async fn remove_token(ask: Ask<'_>, arguments: OfDevice) -> Result<Answer, OperationError> {
    let client_id = arguments.client_id(&ask).await?;
    ask.bridge.remove_token(ask.caller, &client_id).await?;
    Ok(Answer::done())
}

async fn set_format(ask: Ask<'_>, arguments: OfDevice<Format>) -> Result<Answer, OperationError> {
    let client_id = arguments.client_id(&ask).await?;
    let Format { format } = arguments.rest;
    let set = ask.bridge.set_format(ask.caller, &client_id, format);
    if set.await? {
        return ok(&arguments.rest);
    }
    let detail = "there is no such device; it must have connected once";
    Err(OperationError::new(ProblemKind::NotFound, detail))
}
