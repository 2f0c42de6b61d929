//! How a text begins.

/// Characters of a preview, at most.
pub(super) const PREVIEW_CHARACTERS: usize = 200;
/// Bytes of the longest character in JSON: two escapes of UTF-16.
const CHARACTER_BYTES_MAX: usize = 12;

/// The first characters of a JSON string, which may be cut off anywhere; none if it is no string.
pub(super) fn preview(json: &[u8]) -> Option<String> {
    let whole = serde_json::from_slice::<String>(json).ok();
    let text = whole.or_else(|| cut_off(json))?;
    Some(text.chars().take(PREVIEW_CHARACTERS).collect())
}

/// What was cut off is at most one character, or one escape.
fn cut_off(json: &[u8]) -> Option<String> {
    (0..=CHARACTER_BYTES_MAX.min(json.len())).find_map(|surplus| {
        let mut closed = json[..json.len() - surplus].to_vec();
        closed.push(b'"');
        serde_json::from_slice(&closed).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_text_has_a_preview() {
        assert_eq!(preview(br#""on my way""#).as_deref(), Some("on my way"));
        assert_eq!(preview(br#""""#).as_deref(), Some(""));
        assert_eq!(preview(br#"{"a":"b"}"#), None);
        assert_eq!(preview(b"17"), None);
        assert_eq!(preview(b""), None);
    }

    proptest! {
        /// Goal: wherever the text is cut off, its beginning is shown, and nothing else.
        #[test]
        fn a_cut_off_text_begins_as_the_whole(text in ".*", escaped in any::<bool>(), cut in 1..400_usize) {
            let mut json = serde_json::to_string(&text).unwrap();
            if escaped {
                json = json.chars().fold(String::new(), |mut json, c| {
                    use std::fmt::Write as _;
                    if c.is_ascii() {
                        json.push(c);
                        return json;
                    }
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(json, "\\u{unit:04x}").unwrap();
                    }
                    json
                });
            }
            let json = json.as_bytes();
            let cut = cut.min(json.len());
            let shown = preview(&json[..cut]).unwrap();
            prop_assert!(text.starts_with(&shown));
            // At most one character is lost, which takes at most twelve bytes.
            if cut == json.len() {
                prop_assert_eq!(shown, text.chars().take(PREVIEW_CHARACTERS).collect::<String>());
            } else {
                prop_assert!((shown.len() * 12 + 14 >= cut) || shown.chars().count() == PREVIEW_CHARACTERS);
            }
        }
    }
}
