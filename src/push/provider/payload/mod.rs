//! What a notification looks like to each provider, and how it is made to fit.
//!
//! A preview that is too long is shortened: first its body, as little as needed, down to the
//! ellipsis; then its title, without a body; at last there is no preview, and the generic text
//! is shown. A text is cut between characters, never inside one that is written with several
//! code points (accents, skin tones, joined emoji), and ends with an ellipsis.

pub(super) mod apns;
pub(super) mod fcm;
#[cfg(test)]
mod shapes;
pub(super) mod web;

use serde_json::Value;

use crate::{
    domain::{ids::ConversationId, message::Sequence},
    push::notification::{Preview, Purpose},
};

const ELLIPSIS: char = '…';
/// Joins what stands on both sides of it into one character.
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// The most conversations that one notification clears.
const CLEARED_MAX: usize = 20;

/// The preview that the notification asks for.
fn preview(purpose: &Purpose) -> Option<&Preview> {
    match purpose {
        Purpose::Wake(wake) => wake.text.preview.as_ref(),
        Purpose::Clear(_) => None,
    }
}

/// Conversations and sequences, as devices read them.
fn cleared(positions: &[(ConversationId, Sequence)]) -> Value {
    positions
        .iter()
        .take(CLEARED_MAX)
        .map(|(conversation, sequence)| serde_json::json!([conversation, sequence]))
        .collect()
}

/// The longest payload of at most `bytes_max` that `encode` makes of the preview, of a part
/// of it, or of none. None if even that is too long.
fn fit(
    preview: Option<&Preview>,
    bytes_max: usize,
    encode: impl Fn(Option<&Preview>) -> Vec<u8>,
) -> Option<Vec<u8>> {
    let fits = |payload: &Vec<u8>| payload.len() <= bytes_max;
    if let Some(preview) = preview {
        let whole = encode(Some(preview));
        if fits(&whole) {
            return Some(whole);
        }
        let with = |title: &str, body: &str| {
            encode(Some(&Preview {
                title: title.to_owned(),
                body: body.to_owned(),
            }))
        };
        let shorter = longest(&preview.body, bytes_max, |body| with(&preview.title, body))
            .or_else(|| longest(&preview.title, bytes_max, |title| with(title, "")));
        if shorter.is_some() {
            return shorter;
        }
    }
    Some(encode(None)).filter(fits)
}

/// With the longest beginning of the text that fits, and an ellipsis.
fn longest(text: &str, bytes_max: usize, encode: impl Fn(&str) -> Vec<u8>) -> Option<Vec<u8>> {
    let shortened = |cut: usize| encode(&cut_at(text, cut));
    // Nothing is shorter in a payload than it is in itself.
    let cuts: Vec<_> = cuts(text).take_while(|cut| *cut <= bytes_max).collect();
    let fitting = cuts.partition_point(|cut| shortened(*cut).len() <= bytes_max);
    let cut = cuts[..fitting].last()?;
    Some(shortened(*cut))
}

fn cut_at(text: &str, cut: usize) -> String {
    let mut kept = text[..cut].trim_end().to_owned();
    kept.push(ELLIPSIS);
    kept
}

/// Where the text may be cut, in bytes from its beginning.
fn cuts(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut previous = None;
    text.char_indices().filter_map(move |(place, c)| {
        let is_joined = belongs_to_previous(c) || previous == Some(ZERO_WIDTH_JOINER);
        previous = Some(c);
        (!is_joined).then_some(place)
    })
}

/// Marks that are written after what they change.
fn belongs_to_previous(c: char) -> bool {
    matches!(
        c,
        ZERO_WIDTH_JOINER
            | '\u{300}'..='\u{36f}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{fe20}'..='\u{fe2f}'
            | '\u{1f3fb}'..='\u{1f3ff}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(preview: Option<&Preview>) -> Vec<u8> {
        let value = match preview {
            None => serde_json::json!({ "text": "generic" }),
            Some(preview) => serde_json::json!({ "title": preview.title, "body": preview.body }),
        };
        value.to_string().into_bytes()
    }

    fn fitted(title: &str, body: &str, bytes_max: usize) -> Option<Value> {
        let preview = Preview {
            title: title.to_owned(),
            body: body.to_owned(),
        };
        let payload = fit(Some(&preview), bytes_max, encode)?;
        assert!(payload.len() <= bytes_max);
        Some(serde_json::from_slice(&payload).unwrap())
    }

    #[test]
    fn the_body_is_shortened_first_then_the_title_then_nothing_is_shown() {
        let (title, body) = ("Alice", "See you at the station");
        let at = |bytes_max| fitted(title, body, bytes_max);
        let body_at = |bytes_max| at(bytes_max).unwrap()["body"].clone();
        assert_eq!(body_at(49), body);
        assert_eq!(body_at(48), "See you at the sta…");
        // No space before the ellipsis.
        assert_eq!(body_at(45), "See you at the…");
        assert_eq!(body_at(30), "…");
        let title_only = |title: &str| Some(serde_json::json!({ "title": title, "body": "" }));
        assert_eq!(at(29), title_only("Alic…"));
        assert_eq!(at(25), title_only("…"));
        let generic = Some(serde_json::json!({ "text": "generic" }));
        assert_eq!(at(24), generic);
        assert_eq!(at(18), generic);
        assert_eq!(at(17), None);
    }

    #[test]
    fn characters_of_several_code_points_stay_whole() {
        for (text, places) in [
            ("a\u{301}b", vec![0, 3]),
            ("👩\u{200d}👧x", vec![0, 11]),
            ("👍\u{1f3fd}x", vec![0, 8]),
            ("❤\u{fe0f}x", vec![0, 6]),
            ("日本", vec![0, 3]),
        ] {
            assert_eq!(cuts(text).collect::<Vec<_>>(), places, "{text}");
        }
    }

    proptest! {
        /// Goal: whatever a preview holds, the payload fits, is valid, and shows as much as fits.
        /// Method: any text (quotes and controls grow in JSON) and any limit; then the next
        /// longer beginning must not fit.
        #[test]
        fn what_is_shown_is_the_longest_beginning_that_fits(
            title in "\\PC{0,20}",
            body in "(?s).{0,120}",
            bytes_max in 18..400_usize,
        ) {
            let shown = fitted(&title, &body, bytes_max).unwrap();
            let Some(shown_body) = shown["body"].as_str() else {
                prop_assert_eq!(&shown["text"], "generic");
                return Ok(());
            };
            let whole = Preview { title: title.clone(), body: body.clone() };
            if encode(Some(&whole)).len() <= bytes_max {
                prop_assert_eq!(shown_body, body);
                return Ok(());
            }
            if shown_body.is_empty() {
                let title_shown = shown["title"].as_str().unwrap().strip_suffix(ELLIPSIS).unwrap();
                prop_assert!(title.starts_with(title_shown));
                return Ok(());
            }
            let kept = shown_body.strip_suffix(ELLIPSIS).unwrap();
            prop_assert_eq!(shown["title"].as_str(), Some(&*title));
            prop_assert!(body.starts_with(kept));
            let longer = cuts(&body)
                .map(|cut| cut_at(&body, cut))
                .find(|longer| longer.len() > shown_body.len());
            if let Some(longer) = longer {
                let longer = Preview { title, body: longer };
                prop_assert!(encode(Some(&longer)).len() > bytes_max);
            }
        }
    }
}
