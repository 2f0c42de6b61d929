//! What the members must be that mean something to the server, beside JSON. `null` stands
//! for their absence.

use serde::Deserialize;

use crate::domain::{ids::Subject, message::Reaction};

/// The longest key of a reaction, in bytes.
pub const REACTION_KEY_BYTES_MAX: usize = 64;
/// The latest `expires_at`, the end of the year 9999, in milliseconds since 1970: what lies
/// beyond is no date in the store.
pub const EXPIRES_AT_MAX: i64 = 253_402_300_799_999;
/// The longest id, name and content type of an attachment, in bytes.
const ATTACHMENT_TEXT_BYTES_MAX: usize = 255;
/// The longest address of an attachment, in bytes.
const ATTACHMENT_URL_BYTES_MAX: usize = 2048;
/// The largest size of an attachment: what every JSON reader still takes as a whole number.
const ATTACHMENT_SIZE_MAX: u64 = 1 << 53;

pub(super) fn check_urgent(json: &str) -> Result<(), String> {
    match serde_json::from_str::<Option<bool>>(json) {
        Ok(_) => Ok(()),
        Err(_) => Err("`urgent` is true or false".to_owned()),
    }
}

/// Whom a message mentions; nobody if it is null.
pub(super) fn mentions(json: &str, mentions_max: usize) -> Result<Vec<Subject>, String> {
    match serde_json::from_str::<Option<Vec<Subject>>>(json) {
        Ok(mentions) if mentions.as_ref().map_or(0, Vec::len) <= mentions_max => {
            Ok(mentions.unwrap_or_default())
        }
        _ => Err(format!(
            "`mentions` is a list of at most {mentions_max} user names"
        )),
    }
}

pub(super) fn expires_at_millis(json: &str) -> Result<Option<i64>, String> {
    match serde_json::from_str::<Option<i64>>(json) {
        Ok(at @ (None | Some(1..=EXPIRES_AT_MAX))) => Ok(at),
        _ => Err("`expires_at` is a time in milliseconds since 1970, as 1766400600000".to_owned()),
    }
}

pub(super) fn check_attachments(json: &str, attachments_max: usize) -> Result<(), String> {
    let attachments: Option<Vec<Attachment>> = serde_json::from_str(json).map_err(|error| {
        format!(
            "`attachments` is a list of {{\"id\": \"f1\", \"size\": 81234, \"content_type\": \"image/jpeg\"}}: {error}"
        )
    })?;
    let attachments = attachments.unwrap_or_default();
    if attachments.len() > attachments_max {
        return Err(format!(
            "`attachments` is a list of at most {attachments_max} files"
        ));
    }
    attachments.iter().try_for_each(Attachment::check)
}

/// A file that lies elsewhere. Members that are not known here are kept.
#[derive(Deserialize)]
struct Attachment {
    id: String,
    size: u64,
    content_type: String,
    name: Option<String>,
    url: Option<String>,
    sha256: Option<String>,
}

impl Attachment {
    fn check(&self) -> Result<(), String> {
        let is_plain = |text: &str| {
            (1..=ATTACHMENT_TEXT_BYTES_MAX).contains(&text.len())
                && !text.contains(char::is_control)
        };
        let wrong = if !is_plain(&self.id) {
            "`id` has 1 to 255 bytes without control characters"
        } else if self.size > ATTACHMENT_SIZE_MAX {
            "`size` is a number of bytes"
        } else if !is_content_type(&self.content_type) {
            "`content_type` is as \"image/jpeg\""
        } else if !self.name.as_deref().is_none_or(is_plain) {
            "`name` has 1 to 255 bytes without control characters"
        } else if !self.url.as_deref().is_none_or(is_web_address) {
            "`url` begins with https:// or http:// and has at most 2048 bytes without spaces"
        } else if !self.sha256.as_deref().is_none_or(is_sha256) {
            "`sha256` has 64 hexadecimal digits"
        } else {
            return Ok(());
        };
        Err(format!("`attachments`: {wrong}"))
    }
}

/// A media type (RFC 6838, section 4.2), perhaps with parameters.
fn is_content_type(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    text.len() <= ATTACHMENT_TEXT_BYTES_MAX
        && !text.contains(char::is_control)
        && essence
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

/// Nothing else is opened by whoever taps it, such as `javascript:`.
fn is_web_address(text: &str) -> bool {
    let place = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    text.len() <= ATTACHMENT_URL_BYTES_MAX
        && place.is_some_and(|place| !place.is_empty())
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn check_reaction(body: Option<&str>) -> Result<(), String> {
    let reaction: Reaction = body
        .and_then(|json| serde_json::from_str(json).ok())
        .ok_or(
            "the `body` of a reaction is {\"key\": \"👍\"}, with \"remove\": true to take it back",
        )?;
    let fits = (1..=REACTION_KEY_BYTES_MAX).contains(&reaction.key.len());
    if !fits || reaction.key.contains(char::is_control) {
        return Err(
            "the `key` of a reaction has 1 to 64 bytes without control characters".to_owned(),
        );
    }
    Ok(())
}
