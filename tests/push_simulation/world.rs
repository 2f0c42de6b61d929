//! One world: people with devices, two readers of the outbox, two workers, and chance.

use std::collections::{BTreeMap, BTreeSet};

use homing::{
    domain::{
        ids::ClientMessageId,
        message::{Content, NewMessage},
    },
    store::{
        cursors::{self, Settled},
        messages::{self, Outcome},
        sessions::{self, Closing, OpenSession},
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use sqlx::PgConnection;

use crate::{
    consumers::Consumer,
    people::{Connection, Index, Message, People},
    provider::Provider,
    setting_up::{START, people},
    workers::{Now, Watch, Worker},
};

const STEP_MILLIS: i64 = 500;
/// How often something goes wrong.
const FAULTS: f64 = 0.1;
/// After so many steps without faults, everything must be quiet.
const HEALING_STEPS_MAX: usize = 2000;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) conn: PgConnection,
    pub(crate) rng: SmallRng,
    /// In milliseconds since the beginning.
    pub(crate) at: i64,
    faults: f64,
    pub(crate) people: People,
    pub(crate) provider: Provider,
    pub(crate) watch: Watch,
    consumers: [Consumer; 2],
    workers: [Worker; 2],
    /// When each row of the outbox was committed.
    rows: Vec<i64>,
    /// When what arrives at which connection: (device, generation, conversation, sequence).
    arrivals: BTreeMap<i64, Vec<(Index, i64, Index, i64)>>,
    /// Who will come back when, woken by a notification.
    waking: BTreeMap<i64, Vec<Index>>,
    seen: usize,
}

impl World {
    pub(crate) async fn new(mut conn: PgConnection, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let people = people(&mut conn, &mut rng).await;
        Self {
            conn,
            rng,
            at: 0,
            faults: FAULTS,
            people,
            provider: Provider::default(),
            watch: Watch::default(),
            consumers: Consumer::both(),
            workers: Default::default(),
            rows: Vec::new(),
            arrivals: BTreeMap::new(),
            waking: BTreeMap::new(),
            seen: 0,
        }
    }

    /// Half a second.
    pub(crate) async fn step(&mut self) {
        self.at += STEP_MILLIS;
        self.say().await;
        self.come_and_go().await;
        self.arrive();
        if self.at % 1000 == 0 {
            self.write().await;
        }
        for _ in 0..3 {
            self.read().await;
        }
        self.change_minds().await;
        if self.rng.random_bool(0.005) {
            self.crash_broker().await;
        }
        self.push().await;
    }

    /// No more faults, and nothing new: until nothing is due any more.
    pub(crate) async fn heal(&mut self) {
        self.faults = 0.0;
        for _ in 0..HEALING_STEPS_MAX {
            self.at += STEP_MILLIS;
            self.come_back().await;
            self.arrive();
            self.write().await;
            self.push().await;
            let due: Option<i64> = sqlx::query_scalar(
                "select (extract(epoch from min(due_at)) * 1000)::bigint from push_jobs",
            )
            .fetch_one(&mut self.conn)
            .await
            .unwrap();
            let is_armed = self.rows.last().is_none_or(|last| last + 10_000 < self.at);
            match due {
                None if is_armed && self.arrivals.is_empty() && self.waking.is_empty() => return,
                // Nothing happens before.
                Some(due) if is_armed => self.at = self.at.max(due - START - STEP_MILLIS),
                _ => {}
            }
        }
        panic!("jobs remain");
    }

    pub(crate) fn summary(&self) -> String {
        let delivered = self.provider.delivered.len();
        let late = self
            .provider
            .delivered
            .iter()
            .filter(|one| one.is_late)
            .count();
        let messages = self
            .people
            .conversations
            .iter()
            .map(|one| one.messages.len());
        format!(
            "{} messages, {} claims, {delivered} notifications, {late} after an acknowledgement, {} clear",
            messages.sum::<usize>(),
            self.watch.claimed,
            self.provider.cleared,
        )
    }

    async fn push(&mut self) {
        for consumer in &mut self.consumers {
            let (at, faults) = (self.at, self.faults);
            consumer
                .step(&mut self.conn, at, faults, &self.rows, &mut self.rng)
                .await;
        }
        let now = Now {
            at: self.at,
            faults: self.faults,
        };
        for worker in &mut self.workers {
            if self.rng.random_bool(0.8) {
                let (people, provider) = (&mut self.people, &mut self.provider);
                worker
                    .step(
                        &mut self.conn,
                        now,
                        people,
                        provider,
                        &mut self.watch,
                        &mut self.rng,
                    )
                    .await;
            }
        }
        for delivered in &self.provider.delivered[self.seen..] {
            if self.rng.random_bool(0.4) {
                let at = self.at + self.rng.random_range(500..4000);
                self.waking.entry(at).or_default().push(delivered.device);
            }
        }
        self.seen = self.provider.delivered.len();
    }

