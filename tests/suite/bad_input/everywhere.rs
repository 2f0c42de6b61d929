//! What every operation refuses alike.

use homing::store::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use super::{INVALID, NOT_FOUND, World, operations};

/// Goal: a conversation of others answers as one that does not exist, whatever is asked of it.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_operation_tells_a_foreign_conversation_from_none(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let mut asked = 0;
    for operation in operations(&world.broker).await {
        if !operation.takes("conversation") {
            continue;
        }
        asked += 1;
        let unknown = [
            "A".repeat(22),
            "0198f3c2-0000-7000-8000-000000000000".to_owned(),
        ];
        for id in [&world.foreign.clone(), &unknown[0], &unknown[1]] {
            let arguments = operation.arguments(id);
            world
                .assert_refused(&operation, &arguments, NOT_FOUND)
                .await;
        }
        for id in ["x", "0198f3c2", "../../etc", "\u{0}", &"A".repeat(23)] {
            let arguments = operation.arguments(id);
            world.assert_refused(&operation, &arguments, INVALID).await;
        }
    }
    assert!(asked >= 22, "{asked}");
    world.broker.stop().await;
}

/// Goal: names that nobody can have are refused wherever one is asked for.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_operation_takes_a_name_that_nobody_can_have(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let mut asked = 0;
    for operation in operations(&world.broker).await {
        for argument in ["user", "users", "to", "from", "participants", "client_id"] {
            let known = [
                "conversation",
                "user",
                "users",
                "to",
                "participants",
                "seq",
                "client_id",
                "format",
            ];
            let is_known = operation
                .required
                .iter()
                .all(|it| known.contains(&it.as_str()));
            // `from` is a time elsewhere, or a sequence.
            let is_name = argument != "from" || operation.name == "transfer";
            if !is_known || !is_name || operation.name == "watch" {
                continue;
            }
            if !operation.takes(argument) && argument != "from" {
                continue;
            }
            asked += 1;
            for name in ["a/b", "a#", "\u{0}", &"x".repeat(129)] {
                if argument == "client_id" && name != "\u{0}" && name.len() < 129 {
                    continue; // a client id may be that
                }
                let mut arguments = operation.arguments(&world.group);
                let is_list = ["users", "to", "from", "participants"].contains(&argument);
                let value = if is_list { json!([name]) } else { json!(name) };
                arguments.insert(argument.to_owned(), value);
                let refusals = [INVALID, NOT_FOUND].concat();
                let refusals = if argument == "client_id" {
                    &refusals
                } else {
                    INVALID
                };
                world.assert_refused(&operation, &arguments, refusals).await;
            }
        }
    }
    assert!(asked >= 14, "{asked}");
    world.broker.stop().await;
}

/// Goal: entries that cannot be, and those that there are not, are refused wherever one is named.
#[sqlx::test(migrator = "MIGRATOR")]
async fn no_operation_takes_a_sequence_that_is_not_there(pool: PgPool) {
    let mut world = World::start(&pool).await;
    let mut asked = 0;
    for operation in operations(&world.broker).await {
        let is_in_path = operation.in_path.iter().any(|name| name == "seq");
        if is_in_path {
            asked += 1;
            for (seq, refusals) in [
                (json!(-1), INVALID),
                (json!(0), INVALID),
                (json!(99), NOT_FOUND),
                (json!(i64::MAX), NOT_FOUND),
            ] {
                let mut arguments = operation.arguments(&world.group);
                arguments.insert("seq".to_owned(), seq);
                world.assert_refused(&operation, &arguments, refusals).await;
            }
        }
        for name in ["before", "around", "changed_since", "at", "limit"] {
            if operation.in_query.iter().any(|it| it == name) {
                asked += 1;
                let mut arguments = operation.arguments(&world.group);
                arguments.insert(name.to_owned(), json!(-1));
                world.assert_refused(&operation, &arguments, INVALID).await;
                if name == "limit" {
                    for limit in [0, 100_000, i64::MAX] {
                        arguments.insert(name.to_owned(), json!(limit));
                        world.assert_refused(&operation, &arguments, INVALID).await;
                    }
                }
            }
        }
        if operation.in_query.iter().any(|name| name == "after") {
            asked += 1;
            let mut arguments = operation.arguments(&world.group);
            let is_sequence = ["history", "thread"].contains(&operation.name.as_str());
            let after = if is_sequence { json!(-1) } else { json!("a/b") };
            arguments.insert("after".to_owned(), after);
            world.assert_refused(&operation, &arguments, INVALID).await;
        }
    }
    assert!(asked >= 20, "{asked}");
    world.broker.stop().await;
}
