use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DOCUMENTS: [Document; 2] = [Document::Entry, Document::Answer];

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
    pairs
        .map(|pair| u8::from_str_radix(&pair, 16).unwrap())
        .collect()
}

fn encode(value: &Value, document: Document) -> Vec<u8> {
    from_json(value.to_string().as_bytes(), document)
}

fn decode(cbor: &[u8], document: Document) -> Value {
    let json = to_json(cbor, document).unwrap_or_else(|error| panic!("{}: {error}", hex(cbor)));
    serde_json::from_slice(&json).unwrap()
}

/// Goal: the bytes of the documentation are the bytes on the wire.
#[test]
fn a_message_is_what_the_documentation_shows() {
    let entry = json!({
        "seq": 42, "id": "0198f3c2-0000-7000-8000-000000000001", "from": "alice",
        "at": 1_766_400_000_123_i64, "type": "text", "body": "on my way", "reply_to": 41,
    });
    let cbor = encode(&entry, Document::Entry);
    assert_eq!(
        hex(&cbor),
        "a701182a02500198f3c2000070008000000000000001\
         0365616c696365041b0000019b45a5007b050006696f6e206d7920776179071829"
    );
    assert_eq!(decode(&cbor, Document::Entry), entry);
}

#[test]
fn numbers_are_as_short_as_they_can_be() {
    for (value, expected) in [
        (json!(0), "00"),
        (json!(23), "17"),
        (json!(24), "1818"),
        (json!(u64::MAX), "1bffffffffffffffff"),
        (json!(-1), "20"),
        (json!(i64::MIN), "3b7fffffffffffffff"),
        (json!(0.0), "f90000"),
        (json!(-0.0), "f98000"),
        (json!(1.5), "f93e00"),
        (json!(65504.0), "f97bff"),
        (json!(100_000.0), "fa47c35000"),
        (json!(3.402_823_466_385_288_6e38), "fa7f7fffff"),
        (json!(1.1), "fb3ff199999999999a"),
        (json!(1e300), "fb7e37e43c8800759c"),
        (json!(5.960_464_477_539_063e-8), "f90001"),
        (json!({"b": 1, "aa": 2, "a": 3}), "a3616103616201626161 02"),
    ] {
        let cbor = encode(&value, Document::Entry);
        assert_eq!(cbor, bytes(expected), "{value} is {}", hex(&cbor));
        assert_eq!(decode(&cbor, Document::Entry), value);
    }
}

/// Goal: `body` is the application's in a message and the server's in an answer.
#[test]
fn members_have_numbers_where_the_server_knows_them() {
    let entry = json!({"body": {"seq": 1, "id": "x"}, "seq": {"seq": 2}, "x": {"seq": 3}});
    let cbor = encode(&entry, Document::Entry);
    assert_eq!(
        hex(&cbor),
        "a301a163736571020 6a2626964617863736571016178a16373657103".replace(' ', "")
    );
    let answer = json!({"event": "answer", "body": {"entries": [{"seq": 1, "body": {"seq": 2}}]}});
    let cbor = encode(&answer, Document::Answer);
    assert_eq!(
        hex(&cbor),
        "a206a1183281a2010106a163736571021766616e73776572"
    );
    assert_eq!(decode(&cbor, Document::Answer), answer);
    // In whatever list or object of the server an entry stands.
    for place in [
        json!({"messages": [{"seq": 1}]}),
        json!({"row": {"last_message": {"seq": 1}}}),
        json!({"behind": {"from": 1, "to": 2}, "gap": {"from": 1, "to": 2}}),
    ] {
        let cbor = encode(&json!({ "body": place }), Document::Answer);
        let texts = cbor.iter().filter(|byte| **byte >> 5 == 3).count();
        assert_eq!(texts, 0, "{place}: {}", hex(&cbor));
    }
}

