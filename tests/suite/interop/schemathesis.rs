//! Schemathesis reads the document of the API and sends what fits it and what does not: no
//! request makes the server fail, and every answer is one that the document names.

use std::{path::Path, process::Stdio};

use serde_json::json;
use sqlx::PgPool;
use tokio::process::Command;

use super::installed;
use crate::harness::TestBroker;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn schemathesis_finds_nothing_that_the_document_does_not_say(pool: PgPool) {
    let settings = [("limits.requests_per_second", "0")];
    let broker = TestBroker::start_with(&pool, &settings).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    for id in ["1", "2", "3"] {
        let body = Some(json!({"id": id, "body": id}));
        let path = format!("/{conversation}/messages");
        broker
            .rest(reqwest::Method::POST, "alice", &path, body)
            .await;
    }
    let program = installed("venv/bin/schemathesis");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop");
    let place = tempfile::tempdir().unwrap();
    let output = Command::new(&program)
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/v1/openapi.json", broker.http()))
        .args(["--max-time", "60"])
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", broker.token("alice")))
        .env("CONVERSATION", &conversation)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/test.sh", program.display()));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    broker.stop().await;
}
