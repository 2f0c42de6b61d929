//! Postgres goes away and comes back: nothing is acknowledged that is not stored.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::json;
use sqlx::{ConnectOptions as _, Executor as _, PgPool};

use crate::{
    faults::Proxy,
    harness::{Place, Received, TestBroker, until, within},
};

/// A broker whose way to Postgres can be cut.
pub(crate) async fn start(pool: &PgPool, settings: &[(&str, &str)]) -> (TestBroker, Proxy) {
    let options = pool.connect_options();
    let target = (options.get_host(), options.get_port());
    let target = tokio::net::lookup_host(target)
        .await
        .unwrap()
        .next()
        .unwrap();
    let proxy = Proxy::to(target).await;
    let url = options
        .as_ref()
        .clone()
        .host("127.0.0.1")
        .port(proxy.address.port())
        .to_url_lossy()
        .to_string();
    let quick = [("store.acquire_timeout", "300ms")];
    let settings: Vec<_> = quick.iter().chain(settings).copied().collect();
    (Place::at(url, &settings).start().await, proxy)
}

/// Goal: publishes during an outage are not acknowledged; after it they are, once each, in
/// order, and everybody gets them.
#[sqlx::test(migrator = "MIGRATOR")]
async fn publishes_wait_for_postgres(pool: PgPool) {
    let (broker, proxy) = start(&pool, &[]).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut listener = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "phone").await;
    let mut seq = 0;
    for round in 0..5 {
        proxy.cut();
        let mut waiting = Vec::new();
        for number in 0..10 {
            waiting.push(
                sender
                    .begin_say(&conversation, &format!("{round} {number}"))
                    .await,
            );
        }
        sender.assert_quiet().await;
        listener.assert_quiet().await;
        proxy.heal();
        for packet_id in waiting {
            let puback = sender.puback().await;
            seq += 1;
            assert_eq!((puback.packet_id, puback.code), (packet_id, 0));
            assert_eq!(puback.properties.user("seq").unwrap(), seq.to_string());
        }
        let ids = listener.drain(seq - 9, seq).await;
        assert_eq!(
            ids,
            (0..10)
                .map(|number| format!("{round} {number}"))
                .collect::<Vec<_>>()
        );
    }
    broker.stop().await;
}

/// Goal: whoever asks for something that needs Postgres gets an answer in time.
#[sqlx::test(migrator = "MIGRATOR")]
async fn requests_during_an_outage_are_refused_in_time(pool: PgPool) {
    let settings = [("http.request_timeout", "1s")];
    let (broker, proxy) = start(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("bob", "old")).await;
    proxy.cut();

    assert_eq!(phone.subscribe(&["c/+/receipts"]).await, [0x83]);
    assert_eq!(old.subscribe(&["c/+/messages"]).await, [0x80]);
    let message = json!({"id": "rest", "body": 1});
    let path = format!("/{conversation}/messages");
    let (status, problem) = broker
        .rest(Method::POST, "alice", &path, Some(message.clone()))
        .await;
    assert_eq!(status, 503, "{problem}");
    let (status, _) = broker.rest(Method::GET, "alice", &path, None).await;
    assert_eq!(status, 503);

    for user in ["bob", "somebody new"] {
        let connack = broker.open().await.connect(broker.v5(user, "tablet")).await;
        assert_eq!(connack.code, 0x88, "{connack:?}");
        let connack = broker.open().await.connect(broker.v3(user, "tablet")).await;
        assert_eq!(connack.code, 3);
    }
    proxy.heal();
    until("REST", async || {
        let sent = broker
            .rest(Method::POST, "alice", &path, Some(message.clone()))
            .await;
        sent.1["seq"] == 1
    })
    .await;
    assert_eq!(phone.drain(1, 1).await, ["rest"]);
    assert_eq!(broker.log("bob", &conversation).await.len(), 1);
    assert_eq!(phone.subscribe(&["c/+/receipts"]).await, [1]);
    broker.stop().await;
}

