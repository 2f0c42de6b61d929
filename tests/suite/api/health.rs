//! What a supervisor and a monitor ask.

use std::time::Duration;

use homing::store::open_pool;
use reqwest::Method;
use serde_json::json;
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Api, answer};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn readiness_begins_with_the_start_and_ends_with_the_stop(pool: PgPool) {
    let api = Api::start(pool).await;
    let ready = async || answer(api.request(Method::GET, "/readyz")).await;
    assert_eq!(answer(api.request(Method::GET, "/livez")).await.status, 200);

    ready().await.assert_problem(503, "unavailable", "");
    api.readiness.begin();
    assert_eq!(ready().await.status, 200);
    api.readiness.end();
    ready().await.assert_problem(503, "unavailable", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn metrics_are_open_metrics(pool: PgPool) {
    let api = Api::start(pool).await;
    let scraped = answer(api.request(Method::GET, "/metrics")).await;
    assert_eq!(scraped.status, 200);
    assert!(
        scraped
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(
        scraped.text.contains("bridge_accept_seconds_count 0"),
        "{}",
        scraped.text
    );
    assert!(scraped.text.ends_with("# EOF\n"), "{}", scraped.text);
}

/// Given a store that is reached over a link, when the link is cut, then every request is
/// told to come back, and the process stays alive.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn without_a_store_requests_are_told_to_come_back(pool: PgPool) {
    let (link, port) = link(&pool.connect_options()).await;
    let options = PgConnectOptions::clone(&pool.connect_options())
        .host("127.0.0.1")
        .port(port);
    let api = Api::start(open_pool(options, 2, Duration::from_millis(100))).await;
    api.readiness.begin();
    let path = api
        .conversation("alice", json!({"participants": ["bob"]}))
        .await;
    drop(link);

    for path in [
        "/readyz",
        &path,
        &format!("{path}/messages"),
        &format!("{path}/receipts"),
    ] {
        let refused = api.get("alice", path).await;
        refused.assert_problem(503, "unavailable", "again");
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert_eq!(answer(api.request(Method::GET, "/livez")).await.status, 200);
}

/// A port that leads to Postgres for as long as the tasks live.
async fn link(options: &PgConnectOptions) -> (JoinSet<()>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let postgres = (options.get_host().to_owned(), options.get_port());
    let mut link = JoinSet::new();
    link.spawn(async move {
        let mut pipes = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let postgres = postgres.clone();
            pipes.spawn(async move {
                let mut far = TcpStream::connect(postgres).await.unwrap();
                // Ends with an error if either side is cut off.
                drop(copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    (link, port)
}
