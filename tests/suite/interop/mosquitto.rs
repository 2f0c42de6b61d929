//! `mosquitto_sub` and `mosquitto_pub`: the command line that everybody tries first.

use std::{
    collections::VecDeque,
    process::{Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{MISSED, Stage, message};
use crate::harness::within;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn mosquitto_of_mqtt_3_lives_the_story(pool: PgPool) {
    story(&pool, "311").await;
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn mosquitto_of_mqtt_5_lives_the_story(pool: PgPool) {
    story(&pool, "5").await;
}

async fn story(pool: &PgPool, version: &'static str) {
    for program in ["mosquitto_pub", "mosquitto_sub"] {
        let is_there = Command::new(program).arg("--version").output().await;
        assert!(
            is_there.is_ok(),
            "{program} is missing: run scripts/test.sh"
        );
    }
    let stage = Stage::set(pool).await;
    let client = Mosquitto {
        stage: &stage,
        version,
    };
    client.a_bad_token_is_refused().await;

    let mut bob = client.subscribe("bob").await;
    let alice = client.publish(&stage.send_topic(), "live").await;
    assert!(alice.status.success(), "{alice:?}");
    assert_eq!(bob.entry().await, (1, "live".into()));
    bob.leave_at(1).await;

    for id in MISSED {
        let alice = client.publish(&stage.send_topic(), id).await;
        assert!(alice.status.success(), "{alice:?}");
    }
    let mut bob = client.subscribe("bob").await;
    for (sequence, id) in (2..).zip(MISSED) {
        assert_eq!(bob.entry().await, (sequence, id.into()));
    }
    client.publish(&stage.send_topic(), "last").await;
    assert_eq!(bob.entry().await, (7, "last".into()));
    bob.leave_at(7).await;

    client.a_foreign_conversation_is_refused().await;
    stage.end().await;
}

struct Mosquitto<'a> {
    stage: &'a Stage,
    version: &'static str,
}

impl Mosquitto<'_> {
    async fn a_bad_token_is_refused(&self) {
        let mut command = self.command("mosquitto_pub", "alice", "not a token");
        command.args(["-t", &self.stage.send_topic(), "-m", &message("never")]);
        let output = run(command).await;
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("bad user name or password"), "{text}");
    }

    /// 3.1.1 has no way to say so in a PUBACK; it is said on me/device.
    async fn a_foreign_conversation_is_refused(&self) {
        if self.version == "5" {
            let alice = self.publish(&self.stage.foreign_topic(), "refused").await;
            let text = String::from_utf8_lossy(&alice.stderr).to_lowercase();
            assert!(text.contains("not authorized"), "{alice:?}");
            return;
        }
        // mosquitto_pub does not subscribe; its refusal waits for nobody, and nothing is stored.
        let alice = self.publish(&self.stage.foreign_topic(), "refused").await;
        assert!(alice.status.success(), "{alice:?}");
    }

    async fn publish(&self, topic: &str, id: &str) -> Output {
        let token = self.stage.broker.token("alice");
        let mut command = self.command("mosquitto_pub", "alice", &token);
        command.args(["-q", "1", "-t", topic, "-m", &message(id)]);
        run(command).await
    }

    /// Returns when c/# is granted; the session is kept.
    async fn subscribe(&self, user: &str) -> Subscriber {
        let mut command = self.command("mosquitto_sub", user, &self.stage.broker.token(user));
        command.args([
            "-q",
            "1",
            "-i",
            "mosquitto",
            "-c",
            "-t",
            "c/#",
            "-F",
            "%p",
            "-d",
        ]);
        if self.version == "5" {
            command.args(["-x", "3600"]);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (user, waiting) = (user.to_owned(), VecDeque::new());
        let mut subscriber = Subscriber {
            user,
            child,
            lines,
            waiting,
        };
        subscriber.granted().await;
        subscriber
    }

    fn command(&self, program: &str, user: &str, token: &str) -> Command {
        let port = self.stage.broker.mqtt().port().to_string();
        // Into a pipe it would write when its buffer is full or it ends.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", program])
            .args(["-V", self.version, "-h", "127.0.0.1", "-p", &port])
            .args(["-u", user, "-P", token])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

struct Subscriber {
    user: String,
    child: Child,
    /// What it prints: every packet because of -d, and every payload.
    lines: Lines<BufReader<ChildStdout>>,
    /// Payloads that came before the subscription was granted.
    waiting: VecDeque<Value>,
}

impl Subscriber {
    async fn granted(&mut self) {
        loop {
            let line = self.line().await;
            if line.starts_with("Subscribed") {
                return;
            }
            self.waiting.extend(serde_json::from_str::<Value>(&line));
        }
    }

    /// The sequence and the id of the next message.
    async fn entry(&mut self) -> (i64, String) {
        loop {
            let payload = self.payload().await;
            if let (Some(sequence), Some(id)) = (payload["seq"].as_i64(), payload["id"].as_str()) {
                return (sequence, id.to_owned());
            }
        }
    }

    /// Leaves once its own receipt says that it has got so far. A client that closes its
    /// socket with something unread resets the connection, and its acknowledgements with it.
    async fn leave_at(mut self, sequence: i64) {
        loop {
            let payload = self.payload().await;
            if payload["user"] == *self.user && payload["delivered"] == sequence {
                break;
            }
        }
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::TERM).unwrap();
        let output = within("its end", self.child.wait_with_output()).await;
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    async fn payload(&mut self) -> Value {
        if let Some(payload) = self.waiting.pop_front() {
            return payload;
        }
        loop {
            let line = self.line().await;
            if let Ok(payload) = serde_json::from_str(&line) {
                return payload;
            }
        }
    }

    async fn line(&mut self) -> String {
        let line = within("a line", self.lines.next_line()).await.unwrap();
        line.expect("mosquitto_sub prints on")
    }
}

async fn run(mut command: Command) -> Output {
    within("its end", command.output()).await.unwrap()
}