/// Goal: what a device no longer wants is not forgotten wrongly: an UNSUBSCRIBE that cannot
/// be stored does not count.
#[sqlx::test(migrator = "MIGRATOR")]
async fn an_unsubscribe_that_is_not_stored_is_not_confirmed(pool: PgPool) {
    let (broker, proxy) = start(&pool, &[]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let (mut old, _) = broker.connect(broker.v3("bob", "old")).await;
    old.subscribe(&["c/+/messages"]).await;
    proxy.cut();
    assert_eq!(phone.unsubscribe("c/+/messages").await, [0x83]);
    old.send(&[0xa2, 16, 0, 9, 0, 12]).await;
    old.send(b"c/+/messages").await;
    assert_eq!(old.receive().await, Received::Closed);
    proxy.heal();
    broker.stop().await;
}

/// Goal: a device that lost its connection during an outage is answered when it comes back,
/// again and again, and finds its session when Postgres is back.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_device_may_come_and_go_during_an_outage(pool: PgPool) {
    let (broker, proxy) = start(&pool, &[]).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    sender.say(&conversation, "1").await;
    sender.say(&conversation, "2").await;
    let first = phone.delivery().await;
    let second = phone.delivery().await;
    phone.acknowledge(first.packet_id).await;
    phone.assert_quiet().await;
    proxy.cut();
    drop(phone);
    for _ in 0..3 {
        let connack = broker.open().await.connect(broker.v5("bob", "phone")).await;
        assert_eq!(connack.code, 0x88, "{connack:?}");
    }
    sender.begin_say(&conversation, "3").await;
    proxy.heal();
    assert_eq!(sender.puback().await.code, 0);
    let mut phone = broker.open().await;
    within("the session", async {
        while phone.connect(broker.v5("bob", "phone")).await.code != 0 {
            phone = broker.open().await;
        }
    })
    .await;
    let again = phone.delivery().await;
    assert_eq!((again.seq(), again.packet_id), (2, second.packet_id));
    assert!(again.is_repeated);
    assert_eq!(phone.delivery().await.seq(), 3);
    broker.stop().await;
}

/// Goal: a stop during an outage does not take until its deadline.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stop_during_an_outage_is_in_time(pool: PgPool) {
    let (broker, proxy) = start(&pool, &[("store.queue_messages_max", "1")]).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.listener("bob", "phone").await;
    let mut sender = broker.device("alice", "sender").await;
    proxy.cut();
    for number in 0..10 {
        sender.begin_say(&conversation, &number.to_string()).await;
    }
    phone.assert_quiet().await;
    broker.stop().await;
    phone.assert_disconnected(0x8b).await;
    sender.assert_disconnected(0x8b).await;
}

/// Goal: a full disk is an outage as well: nothing is refused, nothing acknowledged.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_full_disk_refuses_nothing_and_acknowledges_nothing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut sender = broker.device("alice", "phone").await;
    let mut listener = broker.listener("bob", "phone").await;
    sender.say(&conversation, "before").await;
    listener.drain(1, 1).await;
    pool.execute(
        "create function full_disk() returns trigger language plpgsql as $$
         begin raise exception 'could not extend file' using errcode = '53100'; end $$;
         create trigger full_disk before insert on messages
         for each row execute function full_disk()",
    )
    .await
    .unwrap();
    let waiting = [
        sender.begin_say(&conversation, "a").await,
        sender.begin_say(&conversation, "b").await,
        sender.begin_say(&conversation, "c").await,
    ];
    until("the failure", async || {
        let metrics = broker.metrics().await;
        let line = metrics
            .lines()
            .find(|line| line.contains("store_failures") && !line.starts_with('#'));
        !line.unwrap().ends_with(" 0")
    })
    .await;
    sender.assert_quiet().await;
    listener.assert_quiet().await;
    pool.execute("drop trigger full_disk on messages")
        .await
        .unwrap();
    for packet_id in waiting {
        let puback = sender.puback().await;
        assert_eq!((puback.packet_id, puback.code), (packet_id, 0));
    }
    assert_eq!(listener.drain(2, 4).await, ["a", "b", "c"]);
    broker.stop().await;
}

/// A request over MQTT is not repeated by the server: the device is told to.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_request_is_answered_that_postgres_is_away(pool: PgPool) {
    let (broker, proxy) = start(&pool, &[]).await;
    let conversation = broker.conversation(&["alice"]).await;
    let mut phone = broker.listener("alice", "phone").await;
    let arguments = json!({"conversation": conversation}).to_string();
    let mut ask = async || {
        phone.publish("q/conversation", arguments.as_bytes()).await;
        let answer = phone.delivery().await.json();
        assert_eq!(phone.puback().await.code, 0);
        answer["status"].as_u64().unwrap()
    };
    assert_eq!(ask().await, 200);
    proxy.cut();
    assert_eq!(ask().await, 503);
    proxy.heal();
    until("an answer", async || ask().await == 200).await;
    broker.stop().await;
}