    async fn say(&mut self) {
        let mut batch = Vec::new();
        let mut said = Vec::new();
        for _ in 0..self.rng.random_range(0..24) {
            let index = self.rng.random_range(0..self.people.conversations.len());
            let conversation = &self.people.conversations[index];
            let members = conversation.members.iter();
            let present = members.filter(|(_, member)| !member.is_removed);
            let members: Vec<_> = present.map(|(user, _)| *user).collect();
            if members.is_empty() {
                continue;
            }
            let sender = members[self.rng.random_range(0..members.len())];
            let mention = members[self.rng.random_range(0..members.len())];
            let message = Message {
                seq: 0,
                sender,
                mentions: self.rng.random_bool(0.1).then_some(mention),
                is_urgent: self.rng.random_bool(0.05),
                expires: self.rng.random_bool(0.05),
                at: self.at,
            };
            let id = format!("{}-{}", self.at, batch.len());
            batch.push(self.new_message(index, &message, id));
            said.push((index, message));
        }
        if batch.is_empty() {
            return;
        }
        let appended = messages::append_batch(&mut self.conn, &batch)
            .await
            .unwrap();
        let touched: BTreeSet<_> = said.iter().map(|(index, _)| *index).collect();
        for ((index, message), appended) in said.into_iter().zip(appended) {
            let Outcome::Stored { sequence, .. } = appended.outcome else {
                panic!("{appended:?}");
            };
            let seq = sequence.get();
            let conversation = &mut self.people.conversations[index];
            conversation.head = seq.max(conversation.head);
            conversation.messages.push(Message { seq, ..message });
        }
        self.committed(touched.len()).await;
        for index in touched {
            self.deliver(index);
        }
    }

    fn new_message(&mut self, index: Index, message: &Message, id: String) -> NewMessage {
        let mut extra = serde_json::Map::new();
        if let Some(user) = message.mentions {
            extra.insert(
                "mentions".into(),
                vec![self.people.users[user].name.as_str()].into(),
            );
        }
        if message.is_urgent {
            extra.insert("urgent".into(), true.into());
        }
        if message.expires {
            let expires = START + self.at + self.rng.random_range(500..30_000);
            extra.insert("expires_at".into(), expires.into());
        }
        let sender = &self.people.users[message.sender];
        NewMessage {
            conversation: self.people.conversations[index].id,
            sender: sender.id,
            sender_name: sender.name.clone(),
            sender_device: None,
            content: Content {
                extra: serde_json::to_vec(&extra).unwrap().into(),
                ..Content::new(ClientMessageId::new(id).unwrap(), "text", "\"hello\"")
            },
        }
    }

    /// What has just been stored was stored at this time, in so many rows of the outbox.
    pub(crate) async fn committed(&mut self, rows: usize) {
        for text in [
            "update messages set created_at = to_timestamp($1 / 1000.0)
             where created_at < to_timestamp(2000000000)",
            "update outbox set created_at = to_timestamp($1 / 1000.0)
             where created_at < to_timestamp(2000000000)",
        ] {
            sqlx::query(text)
                .bind(START + self.at)
                .execute(&mut self.conn)
                .await
                .unwrap();
        }
        self.rows.extend(vec![self.at; rows]);
    }

    /// The head of a conversation is on its way to the devices that are connected.
    fn deliver(&mut self, index: Index) {
        let conversation = &self.people.conversations[index];
        for (&user, member) in &conversation.members {
            for &device in &self.people.users[user].devices {
                if let Some(connection) = self.people.devices[device].connection
                    && !connection.is_half_open
                    && !member.is_removed
                {
                    let at = self.at + self.rng.random_range(20..2000);
                    let arrival = (device, connection.generation, index, conversation.head);
                    self.arrivals.entry(at).or_default().push(arrival);
                }
            }
        }
    }

    fn arrive(&mut self) {
        while let Some(first) = self.arrivals.first_entry() {
            if *first.key() > self.at {
                return;
            }
            for (device, generation, conversation, seq) in first.remove() {
                let device = &mut self.people.devices[device];
                if device
                    .connection
                    .is_some_and(|held| held.generation == generation)
                {
                    let acknowledged = device.acknowledged.entry(conversation).or_default();
                    *acknowledged = seq.max(*acknowledged);
                    device.unwritten.insert(conversation);
                }
            }
        }
    }

    /// Writes what was acknowledged since.
    async fn write(&mut self) {
        let devices: Vec<_> = (0..self.people.devices.len()).collect();
        self.write_of(&devices).await;
    }

