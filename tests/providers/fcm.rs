//! Firebase Cloud Messaging, HTTP v1:
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send>; errors as in
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode>.

use std::sync::PoisonError;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Answer, Call, Judged},
    credentials::PROJECT,
    fake::World,
    fcm_message,
    script::Refusal,
};

pub(super) fn judge(world: &World, call: &Call) -> Judged {
    let body = serde_json::from_slice(&call.body).unwrap_or(Value::Null);
    let message = &body["message"];
    let token = message["token"]
        .as_str()
        .or(message["fid"].as_str())
        .unwrap_or_default();
    Judged {
        token: token.to_owned(),
        id: format!("projects/{PROJECT}/messages/0:{}", Uuid::now_v7().simple()),
        verdict: request(world, call).and_then(|()| {
            fcm_message::check(&body).map_err(|why| invalid(&why))?;
            Ok(body["message"].clone())
        }),
    }
}

pub(super) fn accepted(id: &str) -> Answer {
    Answer::json(200, &json!({ "name": id }))
}

/// `reason` is the error code of FCM, then maybe a colon and a message.
pub(super) fn refused(refusal: &Refusal) -> Answer {
    let (code, message) = refusal
        .reason
        .split_once(": ")
        .unwrap_or((&refusal.reason, &refusal.reason));
    let status = match refusal.status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let mut error = json!({ "code": refusal.status, "message": message, "status": status });
    if is_of_fcm(code) {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": code,
        }]);
    }
    Answer::json(refusal.status, &json!({ "error": error }))
}

/// The others are of Google's front, which has no details of FCM.
fn is_of_fcm(code: &str) -> bool {
    [
        "UNSPECIFIED_ERROR",
        "INVALID_ARGUMENT",
        "UNREGISTERED",
        "SENDER_ID_MISMATCH",
        "QUOTA_EXCEEDED",
        "UNAVAILABLE",
        "INTERNAL",
        "THIRD_PARTY_AUTH_ERROR",
    ]
    .contains(&code)
}

fn invalid(why: &str) -> Refusal {
    Refusal::new(400, format!("INVALID_ARGUMENT: {why}"))
}

fn request(world: &World, call: &Call) -> Result<(), Refusal> {
    let project = call
        .path
        .strip_prefix("/v1/projects/")
        .and_then(|rest| rest.strip_suffix("/messages:send"))
        .ok_or_else(|| Refusal::new(404, "NOT_FOUND: The requested URL was not found."))?;
    if call.method != "POST" {
        return Err(Refusal::new(
            404,
            "NOT_FOUND: The requested URL was not found.",
        ));
    }
    let token = call
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    let until = token.and_then(|token| {
        let tokens = world
            .access_tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).copied()
    });
    if until.is_none_or(|until| until <= world.clock.now_unix()) {
        return Err(Refusal::new(
            401,
            "UNAUTHENTICATED: Request had invalid authentication credentials. Expected OAuth 2 \
             access token, login cookie or other valid authentication credential.",
        ));
    }
    if project != PROJECT {
        return Err(Refusal::new(
            403,
            "PERMISSION_DENIED: Permission 'cloudmessaging.messages.create' denied on resource.",
        ));
    }
    let content_type = call.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/json") {
        return Err(invalid("the body is not application/json"));
    }
    Ok(())
}
