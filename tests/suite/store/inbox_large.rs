//! Pages of an inbox with thousands of conversations, most of which are not even looked at.

use homing::{
    domain::ids::{ConversationId, UserId},
    store::{
        MIGRATOR,
        conversations::Kind,
        inbox::{self, Place, Wanted},
        inbox_unread::Unread,
    },
};
use sqlx::{Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use super::{user, writer};

/// More than 2,000 of 6,000 conversations are alice's: from there on a page is sought among what
/// was active last. Every seventh was active in the same ten minutes, and every 500 at the same
/// time; some are archived, some come back from there, some were left, in some all is read. The
/// direct ones are among the oldest.
pub(super) const LARGE_INBOX: &str = "
    with made as (
        insert into conversations (conversation_id, kind, last_seq, last_ordinal, last_message_seq, updated_at)
        select md5('conversation ' || n)::uuid, case when n % 4 = 0 and n > 5400 then 'direct' else 'group' end, 2, 2, 2,
               timestamptz '2026-01-01 12:00Z' - case
                   when n % 7 = 0 then n % 500 * interval '1 ms'
                   else n / 500 * interval '1 hour'
               end
        from generate_series(1, 6000) n
        returning conversation_id
    ), taking_part as (
        insert into participants (conversation_id, user_id, joined_seq, left_seq, read_seq, archived_seq, pinned_at)
        select md5('conversation ' || n)::uuid, u.user_id, 1,
               case when u.user_id = $1 and n % 41 = 0 then 2 end,
               case when n % 5 = 0 then 1 else 2 end,
               case when u.user_id = $1 and n % 11 = 0 then 1 + n % 2 end,
               case when u.user_id = $1 and n % 401 = 0 then now() end
        from generate_series(1, 6000) n cross join unnest(array[$1, $2]) u (user_id)
        where u.user_id = $2 or n % 5 < 2
        returning 1
    )
    insert into messages (conversation_id, seq, ordinal, sender_id, client_message_id, type, body)
    select md5('conversation ' || n)::uuid, seq, seq, $2, 'm-' || seq, 'text', '\"hello\"'
    from generate_series(1, 6000) n, generate_series(1, 2) seq";

/// The order of a whole inbox, the plain way.
pub(super) async fn expected(
    conn: &mut PgConnection,
    user: UserId,
    wanted: &Wanted,
) -> Vec<ConversationId> {
    let all: Vec<Uuid> = sqlx::query_scalar(
        "select c.conversation_id
         from participants p join conversations c using (conversation_id)
         where p.user_id = $1 and ($6::bigint is not null or p.left_seq is null)
           and ($2::boolean is null or $2 = coalesce(p.archived_seq >= c.last_message_seq, false))
           and ($3::text is null or c.kind = $3)
           and (not $4 or p.left_seq is null and exists (
               select from messages m where m.conversation_id = c.conversation_id
                 and m.seq > p.read_seq and m.seq >= c.first_seq and m.seq >= p.visible_from
                 and m.sender_id <> p.user_id and m.ordinal is not null and m.retract_seq is null))
           and ($6 is null or (extract(epoch from greatest(
                   p.changed_at,
                   case when p.left_seq is null then greatest(c.updated_at, c.erased_at)
                        else (select m.created_at from messages m
                              where m.conversation_id = c.conversation_id and m.seq = p.left_seq) end
               )) * 1000) > $6)
           and (not $5 or p.pinned_at is not null)
         order by c.updated_at desc, c.conversation_id desc",
    )
    .bind(user.0)
    .bind(wanted.archived)
    .bind(wanted.kind.map(Kind::as_str))
    .bind(wanted.is_unread)
    .bind(wanted.is_pinned)
    .bind(wanted.since_millis)
    .fetch_all(conn)
    .await
    .unwrap();
    all.into_iter().map(ConversationId).collect()
}

/// The pages of an inbox, one behind the other.
pub(super) async fn paged(
    conn: &mut PgConnection,
    user: UserId,
    wanted: &Wanted,
    known: Option<&Unread>,
) -> Vec<ConversationId> {
    let mut all = Vec::new();
    let mut wanted = wanted.clone();
    loop {
        let page = match known {
            Some(known) => inbox::page_of_unread(conn, user, &wanted, known).await,
            None => inbox::page(conn, user, &wanted).await,
        };
        let page = page.unwrap();
        all.extend(page.iter().map(|row| row.conversation));
        if page.len() < usize::try_from(wanted.limit).unwrap() {
            return all;
        }
        wanted.after = page.last().map(|row| Place {
            activity_micros: row.activity_micros,
            conversation: row.conversation,
        });
    }
}

/// Goal: wherever a page is sought, page behind page is the whole inbox in its order.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_pages_of_a_large_inbox_are_all_of_it(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    sqlx::query(LARGE_INBOX)
        .bind(alice.0.0)
        .bind(bob.0.0)
        .execute(&mut conn)
        .await
        .unwrap();
    let shown = Wanted {
        archived: Some(false),
        limit: 100,
        ..Wanted::default()
    };
    for (wanted, at_least) in [
        (shown.clone(), 2_000),
        (
            Wanted {
                kind: Some(Kind::Direct),
                ..shown.clone()
            },
            40,
        ),
        (
            Wanted {
                is_unread: true,
                ..shown.clone()
            },
            900,
        ),
        (
            Wanted {
                is_pinned: true,
                ..shown.clone()
            },
            3,
        ),
        (
            Wanted {
                archived: Some(true),
                ..shown.clone()
            },
            90,
        ),
        (
            Wanted {
                archived: None,
                ..shown.clone()
            },
            2_000,
        ),
    ] {
        for user in [alice.0, bob.0] {
            let expected = expected(&mut conn, user, &wanted).await;
            let count = expected.len();
            assert!(user == bob.0 || count >= at_least, "{wanted:?}: {count}");
            let paged = paged(&mut conn, user, &wanted, None).await;
            assert!(paged == expected, "{user:?} {wanted:?}");
        }
    }
}

/// Goal: a page of a large inbox costs less than a look-up for each conversation.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_page_of_a_large_inbox_looks_at_what_was_active_last(pool: PgPool) {
    let mut conn = writer(&pool).await;
    let (alice, bob) = (user(&mut conn, "alice").await, user(&mut conn, "bob").await);
    sqlx::query(LARGE_INBOX)
        .bind(alice.0.0)
        .bind(bob.0.0)
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query("vacuum analyze")
        .execute(&mut conn)
        .await
        .unwrap();
    let found =
        "select coalesce(sum(idx_tup_fetch), 0)::bigint, coalesce(sum(seq_tup_read), 0)::bigint
                 from pg_stat_xact_user_tables";
    let wanted = Wanted {
        archived: Some(false),
        limit: 20,
        ..Wanted::default()
    };
    let mut tx = conn.begin().await.unwrap();
    for (user, found_max) in [(alice.0, 1_200), (bob.0, 1_500)] {
        let before: (i64, i64) = sqlx::query_as(found).fetch_one(&mut *tx).await.unwrap();
        let page = inbox::page(&mut tx, user, &wanted).await.unwrap();
        let after: (i64, i64) = sqlx::query_as(found).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(page.len(), 20);
        assert_eq!(after.1, before.1, "rows of whole tables");
        let found = after.0 - before.0;
        assert!(found <= found_max, "{found} rows");
    }
}