    async fn write_of(&mut self, devices: &[Index]) {
        let mut batch = Vec::new();
        for &index in devices {
            let device = &mut self.people.devices[index];
            for conversation in std::mem::take(&mut device.unwritten) {
                let acknowledged = device.acknowledged[&conversation];
                device.written.insert(conversation, acknowledged);
                batch.push(Settled {
                    device: Some(device.id),
                    user: self.people.users[device.user].id,
                    conversation: self.people.conversations[conversation].id,
                    delivered: Some(acknowledged),
                    read: None,
                });
            }
        }
        if !batch.is_empty() {
            cursors::settle(&mut self.conn, &batch).await.unwrap();
        }
    }

    async fn come_and_go(&mut self) {
        self.come_back().await;
        let mut leaving = BTreeSet::new();
        for _ in 0..10 {
            let device = self.rng.random_range(0..self.people.devices.len());
            match self.people.devices[device].connection {
                None if self.rng.random_bool(0.4) => self.connect(device).await,
                Some(_) => drop(leaving.insert(device)),
                None => {}
            }
        }
        let leaving: Vec<_> = leaving.into_iter().collect();
        // What was acknowledged is written when a connection ends.
        self.write_of(&leaving).await;
        let closings: Vec<_> = leaving
            .iter()
            .map(|&device| {
                let device = &mut self.people.devices[device];
                Closing {
                    device: device.id,
                    generation: device.connection.take().unwrap().generation,
                    keep: true,
                    expiry_seconds: 1_000_000,
                    inflight: Vec::new(),
                    is_hidden: false,
                }
            })
            .collect();
        sessions::close(&mut self.conn, &closings).await.unwrap();
    }

    async fn come_back(&mut self) {
        while let Some(first) = self.waking.first_entry() {
            if *first.key() > self.at {
                break;
            }
            for device in first.remove() {
                if self.people.devices[device].is_installed {
                    self.connect(device).await;
                }
            }
        }
    }

    async fn connect(&mut self, index: Index) {
        let device = &self.people.devices[index];
        let session = OpenSession {
            user: self.people.users[device.user].id,
            client_id: &device.client_id,
            clean_start: false,
            expiry_seconds: 1_000_000,
            node: "node-1",
            issued_at: None,
        };
        let opened = sessions::open(&mut self.conn, &session).await.unwrap();
        assert_eq!(opened.device, device.id);
        // Whoever is away does not answer, nor does a connection that is half open.
        let is_half_open = self.rng.random_bool(self.faults);
        let activity = match self.rng.random_range(0..3) {
            0 if is_half_open => "away",
            1 => "background",
            _ => "active",
        };
        sqlx::query(
            "update sessions set connected_at = to_timestamp($2 / 1000.0), activity = $3
             where device_id = $1",
        )
        .bind(device.id.0)
        .bind(START + self.at)
        .bind(activity)
        .execute(&mut self.conn)
        .await
        .unwrap();
        let generation = opened.generation;
        let user = &self.people.users[device.user];
        for &conversation in user.conversations.iter().filter(|_| !is_half_open) {
            let head = self.people.conversations[conversation].head;
            let at = self.at + self.rng.random_range(100..3000);
            let arrival = (index, generation, conversation, head);
            self.arrivals.entry(at).or_default().push(arrival);
        }
        let device = &mut self.people.devices[index];
        if !is_half_open {
            device.shown.clear();
        }
        device.connection = Some(Connection {
            generation,
            is_half_open,
        });
    }

    /// Everybody is away, and what was not written is forgotten.
    async fn crash_broker(&mut self) {
        sessions::disconnect_node(&mut self.conn, "node-1")
            .await
            .unwrap();
        for device in &mut self.people.devices {
            device.connection = None;
            // It is delivered again, and acknowledged again.
            device.unwritten.clear();
            device.acknowledged.clone_from(&device.written);
        }
        self.arrivals.clear();
    }

    /// Somebody reads on a device what the device has.
    async fn read(&mut self) {
        let index = self.rng.random_range(0..self.people.devices.len());
        let device = &self.people.devices[index];
        let place = self.rng.random_range(0..device.acknowledged.len().max(1));
        let Some((&conversation, &seq)) = device.acknowledged.iter().nth(place) else {
            return;
        };
        let member = &self.people.conversations[conversation].members[&device.user];
        if device.connection.is_none() || member.is_removed || member.read >= seq {
            return;
        }
        let settled = Settled {
            device: None,
            user: self.people.users[device.user].id,
            conversation: self.people.conversations[conversation].id,
            delivered: None,
            read: Some(seq),
        };
        cursors::settle(&mut self.conn, &[settled]).await.unwrap();
        // settle() takes the time from the clock.
        sqlx::query(
            "update push_jobs set committed_at = to_timestamp($1 / 1000.0), due_at = to_timestamp($1 / 1000.0)
             where due_at < to_timestamp(2000000000)",
        )
        .bind(START + self.at)
        .execute(&mut self.conn)
        .await
        .unwrap();
        let user = device.user;
        let conversation = &mut self.people.conversations[conversation];
        conversation.members.get_mut(&user).unwrap().read = seq;
    }
}
