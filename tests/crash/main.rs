//! Kill -9 of the broker and of its Postgres, at random moments, while devices and REST
//! clients send and receive.
//!
//! Goal: nothing acknowledged is ever lost, nothing is stored twice, no sequence is missing,
//! and every device gets every log complete and in order, whatever is killed when.
//! Method: real processes and sockets. Each round kills something after a random number of
//! acknowledgements (0: while the last crash is still being repaired), lets it come back,
//! and reads the logs over REST. Devices go away and come back by themselves as well, and
//! repeat what was not acknowledged under the same ids.
//!
//! At the end inboxes and threads are what the tables say, counted anew, and the log, replayed.
//!
//! `CRASH_ROUNDS` (default 50) and `CRASH_SEED` (default random, printed) are read from the
//! environment: `CRASH_ROUNDS=1000 cargo test --test crash -- --nocapture`. The seed repeats
//! the choices, not the scheduling of the machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod changes;
mod check;
mod device;
mod ledger;
mod load;
#[path = "../providers/mod.rs"]
#[expect(dead_code, unused_imports, reason = "other tests need more of it")]
mod providers;
mod push;
mod rest;
mod store;
#[path = "../suite/convergence/truth.rs"]
mod truth;
mod wire;

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, timeout};

use broker::Broker;
use load::Load;

const ROUNDS: u32 = 50;
/// Acknowledgements between two kills, at most.
const ACKNOWLEDGEMENTS_MAX: u64 = 200;
/// What should happen within moments has failed after this.
const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
enum Victim {
    Broker,
    Postmaster,
    Backend,
    PostmasterThenBroker,
    BrokerThenPostmaster,
}

const VICTIMS: [Victim; 5] = [
    Victim::Broker,
    Victim::Postmaster,
    Victim::Backend,
    Victim::PostmasterThenBroker,
    Victim::BrokerThenPostmaster,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_is_killed() {
    let seed = from_environment("CRASH_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut broker = Broker::start().await;
    let mut load = Load::start(&broker, &mut rng).await;
    let began = Instant::now();
    for round in 1..=rounds {
        let victim = VICTIMS[rng.random_range(0..VICTIMS.len())];
        load.acknowledge(rng.random_range(0..=ACKNOWLEDGEMENTS_MAX), DEADLINE)
            .await;
        kill(&mut broker, &load, victim, rng.random()).await;
        // If Postgres is not back yet, the next round reads on.
        drop(load.audit.read_on().await);
        let violations = load.ledger.violations();
        assert!(
            violations.is_empty(),
            "round {round}, after {victim:?}: {violations:#?}"
        );
    }
    let took = began.elapsed() / rounds.max(1);
    if timeout(DEADLINE, load.finish()).await.is_err() {
        let standing = load.ledger.standing();
        load.ledger
            .violation(format!("not all that was sent arrives: {standing}"));
    }
    let violations = load.ledger.violations();
    assert!(violations.is_empty(), "at the end: {violations:#?}");
    store::compare(&broker, &load::users()).await;
    broker.stop().await;
    let counts = *load.ledger.counts().borrow();
    eprintln!("{rounds} rounds of {took:.1?}: {counts:?}");
}

/// Counted before and after: a device that parts in between may find its last cursors lost,
/// with the broker that gathered them or with a Postgres that had not written them yet.
async fn kill(broker: &mut Broker, load: &Load, victim: Victim, choice: u32) {
    load.ledger.kill();
    strike(broker, victim, choice).await;
    load.ledger.kill();
}

/// Kills, and starts the broker again if that is dead.
async fn strike(broker: &mut Broker, victim: Victim, choice: u32) {
    match victim {
        Victim::Broker => {}
        Victim::Postmaster | Victim::PostmasterThenBroker => broker.kill_postmaster(),
        Victim::Backend => broker.kill_backend(choice as usize),
        Victim::BrokerThenPostmaster => {
            broker.kill().await;
            broker.kill_postmaster();
        }
    }
    if matches!(victim, Victim::Broker | Victim::PostmasterThenBroker) {
        broker.kill().await;
    }
    if !matches!(victim, Victim::Postmaster | Victim::Backend) {
        broker.start_again().await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no configuration file"
)]
fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}
