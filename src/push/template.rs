//! How a message becomes a notification: which class, and what is shown.

use std::collections::BTreeMap;

use super::notification::{Preview, Text};
use crate::config::{PushConfig, Template};

/// The text of last resort; the settings always hold it.
const LANGUAGE_LAST: &str = "en";

/// One character of a JSON text, as in `\ud83d\ude00`.
const ESCAPE_BYTES_MAX: usize = 12;

/// What is known of a message when it becomes a notification.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion<'a> {
    /// Of the message.
    pub(super) kind: &'a str,
    /// Of the device, BCP 47.
    pub(super) locale: Option<&'a str>,
    pub(super) sender: &'a str,
    /// Of the conversation.
    pub(super) title: Option<&'a str>,
    /// The JSON of the message's body, or the beginning of it.
    pub(super) body: &'a [u8],
}

/// The first template that fits. The settings end with one that fits everything.
pub(super) fn choose<'a>(templates: &'a [Template], app: &str, kind: &str) -> Option<&'a Template> {
    let fits = |wanted: &str, given: &str| wanted.is_empty() || wanted == given;
    templates
        .iter()
        .find(|template| fits(&template.app, app) && fits(&template.r#type, kind))
}

/// What the notification shows.
pub(super) fn text(config: &PushConfig, template: &Template, occasion: Occasion<'_>) -> Text {
    let is_encrypted = config
        .encrypted_types
        .iter()
        .any(|kind| kind == occasion.kind);
    let preview = (template.preview && !is_encrypted)
        .then(|| preview(occasion))
        .flatten();
    Text {
        loc_key: (!template.loc_key.is_empty()).then(|| template.loc_key.clone()),
        generic: in_language(&config.texts, occasion.locale).to_owned(),
        preview,
    }
}

/// Only a body that is a text can be shown; what an application defined stays inside.
fn preview(occasion: Occasion<'_>) -> Option<Preview> {
    let body = serde_json::from_slice(occasion.body)
        .ok()
        .or_else(|| beginning(occasion.body))?;
    Some(match occasion.title {
        Some(title) => Preview {
            title: title.to_owned(),
            body: format!("{}: {body}", occasion.sender),
        },
        None => Preview {
            title: occasion.sender.to_owned(),
            body,
        },
    })
}

/// What can be read of a JSON text that is cut off: all but a part of a character.
fn beginning(cut_off: &[u8]) -> Option<String> {
    let readable = match str::from_utf8(cut_off) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&cut_off[..error.valid_up_to()]).ok()?,
    };
    if !readable.starts_with('"') {
        return None;
    }
    (0..ESCAPE_BYTES_MAX)
        .filter_map(|cut| readable.get(..readable.len().checked_sub(cut)?))
        .find_map(|text| serde_json::from_str::<String>(&format!("{text}\"")).ok())
        .map(|text| text.trim_end().to_owned() + "…")
}

/// The text for a locale: for `de-AT`, else for `de`, else for `en`.
fn in_language<'a>(texts: &'a BTreeMap<String, String>, locale: Option<&str>) -> &'a str {
    let locale = locale.unwrap_or(LANGUAGE_LAST);
    let language = locale.split(['-', '_']).next().unwrap_or(locale);
    let same = |wanted: &str| {
        texts
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(wanted))
            .map(|(_, text)| text.as_str())
    };
    same(locale)
        .or_else(|| same(language))
        .or_else(|| same(LANGUAGE_LAST))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::{Config, Overrides, TemplateClass};

    fn settings() -> PushConfig {
        let config = Config::load(None, HashMap::new(), Overrides::default());
        config.unwrap().push
    }

    fn template(app: &str, kind: &str, class: TemplateClass) -> Template {
        Template {
            app: app.to_owned(),
            r#type: kind.to_owned(),
            class,
            loc_key: String::new(),
            sound: String::new(),
            preview: true,
        }
    }

    const HELLO: Occasion<'_> = Occasion {
        kind: "text",
        locale: None,
        sender: "alice",
        title: None,
        body: br#""hello""#,
    };

    #[test]
    fn the_first_template_that_fits_is_used() {
        let templates = [
            template("chat", "call", TemplateClass::Voip),
            template("", "position", TemplateClass::None),
            template("fleet", "", TemplateClass::Background),
            template("", "", TemplateClass::Alert),
        ];
        for (app, kind, class) in [
            ("chat", "call", TemplateClass::Voip),
            ("fleet", "call", TemplateClass::Background),
            ("fleet", "position", TemplateClass::None),
            ("chat", "text", TemplateClass::Alert),
        ] {
            let chosen = choose(&templates, app, kind).unwrap();
            assert_eq!(chosen.class, class, "{app} {kind}");
        }
    }

    #[test]
    fn by_default_no_content_is_shown() {
        let config = settings();
        let chosen = choose(&config.templates, "chat", "text").unwrap();
        let text = text(&config, chosen, HELLO);
        assert_eq!(text.loc_key.as_deref(), Some("HOMING_NEW_MESSAGE"));
        assert_eq!((text.generic.as_str(), text.preview), ("New message", None));
    }

    #[test]
    fn a_preview_shows_who_wrote_what_and_never_ciphertext() {
        let config = settings();
        let shown = |occasion| text(&config, &template("", "", TemplateClass::Alert), occasion);
        let direct = shown(HELLO).preview.unwrap();
        assert_eq!((&*direct.title, &*direct.body), ("alice", "hello"));
        let group = Occasion {
            title: Some("Lunch"),
            ..HELLO
        };
        let group = shown(group).preview.unwrap();
        assert_eq!((&*group.title, &*group.body), ("Lunch", "alice: hello"));

        for (kind, body) in [
            ("encrypted", &br#""3q2+7w==""#[..]),
            ("encrypted", br#""cut of"#),
            ("text", br#"{"a":1}"#),
            ("text", br#"{"a":"cut of"#),
            ("text", b"\xff"),
        ] {
            let occasion = Occasion {
                kind,
                body,
                ..HELLO
            };
            assert_eq!(shown(occasion).preview, None, "{kind}");
        }
    }

    #[test]
    fn a_text_that_is_cut_off_is_shown_as_far_as_it_goes() {
        let whole = r#""a\"b\\ ü \ud83d\ude00 c"#;
        for (bytes, shown) in [
            (1, "…"),
            (2, "a…"),
            (3, "a…"),
            (4, "a\"…"),
            (6, "a\"b…"),
            (7, "a\"b\\…"),
            (9, "a\"b\\…"),
            (10, "a\"b\\ ü…"),
            (11, "a\"b\\ ü…"),
            (22, "a\"b\\ ü…"),
            (23, "a\"b\\ ü 😀…"),
            (25, "a\"b\\ ü 😀 c…"),
        ] {
            let found = beginning(&whole.as_bytes()[..bytes]);
            assert_eq!(found.as_deref(), Some(shown), "{bytes}");
        }
        assert_eq!(beginning(b""), None);
    }

    #[test]
    fn the_text_is_in_the_language_of_the_device() {
        let config = settings();
        for (locale, text) in [
            (None, "New message"),
            (Some("de"), "Neue Nachricht"),
            (Some("DE-at"), "Neue Nachricht"),
            (Some("fr_CA"), "Nouveau message"),
            (Some("tlh"), "New message"),
        ] {
            assert_eq!(in_language(&config.texts, locale), text, "{locale:?}");
        }
    }
}
