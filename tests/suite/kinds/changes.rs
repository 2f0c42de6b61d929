//! Edits, retractions and reactions: who hears of them, and what they leave behind.

use homing::store::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{as_sent, edit, entries, post, reaction, retract, send, text};
use crate::harness::TestBroker;

/// Goal: whatever is said by MQTT or REST reaches every device of every participant, the
/// sender's others too, in the order of the log and as it was sent.
#[sqlx::test(migrator = "MIGRATOR")]
async fn every_kind_reaches_every_device(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let mut tablet = broker.listener("alice", "tablet").await;
    let mut other = broker.listener("bob", "phone").await;
    let sent = [
        text("1", "on my way"),
        edit("2", 1, "on my bike"),
        reaction("3", 1, "👍"),
        json!({"id": "4", "type": "reaction", "ref": 1, "body": {"key": "👍", "remove": true}}),
        text("5", "nonsense"),
        retract("6", 5),
    ];
    for (message, by_rest) in sent.iter().zip([false, true, false, true, true, false]) {
        if by_rest {
            assert_eq!(post(&broker, "alice", &group, message).await.0, 201);
        } else {
            send(&mut phone, &group, message).await;
        }
    }

    for device in [&mut tablet, &mut other] {
        for (seq, message) in (1..).zip(&sent) {
            let delivery = device.delivery().await;
            assert_eq!(delivery.seq(), seq);
            let mut expected = message.clone();
            let members = expected.as_object_mut().unwrap();
            members.entry("type").or_insert_with(|| "text".into());
            assert_eq!(as_sent(delivery.json()), expected);
            device.acknowledge(delivery.packet_id).await;
        }
    }
    broker.stop().await;
}

/// Goal: nobody reads any more what was retracted, neither the message nor what it was
/// edited to, wherever one looks.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_retraction_erases_the_message_and_its_edits(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob", "carol"]).await;
    broker.listener("carol", "phone").await.disconnect().await;
    let mut phone = broker.device("alice", "phone").await;
    let secret = json!({"id": "1", "body": "secret", "mentions": ["bob"], "x": "secret"});
    send(&mut phone, &group, &secret).await;
    send(&mut phone, &group, &text("2", "harmless")).await;
    send(&mut phone, &group, &edit("3", 1, "secret again")).await;
    post(&broker, "bob", &group, &reaction("4", 1, "👍")).await;
    send(&mut phone, &group, &retract("5", 1)).await;

    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from messages m where position('secret'::bytea in m.body) > 0
                     or position('secret'::bytea in m.extra) > 0)
              + (select count(*) from mentions) + (select count(*) from reactions)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    let tombstone = |seq: i64, id: &str, kind: &str| json!({"seq": seq, "id": id, "from": "alice", "type": kind, "retracted": true});
    let mut read = entries(&broker, "bob", &group).await;
    for entry in &mut read {
        entry.as_object_mut().unwrap().remove("at");
    }
    assert_eq!(read[0], tombstone(1, "1", "text"));
    assert_eq!(read[1]["body"], "harmless");
    assert_eq!(read[2], tombstone(3, "3", "edit"));
    assert_eq!(read[4]["ref"], 1);
    // The repeat of what was retracted is still a repeat.
    assert_eq!(send(&mut phone, &group, &secret).await, 1);

    let (mut late, _) = broker.connect(broker.v5("carol", "phone")).await;
    let delivered = late.delivery().await.json();
    assert_eq!(
        (&delivered["seq"], &delivered["retracted"]),
        (&json!(1), &json!(true))
    );
    assert!(delivered.get("body").is_none(), "{delivered}");
    broker.stop().await;
}