#[test]
fn ids_are_bytes_if_they_are_spelled_as_usual() {
    let conversation = "AZjzwgAAcACAAAAAAAAAAQ";
    let uuid = "0198f3c2-0000-7000-8000-000000000001";
    let short =
        json!({"id": uuid, "from": uuid, "conversation": conversation, "users": [uuid, "bob"]});
    let cbor = encode(&short, Document::Answer);
    assert_eq!(cbor.len(), 1 + 18 + 18 + 18 + 2 + 1 + 17 + 4);
    assert_eq!(decode(&cbor, Document::Answer), short);
    for (name, text) in [
        ("id", uuid.to_uppercase()),
        ("id", uuid.replace('-', "")),
        ("id", format!("{{{uuid}}}")),
        ("id", conversation.to_owned()),
        ("conversation", uuid.to_owned()),
        ("conversation", "AZjzwgAAcACAAAAAAAAAAR".to_owned()),
        ("body", uuid.to_owned()),
        ("title", uuid.to_owned()),
    ] {
        let long = json!({ name: text });
        let cbor = encode(&long, Document::Entry);
        assert!(cbor.ends_with(text.as_bytes()), "{long}: {}", hex(&cbor));
        assert_eq!(decode(&cbor, Document::Entry), long);
    }
}

#[test]
fn a_body_of_bytes_is_a_byte_string() {
    let entry = json!({"id": "1", "bytes": "AP8="});
    let cbor = encode(&entry, Document::Entry);
    assert_eq!(hex(&cbor), "a2026131064200ff");
    assert_eq!(decode(&cbor, Document::Entry), entry);
    // Under its own name, and in pieces.
    for other in ["a2026131656279746573 4200ff", "bf026131065f410041ffffff"] {
        assert_eq!(decode(&bytes(other), Document::Entry), entry);
    }
    for odd in [
        json!({"bytes": "AP8"}),
        json!({"bytes": "AP9="}),
        json!({"bytes": 7}),
        json!({"bytes": "AP8=", "body": 1}),
        json!({"x": {"bytes": "AP8="}}),
    ] {
        assert_eq!(decode(&encode(&odd, Document::Entry), Document::Entry), odd);
    }
}

