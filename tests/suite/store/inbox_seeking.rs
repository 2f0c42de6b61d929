//! What is unread in a large inbox, and what changed there since a time, is sought among few, and
//! is what a look at all would find.

use homing::{
    domain::ids::{ConversationId, UserId},
    store::{
        MIGRATOR,
        conversations::{self, Kind, Role},
        cursors::{self, Settled},
        inbox::{self, Wanted},
        inbox_unread::{self, Unread},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use super::{
    User, append,
    inbox_large::{LARGE_INBOX, expected, paged},
    message, user, writer,
};

/// 12:00 on the first of January 2026, when the newest of [`LARGE_INBOX`] was active.
const NEWEST_MILLIS: i64 = 1_767_268_800_000;
const HOUR_MILLIS: i64 = 3_600_000;

/// Alice has over 2,000 of the 6,000 conversations of bob, who writes all the messages. Nobody has
/// changed anything since.
async fn large_inbox(conn: &mut PgConnection) -> (User, User) {
    let (alice, bob) = (user(conn, "alice").await, user(conn, "bob").await);
    sqlx::query(LARGE_INBOX)
        .bind(alice.0.0)
        .bind(bob.0.0)
        .execute(&mut *conn)
        .await
        .unwrap();
    run(
        conn,
        "update messages m set created_at = c.updated_at - (2 - m.seq) * interval '1 minute'
         from conversations c where c.conversation_id = m.conversation_id",
    )
    .await;
    run(
        conn,
        "update participants p set changed_at = c.updated_at - interval '1 minute'
         from conversations c where c.conversation_id = p.conversation_id",
    )
    .await;
    (alice, bob)
}

/// Runs a statement in which `n` is the number of a conversation, if it names `numbers`.
async fn run(conn: &mut PgConnection, statement: &str) {
    let numbers = "numbers as (select n, md5('conversation ' || n)::uuid as id from generate_series(1, 6000) n)";
    sqlx::query(AssertSqlSafe(format!("with {numbers} {statement}")))
        .execute(conn)
        .await
        .unwrap();
}

/// The conversation of this number in [`LARGE_INBOX`].
async fn numbered(conn: &mut PgConnection, number: i32) -> ConversationId {
    let id = sqlx::query_scalar("select md5('conversation ' || $1)::uuid")
        .bind(number)
        .fetch_one(conn)
        .await
        .unwrap();
    ConversationId(id)
}

fn shown() -> Wanted {
    Wanted {
        archived: Some(false),
        limit: 100,
        ..Wanted::default()
    }
}

fn unread() -> Wanted {
    Wanted {
        is_unread: true,
        ..shown()
    }
}

/// Pages of what changed are what a look at all would find; answers how many conversations.
async fn check_changed(conn: &mut PgConnection, user: UserId, since: i64, what: &str) -> usize {
    let all = Wanted {
        since_millis: Some(since),
        limit: 100,
        ..Wanted::default()
    };
    let wishes = [
        all.clone(),
        Wanted {
            archived: Some(false),
            limit: 97,
            ..all.clone()
        },
        Wanted {
            is_unread: true,
            archived: Some(true),
            ..all.clone()
        },
        Wanted {
            kind: Some(Kind::Direct),
            ..all.clone()
        },
        Wanted {
            is_pinned: true,
            ..all.clone()
        },
    ];
    let mut count = None;
    for wanted in wishes {
        let expected = expected(conn, user, &wanted).await;
        let paged = paged(conn, user, &wanted, None).await;
        assert!(paged == expected, "{what}: {user:?} {wanted:?}");
        count.get_or_insert(expected.len());
    }
    count.unwrap()
}

/// Goal: settings, readings, removals and erasures of whenever are found beside what was active,
/// in its order, be they few or many.
#[sqlx::test(migrator = "MIGRATOR")]
async fn all_that_changed_is_found_wherever_it_is_sought(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = large_inbox(&mut conn).await;
    let sinces = [
        NEWEST_MILLIS + 600_000,
        NEWEST_MILLIS - 300,
        NEWEST_MILLIS - HOUR_MILLIS - 1,
        NEWEST_MILLIS - 5 * HOUR_MILLIS / 2,
    ];
    let nothing = check_changed(&mut conn, alice.0, sinces[0], "nothing").await;
    assert_eq!(nothing, 0);
    for since in sinces {
        check_changed(&mut conn, alice.0, since, "only messages").await;
    }

    // Some changed a few hours later, some the day after: old ones, left ones, pinned ones.
    for (which, when) in [
        ("n % 37 = 0", "'2026-01-01 18:00Z'"),
        ("n % 205 = 0 or n % 401 = 0", "'2026-01-02 09:00Z'"),
    ] {
        run(
            &mut conn,
            &format!(
                "update participants p set changed_at = {when} from numbers
                 where p.conversation_id = id and p.user_id = {} and ({which})",
                alice.0.0
            ),
        )
        .await;
    }
    let later = NEWEST_MILLIS + 12 * HOUR_MILLIS;
    for since in [sinces[0], sinces[1], sinces[3], later] {
        let count = check_changed(&mut conn, alice.0, since, "few changes").await;
        assert!(count >= 15, "{count}");
    }

    // In some, contents were erased: also in what was just changed, and in what alice has left.
    run(
        &mut conn,
        "update conversations c set erasures = 1, erased_at = '2026-01-01 20:30Z' from numbers
         where c.conversation_id = id and (n % 97 = 0 or n % 185 = 0 or n % 205 = 0)",
    )
    .await;
    let before = NEWEST_MILLIS + 8 * HOUR_MILLIS;
    for since in [sinces[0], sinces[2], before, before + HOUR_MILLIS] {
        check_changed(&mut conn, alice.0, since, "erased").await;
    }

    // So much that it is not looked at in advance.
    run(
        &mut conn,
        "update participants p set changed_at = '2026-01-01 19:00Z' from numbers
         where p.conversation_id = id and n % 5 > 0",
    )
    .await;
    for since in [sinces[0], sinces[2]] {
        check_changed(&mut conn, alice.0, since, "half is changed").await;
    }
    // Some of it was active since, in the same ten minutes as others before.
    let all = Wanted {
        since_millis: Some(sinces[1]),
        limit: 101,
        ..Wanted::default()
    };
    let expected = expected(&mut conn, bob.0, &all).await;
    assert!(expected.len() > 4_000, "{}", expected.len());
    let paged = paged(&mut conn, bob.0, &all, None).await;
    assert!(paged == expected, "all is changed");
    run(
        &mut conn,
        "update conversations c set erasures = 1, erased_at = '2026-01-01 20:00Z' from numbers
         where c.conversation_id = id and n % 6 > 0",
    )
    .await;
    for since in [sinces[0], sinces[1], before - 1] {
        check_changed(&mut conn, alice.0, since, "most is erased").await;
    }
}

/// Looks at all of a user's conversations, as the first page of what is unread does.
async fn look(conn: &mut PgConnection, user: &User) -> Unread {
    let as_of = inbox::as_of_millis(conn).await.unwrap();
    let asked = inbox_unread::ask(conn, user.0, None, as_of).await.unwrap();
    assert!(asked.is_due && !asked.is_current);
    inbox_unread::look(conn, user.0, None, asked).await.unwrap()
}

/// Pages by what is known are what a look at all finds; answers them.
async fn check_unread(
    conn: &mut PgConnection,
    user: &User,
    known: &Unread,
    what: &str,
) -> Vec<ConversationId> {
    // What is looked at again is what is looked at first.
    let as_of = inbox::as_of_millis(conn).await.unwrap();
    let asked = inbox_unread::ask(conn, user.0, Some(known), as_of);
    let asked = asked.await.unwrap();
    let again = inbox_unread::look(conn, user.0, Some(known), asked).await;
    assert_eq!(
        again.unwrap().places,
        look(conn, user).await.places,
        "{what}"
    );

    let mut all = None;
    for kind in [None, Some(Kind::Direct)] {
        for limit in [100, 7] {
            let wanted = Wanted {
                kind,
                limit,
                ..unread()
            };
            let expected = expected(conn, user.0, &wanted).await;
            let paged = paged(conn, user.0, &wanted, Some(known)).await;
            assert!(paged == expected, "{what}: {wanted:?}");
            all.get_or_insert(expected);
            if known.places.len() > 300 {
                break;
            }
        }
    }
    all.unwrap()
}

async fn read(conn: &mut PgConnection, user: &User, conversation: ConversationId, seq: i64) {
    let read = Settled {
        device: None,
        user: user.0,
        conversation,
        delivered: None,
        read: Some(seq),
    };
    cursors::settle(conn, &[read]).await.unwrap();
}

/// Leaves alice these unread alone.
async fn read_all_but(conn: &mut PgConnection, alice: &User, but: &str) {
    run(
        conn,
        &format!(
            "update participants p set read_seq = case when {but} then 1 else 2 end from numbers
             where p.conversation_id = id and p.user_id = {}",
            alice.0.0
        ),
    )
    .await;
}

/// Goal: whatever happens after all was looked at, the pages by what was found then are those of
/// a look at all.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_unread_is_found_by_what_was_unread_before(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = large_inbox(&mut conn).await;
    // Few, among them old ones, archived ones and direct ones.
    read_all_but(&mut conn, &alice, "n % 15 = 0 or n in (5995, 5996, 5980)").await;
    let known = look(&mut conn, &alice).await;
    assert!(known.is_all && known.places.len() > 350);
    let before = check_unread(&mut conn, &alice, &known, "nothing happened").await;
    assert!(
        before.len() < known.places.len(),
        "archived ones are left out"
    );

    // What was read gets a message; what was unread is read; one's own message is none.
    let (front, own) = (
        numbered(&mut conn, 5501).await,
        numbered(&mut conn, 101).await,
    );
    append(&mut conn, &[message(front, &bob), message(own, &alice)]).await;
    read(&mut conn, &alice, before[1], 2).await;
    let after = check_unread(&mut conn, &alice, &known, "a message and a reading").await;
    assert_eq!(after[0], front);
    assert!(!after.contains(&before[1]) && !after.contains(&own));

    // An archived one comes back without activity, one that is unread gets one more message.
    let archived: Vec<_> = known
        .places
        .iter()
        .map(|place| place.conversation)
        .collect();
    let archived = archived
        .into_iter()
        .find(|id| !before.contains(id))
        .unwrap();
    sqlx::query("update participants set archived_seq = null where conversation_id = $1")
        .bind(archived.0)
        .execute(&mut conn)
        .await
        .unwrap();
    append(&mut conn, &[message(before[40], &bob)]).await;
    let after = check_unread(&mut conn, &alice, &known, "out of the archive").await;
    assert!(after.contains(&archived));
    assert_eq!(after[0], before[40]);

    // Contents are gone; alice goes from one, and comes again to another, where it goes on.
    for (what, id) in [
        ("retract_seq = 9", before[5]),
        ("ordinal = null", before[6]),
    ] {
        let gone = format!("update messages set {what} where conversation_id = $1 and seq = 2");
        let gone = sqlx::query(AssertSqlSafe(gone)).bind(id.0);
        gone.execute(&mut conn).await.unwrap();
    }
    sqlx::query("update conversations set first_seq = 3, erasures = 1 where conversation_id = $1")
        .bind(before[7].0)
        .execute(&mut conn)
        .await
        .unwrap();
    let (user, actor) = ((alice.0, &alice.1), (bob.0, &bob.1));
    let back = numbered(&mut conn, 5506).await;
    for id in [before[8], back] {
        conversations::remove(&mut conn, id, user, actor)
            .await
            .unwrap();
    }
    let member = Role::Member;
    conversations::add(&mut conn, back, user, member, actor, 10)
        .await
        .unwrap();
    append(&mut conn, &[message(back, &bob), message(before[8], &bob)]).await;
    let after = check_unread(&mut conn, &alice, &known, "gone and back").await;
    assert_eq!(after[0], back);
    for id in &before[5..=8] {
        assert!(!after.contains(id));
    }

    // More was active since than is looked at.
    run(
        &mut conn,
        "update conversations c set updated_at = now() - n * interval '1 ms' from numbers
         where c.conversation_id = id and n < 5200",
    )
    .await;
    check_unread(&mut conn, &alice, &known, "all is active").await;
}

/// Goal: of more than is remembered nothing is missing, and nobody relies on what another server
/// or another time knew.
#[sqlx::test(migrator = "MIGRATOR")]
async fn more_unread_than_is_remembered_is_found(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = large_inbox(&mut conn).await;
    run(
        &mut conn,
        &format!(
            "update participants p set archived_seq = null, left_seq = null from numbers
             where p.conversation_id = id and p.user_id = {}",
            alice.0.0
        ),
    )
    .await;
    read_all_but(&mut conn, &alice, "true").await;
    let known = look(&mut conn, &alice).await;
    assert!(!known.is_all);
    let front = numbered(&mut conn, 5501).await;
    append(&mut conn, &[message(front, &bob)]).await;
    let all = check_unread(&mut conn, &alice, &known, "many").await;
    assert!(all.len() > known.places.len() + 100, "{}", all.len());

    let as_of = inbox::as_of_millis(&mut conn).await.unwrap();
    let mut ask = async |known: &Unread, as_of| {
        let asked = inbox_unread::ask(&mut conn, alice.0, Some(known), as_of);
        let asked = asked.await.unwrap();
        (asked.is_current, asked.is_due)
    };
    assert_eq!(ask(&known, as_of).await, (true, false));
    // The clock, or the database, was set back.
    assert_eq!(ask(&known, known.as_of_millis - 1).await, (false, true));
    let mut elsewhere = known.clone();
    elsewhere.server += 1;
    assert_eq!(ask(&elsewhere, as_of).await, (false, true));
    // Long ago; but all is looked at again only when more was active since.
    let mut old = known.clone();
    old.taken_millis -= HOUR_MILLIS;
    assert_eq!(ask(&old, as_of).await, (true, false));
    old.as_of_millis = 0;
    assert_eq!(ask(&old, as_of).await, (true, true));
    old.taken_millis = known.taken_millis;
    assert_eq!(ask(&old, as_of).await, (true, false));
}

/// Goal: neither costs a look at each conversation, nor at each that was active since.
#[sqlx::test(migrator = "MIGRATOR")]
async fn what_changed_and_what_is_unread_is_sought_among_few(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, _) = large_inbox(&mut conn).await;
    read_all_but(&mut conn, &alice, "n % 550 = 0").await;
    run(
        &mut conn,
        "update participants set changed_at = changed_at - interval '1 day'",
    )
    .await;
    run(
        &mut conn,
        &format!(
            "update participants p set changed_at = '2026-01-03 12:00Z' from numbers
             where p.conversation_id = id and p.user_id = {} and n % 555 = 0",
            alice.0.0
        ),
    )
    .await;
    // The planner believes that every user has one conversation.
    sqlx::query("alter table participants alter user_id set (n_distinct = -1)")
        .execute(&mut conn)
        .await
        .unwrap();
    let vacuum = sqlx::query("vacuum analyze");
    vacuum.execute(&mut conn).await.unwrap();
    let known = look(&mut conn, &alice).await;
    let found =
        "select coalesce(sum(idx_tup_fetch), 0)::bigint, coalesce(sum(seq_tup_read), 0)::bigint
                 from pg_stat_xact_user_tables";
    let changed = Wanted {
        since_millis: Some(NEWEST_MILLIS + 600_000),
        archived: None,
        ..shown()
    };
    let mut tx = conn.begin().await.unwrap();
    for wanted in [unread(), changed] {
        let before: (i64, i64) = sqlx::query_as(found).fetch_one(&mut *tx).await.unwrap();
        let page = if wanted.is_of_unread() {
            inbox::page_of_unread(&mut tx, alice.0, &wanted, &known).await
        } else {
            inbox::page(&mut tx, alice.0, &wanted).await
        };
        let count = page.unwrap().len();
        let after: (i64, i64) = sqlx::query_as(found).fetch_one(&mut *tx).await.unwrap();
        assert!((5..=10).contains(&count), "{count}");
        assert_eq!(after.1, before.1, "rows of whole tables");
        let found = after.0 - before.0;
        assert!(found <= 450, "{found} rows: {wanted:?}");
    }
}

/// Goal: to find what changed costs no reading an entry in an index, but one on a day.
#[sqlx::test(migrator = "MIGRATOR")]
async fn readings_write_no_index(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    let id = super::group(&mut conn, &[&alice, &bob]).await;
    super::fill(&mut conn, id, &bob, 12).await;
    let mut tx = conn.begin().await.unwrap();
    for seq in 2..=13 {
        read(&mut tx, &alice, id, seq).await;
    }
    let (all, hot): (i64, i64) = sqlx::query_as(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'participants'",
    )
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    assert!(all >= 11 && hot >= all - 1, "{hot} of {all}");
}
