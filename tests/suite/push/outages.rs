//! Providers that are away, slow, or gone without a word.

use sqlx::PgPool;

use super::{Fakes, Stage, told};
use crate::{
    harness::until,
    providers::{BlackHole, Fault, Gate, Kind, Seen},
};

/// Goal: jobs do not pile up, and after the outage one notification tells the newest state.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn after_an_outage_one_push_tells_the_newest_state(pool: PgPool) {
    let stage = Stage::set(pool).await;
    let (bob, carol) = (
        stage.apns("bob", "phone").await,
        stage.apns("carol", "phone").await,
    );
    let pixel = stage.fcm("bob", "pixel").await;
    let down = || Fault::refuse(503, "UNAVAILABLE");
    for token in [&bob, &carol, &pixel] {
        stage.providers.script_always(token, down());
    }
    stage.say("1").await;
    let tried = [(Kind::Apns, 2), (Kind::Fcm, 1)];
    for (kind, count) in tried {
        let tried = |seen: &Seen| (seen.count(kind, 503) >= count).then_some(());
        stage.providers.until("a first attempt", tried).await;
    }
    for id in 2..=5 {
        stage.say(&id.to_string()).await;
    }
    until("jobs and requests that tell of all", async || {
        let jobs = "select array_agg(least(to_seq, claimed_seq) order by device_id)
                    from push_jobs where state <> 'done'";
        let newest: Option<Vec<i64>> = sqlx::query_scalar(jobs)
            .fetch_one(&stage.pool)
            .await
            .unwrap();
        newest == Some(vec![5; 3])
    })
    .await;
    for token in [&bob, &carol, &pixel] {
        stage.providers.unscript(token);
    }
    for token in [&bob, &carol] {
        assert_eq!(told(&stage.pushed(token, 1).await[0]), (5, 5));
    }
    let message = stage.pushed(&pixel, 1).await.remove(0).payload;
    assert_eq!(message["data"]["seq"], "5");
    stage.settle().await;
    assert_eq!(stage.providers.seen().accepted.len(), 3, "one for each");
    stage.stop().await;
}

/// Goal: no answer, a broken stream, a closed connection: the same notification again.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_not_answered_is_repeated_under_its_id(pool: PgPool) {
    let times = [("push.request_timeout", "1s"), ("push.lease", "3s")];
    let stage = Stage::set_with(pool, &times).await;
    let gate = Gate::new();
    let fates = [
        ("slow", Fault::Hold(gate.clone())),
        ("reset", Fault::Reset),
        ("cut", Fault::Cut),
        ("goaway", Fault::GoAway),
    ];
    for (client_id, fault) in fates {
        let token = stage.apns("bob", client_id).await;
        stage.providers.script(&token, [fault]);
    }
    stage.say("1").await;
    for client_id in ["slow", "reset", "cut", "goaway"] {
        stage.pushed(&super::apns_token("bob", client_id), 1).await;
    }
    stage.settle().await;
    for device in stage.explain("bob", 1).await {
        let client_id = device["client_id"].as_str().unwrap();
        let decisions = device["decisions"].as_array().unwrap();
        let pushed = &stage.seen(&super::apns_token("bob", client_id))[0];
        for decision in decisions {
            assert_eq!(decision["notification_id"], *pushed.id, "{device}");
        }
        let first = &decisions[0];
        if client_id == "slow" {
            assert_eq!(first["reason"], "timeout");
        }
        assert_eq!(decisions.last().unwrap()["outcome"], "sent", "{device}");
    }
    stage.stop().await;
}

/// Goal: a network that swallows everything costs one timeout, not every one that follows.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_connection_that_died_without_a_word_is_replaced(pool: PgPool) {
    let mut fakes = Fakes::start().await;
    let tunnel = BlackHole::before(fakes.providers.apns).await;
    let direct = format!("connect = \"{}\"", fakes.providers.apns);
    let through = format!("connect = \"{}\"", tunnel.address);
    fakes.profile = fakes.profile.replace(&direct, &through);
    let times = [("push.request_timeout", "1s"), ("push.lease", "3s")];
    let stage = Stage::of(pool, fakes, &times).await;
    let phone = stage.apns("bob", "phone").await;
    stage.say("1").await;
    stage.pushed(&phone, 1).await;
    stage.settle().await;

    tunnel.swallow();
    let second = stage.say("2").await;
    tunnel.swallowed().await;
    tunnel.heal();
    assert_eq!(told(&stage.pushed(&phone, 2).await[1]), (second, 2));
    stage.settle().await;
    assert_eq!(
        stage.ledger("bob", second).await,
        ["phone retry timeout", "phone sent accepted"]
    );
    stage.stop().await;
}
