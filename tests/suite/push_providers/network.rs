//! Connections: few, and not trusted for ever.

use std::time::Duration;

use homing::{domain::push::Provider, push::notification::Outcome};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::{Stage, retry, send, send_to_many, token};
use crate::{
    harness::within,
    providers::{BlackHole, Fault, Gate, Kind, Options},
};

/// Long enough for an answer on loopback, short enough to be waited out.
const TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_one_connection_and_one_token() {
    let stage = Stage::new().await;
    send_to_many(&stage.client(Provider::Apns), 500).await;
    let seen = stage.providers.seen();
    assert_eq!(seen.accepted.len(), 500);
    assert_eq!(seen.used(Kind::Apns), 1);
    assert_eq!(seen.connections[&Kind::Apns], 1);
    assert_eq!(seen.provider_tokens.len(), 1);
    assert!(seen.streams_max > 1);
}

/// Apple begins a connection with one stream.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_streams_than_the_provider_allows() {
    for streams_max in [1, 3] {
        let options = Options {
            streams_max: Some(streams_max),
            ..Options::default()
        };
        let stage = Stage::with(options).await;
        let client = stage.client(Provider::Apns);
        send_to_many(&client, 50).await;
        send_to_many(&client, 200).await;
        let seen = stage.providers.seen();
        assert_eq!(seen.accepted.len(), 250);
        assert_eq!(seen.used(Kind::Apns), 1);
        assert_eq!(seen.connections[&Kind::Apns], 1);
        assert!(seen.streams_max <= usize::try_from(streams_max).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_goaway_a_new_connection_is_used() {
    let stage = Stage::new().await;
    for provider in [Provider::Apns, Provider::Fcm] {
        let client = stage.client(provider);
        stage.providers.script(&token(1), [Fault::GoAway]);
        assert_eq!(send(&client, &token(1)).await, Outcome::Accepted);
        send_to_many(&client, 50).await;
    }
    assert_eq!(stage.providers.seen().used(Kind::Apns), 2);
    assert_eq!(stage.providers.seen().connections[&Kind::Apns], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_or_connection_is_tried_again_later() {
    let stage = Stage::new().await;
    for provider in [Provider::Apns, Provider::Fcm] {
        let client = stage.client(provider);
        for fault in [Fault::Reset, Fault::Cut] {
            stage.providers.script(&token(1), [fault]);
            let outcome = send(&client, &token(1)).await;
            let Outcome::Retry {
                reason,
                after: None,
            } = &outcome
            else {
                panic!("{outcome:?}");
            };
            assert!(reason.starts_with("connection: "), "{reason}");
            assert!(!reason.contains(&token(1)), "{reason}");
            assert_eq!(send(&client, &token(1)).await, Outcome::Accepted);
        }
    }
}

/// Goal: one device whose request hangs does not hold up others, and takes no connection down
/// that works.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_a_timeout() {
    let mut stage = Stage::new().await;
    stage.config.request_timeout = TIMEOUT;
    let client = stage.client(Provider::Apns);
    let gate = Gate::new();
    stage
        .providers
        .script(&token(1), [Fault::Hold(gate.clone())]);
    let slow = async { send(&client, &token(1)).await };
    let others = async {
        let arrived = |seen: &crate::providers::Seen| {
            (seen.arrived.get(&Kind::Apns) == Some(&1)).then_some(())
        };
        stage.providers.until("the slow one", arrived).await;
        assert_eq!(send(&client, &token(2)).await, Outcome::Accepted);
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert_eq!(slow, retry("timeout", None));
    assert_eq!(send(&client, &token(2)).await, Outcome::Accepted);
    assert_eq!(stage.providers.seen().connections[&Kind::Apns], 1);
    gate.open();
}

/// Goal: a connection that swallows everything costs one timeout, however many wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_black_hole_the_next_one_arrives() {
    let mut stage = Stage::new().await;
    stage.config.request_timeout = TIMEOUT;
    let hole = BlackHole::before(stage.providers.apns).await;
    stage.config.apns[0].connect = Some(hole.address);
    let client = stage.client(Provider::Apns);
    assert_eq!(send(&client, &token(0)).await, Outcome::Accepted);

    hole.swallow();
    let swallowed = futures_util::future::join_all((1..20).map(|number| {
        let client = &client;
        async move { send(client, &token(number)).await }
    }));
    for outcome in swallowed.await {
        assert_eq!(outcome, retry("timeout", None));
    }
    hole.heal();
    send_to_many(&client, 20).await;
    assert_eq!(stage.providers.seen().used(Kind::Apns), 2);
    assert_eq!(stage.providers.seen().connections[&Kind::Apns], 2);
}

/// Goal: a dead connection is noticed although nothing is sent. Method: the connection is
/// forwarded until it has served, then it swallows what comes, until the client leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_is_left_while_nothing_is_sent() {
    let mut stage = Stage::new().await;
    stage.config.request_timeout = TIMEOUT / 10;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    stage.config.apns[0].connect = Some(listener.local_addr().unwrap());
    let client = stage.client(Provider::Apns);
    let served = Notify::new();
    let network = async {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(stage.providers.apns).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => panic!("the connection ended"),
            () = served.notified() => {}
        }
        _ = tokio::io::copy(&mut near, &mut tokio::io::sink()).await;
    };
    let sends = async {
        assert_eq!(send(&client, &token(0)).await, Outcome::Accepted);
        served.notify_one();
    };
    within("the end of the connection", async {
        tokio::join!(network, sends)
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_tried_again_later() {
    let stage = Stage::new().await;
    let client = stage.client(Provider::Apns);
    let fcm = stage.client(Provider::Fcm);
    drop(stage.providers);
    for client in [client, fcm] {
        let outcome = send(&client, &token(1)).await;
        let Outcome::Retry {
            reason,
            after: None,
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert!(
            reason.contains("refused") || reason.contains("reset"),
            "{reason}"
        );
    }
}
