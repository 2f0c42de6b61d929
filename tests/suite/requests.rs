//! Requests over MQTT: the same answers as over REST, where the device wants them.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{Place, Received, TestBroker, Wire, text, until},
    providers::{PROJECT, Providers},
};

/// Asks with QoS 1, and takes the answer on me/device and the PUBACK after it.
pub(crate) async fn ask(wire: &mut Wire, operation: &str, arguments: &Value) -> Value {
    let payload = arguments.to_string();
    let topic = format!("q/{operation}");
    let packet_id = wire.publish(&topic, payload.as_bytes()).await;
    let answer = wire.delivery().await;
    assert_eq!((answer.topic.as_str(), answer.packet_id), ("me/device", 0));
    let puback = wire.puback().await;
    assert_eq!((puback.packet_id, puback.code), (packet_id, 0));
    let answer = answer.json();
    assert_eq!(
        (&answer["event"], &answer["operation"]),
        (&json!("answer"), &json!(operation))
    );
    answer
}

/// Response Topic and Correlation Data.
fn reply_to(topic: &str, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[0x08][..], &text(topic), &[0x09], &length, data].concat()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_is_answered_what_rest_answers(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/device"]).await;
    for id in ["1", "2", "3"] {
        phone.say(&conversation, id).await;
    }
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    old.subscribe(&["me/#"]).await;
    let rest = async |path: &str| {
        let path = format!("/{conversation}{path}");
        broker.rest(Method::GET, "alice", &path, None).await
    };
    for (operation, arguments, path) in [
        ("conversation", json!({}), ""),
        ("history", json!({}), "/messages"),
        (
            "history",
            json!({"after": 1, "limit": 1}),
            "/messages?after=1&limit=1",
        ),
        (
            "history",
            json!({"before": 3, "limit": 1}),
            "/messages?before=3&limit=1",
        ),
        ("history", json!({"after": 9}), "/messages?after=9"),
        (
            "history",
            json!({"after": 1, "before": 2}),
            "/messages?after=1&before=2",
        ),
        (
            "history",
            json!({"around": 2, "limit": 2}),
            "/messages?around=2&limit=2",
        ),
        (
            "history",
            json!({"at": 0, "limit": 1}),
            "/messages?at=0&limit=1",
        ),
        ("history", json!({"around": -1}), "/messages?around=-1"),
        ("history", json!({"limit": 201}), "/messages?limit=201"),
    ] {
        let (status, expected) = rest(path).await;
        let mut arguments = arguments;
        arguments["conversation"] = json!(conversation);
        for wire in [&mut phone, &mut old] {
            let answer = ask(wire, operation, &arguments).await;
            assert_eq!(answer["status"], status.as_u16(), "{operation} {arguments}");
            assert_eq!(answer["body"], expected, "{operation} {arguments}");
            assert!(answer.get("correlation").is_none());
        }
    }
    broker.stop().await;
}

