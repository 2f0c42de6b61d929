//! mosquitto_sub and mosquitto_pub: the command line that everybody tries first.

use std::process::{Output, Stdio};

use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{MISSED, Stage, entry, message};
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

    // -d prints every packet, so the messages that follow are known to be live.
    let mut bob = client.subscribe("bob", "c/#", 1, true);
    bob.until("Subscribed").await;
    let alice = client.publish(&stage.send_topic(), "live").await;
    assert!(alice.status.success(), "{alice:?}");
    assert_eq!(entry(bob.until("{").await.as_bytes()), (1, "live".into()));
    bob.end().await;

    for id in MISSED {
        let alice = client.publish(&stage.send_topic(), id).await;
        assert!(alice.status.success(), "{alice:?}");
    }
    let mut bob = client.subscribe("bob", "c/#", MISSED.len(), false);
    for (sequence, id) in (2..).zip(MISSED) {
        let line = bob.until("").await;
        assert_eq!(entry(line.as_bytes()), (sequence, id.into()));
    }
    bob.end().await;
    client.publish(&stage.send_topic(), "last").await;
    let mut bob = client.subscribe("bob", "c/#", 1, false);
    assert_eq!(entry(bob.until("").await.as_bytes()), (7, "last".into()));
    bob.end().await;

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

    /// Leaves after so many messages; its session is kept.
    fn subscribe(&self, user: &str, filter: &str, messages: usize, is_chatty: bool) -> Subscriber {
        let mut command = self.command("mosquitto_sub", user, &self.stage.broker.token(user));
        command.args(["-q", "1", "-i", "mosquitto", "-c", "-t", filter]);
        command.args(["-C", &messages.to_string(), "-F", "%p"]);
        if self.version == "5" {
            command.args(["-x", "3600"]);
        }
        if is_chatty {
            command.arg("-d");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Subscriber { child, lines }
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
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Subscriber {
    /// The next line that begins so.
    async fn until(&mut self, start: &str) -> String {
        loop {
            let line = within(start, self.lines.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended before a line with {start:?}"));
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// It has got all it waited for, and leaves by itself.
    async fn end(self) {
        let output = within("its end", self.child.wait_with_output()).await;
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

async fn run(mut command: Command) -> Output {
    within("its end", command.output()).await.unwrap()
}
