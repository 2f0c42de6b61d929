//! A push service of the web: RFC 8030, with VAPID (RFC 8292) and `aes128gcm` (RFC 8188, 8291).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Answer, Call, Judged},
    fake::World,
    jwt::Jwt,
    script::Refusal,
};

const PATH: &str = "/push/";
/// RFC 8292 §2: `exp` is at most 24 hours away.
const TOKEN_SECONDS_MAX: i64 = 24 * 3600;
/// RFC 8030 §7.2: what a push service has to take, and this one no more.
const BODY_BYTES_MAX: usize = 4096;
/// RFC 8030 §5.4.
const TOPIC_CHARS_MAX: usize = 32;
/// RFC 8188 §2.1: salt, record size, length of the key id.
const HEADER_BYTES: usize = 16 + 4 + 1;
/// An uncompressed point of P-256.
const KEY_BYTES: usize = 65;
/// A last record: the delimiter, and the tag of AES-GCM.
const RECORD_BYTES_MIN: usize = 1 + 16;

pub(super) fn judge(world: &World, call: &Call) -> Judged {
    let token = call.path.strip_prefix(PATH).unwrap_or_default();
    Judged {
        token: token.to_owned(),
        id: format!("/message/{}", Uuid::now_v7().simple()),
        verdict: request(call, token)
            .and_then(|()| authorization(world, call))
            .and_then(|()| headers(call))
            .and_then(|()| body(&call.body))
            .map(|()| Value::Null),
    }
}

pub(super) fn accepted(call: &Call, id: &str) -> Answer {
    Answer::empty(201)
        .with("location", format!("https://{}{id}", call.authority))
        .with("ttl", call.header("ttl").unwrap_or_default())
}

pub(super) fn refused(refusal: &Refusal) -> Answer {
    Answer::json(refusal.status, &json!({ "reason": refusal.reason }))
}

fn request(call: &Call, token: &str) -> Result<(), Refusal> {
    if token.is_empty() || token.contains(['/', '?']) {
        return Err(Refusal::new(404, "no such subscription"));
    }
    if call.method != "POST" {
        return Err(Refusal::new(405, "use POST"));
    }
    Ok(())
}

/// RFC 8292 §3: `vapid t=…, k=…`; 401 without, 403 if it does not hold.
fn authorization(world: &World, call: &Call) -> Result<(), Refusal> {
    let missing = || Refusal::new(401, "no vapid authorization");
    let wrong = |why: &str| Refusal::new(403, why);
    let fields = call
        .header("authorization")
        .and_then(|value| value.strip_prefix("vapid "))
        .ok_or_else(missing)?;
    let field = |name: &str| {
        let mut fields = fields
            .split(',')
            .filter_map(|field| field.trim().split_once('='));
        fields.find(|(its, _)| *its == name).map(|(_, value)| value)
    };
    let (token, key) = (
        field("t").ok_or_else(missing)?,
        field("k").ok_or_else(missing)?,
    );
    let key = URL_SAFE_NO_PAD
        .decode(key)
        .map_err(|_| wrong("k is not base64url without padding"))?;
    if key != world.credentials.vapid_public {
        return Err(wrong("k is not the key of the subscription"));
    }
    let jwt = Jwt::read(token).map_err(wrong)?;
    if !jwt.is_signed(Algorithm::ES256, &DecodingKey::from_ec_der(&key)) {
        return Err(wrong("the signature is wrong"));
    }
    if jwt.claims["aud"] != format!("https://{}", call.authority) {
        return Err(wrong("aud is not the origin of the push service"));
    }
    let now = world.clock.now_unix();
    let expires = jwt.seconds("exp").ok_or_else(|| wrong("exp is missing"))?;
    if expires <= now || expires > now + TOKEN_SECONDS_MAX {
        return Err(wrong("exp is past, or more than a day away"));
    }
    let subject = jwt.claims["sub"].as_str().unwrap_or_default();
    if !subject.starts_with("mailto:") && !subject.starts_with("https:") {
        return Err(wrong("sub is neither mailto: nor https:"));
    }
    Ok(())
}

fn headers(call: &Call) -> Result<(), Refusal> {
    let bad = |why: &str| Refusal::new(400, why);
    let ttl = call.header("ttl").ok_or_else(|| bad("TTL is missing"))?;
    if ttl.is_empty() || !ttl.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("TTL is not a number of seconds"));
    }
    let urgency = call.header("urgency").unwrap_or("normal");
    if !["very-low", "low", "normal", "high"].contains(&urgency) {
        return Err(bad("there is no such Urgency"));
    }
    let topic = call.header("topic").unwrap_or_default();
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if topic.len() > TOPIC_CHARS_MAX || !topic.bytes().all(is_base64url) {
        return Err(bad("Topic is not base64url, or longer than 32 characters"));
    }
    if call.header("content-encoding") != Some("aes128gcm") {
        return Err(Refusal::new(415, "Content-Encoding is not aes128gcm"));
    }
    Ok(())
}

/// RFC 8291 §4: one record, and the public key of the sender as its key id.
fn body(body: &[u8]) -> Result<(), Refusal> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Refusal::new(413, "the body is too large"));
    }
    let malformed = || Refusal::new(400, "the body is not one record of aes128gcm");
    let (header, rest) = body.split_at_checked(HEADER_BYTES).ok_or_else(malformed)?;
    let (key, record) = rest.split_at_checked(KEY_BYTES).ok_or_else(malformed)?;
    let record_bytes_max = header[16..20]
        .iter()
        .fold(0, |size, byte| size << 8 | usize::from(*byte));
    let is_right = usize::from(header[20]) == KEY_BYTES
        && key[0] == 4
        && (RECORD_BYTES_MIN..=record_bytes_max).contains(&record.len());
    is_right.then_some(()).ok_or_else(malformed)
}
