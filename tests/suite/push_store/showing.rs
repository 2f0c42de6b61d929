//! What a notification shows of messages that changed before it left.

use homing::{domain::message::Format, store::push::arm::Pass};
use sqlx::PgPool;

use super::{SENT, Scene, group, say, user};

/// Goal: what was said by mistake and put right is not shown on a locked screen.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn an_edited_message_shows_its_newest_content(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let seq = scene.say_and_arm(0).await;
    for body in ["\"a secret\"", "\"nothing\""] {
        scene.change("edit", seq, body, Format::Json).await;
    }
    let job = scene.claim_one(1000).await;
    assert_eq!(job.news.unwrap().body, b"\"nothing\"");

    let seq = scene.say_and_arm(60_000).await;
    scene.change("edit", seq, "\"bytes\"", Format::Bytes).await;
    let job = scene.claim_one(61_000).await;
    assert!(
        job.news.unwrap().body.is_empty(),
        "they are nobody's to read"
    );
}

/// Goal: a notification names nobody whose message is gone.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_who_said_what_is_left_is_named(pool: PgPool) {
    let mut scene = Scene::new(&pool).await;
    let (bob, carol) = (scene.bob.clone(), user(&mut scene.conn, "carol").await);
    for gone in [
        "update messages set retract_seq = 3 where seq = 2",
        "update messages set content_format = -1 where seq = 2",
        "update messages set expires_at = to_timestamp(2000000001) where seq = 2",
    ] {
        let group = group(&mut scene.conn, &[&scene.alice.clone(), &bob, &carol]).await;
        scene.group = group;
        say(&mut scene.conn, group, &carol, "", 0).await;
        scene.say("", 0).await;
        scene.arm(Pass::Early, 1, 2, 1000).await;
        scene.run(gone).await;
        let job = scene.claim_one(1000).await;
        let news = job.news.clone().unwrap();
        assert_eq!(news.sender, carol.1, "{gone}");
        assert!(news.body.is_empty(), "{gone}");
        scene.finish(&job, SENT, 1000).await;
    }
    // One of two is gone, and the other one too: there is nothing to tell.
    scene.say_and_arm(60_000).await;
    scene
        .run("update messages set expires_at = to_timestamp(2000000002)")
        .await;
    assert_eq!(scene.claim_one(61_000).await.news, None);
}
