//! Clients by other people, each in its own words, and the same story for all of them.
//!
//! ```text
//!   a bad token is refused · bob subscribes to c/# · alice sends: bob gets it at once
//!   bob leaves, misses five messages, comes back to his session: exactly these, in order
//!   alice sends where she takes no part: she is told
//! ```
//!
//! `scripts/test.sh` installs what is missing here.

mod cbor;
mod mosquitto;
mod rumqttc_v3;
mod rumqttc_v5;
mod schemathesis;
mod scripts;
mod walk;

use std::path::PathBuf;

use sqlx::PgPool;

use super::harness::TestBroker;

const MISSED: [&str; 5] = ["missed-1", "missed-2", "missed-3", "missed-4", "missed-5"];

/// The broker of a story, and what its clients are told.
struct Stage {
    broker: TestBroker,
    /// Of alice and bob.
    conversation: String,
    /// Of others.
    foreign: String,
}

impl Stage {
    async fn set(pool: &PgPool) -> Self {
        let broker = TestBroker::start(pool).await;
        let conversation = broker.conversation(&["alice", "bob"]).await;
        let foreign = broker.conversation(&["carol", "dave"]).await;
        Self {
            broker,
            conversation,
            foreign,
        }
    }

    fn send_topic(&self) -> String {
        format!("c/{}/send", self.conversation)
    }

    fn foreign_topic(&self) -> String {
        format!("c/{}/send", self.foreign)
    }

    /// After the story: the log holds what was sent, in order, and each message once.
    async fn end(self) {
        let ids = std::iter::once("live").chain(MISSED).chain(["last"]);
        let expected: Vec<_> = (1..).zip(ids.map(str::to_owned)).collect();
        assert_eq!(
            self.broker.log("bob", &self.conversation).await,
            expected,
            "the log"
        );
        let foreign = self.broker.log("carol", &self.foreign).await;
        assert!(foreign.is_empty(), "nothing of alice's is in {foreign:?}");
        self.broker.stop().await;
    }
}

fn message(id: &str) -> String {
    format!(r#"{{"id":"{id}","body":"{id}, said"}}"#)
}

/// The sequence and the id of a delivery.
fn entry(payload: &[u8]) -> (i64, String) {
    let entry: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let (sequence, id) = (entry["seq"].as_i64(), entry["id"].as_str());
    (sequence.unwrap(), id.unwrap().to_owned())
}

/// What `scripts/test.sh` has installed for these tests.
fn installed(path: &str) -> PathBuf {
    let tmp = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap().join("interop").join(path)
}
