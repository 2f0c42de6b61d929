//! paho-mqtt and cbor2 (Python): a client that never saw our encoder.

use std::{path::Path, process::Stdio};

use serde_json::json;
use sqlx::PgPool;
use tokio::process::Command;

use super::installed;
use crate::harness::{TestBroker, within};

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn paho_and_cbor2_talk_to_a_json_client(pool: PgPool) {
    let broker = TestBroker::start(&pool).await;
    let conversation = broker.conversation(&["alice", "bob"]).await;
    let mut bob = broker.listener("bob", "json").await;
    let setting = json!({
        "mqtt": broker.mqtt().port(),
        "alice": broker.token("alice"),
        "conversation": conversation,
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop");
    let play = Command::new(installed("venv/bin/python"))
        .arg(folder.join("paho_cbor.py"))
        .arg(setting.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("paho_cbor.py", play).await;
    let output = output.unwrap_or_else(|error| panic!("{error}: run scripts/test.sh"));
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
    let said = bob.delivery_of("/messages").await.json();
    assert_eq!(
        (&said["id"], &said["body"], &said["x"]),
        (
            &json!("0198f3c2-0000-7000-8000-000000000001"),
            &json!({"a": [1.5, null]}),
            &json!({"1": true})
        )
    );
    broker.stop().await;
}
