//! A live conversation changes hands.

use homing::store::MIGRATOR;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    Answer, ask, change, entries, give_role, group, put_participant, say, seen, sequences, users,
};
use crate::harness::TestBroker;

async fn transfer(broker: &TestBroker, by: &str, cid: &str, body: Value) -> Answer {
    let path = format!("/conversations/{cid}/transfer");
    ask(broker, Method::POST, by, &path, Some(body)).await
}

/// Goal: devices of the old and the new agent switch at one entry, and the customer keeps the thread.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_live_conversation_changes_hands_at_one_entry(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"agent": "owner", "customer": "member"});
    let cid = group(&broker, &["agent", "customer"], roles).await;
    let mut customer = broker.listener("customer", "phone").await;
    let mut old = broker.listener("agent", "desk").await;
    let mut new = broker.listener("expert", "desk").await;
    customer.say(&cid, "help").await;
    old.drain(1, 1).await;

    let body = json!({"to": ["expert"], "note": "knows the printer"});
    assert_eq!(
        transfer(&broker, "agent", &cid, body.clone()).await.seq(),
        2
    );
    customer.drain(1, 2).await;
    assert_eq!(customer.say(&cid, "are you there?").await, 3);

    // The old one: up to the entry, and nothing more.
    old.drain(2, 2).await;
    let topic = format!("c/{cid}/send");
    assert_eq!(
        old.ask(&topic, br#"{"id":"late","body":1}"#).await.code,
        0x87
    );
    // The new one: from the entry on, without another subscription.
    let begin = new.delivery().await;
    new.acknowledge(begin.packet_id).await;
    let expected = json!({"change": "transferred", "from": ["agent"], "to": ["expert"],
                          "note": "knows the printer"});
    assert_eq!((begin.seq(), &begin.json()["body"]), (2, &expected));
    new.drain(3, 3).await;
    assert_eq!(new.say(&cid, "yes").await, 4);
    customer.drain(3, 4).await;
    old.assert_quiet().await;

    assert_eq!(seen(&broker, "expert", &cid).await["role"], "owner");
    assert_eq!(sequences(&broker, "expert", &cid).await, [1, 2, 3, 4]);
    assert_eq!(sequences(&broker, "agent", &cid).await, [1, 2]);
    assert_eq!(sequences(&broker, "customer", &cid).await, [1, 2, 3, 4]);
    // Whoever repeats it changes nothing.
    transfer(&broker, "agent", &cid, body)
        .await
        .assert_unchanged();
    broker.stop().await;
}

