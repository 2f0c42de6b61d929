//! paho-mqtt (Python) and mqtt.js (Node, over WebSocket): scripts that play the whole story
//! and fail by themselves.

use std::{ffi::OsString, path::Path, process::Stdio};

use serde_json::json;
use sqlx::PgPool;
use tokio::process::Command;

use super::{MISSED, Stage, installed};
use crate::harness::within;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn paho_of_mqtt_3_lives_the_story(pool: PgPool) {
    paho(&pool, 4).await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn paho_of_mqtt_5_lives_the_story(pool: PgPool) {
    paho(&pool, 5).await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn mqttjs_of_mqtt_3_over_websocket_lives_the_story(pool: PgPool) {
    mqttjs(&pool, 4).await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn mqttjs_of_mqtt_5_over_websocket_lives_the_story(pool: PgPool) {
    mqttjs(&pool, 5).await;
}

async fn paho(pool: &PgPool, version: u8) {
    let python = installed("venv/bin/python");
    play(pool, version, python.into(), "paho_story.py").await;
}

async fn mqttjs(pool: &PgPool, version: u8) {
    let package = installed("node_modules/mqtt/package.json");
    assert!(
        package.exists(),
        "{} is missing: run scripts/test.sh",
        package.display()
    );
    play(pool, version, "node".into(), "mqttjs_story.js").await;
}

async fn play(pool: &PgPool, version: u8, interpreter: OsString, script: &str) {
    let stage = Stage::set(pool).await;
    let broker = &stage.broker;
    let setting = json!({
        "version": version,
        "mqtt": broker.mqtt().port(),
        "http": broker.http().port(),
        "alice": broker.token("alice"),
        "bob": broker.token("bob"),
        "conversation": stage.conversation,
        "foreign": stage.foreign,
        "missed": MISSED,
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop");
    let play = Command::new(&interpreter)
        .arg(folder.join(script))
        .arg(setting.to_string())
        .env("NODE_PATH", installed("node_modules"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(script, play).await.unwrap_or_else(|error| {
        panic!("{}: {error}: run scripts/test.sh", interpreter.display());
    });
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{script}, {version}: {text}");
    stage.end().await;
}
