//! Kill -9 of the broker and its Postgres while it pushes.
//!
//! Goal: whatever is killed when, every device that is away is told of the newest message of
//! its conversation, and a notification that leaves again does so under its old id.
//! Method: the real program pushes through the fake providers, which remember everything.
//! Each round ends while the pushes of the last messages are under way: nobody writes any more,
//! so that no later message tells of what the kill has lost. Answers of the providers that the
//! broker had not written down are part of it.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use homing::client::backoff::Backoff;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    broker::{Broker, Settings},
    from_environment,
    load::token,
    providers::{APP, Accepted, Providers},
    rest::Rest,
};

const ROUNDS: u32 = 12;
const DEVICES: usize = 16;
const NOTIFICATIONS_MAX: usize = 20;
/// From the commit of a message to the end of its push, about.
const PUSH_MILLIS: u64 = 150;
const DEADLINE: Duration = Duration::from_mins(1);

/// Everything sooner than in real life, but the late pass, which would repair what the early
/// one loses; the budget does not matter here.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("HOMING__PUSH__GRACE_OFFLINE", "50ms"),
    ("HOMING__PUSH__GRACE_CONNECTED", "1h"),
    ("HOMING__PUSH__GRACE_ELSEWHERE", "1h"),
    ("HOMING__PUSH__REPEAT_INTERVAL", "50ms"),
    ("HOMING__PUSH__BUDGET_BURST", "100000"),
    ("HOMING__PUSH__POLL_INTERVAL", "20ms"),
    ("HOMING__PUSH__REQUEST_TIMEOUT", "500ms"),
    ("HOMING__PUSH__LEASE", "1100ms"),
    ("HOMING__PUSH__RETRY_MIN", "100ms"),
];

/// The newest message that is stored, by device.
type Newest = watch::Sender<Vec<i64>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_is_lost_whatever_is_killed() {
    let seed = from_environment("CRASH_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("CRASH_SEED={seed} CRASH_ROUNDS={rounds} of pushes");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = TempDir::new().unwrap();
    let providers = Providers::start(folder.path()).await;
    let mut broker = Broker::start_with(settings(folder.path().join("push.toml"))).await;
    let newest = watch::Sender::new(vec![0; DEVICES]);
    let writing = watch::Sender::new(false);
    let mut senders = JoinSet::new();
    for device in 0..DEVICES {
        let conversation = prepare(&broker, device).await;
        let (rest, token) = (Rest::new(broker.addresses()), token(&broker, "alice"));
        let (newest, writing) = (newest.clone(), writing.subscribe());
        senders.spawn(write(rest, token, conversation, device, newest, writing));
    }
    let began = Instant::now();
    for _ in 0..rounds {
        writing.send_replace(true);
        let count = providers.seen().accepted.len() + rng.random_range(1..=NOTIFICATIONS_MAX);
        let enough = providers.until("notifications", |seen| {
            (seen.accepted.len() >= count).then_some(())
        });
        timeout(DEADLINE, enough).await.unwrap();
        writing.send_replace(false);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=PUSH_MILLIS))).await;
        if rng.random_ratio(1, 3) {
            broker.kill_postmaster();
        }
        broker.kill().await;
        broker.start_again().await;
        let stored = newest.borrow().clone();
        timeout(DEADLINE, until_told(&providers, &stored))
            .await
            .unwrap();
    }
    let all = providers.seen().accepted;
    assert_one_id_for_each(&all);
    senders.shutdown().await;
    let (took, count) = (began.elapsed() / rounds.max(1), all.len());
    let newest = newest.borrow().clone();
    eprintln!("{rounds} rounds of {took:.1?}: {count} notifications, newest messages {newest:?}");
    broker.stop().await;
}

/// Waits until every device is told of the newest message that is stored for it.
async fn until_told(providers: &Providers, newest: &[i64]) {
    let is_told = |told: &HashMap<String, i64>, (device, newest): (usize, &i64)| {
        *newest == 0 || told.get(&apns_token(device)) >= Some(newest)
    };
    providers
        .until("a notification of every newest message", |seen| {
            let told = told(&seen.accepted);
            let mut devices = newest.iter().enumerate();
            devices.all(|device| is_told(&told, device)).then_some(())
        })
        .await;
}

fn settings(profile: PathBuf) -> Settings {
    Settings {
        profile: Some(profile),
        environment: ENVIRONMENT.to_vec(),
    }
}

/// A user whose device can be woken and never connects, in a conversation with alice.
async fn prepare(broker: &Broker, device: usize) -> String {
    let user = format!("user-{device}");
    let rest = Rest::new(broker.addresses());
    let body = json!({
        "provider": "apns", "app": APP, "environment": "production", "token": apns_token(device),
    });
    rest.put_push_token(&token(broker, &user), "phone", &body)
        .await;
    rest.create(&token(broker, "alice"), &["alice", &user])
        .await
}

/// One message after the other, each repeated under its id until it is stored.
async fn write(
    rest: Rest,
    token: String,
    conversation: String,
    device: usize,
    newest: Newest,
    mut writing: watch::Receiver<bool>,
) {
    for number in 1.. {
        let message = json!({ "id": number.to_string(), "body": number }).to_string();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            match rest.post(&token, &conversation, &message).await {
                Ok((200 | 201, Some(sequence))) => {
                    newest.send_modify(|newest| newest[device] = sequence);
                    break;
                }
                Ok((status, _)) if status < 500 => panic!("message {number}: status {status}"),
                Ok(_) | Err(_) => tokio::time::sleep(backoff.wait()).await,
            }
        }
        // A pace that leaves the machine to the others.
        tokio::time::sleep(Duration::from_millis(40)).await;
        writing.wait_for(|writing| *writing).await.unwrap();
    }
}

/// The newest sequence that each device was told of.
fn told(accepted: &[Accepted]) -> HashMap<String, i64> {
    let mut told = HashMap::new();
    for accepted in accepted {
        let newest: &mut i64 = told.entry(accepted.token.clone()).or_default();
        *newest = (*newest).max(sequence(accepted));
    }
    told
}

/// Who repeats a notification, because it does not know that it has left, repeats its id.
fn assert_one_id_for_each(accepted: &[Accepted]) {
    let mut ids: HashMap<(&str, i64), &str> = HashMap::new();
    for accepted in accepted {
        let key = (accepted.token.as_str(), sequence(accepted));
        let id = ids.entry(key).or_insert(&accepted.id);
        assert_eq!(
            *id, accepted.id,
            "two notifications of one message: {accepted:#?}"
        );
    }
}

fn sequence(accepted: &Accepted) -> i64 {
    accepted.payload["homing"]["seq"].as_i64().unwrap()
}

fn apns_token(device: usize) -> String {
    format!("{:064x}", 0xa000_0000 + device)
}