/// Who comes sees no more than who goes, and no more than is granted.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_comes_sees_what_was_granted(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice"], json!({})).await;
    let mut alice = broker.device("alice", "phone").await;
    for number in 0..4 {
        alice.say(&cid, &format!("{number}")).await;
    }
    assert_eq!(
        put_participant(&broker, "alice", &cid, "bob", json!({}))
            .await
            .seq(),
        5
    );
    assert_eq!(
        transfer(&broker, "bob", &cid, json!({"to": ["carol"]}))
            .await
            .seq(),
        6
    );
    assert_eq!(sequences(&broker, "carol", &cid).await, [5, 6]);
    let body = json!({"from": ["carol"], "to": ["dave"], "history": 0});
    assert_eq!(transfer(&broker, "alice", &cid, body).await.seq(), 7);
    assert_eq!(sequences(&broker, "dave", &cid).await, [7]);
    let body = json!({"from": ["alice"], "to": ["erin"], "history": 2});
    assert_eq!(transfer(&broker, "admin", &cid, body).await.seq(), 8);
    assert_eq!(sequences(&broker, "erin", &cid).await, [6, 7, 8]);
    let body = json!({"from": ["erin", "dave"], "to": ["frank", "grace"], "history": "all"});
    assert_eq!(transfer(&broker, "erin", &cid, body).await.seq(), 9);
    assert_eq!(sequences(&broker, "frank", &cid).await, [6, 7, 8, 9]);
    // All who come have the highest role of those who went.
    for user in ["frank", "grace"] {
        assert_eq!(seen(&broker, user, &cid).await["role"], "owner");
    }
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_cannot_be_handed_over_is_refused(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.participants_max", "5")]).await;
    let roles = json!({"bob": "admin", "carol": "admin"});
    let cid = group(&broker, &["alice", "bob", "carol", "dave", "erin"], roles).await;
    for (by, body, status, kind, says) in [
        (
            "dave",
            json!({"from": ["erin"], "to": ["x"]}),
            403,
            "forbidden",
            "an owner or an admin",
        ),
        (
            "bob",
            json!({"from": ["carol"], "to": ["x"]}),
            403,
            "forbidden",
            "only an owner",
        ),
        (
            "bob",
            json!({"from": ["alice"], "to": ["x"]}),
            403,
            "forbidden",
            "only an owner",
        ),
        (
            "mallory",
            json!({"from": ["dave"], "to": ["mallory"]}),
            404,
            "not-found",
            "",
        ),
        ("mallory", json!({"to": ["x"]}), 404, "not-found", ""),
        (
            "admin",
            json!({"to": ["x"]}),
            409,
            "conflict",
            "admin does not take part",
        ),
        (
            "bob",
            json!({"from": ["nobody"], "to": ["x"]}),
            409,
            "conflict",
            "nobody does not take part",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["erin"]}),
            409,
            "conflict",
            "erin takes part already",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["x", "y"]}),
            409,
            "full",
            "5 participants",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["dave"]}),
            400,
            "invalid",
            "both sides",
        ),
        (
            "bob",
            json!({"from": [], "to": ["x"]}),
            400,
            "invalid",
            "1 to 100",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": []}),
            400,
            "invalid",
            "1 to 100",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["x"], "history": -1}),
            400,
            "invalid",
            "history",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["x"], "history": "some"}),
            400,
            "invalid",
            "",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["x"], "note": "x".repeat(1025)}),
            400,
            "invalid",
            "note",
        ),
    ] {
        let refused = transfer(&broker, by, &cid, body).await;
        refused.assert_problem(status, kind, says);
    }
    assert!(entries(&broker, "alice", &cid).await.is_empty());
    // An owner who hands over leaves an owner behind.
    assert_eq!(
        transfer(&broker, "alice", &cid, json!({"to": ["frank"]}))
            .await
            .seq(),
        1
    );
    assert_eq!(
        give_role(&broker, "frank", &cid, "bob", "member")
            .await
            .seq(),
        2
    );
    assert_eq!(
        change(&broker, "frank", &cid, json!({"title": "Mine"}))
            .await
            .seq(),
        3
    );
    broker.stop().await;
}

