//! Browsers.

use std::time::Duration;

use homing::{
    domain::{ids::ConversationId, message::Sequence, push::Provider},
    push::notification::{Class, Outcome, Purpose},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use super::{
    Stage, alert, dead, dropped, long_preview, mismatched, notification, now, our_fault, retry,
    subscriber, wake,
};
use crate::providers::Fault;

#[tokio::test]
async fn a_browser_reads_what_it_is_sent() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::WebPush);
    let subscription = stage.providers.subscribe("laptop");
    let mut urgent = wake(Class::Alert);
    urgent.is_urgent = true;
    let conversation = urgent.conversation;
    let sent = [
        notification(Purpose::Wake(urgent)),
        notification(Purpose::Wake(wake(Class::Alert))),
        notification(Purpose::Clear(vec![(conversation, Sequence::FIRST)])),
        long_preview(Class::Alert),
    ];
    let address = subscriber(&subscription);
    for notification in &sent {
        let outcome = client.send(&address, notification, now()).await;
        assert_eq!(outcome, Outcome::Accepted, "{notification:?}");
    }
    let accepted = stage.providers.wait_for(sent.len()).await;
    let read = |number: usize| -> Value {
        let payload = subscription.decrypt(&accepted[number]).unwrap();
        serde_json::from_slice(&payload).unwrap()
    };
    let expected = json!({
        "conversation": conversation,
        "seq": 7,
        "class": "alert",
        "urgent": true,
        "badge": 3,
        "text": "New message",
    });
    assert_eq!(read(0), expected);
    let expected = json!({ "cleared": [[conversation, 1]], "badge": 3 });
    assert_eq!(read(2), expected);
    let preview = read(3);
    assert_eq!(preview["title"], "Zoë");
    assert!(preview["body"].as_str().unwrap().ends_with('…'));

    let urgencies: Vec<_> = accepted.iter().map(|a| &*a.headers["urgency"]).collect();
    assert_eq!(urgencies, ["high", "normal", "low", "normal"]);
    let lengths: Vec<_> = accepted.iter().map(|a| a.body.len()).collect();
    assert_eq!(lengths, [512 + 103, 512 + 103, 512 + 103, 4096]);
}

/// Goal: a push service does not learn who is in a conversation with whom.
#[tokio::test]
async fn a_topic_is_the_same_for_a_conversation_on_one_device_only() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::WebPush);
    let (laptop, tablet) = (
        stage.providers.subscribe("laptop"),
        stage.providers.subscribe("tablet"),
    );
    let (first, second) = (alert(), alert());
    for (subscription, notification) in [
        (&laptop, &first),
        (&laptop, &first),
        (&laptop, &second),
        (&tablet, &first),
    ] {
        let address = subscriber(subscription);
        assert_eq!(
            client.send(&address, notification, now()).await,
            Outcome::Accepted
        );
    }
    let accepted = stage.providers.wait_for(4).await;
    let topics: Vec<_> = accepted.iter().map(|a| &*a.headers["topic"]).collect();
    assert_eq!(topics[0], topics[1]);
    assert_ne!(topics[0], topics[2]);
    assert_ne!(topics[0], topics[3]);
    assert!(topics.iter().all(|topic| topic.len() == 32));
}

#[tokio::test]
async fn what_the_push_service_answers_decides_what_becomes_of_it() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::WebPush);
    let wait = Some(Duration::from_secs(17));
    let cases = [
        (Fault::refuse(404, "gone"), dead("HTTP 404 gone", None)),
        (Fault::refuse(410, "gone"), dead("HTTP 410 gone", None)),
        (
            Fault::retry_after(429, "slow", "17"),
            retry("HTTP 429 slow", wait),
        ),
        (Fault::refuse(503, "away"), retry("HTTP 503 away", None)),
        (Fault::refuse(413, "large"), dropped("HTTP 413 large")),
        (Fault::refuse(307, "there"), dropped("HTTP 307 there")),
        (Fault::refuse(400, "bad"), our_fault("HTTP 400 bad")),
        (Fault::refuse(401, "who"), our_fault("HTTP 401 who")),
        (
            Fault::refuse(403, "other key"),
            mismatched("HTTP 403 other key"),
        ),
        (
            Fault::refuse(403, "BadJwtToken"),
            our_fault("HTTP 403 BadJwtToken"),
        ),
        (
            Fault::refuse(400, "VapidPkHashMismatch"),
            mismatched("HTTP 400 VapidPkHashMismatch"),
        ),
    ];
    for (number, (fault, expected)) in cases.into_iter().enumerate() {
        let name = format!("device-{number}");
        stage.providers.script(&name, [fault]);
        let address = subscriber(&stage.providers.subscribe(&name));
        assert_eq!(client.send(&address, &alert(), now()).await, expected);
        assert_eq!(
            client.send(&address, &alert(), now()).await,
            Outcome::Accepted
        );
    }
}

