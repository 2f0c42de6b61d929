//! What a test may let go wrong at the providers.

use serde_json::{Value, json};

use super::{
    apns,
    client::{Sent, Stage, connect},
    fcm, oauth,
};
use crate::{
    harness::within,
    providers::{BlackHole, EVERY, Fault, Gate, Kind, OAUTH, Options, Seen, apns_token},
};

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

async fn status(stage: &Stage, sent: Sent) -> u16 {
    stage.send(sent).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_script_is_played_once_and_then_all_is_well() {
    let stage = Stage::set().await;
    let gone = Fault::gone("Unregistered", 1_700_000_000_000);
    let busy = Fault::retry_after(429, "TooManyRequests", "17");
    stage.providers.script(TOKEN, [gone, Fault::Accept, busy]);
    stage
        .providers
        .script_always(EVERY, Fault::refuse(503, "ServiceUnavailable"));

    let response = stage.send(apns::to(&stage, TOKEN)).await.unwrap();
    assert_eq!(response.status(), 410);
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(
        body,
        json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_000_i64 })
    );
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
    let response = stage.send(apns::to(&stage, TOKEN)).await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["retry-after"] == "17"
        ),
        (429, true)
    );
    assert_eq!(
        status(&stage, apns::to(&stage, TOKEN)).await,
        503,
        "as everything"
    );

    stage.providers.unscript(EVERY);
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
    let seen = stage.providers.seen();
    assert_eq!((seen.count(Kind::Apns, 200), seen.accepted.len()), (2, 2));
    assert_eq!(seen.answered[0].reason, "Unregistered");
    assert_eq!(seen.connections[&Kind::Apns], 1);
    assert_eq!(seen.provider_tokens.len(), 5, "each was signed anew");
}

#[tokio::test]
async fn a_mistake_is_refused_before_a_script_is_played() {
    let stage = Stage::set().await;
    stage
        .providers
        .script(TOKEN, [Fault::refuse(500, "InternalServerError")]);
    let mut wrong = apns::to(&stage, TOKEN);
    wrong.remove("apns-topic");
    assert_eq!(status(&stage, wrong).await, 400);
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 500);
}

/// Goal: the program that stands alone can be told what to do wrong by the token it is sent.
#[tokio::test]
async fn a_fault_may_be_named_in_the_token() {
    let stage = Stage::set().await;
    let apple = [
        ("BadDeviceToken", 400),
        ("ExpiredProviderToken", 403),
        ("Unregistered", 410),
        ("ExpiredToken", 410),
        ("TooManyRequests", 429),
        ("InternalServerError", 500),
        ("ServiceUnavailable", 503),
    ];
    for (reason, expected) in apple {
        let token = apns_token(reason, 7).unwrap();
        let response = stage.send(apns::to(&stage, &token)).await.unwrap();
        assert_eq!(response.status(), expected, "{reason}");
        assert!(response.text().await.unwrap().contains(reason), "{reason}");
    }
    let (access, _) = oauth::fetch(&stage).await;
    for (token, expected) in [
        ("fault-404-UNREGISTERED-1", 404),
        ("fault-429-QUOTA_EXCEEDED", 429),
    ] {
        assert_eq!(status(&stage, fcm::to(&access, token)).await, expected);
    }
    let reset = apns_token("reset", 1).unwrap();
    assert!(stage.send(apns::to(&stage, &reset)).await.is_err());
    assert!(stage.providers.seen().accepted.is_empty());
}

#[tokio::test]
async fn a_gate_holds_requests_until_it_is_opened() {
    let stage = Stage::set_with(Options {
        streams_max: Some(2),
        ..Options::default()
    })
    .await;
    let gate = Gate::new();
    stage
        .providers
        .script_always(EVERY, Fault::Hold(gate.clone()));

    let sent = (0..3).map(|_| stage.send(apns::to(&stage, TOKEN)));
    let (answers, ()) = within("all", async {
        tokio::join!(futures_util::future::join_all(sent), async {
            let two = |seen: &Seen| (seen.arrived.get(&Kind::Apns) == Some(&2)).then_some(());
            stage.providers.until("two held requests", two).await;
            assert!(stage.providers.seen().answered.is_empty());
            gate.open();
        })
    })
    .await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().status() == 200)
    );
    let seen = stage.providers.seen();
    assert_eq!(seen.streams_max, 2, "the third waited for a stream");
}

#[tokio::test]
async fn goaway_follows_a_good_answer_and_ends_the_connection() {
    let stage = Stage::set().await;
    stage.providers.script(TOKEN, [Fault::GoAway]);
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
    let again = |seen: &Seen| (seen.connections[&Kind::Apns] > 1).then_some(());
    within("a second connection", async {
        while again(&stage.providers.seen()).is_none() {
            assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_ends_a_request_and_a_cut_its_connection() {
    let stage = Stage::set().await;
    stage
        .providers
        .script(TOKEN, [Fault::Reset, Fault::Accept, Fault::Cut]);
    assert!(stage.send(apns::to(&stage, TOKEN)).await.is_err());
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
    assert_eq!(stage.providers.seen().connections[&Kind::Apns], 1);
    assert!(stage.send(apns::to(&stage, TOKEN)).await.is_err());
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
    let seen = stage.providers.seen();
    assert_eq!(seen.connections[&Kind::Apns], 2);
    assert_eq!(
        seen.accepted
            .iter()
            .map(|one| one.connection)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let reasons: Vec<_> = seen.answered.iter().map(|one| &*one.reason).collect();
    assert_eq!(reasons, ["reset", "", "cut", ""]);
}

#[tokio::test]
async fn a_provider_whose_clock_is_wrong_takes_good_tokens_for_old() {
    let stage = Stage::set().await;
    stage.providers.set_clock_skew_seconds(7200);
    let response = stage.send(apns::to(&stage, TOKEN)).await.unwrap();
    let date = response.headers()["date"].to_str().unwrap().to_owned();
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("ExpiredProviderToken")
    );
    stage.providers.set_clock_skew_seconds(0);
    let response = stage.send(apns::to(&stage, TOKEN)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_ne!(response.headers()["date"], date);
}

#[tokio::test]
async fn the_token_endpoint_fails_as_scripted() {
    let stage = Stage::set().await;
    stage
        .providers
        .script(OAUTH, [Fault::refuse(503, "backend_error")]);
    let (first, second) = (oauth::right(&stage), oauth::right(&stage));
    assert_eq!(status(&stage, first).await, 503);
    assert_eq!(status(&stage, second).await, 200);
    assert_eq!(stage.providers.seen().token_fetches(), 1);
}

#[tokio::test]
async fn a_black_hole_swallows_a_connection_and_lets_the_next_one_through() {
    let mut stage = Stage::set().await;
    let hole = BlackHole::before(stage.providers.apns).await;
    stage.providers.apns = hole.address;
    stage.http = connect(&stage.providers);
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);

    hole.swallow();
    tokio::select! {
        answer = stage.send(apns::to(&stage, TOKEN)) => panic!("an answer: {answer:?}"),
        () = within("the request", hole.swallowed()) => {}
    }
    hole.heal();
    stage.http = connect(&stage.providers);
    assert_eq!(status(&stage, apns::to(&stage, TOKEN)).await, 200);
    assert_eq!(stage.providers.seen().accepted.len(), 2);
}
