//! How many rows anybody writes in a database, counted by the database itself.

use sqlx::{AssertSqlSafe, PgPool};

/// Counts from its making on.
pub(crate) struct Writes(PgPool);

/// Counts every row that is inserted, updated or deleted from now on, as soon as that
/// happens and whether it is committed or not.
pub(crate) async fn watch(pool: &PgPool) -> Writes {
    sqlx::raw_sql(
        "create sequence writes;
         create function count_write() returns trigger language plpgsql as $$
         begin
             perform nextval('public.writes');
             return null;
         end
         $$;",
    )
    .execute(pool)
    .await
    .unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
           and not c.relispartition and c.relname not like '\\_sqlx%'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let trigger = format!(
            "create trigger count_write after insert or update or delete on {table}
             for each row execute function count_write()"
        );
        sqlx::query(AssertSqlSafe(trigger))
            .execute(pool)
            .await
            .unwrap();
    }
    Writes(pool.clone())
}

impl Writes {
    pub(crate) async fn count(&self) -> i64 {
        let count = "select case when is_called then last_value else 0 end from writes";
        sqlx::query_scalar(count).fetch_one(&self.0).await.unwrap()
    }
}
