//! What connected devices say of themselves, and whether they seem to live.

use homing::{
    domain::push::Activity,
    store::sessions::{OpenSession, Opened, Sign, open, save_signs},
};
use sqlx::{PgConnection, PgPool};

use super::{User, close, user, writer};

async fn connect(conn: &mut PgConnection, user: &User, client_id: &str) -> Opened {
    let session = OpenSession {
        user: user.0,
        client_id,
        clean_start: false,
        expiry_seconds: 3600,
        node: "node-1",
        issued_at: None,
    };
    open(conn, &session).await.unwrap()
}

fn sign(opened: &Opened, activity: Option<Activity>, is_suspect: Option<bool>) -> Sign {
    Sign {
        device: opened.device,
        generation: opened.generation,
        activity,
        is_suspect,
    }
}

/// The activity, and since when it is suspected, as text.
async fn stored(conn: &mut PgConnection, opened: &Opened) -> (String, Option<String>) {
    sqlx::query_as("select activity, suspected_at::text from sessions where device_id = $1")
        .bind(opened.device.0)
        .fetch_one(conn)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn each_device_keeps_what_it_did_not_say(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let (phone, tablet) = (
        connect(&mut conn, &alice, "phone").await,
        connect(&mut conn, &alice, "tablet").await,
    );
    let active = ("active".to_owned(), None);
    assert_eq!(stored(&mut conn, &phone).await, active);

    let signs = [
        sign(&tablet, Some(Activity::Background), None),
        sign(&phone, None, Some(true)),
    ];
    save_signs(&mut conn, &signs).await.unwrap();
    let (activity, since) = stored(&mut conn, &phone).await;
    assert!(activity == "active" && since.is_some(), "{since:?}");
    let background = ("background".to_owned(), None);
    assert_eq!(stored(&mut conn, &tablet).await, background);

    // Suspected once more, it is suspected since the first time.
    let signs = [sign(&phone, Some(Activity::Away), Some(true))];
    save_signs(&mut conn, &signs).await.unwrap();
    let away = ("away".to_owned(), since);
    assert_eq!(stored(&mut conn, &phone).await, away);

    let signs = [sign(&phone, None, Some(false)), sign(&tablet, None, None)];
    save_signs(&mut conn, &signs).await.unwrap();
    assert_eq!(stored(&mut conn, &phone).await, ("away".to_owned(), None));
    assert_eq!(stored(&mut conn, &tablet).await, background);
    save_signs(&mut conn, &[]).await.unwrap();
}

/// Goal: the word of a connection that is over changes nothing.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn only_who_holds_the_session_is_believed(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let alice = user(&mut conn, "alice").await;
    let old = connect(&mut conn, &alice, "phone").await;
    let gone = sign(&old, Some(Activity::Away), Some(true));
    save_signs(&mut conn, &[gone]).await.unwrap();

    // A new connection begins as active and lives.
    let new = connect(&mut conn, &alice, "phone").await;
    let active = ("active".to_owned(), None);
    assert_eq!(stored(&mut conn, &new).await, active);
    save_signs(&mut conn, &[gone]).await.unwrap();
    assert_eq!(stored(&mut conn, &new).await, active, "taken over");

    let (device, generation) = (new.device, new.generation);
    close(&mut conn, device, generation, true, 3600, &[])
        .await
        .unwrap();
    let late = sign(&new, Some(Activity::Away), Some(true));
    save_signs(&mut conn, &[late]).await.unwrap();
    assert_eq!(stored(&mut conn, &new).await, active, "closed");
}
