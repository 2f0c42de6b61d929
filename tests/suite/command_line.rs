//! The command line as a script meets it: what is on stdout, and the exit codes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const SOMEWHERE: &str = "AZjzwgAAcACAAAAAAAAAAQ";

/// The commands, all on one data directory of their own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // As root, Postgres runs as a user who must get through here.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_homing"));
        command
            .args(arguments)
            .env("HOMING__DATA_DIR", self.0.path().join("data"))
            .env("HOMING__MQTT__LISTEN", "127.0.0.1:0")
            .env("HOMING__HTTP__LISTEN", "127.0.0.1:0")
            .env("HOMING__LOG__LEVEL", "warn");
        let profile = self.0.path().join("profile.toml");
        if profile.exists() {
            command.arg("--config").arg(profile);
        }
        command
    }

    /// Settings that the environment cannot say.
    fn with_profile(self, toml: &str) -> Self {
        fs::write(self.0.path().join("profile.toml"), toml).unwrap();
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints; it must succeed.
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// It must fail so, print nothing, and say this on stderr.
    #[track_caller]
    fn fails(&self, code: i32, says: &str, arguments: &[&str]) {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(says),
            "{arguments:?}: {stderr}"
        );
    }

    fn serve(&self) -> Serving {
        let mut child = self
            .command(&["serve"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let serving = Serving(child);
        assert!(line.starts_with("ready mqtt=127.0.0.1:"), "{line}");
        serving
    }
}

/// A broker; dropped, it is asked to stop, and Postgres with it.
struct Serving(Child);

impl Serving {
    fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.stop();
        }
    }
}

#[test]
fn without_a_broker_the_exit_code_says_whose_fault_it_is() {
    let place = Place::new();
    place.fails(
        2,
        "conversation id",
        &["send", "x", "hi", "--user", "alice"],
    );
    place.fails(2, "user name", &["token", "--user", "a/b"]);
    place.fails(
        4,
        "homing serve",
        &["send", SOMEWHERE, "hi", "--user", "alice"],
    );
    place.fails(
        4,
        "homing serve",
        &["conversation", "create", "alice", "bob"],
    );
    let nobody_there = [
        "tail",
        "--user",
        "bob",
        "--mqtt",
        "127.0.0.1:1",
        "--token",
        "x",
    ];
    place.fails(4, "127.0.0.1:1", &nobody_there);
    place.fails(1, "token.secret", &["token", "--user", "alice"]);
    place.fails(
        1,
        "store.url",
        &["migrate", "--database-url", "mysql://localhost/homing"],
    );
}

#[test]
fn settings_are_shown_without_secrets_and_refused_by_name() {
    let place = Place::new();
    assert_eq!(place.prints(&["check-config"]), "ok");
    let url = "postgres://homing:hunter2@db/homing";
    let json = place.prints(&["check-config", "--json", "--database-url", url]);
    assert!(
        json.contains("\"mqtt\"") && !json.contains("hunter2"),
        "{json}"
    );
    let refused = place
        .command(&["check-config"])
        .env("HOMING__MQTT__INFLIGHT", "8")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("inflight"));
}

// Goal: the main job through the commands alone. Bob's phone begins a session and goes away;
// what alice sends meanwhile is there when it returns, once, in order.
#[test]
fn a_phone_that_was_away_replays_what_alice_sent() {
    let place = Place::new();
    let mut serving = place.serve();
    let cid = place.prints(&["conversation", "create", "alice", "bob"]);
    let phone = |count| {
        let tail = [
            "tail",
            &cid,
            "--user",
            "bob",
            "--client-id",
            "phone",
            "--count",
            count,
        ];
        place.prints(&tail)
    };
    assert_eq!(phone("0"), "");

    let send = |text, id| place.prints(&["send", &cid, text, "--user", "alice", "--id", id]);
    assert_eq!(send("on my way", "first"), "1");
    assert_eq!(send("on my way", "first"), "1");
    assert_eq!(send("five\nminutes", "second"), "2");
    assert_eq!(phone("2"), "#1 alice: on my way\n#2 alice: five\\nminutes");

    place.fails(
        3,
        "homing conversation add",
        &["send", &cid, "hi", "--user", "mallory"],
    );
    place.fails(
        3,
        "token",
        &["send", &cid, "hi", "--user", "alice", "--token", "x"],
    );
    place.fails(
        3,
        "no such conversation",
        &["conversation", "add", SOMEWHERE, "carol"],
    );

    assert!(serving.stop().success());
    place.fails(4, "homing serve", &["send", &cid, "hi", "--user", "alice"]);
}

