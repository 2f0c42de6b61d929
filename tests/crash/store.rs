//! What is stored in the end, read from Postgres itself.

use std::{collections::BTreeMap, fs};

use homing::domain::ids::ConversationId;
use serde_json::Value;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    broker::Broker,
    load::token,
    rest::Rest,
    truth::{self, members},
};

/// What must not be there, and how many of it there are.
const NOWHERE: [(&str, &str); 2] = [
    (
        "logs with a gap",
        "select count(*) from conversations c
         where (c.last_seq, c.last_seq, c.last_ordinal) <> (
             select count(*), coalesce(max(m.seq), 0), count(m.ordinal)
             from messages m where m.conversation_id = c.conversation_id)",
    ),
    (
        "contents that were retracted",
        "select count(*) from messages r
         join messages m on m.conversation_id = r.conversation_id
              and (m.seq = r.ref_seq or m.type = 'edit' and m.ref_seq = r.ref_seq)
         where r.type = 'retract'
           and (m.body <> '' or m.extra is not null or m.retract_seq is null)",
    ),
];

/// A connection to the Postgres of a broker.
pub(crate) async fn pool(broker: &Broker) -> PgPool {
    let data_dir = broker.data_dir();
    let password = fs::read_to_string(data_dir.join("postgres.password")).unwrap();
    let options = PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .socket(data_dir.join("postgres/run"))
        .username("homing")
        .password(password.trim_end())
        .database("homing");
    let pool = PgPoolOptions::new().max_connections(1);
    pool.connect_with(options).await.unwrap()
}

/// Every user is shown what the tables say, counted anew, and the log, replayed.
pub(crate) async fn compare(broker: &Broker, users: &[&str]) {
    let pool = pool(broker).await;
    for (what, count) in NOWHERE {
        let count: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
        assert_eq!(count, 0, "{what}");
    }
    let rest = Rest::new(broker.addresses());
    for user in users {
        let token = token(broker, user);
        let expected = truth::rows(&pool, user).await;
        let mut rows = inbox(&rest, &token).await;
        for (id, fields) in expected {
            let row = rows.remove(&id).unwrap();
            for (name, expected) in &fields {
                assert_eq!(row.get(name), Some(expected), "{user}: `{name}` of {id}");
            }
            let thread: Vec<_> = thread(&rest, &token, id).await;
            let thread: Vec<_> = thread.into_iter().map(members).collect();
            assert_eq!(
                thread,
                truth::thread(&pool, id, user).await,
                "{user}: thread of {id}"
            );
        }
        assert!(rows.is_empty(), "{user}: {rows:?}");
    }
    pool.close().await;
}

async fn inbox(rest: &Rest, token: &str) -> BTreeMap<ConversationId, Value> {
    let mut rows = BTreeMap::new();
    let mut path = "/inbox?limit=100".to_owned();
    loop {
        let page = rest.get(token, &path).await.unwrap();
        for row in page["conversations"].as_array().unwrap() {
            let id = row["conversation"].as_str().unwrap().parse().unwrap();
            rows.insert(id, row.clone());
        }
        let Some(after) = page["next_after"].as_str() else {
            return rows;
        };
        path = format!("/inbox?limit=100&after={after}");
    }
}

async fn thread(rest: &Rest, token: &str, id: ConversationId) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut after = Some(0);
    while let Some(sequence) = after {
        let path = format!("/conversations/{id}/thread?after={sequence}&limit=200");
        let page = rest.get(token, &path).await.unwrap();
        messages.extend(page["messages"].as_array().unwrap().iter().cloned());
        after = page["next_after"].as_i64();
    }
    messages
}