/// Goal: of every user and key there is one reaction. One that changes nothing leaves no entry,
/// for devices count reactions by the entries: it is answered with the one that says so.
#[sqlx::test(migrator = "MIGRATOR")]
async fn there_is_one_reaction_of_each_user_and_key(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    post(&broker, "alice", &group, &text("1", "hi")).await;
    let take = |id: &str| json!({"id": id, "type": "reaction", "ref": 1, "body": {"key": "👍", "remove": true}});
    for (user, message, answer) in [
        ("bob", take("b0"), (200, 1)),
        ("alice", reaction("a1", 1, "👍"), (201, 2)),
        ("bob", take("b1"), (200, 1)),
        ("bob", reaction("b2", 1, "👍"), (201, 3)),
        ("bob", reaction("b3", 1, "👍"), (200, 3)),
        ("bob", reaction("b4", 1, "🎉"), (201, 4)),
        ("bob", take("b5"), (201, 5)),
        ("bob", take("b6"), (200, 1)),
    ] {
        let (status, body) = post(&broker, user, &group, &message).await;
        assert_eq!((status, body["seq"].as_i64()), (answer.0, Some(answer.1)));
        assert_eq!(body["duplicate"] == true, status == 200, "{message}");
    }
    let reactions: Vec<(String, String, i64)> = sqlx::query_as(
        "select u.subject, r.key, r.at_seq from reactions r join users u using (user_id)
         order by r.at_seq",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(
        reactions,
        [
            ("alice".to_owned(), "👍".to_owned(), 2),
            ("bob".to_owned(), "🎉".to_owned(), 4)
        ]
    );
    let version: i64 = sqlx::query_scalar("select version from messages where seq = 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(version, 5);

    // Over MQTT as well; and what was not stored is told to nobody.
    let mut phone = broker.device("alice", "phone").await;
    let mut other = broker.listener("bob", "phone").await;
    assert_eq!(send(&mut phone, &group, &reaction("m1", 1, "🎉")).await, 6);
    assert_eq!(send(&mut phone, &group, &reaction("m2", 1, "🎉")).await, 6);
    assert_eq!(send(&mut phone, &group, &text("m3", "next")).await, 7);
    for id in ["m1", "m3"] {
        let delivery = other.delivery().await;
        assert_eq!(delivery.json()["id"], id);
        other.acknowledge(delivery.packet_id).await;
    }
    assert_eq!(entries(&broker, "bob", &group).await.len(), 7);
    broker.stop().await;
}

/// Goal: a change that is sent again is stored once, and what it did is not done again.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_repeated_change_stores_nothing(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    send(&mut phone, &group, &text("1", "one")).await;
    assert_eq!(send(&mut phone, &group, &edit("2", 1, "two")).await, 2);
    assert_eq!(send(&mut phone, &group, &edit("3", 1, "three")).await, 3);
    assert_eq!(send(&mut phone, &group, &edit("2", 1, "two")).await, 2);
    let repeated = post(&broker, "alice", &group, &edit("2", 1, "two")).await;
    assert_eq!(repeated, (200, json!({"seq": 2, "duplicate": true})));
    let newest: (i64, i64) = sqlx::query_as("select edit_seq, version from messages where seq = 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(newest, (3, 3));
    assert_eq!(entries(&broker, "bob", &group).await.len(), 3);
    broker.stop().await;
}

/// Goal: what one device sends in a burst is stored in that order, although messages and
/// changes are committed apart. Locks keep the writers busy, so that the burst is one batch.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_burst_of_messages_and_changes_keeps_its_order(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let groups = [
        broker.conversation(&["alice", "bob"]).await,
        broker.conversation(&["alice", "bob"]).await,
    ];
    let mut listener = broker.listener("bob", "phone").await;
    let mut phone = broker.device("alice", "phone").await;
    for group in &groups {
        send(&mut phone, group, &text("0", "first")).await;
        let delivery = listener.delivery().await;
        listener.acknowledge(delivery.packet_id).await;
    }
    let burst = [
        edit("1", 1, "better"),
        text("2", "second"),
        edit("3", 3, "better"),
        edit("4", 3, "best"),
        edit("4", 3, "best"),
        text("5", "third"),
        text("6", "fourth"),
        retract("7", 6),
        text("8", "fifth"),
    ];
    let sequences = [2, 3, 4, 5, 5, 6, 7, 8, 9];

    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("select from conversations for update")
        .execute(&mut *lock)
        .await
        .unwrap();
    for message in &burst {
        for group in &groups {
            let topic = format!("c/{group}/send");
            phone.publish(&topic, message.to_string().as_bytes()).await;
        }
    }
    phone.assert_quiet().await;
    lock.rollback().await.unwrap();

    for sequence in sequences {
        for _ in &groups {
            let puback = phone.puback().await;
            assert_eq!(puback.code, 0, "{puback:?}");
            let said: i64 = puback.properties.user("seq").unwrap().parse().unwrap();
            assert_eq!(said, sequence);
        }
    }
    for group in &groups {
        let ids: Vec<_> = entries(&broker, "bob", group).await;
        let ids: Vec<_> = ids
            .iter()
            .map(|entry| entry["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.concat(), "012345678");
    }
    let mut heard: Vec<Vec<Value>> = vec![Vec::new(), Vec::new()];
    for _ in 0..16 {
        let delivery = listener.delivery().await;
        let place = usize::from(delivery.topic.contains(&groups[1]));
        heard[place].push(delivery.json()["seq"].clone());
        listener.acknowledge(delivery.packet_id).await;
    }
    let expected: Vec<_> = (2..=9).map(Value::from).collect();
    assert_eq!(heard, [expected.clone(), expected]);
    broker.stop().await;
}