/// Goal: what is refused is answered with a problem that says what to do, and acknowledged.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_refused_request_is_answered_with_a_problem(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mine = broker.conversation(&["alice"]).await;
    let foreign = broker.conversation(&["bob"]).await;
    let mut phone = broker.listener("alice", "phone").await;
    for (operation, arguments, status, says) in [
        (
            "nothing",
            json!({}),
            404,
            "known are conversation/create, conversation, history,",
        ),
        (
            "conversation/",
            json!({"conversation": mine}),
            404,
            "unknown operation",
        ),
        ("conversation", json!({}), 400, "`conversation`"),
        ("conversation", json!({"conversation": 7}), 400, "string"),
        ("conversation", json!({"conversation": "x"}), 400, "uuid"),
        (
            "conversation",
            json!({"conversation": mine, "x": 1}),
            400,
            "`x`",
        ),
        (
            "conversation",
            json!({"conversation": foreign}),
            404,
            "among yours",
        ),
        (
            "history",
            json!({"conversation": foreign}),
            404,
            "among yours",
        ),
        (
            "history",
            json!({"conversation": mine, "limit": 0}),
            400,
            "between 1 and 200",
        ),
        (
            "history",
            json!({"conversation": mine, "after": -1}),
            400,
            "not negative",
        ),
        (
            "history",
            json!({"conversation": mine, "offset": 1}),
            400,
            "`offset`",
        ),
    ] {
        let answer = ask(&mut phone, operation, &arguments).await;
        let problem = &answer["body"];
        assert_eq!(
            (&answer["status"], &problem["status"]),
            (&json!(status), &json!(status))
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{operation} {arguments}: {detail}");
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.starts_with("urn:homing:problem:") && problem["title"].is_string());
    }
    // The admin scope of a token counts as it does over REST.
    let mut admin = broker.listener("admin", "console").await;
    let of_foreign = json!({"conversation": foreign});
    let shown = ask(&mut admin, "conversation", &of_foreign).await;
    assert_eq!(
        (&shown["status"], &shown["body"]["id"]),
        (&json!(200), &json!(foreign))
    );
    assert_eq!(ask(&mut admin, "history", &of_foreign).await["status"], 404);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_answer_comes_under_the_name_that_the_device_gave_it(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let identified = [0x0b, 5];
    phone.subscribe_with(&[("me/#", 1)], &identified).await;
    let payload = json!({"conversation": conversation}).to_string();
    for (topic, data) in [
        ("me/device", &b"\x00\xff"[..]),
        ("me/answers/1", b""),
        ("me/answers/2", &[7; 90]),
    ] {
        let properties = reply_to(topic, data);
        let packet =
            phone.publish_packet(0x32, 9, "q/conversation", &properties, payload.as_bytes());
        phone.send(&packet).await;
        let answer = phone.delivery().await;
        assert_eq!(answer.topic, topic);
        assert_eq!(answer.properties.binary(0x09), Some(data));
        assert_eq!(answer.properties.numbers(0x0b), [5]);
        assert_eq!(answer.json()["body"]["id"], json!(conversation));
        assert_eq!(phone.puback().await.code, 0);
    }

    // MQTT 3.1.1 has no properties, and QoS 0 no PUBACK.
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    old.subscribe(&["me/device"]).await;
    for correlation in [json!("a"), json!(7)] {
        let arguments = json!({"conversation": conversation, "correlation": correlation});
        let answer = ask(&mut old, "conversation", &arguments).await;
        assert_eq!(answer["correlation"], correlation);
        let payload = arguments.to_string();
        let packet = old.publish_packet(0x30, 0, "q/conversation", &[], payload.as_bytes());
        old.send(&packet).await;
        assert_eq!(old.delivery().await.json(), answer);
        old.assert_quiet().await;
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_no_request_is_refused_and_the_connection_goes_on(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut phone = broker.device("alice", "phone").await;
    phone.subscribe(&["me/device"]).await;
    let (mut old, _) = broker.connect(broker.v3("alice", "old")).await;
    old.subscribe(&["me/device"]).await;
    let long = format!("q/{}", "x".repeat(65));
    for (topic, payload, code) in [
        ("q/conversation", &b"hello"[..], 0x99),
        ("q/conversation", b"[]", 0x99),
        ("q/conversation", b"\xff", 0x99),
        ("q/conversation", br#"{"correlation":{}}"#, 0x99),
        ("q/", b"{}", 0x87),
        ("q", b"{}", 0x87),
        ("q/Conversation", b"{}", 0x87),
        ("q/$SYS", b"{}", 0x87),
        (&long, b"{}", 0x87),
    ] {
        let refused = phone.ask(topic, payload).await;
        assert_eq!(refused.code, code, "{topic}: {refused:?}");
        assert!(!refused.properties.text(0x1f).unwrap().is_empty());
        let event = old.ask_refused(topic, payload).await.json();
        assert_eq!(
            (&event["event"], &event["code"]),
            (&json!("refused"), &json!(code))
        );
        assert_eq!(event["topic"], topic);
    }
    for (topic, code) in [
        ("c/x/messages", 0x90),
        ("me", 0x90),
        ("", 0x90),
        ("me/answers", 0x87),
    ] {
        let properties = reply_to(topic, b"x");
        let packet = phone.publish_packet(0x32, 7, "q/conversation", &properties, b"");
        phone.send(&packet).await;
        let refused = phone.puback().await;
        assert_eq!((refused.packet_id, refused.code), (7, code), "{topic}");
        assert!(refused.properties.text(0x1f).unwrap().contains("me/"));
    }
    let wildcard = phone.publish_packet(0x32, 8, "q/a", &reply_to("me/#", b""), b"");
    phone.send(&wildcard).await;
    phone.assert_disconnected(0x82).await;
    old.assert_quiet().await;
    broker.stop().await;
}

/// Goal: more requests than wait at a time are all answered, in order; what else the device
/// sends is taken in its turn.
#[sqlx::test(migrator = "MIGRATOR")]
async fn many_requests_at_once_are_answered_in_order(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice"]).await;
    let mut phone = broker.listener("alice", "phone").await;
    let mut packets = Vec::new();
    for number in 1..=40_u16 {
        let payload = json!({"conversation": conversation, "correlation": number}).to_string();
        let payload = payload.as_bytes();
        packets.extend(phone.publish_packet(0x32, number, "q/conversation", &[], payload));
    }
    packets.extend([0xc0, 0]);
    phone.send(&packets).await;
    let (mut answered, mut acknowledged) = (Vec::new(), Vec::new());
    loop {
        match phone.receive().await {
            Received::Publish(answer) => answered.push(answer.json()["correlation"].clone()),
            Received::PubAck(puback) => {
                assert_eq!(
                    (puback.code, answered.last()),
                    (0, Some(&json!(puback.packet_id)))
                );
                acknowledged.push(puback.packet_id);
            }
            Received::PingResp => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        answered.len() >= 32,
        "the PINGREQ was read after {}",
        answered.len()
    );
    while acknowledged.len() < 40 {
        answered.push(phone.delivery().await.json()["correlation"].clone());
        acknowledged.push(phone.puback().await.packet_id);
    }
    let all: Vec<_> = (1..=40).collect();
    assert_eq!(acknowledged, all);
    assert_eq!(json!(answered), json!(all));
    // An answer that nobody listens to is not sent; the request is done all the same.
    let mut deaf = broker.device("alice", "deaf").await;
    assert_eq!(deaf.ask("q/conversation", b"").await.code, 0);
    broker.stop().await;
}

/// Goal: why a message woke a device, or did not, is told in the same words. Both look at what
/// goes on meanwhile, until nothing does.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_asks_what_became_of_a_message(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("alice", "phone").await;
    let mut laptop = broker.device("bob", "laptop").await;
    laptop.say(&conversation, "hello").await;
    phone.drain(1, 1).await;
    for (arguments, path, status) in [
        (json!({"seq": 1}), "1/pushes", 200),
        (json!({"seq": 2}), "2/pushes", 404),
        (json!({"seq": 1, "user": "bob"}), "1/pushes?user=bob", 403),
    ] {
        let path = format!("/v1/conversations/{conversation}/messages/{path}");
        let mut arguments = arguments;
        arguments["conversation"] = json!(conversation);
        until("the same answer", async || {
            let answer = ask(&mut phone, "pushes", &arguments).await;
            let (_, shown) = broker.request(Method::GET, "alice", &path, None).await;
            assert_eq!(answer["status"], status, "{answer}");
            answer["body"] == shown
        })
        .await;
    }
    broker.stop().await;
}

/// Goal: what a device sets for itself over MQTT is what REST shows, and what REST refuses is
/// refused in the same words.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_sets_how_it_is_woken(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let providers = Providers::start(folder.path()).await;
    let profile = std::fs::read_to_string(folder.path().join("push.toml")).unwrap();
    let broker = Place::new(&pool, &[]).with_profile(&profile).start().await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("alice", "my phone").await;
    let token = "/v1/devices/my%20phone/push-token".to_owned();
    let notifications = format!("/v1/conversations/{conversation}/notifications");
    let quiet_hours = "/v1/me/quiet-hours".to_owned();
    let of_it = |mut arguments: Value| {
        arguments["conversation"] = json!(conversation);
        arguments
    };
    let times = json!({"from": "22:00", "until": "07:00", "zone": "Europe/Berlin"});
    let fcm = json!({"provider": "fcm", "app": PROJECT, "token": "abc", "locale": "de"});
    for (operation, arguments, path) in [
        ("push/token/get", json!({}), &token),
        ("push/token/set", fcm.clone(), &token),
        ("push/token/get", json!({}), &token),
        ("notifications/get", of_it(json!({})), &notifications),
        (
            "notifications/set",
            of_it(json!({"muted_until": "forever", "mentions": false})),
            &notifications,
        ),
        (
            "notifications/set",
            of_it(json!({"muted_until": null})),
            &notifications,
        ),
        ("quiet-hours/get", json!({}), &quiet_hours),
        ("quiet-hours/set", times, &quiet_hours),
        ("quiet-hours/get", json!({}), &quiet_hours),
        ("devices", json!({}), &"/v1/devices".to_owned()),
    ] {
        let answer = ask(&mut phone, operation, &arguments).await;
        let (status, shown) = broker.request(Method::GET, "alice", path, None).await;
        assert_eq!(answer["status"], status.as_u16(), "{operation}: {answer}");
        assert_eq!(answer["body"], shown, "{operation}");
    }
    let shown = ask(&mut phone, "notifications/get", &of_it(json!({}))).await;
    assert_eq!(
        shown["body"],
        json!({"muted_until": null, "mentions": false})
    );

    for (operation, arguments, path) in [
        (
            "push/token/set",
            json!({"provider": "fcm", "app": "other", "token": "x"}),
            &token,
        ),
        (
            "notifications/set",
            json!({"muted_until": -1}),
            &notifications,
        ),
        (
            "quiet-hours/set",
            json!({"from": "1", "until": "2", "zone": "x"}),
            &quiet_hours,
        ),
        (
            "quiet-hours/set",
            json!({"from": "01:00", "until": "02:00", "zone": "x"}),
            &quiet_hours,
        ),
    ] {
        let put = broker.request(Method::PUT, "alice", path, Some(arguments.clone()));
        let (status, refusal) = put.await;
        let arguments = match operation {
            "notifications/set" => of_it(arguments),
            _ => arguments,
        };
        let answer = ask(&mut phone, operation, &arguments).await;
        assert_eq!(
            (&answer["status"], status.as_u16()),
            (&json!(400), 400),
            "{answer}"
        );
        assert_eq!(answer["body"]["type"], refusal["type"]);
    }

    for (operation, path) in [
        ("push/token/delete", &token),
        ("quiet-hours/delete", &quiet_hours),
    ] {
        for _ in 0..2 {
            let answer = ask(&mut phone, operation, &json!({})).await;
            assert_eq!((&answer["status"], answer.get("body")), (&json!(204), None));
        }
        let (_, shown) = broker.request(Method::GET, "alice", path, None).await;
        assert!(
            shown.is_null() || shown["status"] == 404,
            "{operation}: {shown}"
        );
        let too_many = ask(&mut phone, operation, &json!({"x": 1})).await;
        assert_eq!(too_many["status"], 400);
    }
    broker.stop().await;
    drop(providers);
}