async fn silence(broker: &TestBroker, cid: &str, user: &str, until: Value) {
    let path = format!("/conversations/{cid}/participants/{user}/silence");
    let body = Some(json!({"until": until}));
    ask(broker, Method::PUT, "alice", &path, body).await.seq();
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_may_not_write_hands_over_without_a_note(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let roles = json!({"carol": "readonly"});
    let cid = group(&broker, &["alice", "bob", "carol", "dave"], roles).await;
    silence(&broker, &cid, "bob", json!("forever")).await;
    for (by, kind) in [("bob", "silenced"), ("carol", "forbidden")] {
        let noted = json!({"to": [format!("{by}-2")], "note": "heard all the same"});
        let refused = transfer(&broker, by, &cid, noted).await;
        refused.assert_problem(403, kind, "note");
    }
    for (by, seq) in [("bob", 2), ("carol", 3)] {
        let plain = json!({"to": [format!("{by}-2")]});
        assert_eq!(transfer(&broker, by, &cid, plain).await.seq(), seq);
    }
    // Of the part of others, who may write says so.
    let noted = json!({"from": ["bob-2"], "to": ["bob-3"], "note": "be kind"});
    assert_eq!(transfer(&broker, "alice", &cid, noted).await.seq(), 4);
    broker.stop().await;
}

/// Goal: nobody gets the word back by handing their part over to themself under another name.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_silence_is_handed_over_too(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob", "carol", "dave"], json!({})).await;
    let (sooner, later) = (4_102_444_800_000_i64, 4_133_980_800_000_i64);
    silence(&broker, &cid, "bob", json!(sooner)).await;
    silence(&broker, &cid, "carol", json!(later)).await;
    let until = async |user: &str| seen(&broker, user, &cid).await["silenced_until"].clone();

    let body = json!({"to": ["bob-2"]});
    assert_eq!(transfer(&broker, "bob", &cid, body).await.seq(), 3);
    assert_eq!(until("bob-2").await, sooner);
    let refused = say(&broker, "bob-2", &cid, "1").await;
    refused.assert_problem(403, "silenced", "");
    // Of several the longest, and the comer's own if that is longer.
    let body = json!({"from": ["bob-2", "carol", "dave"], "to": ["erin", "frank"]});
    assert_eq!(transfer(&broker, "alice", &cid, body).await.seq(), 4);
    assert_eq!(
        (until("erin").await, until("frank").await),
        (json!(later), json!(later))
    );
    silence(&broker, &cid, "frank", json!(sooner)).await;
    let body = json!({"from": ["frank"], "to": ["carol"]});
    assert_eq!(transfer(&broker, "alice", &cid, body).await.seq(), 6);
    assert_eq!(until("carol").await, later, "she came back");
    // Owners and admins are not silenced.
    let body = json!({"from": ["alice", "carol"], "to": ["grace"]});
    assert_eq!(transfer(&broker, "alice", &cid, body).await.seq(), 7);
    assert_eq!(until("grace").await, json!(null));
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_archived_conversation_does_not_change_hands(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let cid = group(&broker, &["alice", "bob"], json!({})).await;
    let handed = json!({"from": ["bob"], "to": ["carol"], "note": "yours"});
    assert_eq!(
        transfer(&broker, "alice", &cid, handed.clone()).await.seq(),
        1
    );
    change(&broker, "alice", &cid, json!({"archived": true})).await;
    transfer(&broker, "alice", &cid, handed)
        .await
        .assert_unchanged();
    for by in ["alice", "admin"] {
        let body = json!({"from": ["carol"], "to": ["dave"]});
        let refused = transfer(&broker, by, &cid, body).await;
        refused.assert_problem(409, "archived", "");
    }
    change(&broker, "alice", &cid, json!({"archived": false})).await;
    let body = json!({"from": ["carol"], "to": ["dave"]});
    assert_eq!(transfer(&broker, "alice", &cid, body).await.seq(), 4);
    broker.stop().await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_transfer_that_is_refused_makes_no_user(pool: PgPool) {
    let broker = TestBroker::start_with(&pool, &[("message.participants_max", "4")]).await;
    let cid = group(
        &broker,
        &["alice", "bob", "carol", "dave"],
        json!({"bob": "admin"}),
    )
    .await;
    silence(&broker, &cid, "dave", json!("forever")).await;
    let path = "/me/blocks/bob";
    ask(&broker, Method::PUT, "zoe", path, None)
        .await
        .assert_unchanged();
    let before = users(&pool).await;
    for (by, body, status, kind) in [
        (
            "carol",
            json!({"from": ["dave"], "to": ["new-1"]}),
            403,
            "forbidden",
        ),
        (
            "bob",
            json!({"from": ["alice"], "to": ["new-2"]}),
            403,
            "forbidden",
        ),
        (
            "bob",
            json!({"from": ["new-3"], "to": ["new-4"]}),
            409,
            "conflict",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["new-5", "new-6"]}),
            409,
            "full",
        ),
        (
            "bob",
            json!({"from": ["dave"], "to": ["carol", "new-7"]}),
            409,
            "conflict",
        ),
        (
            "bob",
            json!({"from": ["carol", "dave"], "to": ["zoe", "new-8"]}),
            403,
            "blocked",
        ),
        (
            "dave",
            json!({"to": ["new-9"], "note": "!"}),
            403,
            "silenced",
        ),
    ] {
        let refused = transfer(&broker, by, &cid, body).await;
        refused.assert_problem(status, kind, "");
    }
    assert_eq!(users(&pool).await, before);
    let body = json!({"from": ["dave"], "to": ["new-10"]});
    assert_eq!(transfer(&broker, "bob", &cid, body).await.seq(), 2);
    assert_eq!(users(&pool).await, before + 1);
    broker.stop().await;
}
