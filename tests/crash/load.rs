//! The users, their devices and conversations, and two programs that send over REST.

use std::{sync::Arc, time::Duration};

use homing::{
    bridge::identity::{NewToken, Secret, issue},
    client::backoff::Backoff,
    domain::ids::Subject,
};
use rand::{Rng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    broker::Broker,
    check::{Audit, Log},
    device::{Device, RETRY_MAX, RETRY_MIN, Setup},
    ledger::{Acknowledged, Counts, Ledger, Phase, Place, Sent},
    rest::Rest,
    wire::{Login, Version},
};

/// Who takes part in which conversation.
const CONVERSATIONS: [&[&str]; 3] = [
    &["alice", "bob"],
    &["alice", "bob", "carol", "dave"],
    &["carol", "dave"],
];

/// Name, user, version, filter; `{n}` stands for the id of a conversation.
const DEVICES: [(&str, &str, Version, &str); 6] = [
    ("alice-phone", "alice", Version::V5, "c/#"),
    ("alice-laptop", "alice", Version::V311, "c/#"),
    ("bob-phone", "bob", Version::V311, "c/+/messages"),
    ("carol-phone", "carol", Version::V5, "c/#"),
    ("carol-tablet", "carol", Version::V5, "c/{1}/messages"),
    ("dave-phone", "dave", Version::V311, "c/#"),
];

/// User and conversation.
const PROGRAMS: [(&str, Place); 2] = [("alice", 1), ("dave", 2)];

pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) audit: Audit,
    phase: watch::Sender<Phase>,
    devices: JoinSet<Device>,
    programs: JoinSet<()>,
}

impl Load {
    /// Returns when every device has subscribed, and so is promised everything.
    pub(crate) async fn start(broker: &Broker, rng: &mut StdRng) -> Self {
        let ledger = Arc::new(Ledger::default());
        let rest = Rest::new(broker.addresses());
        let mut conversations = Vec::new();
        for users in CONVERSATIONS {
            conversations.push(rest.create(&token(broker, users[0]), users).await);
        }
        let log = |(users, id): (&&[&str], &String)| Log::new(id.clone(), token(broker, users[0]));
        let logs = CONVERSATIONS.iter().zip(&conversations).map(log).collect();
        let audit = Audit::new(rest.clone(), ledger.clone(), logs);
        let conversations = Arc::new(conversations);
        let phase = watch::Sender::new(Phase::Subscribe);
        let mut devices = JoinSet::new();
        for (name, user, version, filter) in DEVICES {
            let setup = Setup {
                login: Login {
                    version,
                    client_id: name.to_owned(),
                    user: user.to_owned(),
                    token: token(broker, user),
                },
                filter: filter.replace("{1}", &conversations[1]),
                conversations: conversations.clone(),
                places: places(user, filter),
                addresses: broker.addresses(),
                phase: phase.subscribe(),
                ledger: ledger.clone(),
                seed: rng.random(),
            };
            devices.spawn(Device::new(setup).run());
        }
        let programs = JoinSet::new();
        let mut load = Self {
            ledger,
            audit,
            phase,
            devices,
            programs,
        };
        load.until(|counts| counts.subscribed == DEVICES.len())
            .await;
        load.phase.send_replace(Phase::Load);
        for (user, place) in PROGRAMS {
            let program = Program {
                rest: rest.clone(),
                user,
                token: token(broker, user),
                place,
                conversation: conversations[place].clone(),
                ledger: load.ledger.clone(),
            };
            load.programs.spawn(send_over_rest(program));
        }
        load
    }

    /// Waits for so many more acknowledgements, or something that should not be.
    pub(crate) async fn acknowledge(&self, more: u64, deadline: Duration) {
        let target = self.ledger.counts().borrow().acknowledged + more;
        let enough = self.until(|counts| counts.acknowledged >= target || counts.violations > 0);
        if timeout(deadline, enough).await.is_err() {
            self.ledger
                .violation(format!("nothing was acknowledged for {deadline:?}"));
        }
    }

    /// Lets everything that was sent be acknowledged and received, and compares.
    pub(crate) async fn finish(&mut self) {
        self.ledger.close();
        self.phase.send_replace(Phase::Drain);
        self.until(|counts| counts.unacknowledged == 0 || counts.violations > 0)
            .await;
        // Postgres may have been killed a moment ago; the caller sets the deadline.
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        while self.audit.read_on().await.is_err() || self.audit.read_again().await.is_err() {
            tokio::time::sleep(backoff.wait()).await;
        }
        self.audit.compare_totals();
        let heads = self.audit.heads();
        let wanted: Vec<_> = DEVICES
            .iter()
            .flat_map(|(name, user, _, filter)| {
                let heads = &heads;
                let all = places(user, filter).into_iter();
                all.map(move |place| ((*name).to_owned(), place, heads[place]))
            })
            .collect();
        self.until(|counts| self.ledger.has_received(&wanted) || counts.violations > 0)
            .await;
        self.phase.send_replace(Phase::End);
        while let Some(device) = self.devices.join_next().await {
            let device = device.unwrap();
            let (.., filter) = DEVICES
                .iter()
                .find(|(name, ..)| *name == device.name())
                .unwrap();
            self.audit.compare(&device, &places(device.user(), filter));
        }
        while let Some(program) = self.programs.join_next().await {
            program.unwrap();
        }
    }

    async fn until(&self, is_so: impl FnMut(&Counts) -> bool) {
        self.ledger.counts().wait_for(is_so).await.unwrap();
    }
}

/// All who take part somewhere.
pub(crate) fn users() -> Vec<&'static str> {
    let mut users = CONVERSATIONS.concat();
    users.sort_unstable();
    users.dedup();
    users
}

/// The conversations that a device gets: those of its user, or the one of its filter.
fn places(user: &str, filter: &str) -> Vec<Place> {
    let takes_part = |place: &Place| CONVERSATIONS[*place].contains(&user);
    let is_covered = |place: &Place| !filter.contains('{') || *place == 1;
    (0..CONVERSATIONS.len())
        .filter(takes_part)
        .filter(is_covered)
        .collect()
}

pub(crate) fn token(broker: &Broker, user: &str) -> String {
    let token = NewToken {
        subject: &Subject::new(user).unwrap(),
        time_to_live: Duration::from_hours(24),
        is_admin: false,
        issuer: None,
        audience: None,
    };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    issue(&Secret::open(&broker.data_dir()).unwrap(), &token, now)
}

struct Program {
    rest: Rest,
    user: &'static str,
    token: String,
    place: Place,
    conversation: String,
    ledger: Arc<Ledger>,
}

/// One message after the other; each is repeated under its id until it is answered.
async fn send_over_rest(program: Program) {
    let Program {
        rest,
        user,
        token,
        place,
        conversation,
        ledger,
    } = program;
    for number in 1.. {
        let (sender, id) = (format!("{user}-rest"), format!("{user}-rest-{number}"));
        let sent = Sent {
            conversation: place,
            sender,
            number,
        };
        if !ledger.sent(&id, sent) {
            return;
        }
        let message = format!(r#"{{"id":"{id}","body":{number}}}"#);
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match rest.post(&token, &conversation, &message).await {
                Ok((200 | 201, sequence)) if sequence.is_some() => {
                    break ledger.acknowledged(Acknowledged {
                        conversation: place,
                        id,
                        sequence,
                    });
                }
                Ok((status, _)) if status < 500 => {
                    return ledger.violation(format!("{id}, attempt {attempts}: status {status}"));
                }
                Ok(_) | Err(_) => tokio::time::sleep(backoff.wait()).await,
            }
        }
    }
}
