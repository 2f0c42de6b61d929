//! How many rows anybody writes in a database, counted by the database itself.

use sqlx::{AssertSqlSafe, PgPool};

/// Counts from its making on.
pub(crate) struct Writes(PgPool);

/// Counts every row that is inserted, updated or deleted from now on, as soon as that
/// happens and whether it is committed or not.
pub(crate) async fn watch(pool: &PgPool) -> Writes {
    sqlx::raw_sql(
        "create schema counted;
         create function counted.count_write() returns trigger language plpgsql as $$
         begin
             perform nextval('counted.' || tg_argv[0]);
             return null;
         end
         $$;",
    )
    .execute(pool)
    .await
    .unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
           and not c.relispartition and c.relname not like '\\_sqlx%'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let count = format!(
            "create sequence counted.{table};
             create trigger count_write after insert or update or delete on {table}
             for each row execute function counted.count_write('{table}')"
        );
        sqlx::raw_sql(AssertSqlSafe(count))
            .execute(pool)
            .await
            .unwrap();
    }
    Writes(pool.clone())
}

impl Writes {
    /// The tables that were written to, and how often.
    pub(crate) async fn all(&self) -> Vec<(String, i64)> {
        let written = "select sequencename::text, last_value from pg_sequences
                       where schemaname = 'counted' and last_value is not null order by 1";
        sqlx::query_as(written).fetch_all(&self.0).await.unwrap()
    }
}
