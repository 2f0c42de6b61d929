//! What is read, what is refused and how, and what is delivered of it.

use super::{members::EXPIRES_AT_MAX, *};

const LIMITS: ContentLimits = ContentLimits {
    bytes_max: 8192,
    mentions_max: 50,
    attachments_max: 10,
};

fn read(json: &str) -> Result<Content, EnvelopeError> {
    Content::from_json(json.as_bytes(), LIMITS)
}

fn stored(content: &Content) -> serde_json::Value {
    let from = Subject::new("ali\"ce").unwrap();
    let stamp = Stamp {
        sequence: Sequence::FIRST,
        from: &from,
        at_millis: 5,
    };
    serde_json::from_slice(&entry_json(stamp, content)).unwrap()
}

#[test]
fn what_was_sent_is_what_is_delivered() {
    let sent =
        r#"{"id":"1","type":"pic","body":{"a":[1.50,"ü"]},"reply_to":41,"x":null,"y\n":{"z":1}}"#;
    let delivered = stored(&read(sent).unwrap());
    let expected = serde_json::json!({
        "seq": 1, "id": "1", "from": "ali\"ce", "at": 5, "type": "pic",
        "body": {"a": [1.50, "ü"]}, "reply_to": 41, "x": null, "y\n": {"z": 1},
    });
    assert_eq!(delivered, expected);
}

