//! APNs, provider side: <https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns>
//! and `…/handling-notification-responses-from-apns`.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Answer, Call, Judged},
    aps,
    credentials::{APP, KEY_ID, TEAM_ID},
    fake::World,
    jwt::Jwt,
    script::Refusal,
};

const PATH: &str = "/3/device/";
const TOKEN_AGE_SECONDS_MAX: i64 = 3600;
const TOKEN_AHEAD_SECONDS_MAX: i64 = 60;
const COLLAPSE_ID_BYTES_MAX: usize = 64;
const PAYLOAD_BYTES_MAX: usize = 4096;
const VOIP_PAYLOAD_BYTES_MAX: usize = 5120;

/// Types, and what their topics have behind the bundle id.
const PUSH_TYPES: [(&str, &str); 8] = [
    ("alert", ""),
    ("background", ""),
    ("voip", ".voip"),
    ("location", ".location-query"),
    ("complication", ".complication"),
    ("fileprovider", ".pushkit.fileprovider"),
    ("liveactivity", ".push-type.liveactivity"),
    ("pushtotalk", ".voip-ptt"),
];

/// Headers of which there may be one.
const ONCE: [&str; 7] = [
    "authorization",
    "apns-id",
    "apns-topic",
    "apns-push-type",
    "apns-priority",
    "apns-expiration",
    "apns-collapse-id",
];

pub(super) fn judge(world: &World, call: &Call) -> Judged {
    let token = call.path.strip_prefix(PATH).unwrap_or_default();
    let (id, id_refusal) = match call.header("apns-id").map(canonical_id) {
        Some(Some(id)) => (id, None),
        Some(None) => (new_id(), Some(Refusal::new(400, "BadMessageId"))),
        None => (new_id(), None),
    };
    let verdict = match id_refusal {
        Some(refusal) => Err(refusal),
        None => request(call, token)
            .and_then(|()| provider_token(world, call))
            .and_then(|()| device_token(token))
            .and_then(|()| headers(call))
            .and_then(|push_type| payload(call, push_type)),
    };
    Judged {
        token: token.to_owned(),
        id,
        verdict,
    }
}

pub(super) fn refused(refusal: &Refusal, id: &str) -> Answer {
    let mut body = json!({ "reason": refusal.reason });
    if let Some(since) = refusal.since_millis {
        body["timestamp"] = since.into();
    }
    Answer::json(refusal.status, &body).with("apns-id", id)
}

fn new_id() -> String {
    Uuid::now_v7().to_string().to_uppercase()
}

/// 8-4-4-4-12 digits; [`Uuid`] would also read other forms.
fn canonical_id(id: &str) -> Option<String> {
    (id.len() == 36 && Uuid::try_parse(id).is_ok()).then(|| id.to_owned())
}

fn request(call: &Call, token: &str) -> Result<(), Refusal> {
    if !call.path.starts_with(PATH) || token.contains(['/', '?']) {
        return Err(Refusal::new(404, "BadPath"));
    }
    if call.method != "POST" {
        return Err(Refusal::new(405, "MethodNotAllowed"));
    }
    if ONCE
        .iter()
        .any(|name| call.headers.get_all(*name).iter().count() > 1)
    {
        return Err(Refusal::new(400, "DuplicateHeaders"));
    }
    Ok(())
}

fn provider_token(world: &World, call: &Call) -> Result<(), Refusal> {
    let missing = || Refusal::new(403, "MissingProviderToken");
    let invalid = || Refusal::new(403, "InvalidProviderToken");
    let (scheme, token) = call
        .header("authorization")
        .and_then(|value| value.split_once(' '))
        .ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let jwt = Jwt::read(token).map_err(|_| invalid())?;
    let issued = jwt.seconds("iat").ok_or_else(invalid)?;
    if jwt.header["kid"] != KEY_ID
        || jwt.claims["iss"] != TEAM_ID
        || !jwt.is_signed(Algorithm::ES256, &world.credentials.apns_public)
    {
        return Err(invalid());
    }
    let now = world.clock.now_unix();
    if issued > now + TOKEN_AHEAD_SECONDS_MAX {
        return Err(invalid());
    }
    if issued < now - TOKEN_AGE_SECONDS_MAX {
        return Err(Refusal::new(403, "ExpiredProviderToken"));
    }
    world.record.write(|seen| {
        seen.provider_tokens.insert(token.to_owned());
    });
    Ok(())
}

fn device_token(token: &str) -> Result<(), Refusal> {
    if token.is_empty() {
        return Err(Refusal::new(400, "MissingDeviceToken"));
    }
    let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(64..=200).contains(&token.len()) {
        return Err(Refusal::new(400, "BadDeviceToken"));
    }
    Ok(())
}

/// The type, if the headers are in order.
fn headers(call: &Call) -> Result<&'static str, Refusal> {
    let bad = |reason: &str| Refusal::new(400, reason);
    let topic = call
        .header("apns-topic")
        .ok_or_else(|| bad("MissingTopic"))?;
    let suffix = topic
        .strip_prefix(APP)
        .ok_or_else(|| bad("TopicDisallowed"))?;
    if !PUSH_TYPES.iter().any(|(_, of)| *of == suffix) {
        return Err(bad("TopicDisallowed"));
    }
    let push_type = call
        .header("apns-push-type")
        .ok_or_else(|| bad("InvalidPushType"))?;
    let (push_type, its_suffix) = PUSH_TYPES
        .into_iter()
        .find(|(name, _)| *name == push_type)
        .ok_or_else(|| bad("InvalidPushType"))?;
    if suffix != its_suffix {
        return Err(bad("BadTopic"));
    }
    let priority = call.header("apns-priority").unwrap_or("10");
    if !["1", "5", "10"].contains(&priority) || (push_type == "background" && priority != "5") {
        return Err(bad("BadPriority"));
    }
    let expiration = call.header("apns-expiration").unwrap_or("0");
    let is_number = expiration.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || expiration.parse::<i64>().is_err() {
        return Err(bad("BadExpirationDate"));
    }
    if call
        .header("apns-collapse-id")
        .is_some_and(|id| id.len() > COLLAPSE_ID_BYTES_MAX)
    {
        return Err(bad("BadCollapseId"));
    }
    Ok(push_type)
}

fn payload(call: &Call, push_type: &str) -> Result<Value, Refusal> {
    let bytes_max = match push_type {
        "voip" => VOIP_PAYLOAD_BYTES_MAX,
        _ => PAYLOAD_BYTES_MAX,
    };
    if call.body.len() > bytes_max {
        return Err(Refusal::new(413, "PayloadTooLarge"));
    }
    let empty = || Refusal::new(400, "PayloadEmpty");
    let payload: Value = serde_json::from_slice(&call.body).map_err(|_| empty())?;
    let aps = payload["aps"].as_object().ok_or_else(empty)?;
    aps::check(aps, push_type).map_err(Refusal::strict)?;
    Ok(payload)
}
