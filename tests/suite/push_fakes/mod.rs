//! The fake push providers themselves: strict where the real ones are, and believed by clients
//! that somebody else wrote.
//!
//! ```text
//!   apns, fcm, oauth, web   each rule: one request that breaks it, and the documented answer
//!   faults                  what a test may let go wrong
//!   node_apn                @parse/node-apn (npm), against APNs
//!   firebase_admin          firebase-admin (PyPI), against FCM and OAuth
//!   web_push_testing        web-push (npm) against web-push-testing (npm), which decrypts
//! ```
//!
//! `scripts/test.sh` installs what is missing here.

mod apns;
mod apns_tokens;
mod client;
mod faults;
mod fcm;
mod firebase_admin;
mod node_apn;
mod oauth;
mod profile;
mod web;
pub(crate) mod web_push_testing;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::process::Command;

use crate::harness::within;

/// What `scripts/test.sh` has installed for these tests.
fn installed(path: &str) -> PathBuf {
    let tmp = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = tmp.parent().unwrap().join("interop").join(path);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test.sh",
        path.display()
    );
    path
}

/// A script beside this file, to be run by node.
fn node(script: &str, package: &str, setting: &Value) -> Command {
    installed(&format!("node_modules/{package}/package.json"));
    let mut command = Command::new("node");
    command.arg(script_path(script)).arg(setting.to_string());
    command.env("NODE_PATH", installed("node_modules"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn script_path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suite/push_fakes")
        .join(script)
}

/// Runs a script that fails by itself, and returns what it printed.
async fn play(mut command: Command) -> String {
    let output = within("the end of the script", command.output())
        .await
        .unwrap();
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}