/// Goal: whatever a JSON client could store reaches a CBOR client, as it was written.
#[test]
fn what_serde_cannot_hold_is_embedded() {
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for body in [r#""\ud800""#, "1e999", deep.as_str(), r#"{"a":[-1e999]}"#] {
        for document in DOCUMENTS {
            let json = format!(r#"{{"seq":1,"body":{body}}}"#);
            let cbor = from_json(json.as_bytes(), document);
            assert_eq!(cbor[..5], [0xa2, 1, 1, 6, 0xd9], "{}", hex(&cbor));
            assert_eq!(to_json(&cbor, document).unwrap(), json.as_bytes());
        }
    }
    let cbor = from_json(b"[1e999]", Document::Entry);
    assert_eq!(to_json(&cbor, Document::Entry).unwrap(), b"[1e999]");
    // A number in the place of a type is not one of the types.
    let odd = json!({"type": 1});
    assert_eq!(decode(&encode(&odd, Document::Entry), Document::Entry), odd);
}

#[test]
fn names_may_be_texts_and_lengths_open() {
    let entry = json!({"id": "1", "type": "edit", "body": ["ab", {"c": null}]});
    for cbor in [
        "a3 026131 0501 06826261 62a16163f6",
        "bf 626964 6131 6474797065 64 65646974 64626f6479 9f 7f 6161 6162 ff bf 6163f6 ff ff ff",
        "a3 1802 7801 31 190005 1801 1a00000006 8262 6162 b801 6163 f6",
    ] {
        assert_eq!(decode(&bytes(cbor), Document::Entry), entry, "{cbor}");
    }
}

#[test]
fn what_has_no_json_is_refused_with_a_cure() {
    for (cbor, says) in [
        ("", "end of input"),
        ("a1", "end of input"),
        ("a10101 00", "1 bytes follow"),
        ("a1021a", "end of input"),
        ("a2 0101 0102", "`seq` appears twice"),
        ("a2 0101 63736571 02", "`seq` appears twice"),
        ("a2 0600 a0", "name of a member"),
        ("a1 06 a2 6161 01 6161 02", "`a` appears twice"),
        ("a2 0641ff 656279746573 41ff", "`bytes` appears twice"),
        ("bf 01 01 7f 62 7365 61 71 ff 02 ff", "`seq` appears twice"),
        ("a1 00 01", "number 0"),
        ("a1 1903e7 01", "number 999"),
        ("a1 1bffffffffffffffff 01", "number 18446744073709551615"),
        ("a1 20 01", "name of a member"),
        ("a1 f6 01", "name of a member"),
        ("a1 06 a1 01 02", "name of a member"),
        ("a1 0518ff", "no type with the number 255"),
        ("a1 0520", "no type with the number -1"),
        ("a1 02 43010203", "16 bytes"),
        ("a1 06 81 4101", "inside a body"),
        ("a1 07 4101", "16 bytes"),
        ("a1 01 c000", "262"),
        ("a1 01 d9010600", "262"),
        ("a1 01 d90106 41 7b", "tag 262 is JSON"),
        ("a1 01 f7", "no such value"),
        ("a1 01 f0", "no such value"),
        ("a1 01 ff", "no such value"),
        ("a1 01 f97e00", "infinity"),
        ("a1 01 f97c00", "infinity"),
        ("a1 01 fb7ff0000000000000", "infinity"),
        ("a1 06 61ff", "not CBOR"),
        ("a1 01 1c", "no such value"),
        // Lengths that nobody will ever send.
        ("bb ffffffffffffffff 01 01", "end of input"),
        ("a1 06 9b ffffffffffffffff 01", "end of input"),
        ("a1 06 7b ffffffffffffffff 61", "not CBOR"),
        ("a1 06 5b 7fffffffffffffff 61", "not CBOR"),
    ] {
        let error = to_json(&bytes(cbor), Document::Entry)
            .expect_err(cbor)
            .to_string();
        assert!(error.contains(says), "{cbor}: {error}");
    }
}

#[test]
fn depth_has_a_bound() {
    for begin in [0x81, 0x9f] {
        let nested = |depth: usize| [vec![begin; depth], vec![0xf6]].concat();
        let deep = to_json(&nested(1_000_000), Document::Entry).unwrap_err();
        assert!(matches!(deep, CborError::TooDeep), "{deep}");
        let one_more = to_json(&nested(DEPTH_MAX + 1), Document::Entry).unwrap_err();
        assert!(matches!(one_more, CborError::TooDeep), "{one_more}");
    }
    let nested = [vec![0x81; DEPTH_MAX], vec![0xf6]].concat();
    assert!(to_json(&nested, Document::Entry).is_ok());
    // What serde holds is not too deep to come back.
    for depth in 120..140 {
        let json = format!("{{\"body\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        for document in DOCUMENTS {
            let cbor = from_json(json.as_bytes(), document);
            assert_eq!(to_json(&cbor, document).unwrap(), json.as_bytes());
        }
    }
}

/// Goal: the table of the documentation is the table of the code.
#[test]
fn the_documentation_names_every_number() {
    let documentation = include_str!("../../../docs/cbor.md");
    let rows = documentation.lines().filter_map(|line| {
        let mut cells = line
            .split('|')
            .skip(1)
            .map(|cell| cell.trim().trim_matches('`'));
        let number: usize = cells.next()?.parse().ok()?;
        Some((number, cells.next()?.to_owned()))
    });
    let (types, members): (Vec<_>, Vec<_>) =
        rows.partition(|(_, name)| members::TYPES.contains(&name.as_str()));
    let names = members::MEMBERS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(members, (1..).zip(names).collect::<Vec<_>>());
    let names = members::TYPES.iter().map(|name| (*name).to_owned());
    assert_eq!(types, (0..).zip(names).collect::<Vec<_>>());
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => prop::sample::select(members::MEMBERS).prop_map(|(name, _)| name.to_owned()),
        1 => Just("bytes".to_owned()),
        2 => any::<String>(),
        1 => "[a-z]{20,30}",
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::sample::select(members::TYPES).prop_map(str::to_owned),
        any::<[u8; 16]>().prop_map(|id| uuid::Uuid::from_bytes(id).to_string()),
        any::<[u8; 16]>().prop_map(|id| uuid::Uuid::from_bytes(id).simple().to_string()),
        any::<[u8; 16]>().prop_map(|id| {
            crate::domain::ids::ConversationId(uuid::Uuid::from_bytes(id)).to_string()
        }),
        "[A-Za-z0-9+/]{0,8}={0,2}",
        "[A-Za-z0-9_-]{22}",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-30..30_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<i16>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any_name(), inner, 0..8)
                .prop_map(|members| Value::from(serde_json::Map::from_iter(members))),
        ]
    })
}

