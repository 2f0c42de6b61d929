//! The walk through docs/conversations.md, as a reader types it: curl and the clients of mosquitto.

use std::{fmt::Write as _, fs, path::Path, process::Stdio};

use sqlx::PgPool;
use tokio::process::Command;

use crate::harness::{TestBroker, within};

const USERS: [&str; 5] = ["ann", "bob", "cleo", "dora", "emil"];
/// Written where a reader puts in what an answer said, so a shell cannot follow.
const PLACEHOLDER: &str = "\"…\"";

/// What a reader has by now: `homing` on the path, and everything on its usual port.
fn prelude(broker: &TestBroker, folder: &Path) -> String {
    let mut tokens = String::new();
    for user in USERS {
        writeln!(tokens, "{user}) echo {} ;;", broker.token(user)).unwrap();
    }
    let homing =
        format!("#!/bin/sh\n[ \"$1 $2\" = 'token --user' ] || exit 64\ncase $3 in\n{tokens}esac\n");
    let program = folder.join("homing");
    fs::write(&program, homing).unwrap();
    format!(
        "set -euo pipefail
         trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR
         set -E
         chmod +x {program}; PATH={folder}:$PATH
         curl() {{ command curl --noproxy '*' --fail-with-body \"${{@//127.0.0.1:8080/{http}}}\"; }}
         mosquitto_rr() {{ command mosquitto_rr -W 30 -h 127.0.0.1 -p {mqtt} \"$@\"; echo; }}
         mosquitto_pub() {{ command mosquitto_pub -h 127.0.0.1 -p {mqtt} \"$@\"; }}\n",
        program = program.display(),
        folder = folder.display(),
        http = broker.http(),
        mqtt = broker.mqtt().port(),
    )
}

/// The blocks that are typed into a shell.
fn typed(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let asks_for_more = |line: &str| !line.starts_with('#') && line.contains(PLACEHOLDER);
    blocks
        .filter(|block| !block.lines().any(asks_for_more))
        .collect()
}

/// Goal: each step of the walk does what it says, in the order in which it is written.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn the_walk_through_conversations_works_as_it_is_written(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let folder = tempfile::tempdir().unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conversations.md");
    let document = fs::read_to_string(document).unwrap();
    let script = prelude(&broker, folder.path()) + &typed(&document);
    let walk = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let walked = within("the walk", walk).await.unwrap();
    let said = String::from_utf8_lossy(&walked.stdout);
    let text = format!("{said}\n{}", String::from_utf8_lossy(&walked.stderr));
    assert!(walked.status.success(), "{text}");
    let answers = said
        .lines()
        .filter(|line| line.contains("\"event\":\"answer\""));
    let (refused, done): (Vec<_>, Vec<_>) =
        answers.partition(|answer| !answer.contains("\"status\":200"));
    assert!(done.len() >= 6, "{text}");
    assert!(
        matches!(refused[..], [one] if one.contains("unknown/operation")),
        "{text}"
    );
    for shown in [
        "\"body\":\"me, at nine\"",
        "\"retracted\":true",
        "\"title\":\"Rome\"",
        "\"change\":\"transferred\"",
    ] {
        assert!(said.contains(shown), "{shown}: {text}");
    }
    broker.stop().await;
}
