//! The message of FCM: every field it may have, and what may stand there. Fields that Google
//! does not know it refuses.

use serde_json::{Map, Value};

/// What the notification and the data may take together, and what APNs takes.
const PAYLOAD_BYTES_MAX: usize = 4096;
/// Four weeks.
const TTL_SECONDS_MAX: f64 = 2_419_200.0;

/// What stands in a field.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Flag,
    Number,
    /// `"3.5s"`.
    Duration,
    /// Names and texts.
    TextMap,
    Any,
    OneOf(&'static [&'static str]),
    Object(Fields),
}

type Fields = &'static [(&'static str, Form)];

const BODY: Fields = &[
    ("message", Form::Object(MESSAGE)),
    ("validate_only", Form::Flag),
];

const MESSAGE: Fields = &[
    ("name", Form::Text),
    ("token", Form::Text),
    ("fid", Form::Text),
    ("topic", Form::Text),
    ("condition", Form::Text),
    ("data", Form::TextMap),
    ("notification", Form::Object(NOTIFICATION)),
    ("android", Form::Object(ANDROID)),
    ("apns", Form::Object(APNS)),
    ("webpush", Form::Object(WEB)),
    ("fcm_options", Form::Object(OPTIONS)),
];

const NOTIFICATION: Fields = &[
    ("title", Form::Text),
    ("body", Form::Text),
    ("image", Form::Text),
];

const OPTIONS: Fields = &[
    ("analytics_label", Form::Text),
    ("image", Form::Text),
    ("link", Form::Text),
];

const ANDROID: Fields = &[
    ("collapse_key", Form::Text),
    (
        "priority",
        Form::OneOf(&["normal", "high", "NORMAL", "HIGH"]),
    ),
    ("ttl", Form::Duration),
    ("restricted_package_name", Form::Text),
    ("data", Form::TextMap),
    ("notification", Form::Object(ANDROID_NOTIFICATION)),
    ("fcm_options", Form::Object(OPTIONS)),
    ("direct_boot_ok", Form::Flag),
    ("bandwidth_constrained_ok", Form::Flag),
    ("restricted_satellite_ok", Form::Flag),
];

const ANDROID_NOTIFICATION: Fields = &[
    ("title", Form::Text),
    ("body", Form::Text),
    ("icon", Form::Text),
    ("color", Form::Text),
    ("sound", Form::Text),
    ("tag", Form::Text),
    ("click_action", Form::Text),
    ("body_loc_key", Form::Text),
    ("body_loc_args", Form::Texts),
    ("title_loc_key", Form::Text),
    ("title_loc_args", Form::Texts),
    ("channel_id", Form::Text),
    ("ticker", Form::Text),
    ("sticky", Form::Flag),
    ("event_time", Form::Text),
    ("local_only", Form::Flag),
    (
        "notification_priority",
        Form::OneOf(&[
            "PRIORITY_UNSPECIFIED",
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ]),
    ),
    ("default_sound", Form::Flag),
    ("default_vibrate_timings", Form::Flag),
    ("default_light_settings", Form::Flag),
    ("vibrate_timings", Form::Texts),
    (
        "visibility",
        Form::OneOf(&["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"]),
    ),
    ("notification_count", Form::Number),
    ("light_settings", Form::Any),
    ("image", Form::Text),
    (
        "proxy",
        Form::OneOf(&["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"]),
    ),
];

const APNS: Fields = &[
    ("headers", Form::TextMap),
    ("payload", Form::Any),
    ("fcm_options", Form::Object(OPTIONS)),
    ("live_activity_token", Form::Text),
];

const WEB: Fields = &[
    ("headers", Form::TextMap),
    ("data", Form::TextMap),
    ("notification", Form::Any),
    ("fcm_options", Form::Object(OPTIONS)),
];

/// What is wrong with a request.
pub(super) fn check(body: &Value) -> Result<(), String> {
    check_object("", body, BODY)?;
    let message = body["message"].as_object().ok_or("Message is not set.")?;
    let targets = ["token", "fid", "topic", "condition"].map(|name| message.contains_key(name));
    if targets.into_iter().filter(|is_there| *is_there).count() != 1 {
        return Err("Exactly one of token, fid, topic or condition is required.".to_owned());
    }
    if message.get("token").is_some_and(|token| !is_token(token)) {
        return Err("The registration token is not a valid FCM registration token".to_owned());
    }
    for data in [
        &message.get("data"),
        &body["message"]["android"].get("data"),
    ] {
        data.and_then(Value::as_object).map_or(Ok(()), check_data)?;
    }
    let shown = ["data", "notification"].map(|name| bytes(message.get(name)));
    let android = &body["message"]["android"];
    let of_android = ["data", "notification"].map(|name| bytes(android.get(name)));
    if shown.iter().chain(&of_android).sum::<usize>() > PAYLOAD_BYTES_MAX {
        return Err("Android message is too big".to_owned());
    }
    let apns = &body["message"]["apns"]["payload"];
    if !apns.is_null() && !apns["aps"].is_object() {
        return Err("strict: apns.payload has no aps".to_owned());
    }
    if bytes(Some(apns)) > PAYLOAD_BYTES_MAX {
        return Err("APNs message is too big".to_owned());
    }
    Ok(())
}

fn bytes(value: Option<&Value>) -> usize {
    value.map_or(0, |value| value.to_string().len())
}

fn is_token(token: &Value) -> bool {
    token.as_str().is_some_and(|token| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte))
    })
}

/// Names that Google keeps for itself.
fn check_data(data: &Map<String, Value>) -> Result<(), String> {
    let is_reserved = |key: &&String| {
        ["from", "message_type"].contains(&key.as_str())
            || ["google", "gcm"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
    };
    match data.keys().find(is_reserved) {
        Some(key) => Err(format!("Invalid data payload key: {key}")),
        None => Ok(()),
    }
}

fn check_object(place: &str, value: &Value, fields: Fields) -> Result<(), String> {
    let wrong = || format!("Invalid value at '{place}'");
    for (name, value) in value.as_object().ok_or_else(wrong)? {
        let Some((_, form)) = fields.iter().find(|(known, _)| known == name) else {
            return Err(format!(
                "Invalid JSON payload received. Unknown name \"{name}\" at '{place}': \
                 Cannot find field."
            ));
        };
        let place = format!("{place}.{name}").trim_start_matches('.').to_owned();
        check_form(&place, value, *form)?;
    }
    Ok(())
}

fn check_form(place: &str, value: &Value, form: Form) -> Result<(), String> {
    let is_right = match form {
        Form::Text => value.is_string(),
        Form::Texts => value
            .as_array()
            .is_some_and(|texts| texts.iter().all(Value::is_string)),
        Form::Flag => value.is_boolean(),
        Form::Number => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        Form::Duration => value.as_str().is_some_and(is_time_to_live),
        Form::TextMap => value
            .as_object()
            .is_some_and(|map| map.values().all(Value::is_string)),
        Form::Any => true,
        Form::OneOf(names) => value.as_str().is_some_and(|name| names.contains(&name)),
        Form::Object(fields) => return check_object(place, value, fields),
    };
    if is_right {
        Ok(())
    } else {
        Err(format!("Invalid value at '{place}': {value}"))
    }
}

fn is_time_to_live(text: &str) -> bool {
    let Some(seconds) = text.strip_suffix('s') else {
        return false;
    };
    let is_decimal = seconds
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_decimal
        && seconds
            .parse::<f64>()
            .is_ok_and(|seconds| seconds <= TTL_SECONDS_MAX)
}