proptest! {
    /// Goal: a CBOR client and a JSON client read the same.
    #[test]
    fn json_comes_back_as_it_was(
        value in prop::collection::btree_map(any_name(), any_json(), 0..8)
            .prop_map(|members| Value::from(serde_json::Map::from_iter(members))),
        is_answer: bool,
    ) {
        let document = DOCUMENTS[usize::from(is_answer)];
        let cbor = encode(&value, document);
        let mut rest = minicbor::Decoder::new(&cbor);
        rest.skip().unwrap();
        prop_assert_eq!(rest.position(), cbor.len());
        let json = to_json(&cbor, document).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), value);
        // Deterministic: what comes back gives the same bytes.
        prop_assert_eq!(from_json(&json, document), cbor);
    }

    /// Goal: no payload panics, and what is accepted is JSON.
    #[test]
    fn any_bytes_are_read_or_refused(
        value in any_json(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut cbor = encode(&value, Document::Answer);
        for (at, byte) in changes {
            let at = at.index(cbor.len());
            cbor[at] = byte;
        }
        let whole = cbor.clone();
        cbor.truncate(cut.index(cbor.len()));
        for input in [whole, cbor, noise] {
            for document in DOCUMENTS {
                if let Ok(json) = to_json(&input, document) {
                    let read = serde_json::from_slice::<&serde_json::value::RawValue>(&json);
                    prop_assert!(read.is_ok(), "{:?}", json);
                }
            }
        }
    }

    /// Goal: a payload that is cut off is never taken for a whole one.
    #[test]
    fn what_is_cut_off_is_refused(value in any_json(), cut in any::<prop::sample::Index>()) {
        let mut cbor = encode(&value, Document::Entry);
        cbor.truncate(cut.index(cbor.len()));
        prop_assert!(to_json(&cbor, Document::Entry).is_err());
    }
}

/// What a message costs on its way to the CBOR clients and from one.
#[test]
#[ignore = "prints figures; run it with --release --run-ignored all --no-capture"]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn what_transcoding_costs() {
    let entry = json!({
        "seq": 4711, "id": "0198f3c2-0000-7000-8000-000000000001", "from": "alice",
        "at": 1_766_400_000_123_i64, "type": "text", "body": "x".repeat(54),
    })
    .to_string();
    let cbor = from_json(entry.as_bytes(), Document::Entry);
    let rounds = 200_000_u32;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(from_json(
            std::hint::black_box(entry.as_bytes()),
            Document::Entry,
        ));
    }
    let down = began.elapsed() / rounds;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(to_json(std::hint::black_box(&cbor), Document::Entry).unwrap());
    }
    let up = began.elapsed() / rounds;
    println!(
        "{} bytes of JSON, {} of CBOR: {down:?} down, {up:?} up",
        entry.len(),
        cbor.len()
    );
}