/// Goal: no endpoint makes the server knock at the doors of its own network, by name or by
/// number.
#[tokio::test]
async fn private_endpoints_are_not_reached() {
    let mut stage = Stage::new().await;
    stage.config.web[0].private_hosts.clear();
    let client = stage.client(Provider::WebPush);
    let subscription = stage.providers.subscribe("laptop");
    let port = stage.providers.web.port();
    let at = async |endpoint: String| {
        let mut address = subscriber(&subscription);
        address.token = endpoint;
        client.send(&address, &alert(), now()).await
    };
    let literals = [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ];
    for host in literals {
        let outcome = at(format!("https://{host}:{port}/push/laptop")).await;
        assert!(
            matches!(outcome, Outcome::Dead { .. }),
            "{host}: {outcome:?}"
        );
    }
    let by_name = at(subscription.endpoint.clone()).await;
    assert_eq!(by_name, dropped("the endpoint is not at a public address"));
    for endpoint in [
        format!("http://localhost:{port}/push/laptop"),
        format!("https://user:secret@localhost:{port}/push/laptop"),
        "file:///etc/passwd".to_owned(),
        "no endpoint".to_owned(),
    ] {
        let outcome = at(endpoint).await;
        assert!(matches!(outcome, Outcome::Dead { .. }), "{outcome:?}");
    }
    assert_eq!(stage.providers.seen().connections.len(), 0);
}

/// Goal: an endpoint cannot send us elsewhere. Method: who listens there answers once; a
/// second request would find nobody.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    stage.config.web[0].private_hosts.push(there.to_string());
    let client = stage.client(Provider::WebPush);
    let mut address = subscriber(&stage.providers.subscribe("laptop"));
    address.token = format!("http://{there}/push");
    let redirect = async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.trim().parse().unwrap();
            }
        }
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        let answer = format!(
            "HTTP/1.1 307 There\r\nlocation: http://{there}/there\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let alert = alert();
    let (outcome, ()) = tokio::join!(client.send(&address, &alert, now()), redirect);
    assert_eq!(outcome, dropped("HTTP 307"));
}

#[tokio::test]
async fn keys_that_are_none_are_dead() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::WebPush);
    let good = subscriber(&stage.providers.subscribe("laptop"));
    let (p256dh, auth) = good.keys.clone().unwrap();
    let broken = [
        None,
        Some((p256dh.clone(), String::new())),
        Some((p256dh.clone(), "????".to_owned())),
        Some(("AAAA".to_owned(), auth.clone())),
        Some((auth.clone(), p256dh.clone())),
    ];
    for keys in broken {
        let address = homing::push::notification::Address {
            keys,
            ..good.clone()
        };
        let outcome = client.send(&address, &alert(), now()).await;
        assert!(matches!(outcome, Outcome::Dead { .. }), "{outcome:?}");
    }
    // Libraries pad, browsers do not.
    let keys = Some((format!("{p256dh}="), format!("{auth}==")));
    let padded = homing::push::notification::Address { keys, ..good };
    assert_eq!(
        client.send(&padded, &alert(), now()).await,
        Outcome::Accepted
    );
}

#[tokio::test]
async fn a_conversation_is_not_named_to_the_push_service() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::WebPush);
    let subscription = stage.providers.subscribe("laptop");
    let mut wake = wake(Class::Alert);
    wake.conversation = ConversationId::random();
    let name = wake.conversation.to_string();
    let notification = notification(Purpose::Wake(wake));
    let outcome = client
        .send(&subscriber(&subscription), &notification, now())
        .await;
    assert_eq!(outcome, Outcome::Accepted);
    let accepted = &stage.providers.wait_for(1).await[0];
    assert!(
        accepted
            .headers
            .values()
            .all(|value| !value.contains(&name))
    );
}
