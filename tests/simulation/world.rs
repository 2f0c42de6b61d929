//! One world: users, devices, links, a broker, a log, and chance.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use homing::{
    domain::{ids::ConversationId, message::Sequence},
    mqtt::{packet::Version, publishes::Verdict, reason::ReasonCode, session::Limits},
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    connection::{Connection, Event},
    device::Phone,
    invariants::{Check, Watch, Who, ensure},
    link::Link,
    log::{Conversation, Device, News, Stored, Unsettled, User},
    wire::{Hello, Wish},
};

/// After so many rounds without faults, everything must be quiet.
const ROUNDS_MAX: usize = 3000;

/// What the receipts of the bridge have not written yet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) settled: BTreeMap<(Device, ConversationId), i64>,
    pub(crate) inflight: BTreeMap<Device, (u64, Unsettled)>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: SmallRng,
    pub(crate) now: Instant,
    pub(crate) limits: Arc<Limits>,
    /// How often the store fails.
    pub(crate) failures: f64,
    pub(crate) log: Vec<Conversation>,
    pub(crate) stored: Vec<Stored>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) gathered: Gathered,
    pub(crate) connections: Vec<Connection>,
    pub(crate) phones: Vec<Phone>,
    pub(crate) links: Vec<Link>,
    users: usize,
    connection_next: u64,
    refused: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let users = rng.random_range(2..5);
        let ids = 1..=rng.random_range(1..4_u128);
        let mut log: Vec<_> = ids
            .map(|number| Conversation::new(ConversationId(uuid::Uuid::from_u128(number))))
            .collect();
        for conversation in &mut log {
            (0..users)
                .filter(|_| rng.random_bool(0.7))
                .for_each(|user| conversation.change(user));
            conversation.told = conversation.head();
        }
        let phones: Vec<_> = (0..users + rng.random_range(0..2))
            .map(|device| phone(device, device % users, &log, &mut rng))
            .collect();
        let watches = phones
            .iter()
            .map(|phone| Watch::new(phone.menu.iter().all(|(_, wish)| wish.no_local)))
            .collect();
        Self {
            now: epoch(),
            limits: Arc::new(limits(&mut rng)),
            failures: rng.random_range(0.0..0.3),
            log,
            stored: phones.iter().map(|_| Stored::default()).collect(),
            watches,
            gathered: Gathered::default(),
            connections: Vec::new(),
            phones,
            links: Vec::new(),
            users,
            connection_next: 0,
            refused: BTreeSet::new(),
            rng,
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Check {
        self.now += Duration::from_millis(self.rng.random_range(0..200));
        let device = self.rng.random_range(0..self.phones.len());
        match self.rng.random_range(0..1000) {
            0..450 if !self.connections.is_empty() => {
                let place = self.rng.random_range(0..self.connections.len());
                self.drive(place)
            }
            0..750 => self.act(device),
            750..840 => {
                let place = self.rng.random_range(0..self.log.len());
                let (jobs_max, told) = (self.rng.random_range(1..5), self.rng.random_range(0..5));
                self.log[place].commit(jobs_max, told);
                Ok(())
            }
            840..930 => {
                let place = self.rng.random_range(0..self.log.len());
                self.tell(place);
                Ok(())
            }
            930..945 => {
                let place = self.rng.random_range(0..self.log.len());
                let user: User = self.rng.random_range(0..self.users);
                self.log[place]
                    .jobs
                    .push_back(crate::log::Job::Change(user));
                Ok(())
            }
            945..970 => {
                self.flush();
                Ok(())
            }
            970..990 => {
                self.cut(device);
                Ok(())
            }
            990..994 => {
                self.now += Duration::from_secs(self.rng.random_range(1..50));
                Ok(())
            }
            994..997 => {
                self.crash();
                Ok(())
            }
            _ => {
                let phone = &mut self.phones[device];
                phone.is_reading = !phone.is_reading;
                Ok(())
            }
        }
    }

    fn cut(&mut self, device: Device) {
        if let Some(place) = self.phones[device].link {
            self.links[place].cut(&mut self.rng);
            // Or the device does not notice before it has read what has arrived.
            if self.rng.random_bool(0.5) {
                self.phones[device].lose_link();
            }
        }
    }

    /// A device does something, as it happens.
    fn act(&mut self, device: Device) -> Check {
        let Self {
            phones,
            links,
            log,
            rng,
            ..
        } = self;
        let phone = &mut phones[device];
        let Some(place) = phone.link else {
            if rng.random_bool(0.3) {
                self.connect(device);
            }
            return Ok(());
        };
        let link = &mut links[place];
        if phone.is_reading {
            phone.receive(rng.random_range(0..300), link, log, &self.refused)?;
        }
        if link.is_cut && (link.down.is_empty() || rng.random_bool(0.2)) {
            phone.lose_link();
        }
        if !phone.is_connected || link.is_cut {
            return Ok(());
        }
        match rng.random_range(0..100) {
            0..40 => phone.acknowledge(rng, link),
            40..75 => {
                let conversation = log[rng.random_range(0..log.len())].id;
                let body = if rng.random_bool(0.1) { 200 } else { 3 };
                phone.publish(conversation, body, rng, link);
            }
            75..85 => {
                let choice = rng.random_range(0..phone.menu.len());
                phone.change(choice, link);
            }
            85..90 => phone.ping(link),
            90..93 => phone.disconnect(link),
            // The device forgets its connection; the server does not know.
            93..95 => phone.lose_link(),
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, device: Device) {
        let place = self.links.len();
        self.links.push(Link::default());
        self.connection_next += 1;
        self.connections
            .push(Connection::new(self.connection_next, place));
        self.phones[device].connect(place, &mut self.links[place]);
    }

    /// The writer of a conversation tells one thing.
    fn tell(&mut self, place: usize) {
        let log = &mut self.log[place];
        match log.news.pop_front() {
            None => {}
            Some(News::Verdict {
                device,
                connection,
                ticket,
                sequence,
                message,
            }) => {
                let verdict = if let Some(sequence) = sequence {
                    Verdict::Committed(Sequence::new(sequence).unwrap())
                } else {
                    self.refused.insert(message.clone());
                    Verdict::Refused {
                        code: ReasonCode::NOT_AUTHORIZED,
                        why: "not yours".to_owned(),
                        message_id: Some(message),
                        topic: format!("c/{}/send", log.id),
                    }
                };
                let here =
                    |one: &&mut Connection| one.id == connection && one.device == Some(device);
                if let Some(connection) = self.connections.iter_mut().find(here) {
                    connection
                        .mailbox
                        .events
                        .push_back(Event::Verdict { ticket, verdict });
                }
            }
            Some(News::Notice { from, to, entries }) => {
                let from = if log.told > 0 {
                    from.min(log.told + 1)
                } else {
                    from
                };
                log.told = log.told.max(to);
                for connection in &mut self.connections {
                    let user = connection.device.map(|device| self.phones[device].user);
                    let Some(stay) = user.and_then(|user| log.stay(user)) else {
                        continue;
                    };
                    let (from, to) = (from.max(stay.joined), stay.left.unwrap_or(to).min(to));
                    if from <= to {
                        connection.mailbox.notice(log.id, from, to, &entries);
                    }
                }
            }
        }
    }

    /// Without faults, until nothing is left to do; then everything must have arrived.
    pub(crate) fn heal(&mut self) -> Check {
        self.failures = 0.0;
        for round in 0.. {
            self.now += Duration::from_millis(20);
            for device in 0..self.phones.len() {
                self.calm(device)?;
            }
            for place in 0..self.log.len() {
                self.log[place].commit(9, 9);
                self.tell(place);
            }
            for id in self
                .connections
                .iter()
                .map(|one| one.id)
                .collect::<Vec<_>>()
            {
                if let Some(place) = self.connections.iter().position(|one| one.id == id) {
                    self.drive(place)?;
                }
            }
            self.flush();
            if self.is_quiet() {
                break;
            }
            ensure(round < ROUNDS_MAX, || {
                format!("never quiet: {:#?}", self.connections)
            })?;
        }
        for phone in self.phones.iter().filter(|phone| phone.hello.is_persistent) {
            let Phone { device, user, .. } = *phone;
            let session = self
                .connections
                .iter()
                .find(|one| one.device == Some(device));
            let subscriptions = session
                .and_then(|one| one.session.as_ref())
                .unwrap()
                .subscriptions();
            for log in &self.log {
                let is_covered = crate::log::covers(&subscriptions.coverage(), log.id);
                if is_covered && phone.menu.iter().all(|(_, wish)| wish.at_least_once) {
                    self.watches[device].check_promise(Who { user, device }, log)?;
                }
            }
        }
        Ok(())
    }

    /// A device acts so that it comes to rest.
    fn calm(&mut self, device: Device) -> Check {
        let Self {
            phones,
            links,
            log,
            rng,
            ..
        } = self;
        let phone = &mut phones[device];
        phone.is_reading = true;
        let Some(place) = phone.link else {
            self.connect(device);
            return Ok(());
        };
        let link = &mut links[place];
        phone.receive(1000, link, log, &self.refused)?;
        if link.is_cut {
            phone.lose_link();
        } else if phone.is_connected {
            // No pings: nothing but what is owed may keep a session going.
            phone.acknowledge(rng, link);
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let is_told = |log: &Conversation| log.jobs.is_empty() && log.news.is_empty();
        self.connections.len() == self.phones.len()
            && self.connections.iter().all(Connection::is_quiet)
            && self.phones.iter().all(Phone::is_content)
            && self.log.iter().all(is_told)
            && self.phones.iter().all(|phone| {
                let link = phone.link.map(|place| &self.links[place]);
                link.is_some_and(|link| link.up.is_empty() && link.down.is_empty())
            })
    }
}

/// Virtual time begins somewhere.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
fn epoch() -> Instant {
    Instant::now()
}

fn limits(rng: &mut SmallRng) -> Limits {
    Limits {
        keep_alive_max: Duration::from_mins(1),
        session_expiry_max: Duration::from_secs(1_000_000),
        inflight_max: NonZeroU16::new(rng.random_range(1..7)).unwrap(),
        receive_max: NonZeroU16::new(4).unwrap(),
        packet_bytes_max: 4096,
        topic_alias_max: 4,
        topic_alias_out_max: 2,
        subscriptions_max: 10,
        outbound_bytes_max: rng.random_range(100..800),
        backlog_entries_max: rng.random_range(1..8),
        publishes_per_second: if rng.random_bool(0.2) { 5 } else { 0 },
        expiry_warning: Duration::from_mins(1),
        suspect_after: Duration::from_secs(rng.random_range(1..9)),
    }
}

fn phone(device: Device, user: User, log: &[Conversation], rng: &mut SmallRng) -> Phone {
    let version = if rng.random_bool(0.5) {
        Version::V311
    } else {
        Version::V5
    };
    let is_v5 = version == Version::V5;
    let hello = Hello {
        version,
        client_id: device.to_string(),
        clean_start: false,
        is_persistent: rng.random_bool(0.75),
        receive_max: rng.random_range(1..9),
        packet_bytes_max: (is_v5 && rng.random_bool(0.3)).then_some(180),
        topic_alias_max: rng.random_range(0..4),
    };
    let no_local = is_v5 && rng.random_bool(0.2);
    let is_mixed = rng.random_bool(0.3);
    let mut wish = |identifier| Wish {
        at_least_once: !is_mixed || rng.random_bool(0.5),
        no_local,
        identifier: is_v5.then_some(identifier),
    };
    let mut menu = vec![
        ("c/#".to_owned(), wish(1)),
        ("me/device".to_owned(), wish(2)),
    ];
    for (number, conversation) in (3..).zip(log) {
        menu.push((format!("c/{}/messages", conversation.id), wish(number)));
    }
    Phone::new(device, user, hello, menu)
}
