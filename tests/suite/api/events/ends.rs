//! How many streams there may be, and how they end.

use reqwest::Method;
use sqlx::PgPool;

use super::Stream;
use crate::{
    api::{Api, answer, now_unix},
    harness::{TestBroker, within},
};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn streams_are_bounded_and_give_their_place_back(pool: PgPool) {
    let settings = [
        ("HOMING__HTTP__EVENTS_MAX", "3"),
        ("HOMING__HTTP__EVENTS_PER_USER_MAX", "2"),
    ];
    let api = Api::start_with(pool, &settings).await;
    let ask = async |user: &str| {
        let request = api.request(Method::GET, "/v1/events");
        answer(request.bearer_auth(api.token(user))).await
    };
    let first = Stream::of(&api, "alice").await;
    let _second = Stream::of(&api, "alice").await;
    let refused = ask("alice").await;
    refused.assert_problem(429, "too-many", "close one");
    assert_eq!(refused.header("retry-after"), "1");
    let _other = Stream::of(&api, "bob").await;
    ask("carol")
        .await
        .assert_problem(503, "unavailable", "later");
    drop(first);
    // The server notices that the connection is gone.
    let free = async {
        loop {
            let request = api.request(Method::GET, "/v1/events");
            let response = request
                .bearer_auth(api.token("alice"))
                .send()
                .await
                .unwrap();
            if response.status() == 200 {
                break;
            }
        }
    };
    within("a free place", free).await;
    answer(api.request(Method::GET, "/v1/events"))
        .await
        .assert_problem(401, "unauthorized", "");
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_ends_with_its_token(pool: PgPool) {
    let api = Api::start(pool).await;
    // Issued for an hour, almost an hour ago.
    let token = api.issue("alice", now_unix() - 3598);
    let request = api.request(Method::GET, "/v1/events").bearer_auth(token);
    let mut stream = Stream::open(request).await;
    while let Some(seen) = stream.any().await {
        assert_eq!(seen.name, "", "only heartbeats");
    }
}

/// Goal: a stream that would never end does not hold up the stop.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_ends_with_the_server(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let mut stream = Stream::at(&broker, "alice", "").await;
    let (_, last) = tokio::join!(broker.stop(), stream.any());
    assert!(last.is_none(), "{last:?}");
}

/// Goal: a device that is signed out ends no stream, which is of the user and needs no device.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn a_stream_outlives_the_sign_out_of_a_device(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["alice", "bob"]).await;
    let mut phone = broker.device("alice", "phone").await;
    let mut bob = broker.device("bob", "phone").await;
    let mut stream = Stream::at(&broker, "alice", "").await;
    let path = "/v1/devices/phone";
    let (status, body) = broker.request(Method::DELETE, "alice", path, None).await;
    assert_eq!(status, 204, "{body}");
    phone.assert_disconnected(0x98).await;
    bob.say(&group, "1").await;
    let seen = stream.next("message").await;
    assert_eq!(seen.data["entry"]["id"], "1");
    broker.stop().await;
}