#[test]
fn type_and_reply_are_optional() {
    let content = read(r#"{"id":"1","body":"hi"}"#).unwrap();
    assert_eq!((content.kind.as_str(), content.reply_to), (KIND_TEXT, None));
    assert!(content.extra.is_empty());
}

/// Goal: what steers a push is delivered as it was sent, and means nothing to the envelope.
#[test]
fn members_for_push_are_kept_as_they_are() {
    let many: Vec<_> = (0..LIMITS.mentions_max)
        .map(|user| format!("u{user}"))
        .collect();
    for members in [
        serde_json::json!({"urgent": true, "mentions": ["bob"], "expires_at": 1}),
        serde_json::json!({"urgent": false, "mentions": many, "expires_at": EXPIRES_AT_MAX}),
        serde_json::json!({"urgent": null, "mentions": null, "expires_at": null}),
        serde_json::json!({"mentions": []}),
    ] {
        let mut sent = members.clone();
        sent["id"] = "1".into();
        sent["body"] = 1.into();
        let delivered = stored(&read(&sent.to_string()).unwrap());
        for (name, value) in members.as_object().unwrap() {
            assert_eq!(delivered.get(name), Some(value), "{name}");
        }
    }
}

#[test]
fn members_for_push_are_refused_with_a_cure() {
    let many = serde_json::json!(vec!["bob"; LIMITS.mentions_max + 1]).to_string();
    let later = (EXPIRES_AT_MAX + 1).to_string();
    for (name, value, says) in [
        ("urgent", "1", "true or false"),
        ("urgent", "\"true\"", "true or false"),
        ("mentions", "\"bob\"", "50 user names"),
        ("mentions", "[1]", "50 user names"),
        ("mentions", "[\"\"]", "50 user names"),
        ("mentions", "[\"a/b\"]", "50 user names"),
        ("mentions", "[null]", "50 user names"),
        ("mentions", many.as_str(), "50 user names"),
        ("expires_at", "0", "milliseconds"),
        ("expires_at", "-5", "milliseconds"),
        ("expires_at", "1.5", "milliseconds"),
        ("expires_at", "\"2026-01-01\"", "milliseconds"),
        ("expires_at", "99999999999999999999", "milliseconds"),
        ("expires_at", later.as_str(), "milliseconds"),
    ] {
        let json = format!(r#"{{"id":"1","body":1,"{name}":{value}}}"#);
        let error = read(&json).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains(says),
            "{json}: {error}"
        );
    }
    let error = read(r#"{"id":"1","body":1,"urgent":true,"urgent":false}"#);
    assert!(error.unwrap_err().to_string().contains("twice"));
    // An escape does not hide a member from its check.
    assert!(read(r#"{"id":"1","body":1,"urg\u0065nt":1}"#).is_err());
}

#[test]
fn what_is_no_message_is_refused_with_a_cure() {
    for (json, says) in [
        ("", "EOF"),
        ("hello", "expected"),
        ("[1]", "JSON object"),
        ("{}", "`id`"),
        (r#"{"id":"","body":1}"#, "`id`"),
        (r#"{"id":7,"body":1}"#, "string"),
        (r#"{"id":"1"}"#, "body"),
        (r#"{"id":"1","id":"2","body":1}"#, "duplicate"),
        (r#"{"id":"1","body":1,"a":1,"a":2}"#, "twice"),
        (r#"{"id":"1","body":1,"seq":9}"#, "set by the server"),
        (r#"{"id":"1","body":1,"type":""}"#, "`type`"),
        (r#"{"id":"1","body":1,"type":"homing.x"}"#, "server's"),
        (
            r#"{"id":"1","body":1,"retracted":true}"#,
            "set by the server",
        ),
        (r#"{"id":"1","body":1,"expired":true}"#, "set by the server"),
        (r#"{"id":"1","body":1,"reactions":{}}"#, "set by the server"),
        (r#"{"id":"1","body":1,"bytes":"aGk="}"#, "not both"),
        (r#"{"id":"1","bytes":"aGk"}"#, "base64"),
        (r#"{"id":"1","bytes":"a-_="}"#, "base64"),
        (r#"{"id":"1","bytes":7}"#, "string"),
        (r#"{"id":"1","body":1,"ref":41}"#, "reply_to"),
        (r#"{"id":"1","body":1,"reply_to":0}"#, "starts at 1"),
        (r#"{"id":"1","body":1} x"#, "trailing"),
    ] {
        let error = read(json).unwrap_err().to_string();
        assert!(error.contains(says), "{json}: {error}");
    }
    assert!(Content::from_json(b"\"\xff\"", LIMITS).is_err());
}

#[test]
fn a_large_message_is_refused_with_its_size() {
    let small = ContentLimits {
        bytes_max: 10,
        ..LIMITS
    };
    let error = Content::from_json(&[b' '; 11], small).unwrap_err();
    assert!(matches!(
        error,
        EnvelopeError::TooLarge {
            bytes: 11,
            bytes_max: 10
        }
    ));
}

#[test]
fn bytes_travel_as_base64_in_place_of_a_body() {
    let content = read(r#"{"id":"1","type":"cipher","bytes":"AP8Q"}"#).unwrap();
    assert_eq!(content.format, Format::Bytes);
    assert_eq!(content.body, &b"\x00\xff\x10"[..]);
    let delivered = stored(&content);
    assert_eq!(delivered["bytes"], "AP8Q");
    assert!(delivered.get("body").is_none());
    assert!(read(r#"{"id":"1","bytes":""}"#).unwrap().body.is_empty());
}

#[test]
fn changes_name_their_message_and_are_delivered_as_they_were_sent() {
    for sent in [
        r#"{"id":"1","type":"edit","ref":41,"body":"on my bike","mentions":["bob"],"x":1}"#,
        r#"{"id":"1","type":"edit","ref":41,"bytes":"AP8Q"}"#,
        r#"{"id":"1","type":"retract","ref":41}"#,
        r#"{"id":"1","type":"reaction","ref":41,"body":{"key":"👍"}}"#,
        r#"{"id":"1","type":"reaction","ref":41,"body":{"key":"👍","remove":true}}"#,
    ] {
        let content = read(sent).unwrap();
        assert!(content.is_change());
        let mut delivered = stored(&content);
        for member in ["seq", "from", "at"] {
            delivered.as_object_mut().unwrap().remove(member);
        }
        let expected: serde_json::Value = serde_json::from_str(sent).unwrap();
        assert_eq!(delivered, expected);
    }
    let reaction = r#"{"id":"1","type":"reaction","ref":41,"body":{"key":"+1","remove":true}}"#;
    let reaction = read(reaction).unwrap().reaction().unwrap();
    assert_eq!((reaction.key.as_str(), reaction.is_removed), ("+1", true));
    assert!(
        read(r#"{"id":"1","body":{"key":"x"}}"#)
            .unwrap()
            .reaction()
            .is_none()
    );
}

#[test]
fn what_is_no_change_is_refused_with_a_cure() {
    let long = "x".repeat(REACTION_KEY_BYTES_MAX + 1);
    for (members, says) in [
        (r#""type":"edit","body":1"#.to_owned(), "`ref` says"),
        (
            r#""type":"edit","body":1,"ref":null"#.to_owned(),
            "`ref` says",
        ),
        (
            r#""type":"edit","body":1,"ref":0"#.to_owned(),
            "starts at 1",
        ),
        (
            r#""type":"edit","body":1,"ref":"41""#.to_owned(),
            "invalid type",
        ),
        (r#""type":"edit","ref":41"#.to_owned(), "body"),
        (
            r#""type":"edit","ref":41,"body":1,"reply_to":2"#.to_owned(),
            "`reply_to` out",
        ),
        (
            r#""type":"edit","ref":41,"body":1,"expires_at":9"#.to_owned(),
            "leave it out",
        ),
        (
            r#""type":"edit","ref":41,"body":1,"urgent":true"#.to_owned(),
            "leave it out",
        ),
        (r#""type":"retract""#.to_owned(), "`ref` says"),
        (
            r#""type":"retract","ref":41,"body":1"#.to_owned(),
            "leave `body`",
        ),
        (
            r#""type":"retract","ref":41,"bytes":"""#.to_owned(),
            "leave `body`",
        ),
        (
            r#""type":"retract","ref":41,"mentions":[]"#.to_owned(),
            "leave it out",
        ),
        (r#""type":"reaction","ref":41"#.to_owned(), "{\"key\""),
        (
            r#""type":"reaction","ref":41,"body":"👍""#.to_owned(),
            "{\"key\"",
        ),
        (
            r#""type":"reaction","ref":41,"bytes":"aGk=""#.to_owned(),
            "{\"key\"",
        ),
        (
            r#""type":"reaction","ref":41,"body":{"key":"a","x":1}"#.to_owned(),
            "{\"key\"",
        ),
        (
            r#""type":"reaction","ref":41,"body":{"key":""}"#.to_owned(),
            "1 to 64",
        ),
        (
            r#""type":"reaction","ref":41,"body":{"key":"a\n"}"#.to_owned(),
            "1 to 64",
        ),
        (
            format!(r#""type":"reaction","ref":41,"body":{{"key":"{long}"}}"#),
            "1 to 64",
        ),
        (
            r#""type":"reaction","ref":41,"body":{"key":"a"},"attachments":[]"#.to_owned(),
            "leave it out",
        ),
    ] {
        let error = read(&format!(r#"{{"id":"1",{members}}}"#))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{members}: {error}");
    }
}

#[test]
fn attachments_are_delivered_as_they_were_sent() {
    let full = serde_json::json!({
        "id": "f1", "size": 81234, "content_type": "image/svg+xml; charset=utf-8", "name": "a b.svg",
        "url": "https://files.example.com/f1?x=1", "sha256": "0f".repeat(32), "width": 3,
    });
    let least = serde_json::json!({"id": "f2", "size": 0, "content_type": "a/b"});
    for attachments in [
        serde_json::json!([full, least]),
        serde_json::json!(vec![least.clone(); LIMITS.attachments_max]),
        serde_json::json!([]),
        serde_json::Value::Null,
    ] {
        let sent = serde_json::json!({"id": "1", "body": 1, "attachments": attachments});
        let delivered = stored(&read(&sent.to_string()).unwrap());
        assert_eq!(delivered["attachments"], attachments);
    }
}

#[test]
fn attachments_that_are_none_are_refused_with_a_cure() {
    let good = serde_json::json!({"id": "f1", "size": 1, "content_type": "a/b"});
    let with = |name: &str, value: serde_json::Value| {
        let mut attachment = good.clone();
        attachment[name] = value;
        serde_json::json!([attachment])
    };
    for (attachments, says) in [
        (good.clone(), "list"),
        (serde_json::json!(["f1"]), "list"),
        (serde_json::json!([{"id": "f1", "size": 1}]), "content_type"),
        (
            serde_json::json!(vec![good.clone(); LIMITS.attachments_max + 1]),
            "at most 10",
        ),
        (with("id", "".into()), "`id`"),
        (with("id", "a\n".into()), "`id`"),
        (with("size", (-1).into()), "list"),
        (with("size", 1.5.into()), "list"),
        (with("size", ((1_u64 << 53) + 1).into()), "`size`"),
        (with("content_type", "image".into()), "`content_type`"),
        (with("content_type", "a/b/c".into()), "`content_type`"),
        (with("content_type", "a/b\r\nX: y".into()), "`content_type`"),
        (with("name", "x".repeat(256).into()), "`name`"),
        (with("url", "javascript:alert(1)".into()), "`url`"),
        (with("url", "https://".into()), "`url`"),
        (with("url", "https://a b".into()), "`url`"),
        (with("sha256", "0f".into()), "`sha256`"),
        (with("sha256", "g".repeat(64).into()), "`sha256`"),
    ] {
        let sent = serde_json::json!({"id": "1", "body": 1, "attachments": attachments});
        let error = read(&sent.to_string()).unwrap_err().to_string();
        assert!(error.contains(says), "{attachments}: {error}");
    }
}

#[test]
fn a_tombstone_has_nothing_but_its_place() {
    let from = Subject::new("bob").unwrap();
    let stamp = Stamp {
        sequence: Sequence::FIRST,
        from: &from,
        at_millis: 5,
    };
    let id = ClientMessageId::new("1".to_owned()).unwrap();
    for (gone, member) in [(Gone::Retracted, "retracted"), (Gone::Expired, "expired")] {
        let json = tombstone_json(stamp, &id, "text", gone);
        let mut expected =
            serde_json::json!({"seq": 1, "id": "1", "from": "bob", "at": 5, "type": "text"});
        expected[member] = true.into();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&json).unwrap(),
            expected
        );
    }
}

/// Goal: the bounds are those of the settings, and a refusal names them.
#[test]
fn mentions_and_attachments_are_bounded_by_the_limits() {
    let limits = ContentLimits {
        mentions_max: 1,
        attachments_max: 0,
        ..LIMITS
    };
    let file = r#"{"id":"f","size":1,"content_type":"a/b"}"#;
    for (member, says) in [
        (r#""mentions":["a"],"attachments":[]"#.to_owned(), None),
        (r#""mentions":["a","b"]"#.to_owned(), Some("at most 1 user")),
        (format!("\"attachments\":[{file}]"), Some("at most 0 files")),
    ] {
        let json = format!(r#"{{"id":"1","body":1,{member}}}"#);
        match (Content::from_json(json.as_bytes(), limits), says) {
            (Ok(_), None) => {}
            (Err(error), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
            (read, _) => panic!("{json}: {read:?}"),
        }
    }
}