#[test]
fn participants_come_and_go() {
    let place = Place::new();
    let _serving = place.serve();
    let cid = place.prints(&["conversation", "create", "alice", "bob", "--title", "Lunch"]);
    assert_eq!(place.prints(&["conversation", "add", &cid, "carol"]), "1");
    assert_eq!(place.prints(&["conversation", "add", &cid, "carol"]), "");
    assert_eq!(
        place.prints(&["conversation", "remove", &cid, "carol", "--json"]),
        r#"{"seq":2}"#
    );
    place.fails(
        3,
        "`readonly`",
        &["conversation", "add", &cid, "dave", "--role", "boss"],
    );
}

#[test]
fn doctor_fails_where_serve_would() {
    let place = Place::new();
    let doctor = |address: &str| {
        let mut command = place.command(&["doctor", "--json"]);
        let output = command
            .env("HOMING__HTTP__LISTEN", address)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(doctor("127.0.0.1:0").0, Some(0));
    let occupant = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, checks) = doctor(&occupant.local_addr().unwrap().to_string());
    assert_eq!(code, Some(1));
    assert!(
        checks.contains(r#""subject":"http.listen","verdict":"fail""#),
        "{checks}"
    );
}

const FCM: &str = r#"
[[push.fcm]]
app = "my-project"
service_account = "/nowhere.json"
"#;

/// A service account that can be read; nothing is sent with it.
fn service_account() -> String {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    serde_json::json!({
        "type": "service_account",
        "project_id": "my-project",
        "private_key": key.unwrap().serialize_pem(),
        "client_email": "push@my-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

#[test]
fn a_device_is_registered_and_a_conversation_muted() {
    let keys = tempfile::tempdir().unwrap();
    let account = keys.path().join("my-project.json");
    fs::write(&account, service_account()).unwrap();
    let profile = FCM.replace("/nowhere.json", account.to_str().unwrap());
    let place = Place::new().with_profile(&profile);
    let _serving = place.serve();
    let register = |token: &'static str| {
        let of = ["push", "register", "bob", "my phone"];
        let to = ["--provider", "fcm", "--app", "my-project"];
        [&of[..], &to[..], &["--push-token", token]].concat()
    };
    // Of "abc", by sha256sum.
    assert_eq!(place.prints(&register("abc")), "ba7816bf");
    place.fails(3, "visible ASCII", &register("a b"));
    let other = ["push", "register", "bob", "phone", "--provider", "apns"];
    let other = [&other[..], &["--app", "x", "--push-token", "y"]].concat();
    place.fails(3, "it can push to fcm:my-project:production", &other);

    let cid = place.prints(&["conversation", "create", "alice", "bob"]);
    let mute = |how: &[&'static str]| {
        let mute = ["push", "mute", "bob", &cid];
        place.prints(&[&mute[..], how].concat())
    };
    assert_eq!(mute(&["--forever"]), "muted");
    let until = mute(&["--for", "8h"]);
    assert!(until.starts_with("muted until 20"), "{until}");
    assert_eq!(mute(&["--off"]), "not muted");
    assert_eq!(
        mute(&["--off", "--json"]),
        r#"{"mentions":true,"muted_until":null}"#
    );
    place.fails(
        3,
        "no such conversation",
        &["push", "mute", "eve", &cid, "--off"],
    );
    place.fails(2, "--for", &["push", "mute", "bob", &cid]);

    place.prints(&["send", &cid, "hi", "--user", "alice"]);
    let alice = place.prints(&["push", "explain", "alice", &cid, "1"]);
    assert!(
        alice.starts_with("alice, message 1, committed 20"),
        "{alice}"
    );
    assert!(
        alice.contains("(no push token)\n  nothing: own message"),
        "{alice}"
    );
    place.fails(3, "no such message", &["push", "explain", "bob", &cid, "2"]);
    place.fails(
        3,
        "never taken part",
        &["push", "explain", "eve", &cid, "1"],
    );
    place.fails(2, "starts at 1", &["push", "explain", "bob", &cid, "0"]);
    let json = place.prints(&["push", "explain", "bob", &cid, "1", "--json"]);
    assert!(json.contains(r#""client_id":"my phone""#), "{json}");
}

#[test]
fn the_keys_of_apps_are_checked_before_something_is_pushed() {
    let check = ["push", "check"];
    Place::new().fails(1, "no app is configured", &check);

    let output = Place::new().with_profile(FCM).run(&check);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.starts_with("fail  fcm:my-project:production: /nowhere.json"),
        "{told}"
    );

    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("vapid.pem");
    let pair = rcgen::KeyPair::generate().unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    let public = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    let web = format!(
        "[[push.web]]\napp = \"chat.example.com\"\nvapid_key = {key:?}\nsubject = \"mailto:a@example.com\""
    );
    let place = Place::new().with_profile(&web);
    assert_eq!(
        place.prints(&check),
        format!("ok    webpush:chat.example.com:production\n      applicationServerKey {public}")
    );
    assert_eq!(
        place.prints(&["push", "check", "--json"]),
        format!(
            r#"[{{"application_server_key":"{public}","problem":null,"route":"webpush:chat.example.com:production"}}]"#
        )
    );
}
