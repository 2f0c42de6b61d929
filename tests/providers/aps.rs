//! The `aps` dictionary: <https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification>.
//! Apple ignores what it does not understand; here it is a mistake.

use serde_json::{Map, Value};

const ALERT_KEYS: [&str; 11] = [
    "title",
    "subtitle",
    "body",
    "launch-image",
    "title-loc-key",
    "title-loc-args",
    "subtitle-loc-key",
    "subtitle-loc-args",
    "loc-key",
    "loc-args",
    "action-loc-key",
];

const LEVELS: [&str; 4] = ["passive", "active", "time-sensitive", "critical"];

/// What is wrong with it.
pub(super) fn check(aps: &Map<String, Value>, push_type: &str) -> Result<(), String> {
    for (key, value) in aps {
        if !is_well_formed(key, value) {
            return Err(format!("aps has no such {key}: {value}"));
        }
    }
    match push_type {
        "background" if aps.len() != 1 || aps.get("content-available") != Some(&1.into()) => Err(
            "a background notification has `content-available: 1` in aps, and nothing else"
                .to_owned(),
        ),
        "alert"
            if !["alert", "badge", "sound"]
                .iter()
                .any(|key| aps.contains_key(*key)) =>
        {
            Err("an alert notification has an alert, a badge or a sound".to_owned())
        }
        _ => Ok(()),
    }
}

fn is_well_formed(key: &str, value: &Value) -> bool {
    match key {
        "alert" => value.is_string() || value.as_object().is_some_and(is_alert),
        "badge" => value.as_u64().is_some(),
        "sound" => value.is_string() || value.is_object(),
        "thread-id" | "category" | "target-content-id" | "filter-criteria" | "event" => {
            value.is_string()
        }
        "content-available" | "mutable-content" => *value == 1,
        "interruption-level" => value.as_str().is_some_and(|level| LEVELS.contains(&level)),
        "relevance-score" => value
            .as_f64()
            .is_some_and(|score| (0.0..=1.0).contains(&score)),
        "stale-date" | "timestamp" | "dismissal-date" => value.is_number(),
        "content-state" | "attributes" => value.is_object(),
        "attributes-type" => value.is_string(),
        "url-args" => value.is_array(),
        _ => false,
    }
}

fn is_alert(alert: &Map<String, Value>) -> bool {
    alert.iter().all(|(key, value)| {
        ALERT_KEYS.contains(&key.as_str())
            && if key.ends_with("-args") {
                value
                    .as_array()
                    .is_some_and(|items| items.iter().all(Value::is_string))
            } else {
                value.is_string()
            }
    })
}
