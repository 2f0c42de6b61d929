//! What is unread of a user with thousands of conversations, page after page.

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use super::{ids, page, say, set};
use crate::harness::TestBroker;

/// Goal: what happens after the first page is seen in the next one, though not all conversations
/// are looked at again.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_unread_follows_what_happens(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let group = broker.conversation(&["bob", "alice"]).await;
    let other = broker.conversation(&["bob", "alice"]).await;
    say(&broker, "bob", &other, "0").await;
    sqlx::query(
        "with made as (
             insert into conversations (conversation_id, kind, updated_at)
             select gen_random_uuid(), 'group', '2026-01-01' from generate_series(1, 2100)
             returning conversation_id
         )
         insert into participants (conversation_id, user_id, joined_seq)
         select conversation_id, user_id, 1 from made cross join users where subject = 'alice'",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(ids(&page(&broker, "alice", "?unread=true").await), [&other]);

    say(&broker, "bob", &group, "1").await;
    let unread = page(&broker, "alice", "?unread=true").await;
    assert_eq!(ids(&unread), [&group, &other]);
    let read = json!({"read": unread["conversations"][0]["last_seq"]});
    set(&broker, "alice", &group, read).await;
    assert_eq!(ids(&page(&broker, "alice", "?unread=true").await), [&other]);
    say(&broker, "bob", &group, "2").await;
    let first = page(&broker, "alice", "?unread=true&limit=1").await;
    assert_eq!(ids(&first), [&group]);
    let after = first["next_after"].as_str().unwrap();
    let second = page(&broker, "alice", &format!("?unread=true&after={after}")).await;
    assert_eq!(ids(&second), [&other]);
    broker.stop().await;
}
