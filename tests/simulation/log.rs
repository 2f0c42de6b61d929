//! What stands for the bridge and Postgres: conversations, their log, stored sessions.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use homing::{
    domain::{
        envelope::{Stamp, entry_json},
        ids::{ConversationId, DeviceId, Subject},
        message::{Content, LogEntry, Position, Sequence, SharedEntry},
    },
    mqtt::{packet::PacketId, replay::Pending, subscriptions::Coverage},
};

/// A user of the simulation.
pub(crate) type User = usize;
/// What is in flight, as the store remembers it.
pub(crate) type Unsettled = Vec<(Position, Option<PacketId>)>;
/// A device of the simulation; its [`DeviceId`] is one more.
pub(crate) type Device = usize;

pub(crate) fn device_id(device: Device) -> DeviceId {
    DeviceId(i64::try_from(device).unwrap() + 1)
}

/// What waits for the writer of a conversation.
#[derive(Debug)]
pub(crate) enum Job {
    Publish {
        user: User,
        device: Device,
        connection: u64,
        ticket: u64,
        content: Box<Content>,
    },
    /// The user joins, or leaves.
    Change(User),
}

/// What a writer tells, in order, some time after the commit.
#[derive(Debug)]
pub(crate) enum News {
    Verdict {
        device: Device,
        connection: u64,
        ticket: u64,
        /// The sequence, unless refused.
        sequence: Option<i64>,
        message: String,
    },
    Notice {
        from: i64,
        to: i64,
        entries: Vec<SharedEntry>,
    },
}

/// One time a user takes part in a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stay {
    pub(crate) user: User,
    pub(crate) joined: i64,
    pub(crate) left: Option<i64>,
}

impl Stay {
    pub(crate) fn covers(&self, sequence: i64) -> bool {
        self.joined <= sequence && self.left.is_none_or(|left| sequence <= left)
    }
}

#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    /// With the device that sent it.
    pub(crate) entries: Vec<(SharedEntry, Option<Device>)>,
    /// The sequences of messages, by the id their sender gave.
    pub(crate) known: BTreeMap<String, i64>,
    /// Oldest first; the last one of a user is what the store knows.
    pub(crate) stays: Vec<Stay>,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) news: VecDeque<News>,
    /// How far the writer has told.
    pub(crate) told: i64,
}

impl Conversation {
    pub(crate) fn new(id: ConversationId) -> Self {
        Self {
            id,
            entries: Vec::new(),
            known: BTreeMap::new(),
            stays: Vec::new(),
            jobs: VecDeque::new(),
            news: VecDeque::new(),
            told: 0,
        }
    }

    pub(crate) fn head(&self) -> i64 {
        i64::try_from(self.entries.len()).unwrap()
    }

    pub(crate) fn stay(&self, user: User) -> Option<Stay> {
        self.stays
            .iter()
            .rev()
            .find(|stay| stay.user == user)
            .copied()
    }

    /// Whether the store shows this entry to the user now.
    pub(crate) fn shows(&self, user: User, sequence: i64) -> bool {
        self.stay(user).is_some_and(|stay| stay.covers(sequence))
    }

    /// Whether the user took part when it was written, now or at an earlier stay.
    pub(crate) fn ever_showed(&self, user: User, sequence: i64) -> bool {
        self.stays
            .iter()
            .any(|stay| stay.user == user && stay.covers(sequence))
    }

    pub(crate) fn sender(&self, sequence: i64) -> Option<Device> {
        let place = usize::try_from(sequence - 1).unwrap();
        self.entries.get(place).and_then(|(_, sender)| *sender)
    }

    /// One transaction of the writer: up to `jobs_max` jobs. `entries_told` of the new entries
    /// travel with the notice.
    pub(crate) fn commit(&mut self, jobs_max: usize, entries_told: usize) {
        let first = self.head() + 1;
        for _ in 0..jobs_max {
            match self.jobs.pop_front() {
                None => break,
                Some(Job::Change(user)) => self.change(user),
                Some(Job::Publish {
                    user,
                    device,
                    connection,
                    ticket,
                    content,
                }) => {
                    let message = content.id.as_str().to_owned();
                    let sequence = self.publish(user, device, &content);
                    self.news.push_back(News::Verdict {
                        device,
                        connection,
                        ticket,
                        sequence,
                        message,
                    });
                }
            }
        }
        let to = self.head();
        if first <= to {
            let known = usize::try_from(first - 1).unwrap();
            let new = self.entries[known..].iter().map(|(entry, _)| entry.clone());
            let skipped = (self.entries.len() - known).saturating_sub(entries_told);
            let from = first;
            let entries = new.skip(skipped).collect();
            self.news.push_back(News::Notice { from, to, entries });
        }
    }

    fn publish(&mut self, user: User, device: Device, content: &Content) -> Option<i64> {
        if self.stay(user).is_none_or(|stay| stay.left.is_some()) {
            return None;
        }
        if let Some(sequence) = self.known.get(content.id.as_str()) {
            return Some(*sequence);
        }
        let sequence = self.append(content, Some(device));
        self.known.insert(content.id.as_str().to_owned(), sequence);
        Some(sequence)
    }

    /// The entry that tells of it is visible to whom it is about.
    pub(crate) fn change(&mut self, user: User) {
        let content =
            Content::from_json(br#"{"id":"m","type":"membership","body":1}"#, crate::LIMITS)
                .unwrap();
        let sequence = self.append(&content, None);
        let stay = self.stays.iter_mut().rev().find(|stay| stay.user == user);
        match stay.filter(|stay| stay.left.is_none()) {
            Some(stay) => stay.left = Some(sequence),
            None => self.stays.push(Stay {
                user,
                joined: sequence,
                left: None,
            }),
        }
    }

    fn append(&mut self, content: &Content, sender: Option<Device>) -> i64 {
        let sequence = Sequence::new(self.head() + 1).unwrap();
        let from = Subject::new("someone").unwrap();
        let stamp = Stamp {
            sequence,
            from: &from,
            at_millis: 0,
        };
        let entry = LogEntry::new(
            Position {
                conversation: self.id,
                sequence,
            },
            sender.map(device_id),
            entry_json(stamp, content),
        );
        self.entries.push((Arc::new(entry), sender));
        sequence.get()
    }

    /// The process dies. What was committed and not told is told from the outbox, without
    /// its entries.
    pub(crate) fn forget(&mut self) {
        self.jobs.clear();
        self.told = 0;
        self.news.retain_mut(|news| match news {
            News::Verdict { .. } => false,
            News::Notice { entries, .. } => {
                entries.clear();
                true
            }
        });
    }

    /// A page of the log, as this user may see it now.
    pub(crate) fn page(&self, user: User, after: i64, entries_max: usize) -> Vec<SharedEntry> {
        let after = usize::try_from(after).unwrap();
        self.entries
            .iter()
            .skip(after)
            .map(|(entry, _)| entry)
            .filter(|entry| self.shows(user, entry.position.sequence.get()))
            .take(entries_max)
            .cloned()
            .collect()
    }
}

/// What the store keeps of a device's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) is_present: bool,
    /// As JSON; nothing if there never were any.
    pub(crate) subscriptions: Option<serde_json::Value>,
    pub(crate) cursors: BTreeMap<ConversationId, i64>,
    pub(crate) inflight: Unsettled,
    pub(crate) generation: u64,
}

impl Stored {
    /// A connection takes the session; says whether it goes on.
    pub(crate) fn open(&mut self, clean_start: bool, is_persistent: bool) -> bool {
        let resumes = self.is_present && !clean_start;
        let generation = self.generation + 1;
        if !resumes {
            *self = Self::default();
        }
        self.generation = generation;
        self.is_present = is_persistent;
        resumes
    }

    pub(crate) fn close(&mut self, generation: u64, keep: bool, inflight: Unsettled) {
        if generation == self.generation {
            if keep {
                self.inflight = inflight;
            } else {
                *self = Self::default();
                self.generation = generation;
            }
        }
    }

    /// Cursors move forward only, and not beyond what the user may see.
    pub(crate) fn settle(&mut self, conversation: &Conversation, user: User, delivered: i64) {
        if let Some(stay) = conversation.stay(user) {
            let end = stay.left.unwrap_or(i64::MAX).min(conversation.head());
            let cursor = self.cursors.entry(conversation.id).or_insert(0);
            *cursor = delivered.min(end).max(*cursor);
        }
    }

    /// Newly covered conversations begin at their head; others are forgotten.
    pub(crate) fn cover(
        &mut self,
        log: &[Conversation],
        user: User,
        before: &Coverage,
        after: &Coverage,
    ) {
        for conversation in log {
            let id = conversation.id;
            if covers(after, id) && !covers(before, id) {
                if let Some(stay) = conversation.stay(user) {
                    let end = stay.left.unwrap_or(i64::MAX).min(conversation.head());
                    let cursor = self.cursors.entry(id).or_insert(0);
                    *cursor = end.max(*cursor);
                }
            } else if !covers(after, id) {
                self.cursors.remove(&id);
            }
        }
    }

    pub(crate) fn pending(
        &self,
        log: &[Conversation],
        user: User,
        coverage: &Coverage,
    ) -> Vec<Pending> {
        let covered = log.iter().filter(|one| covers(coverage, one.id));
        covered
            .filter_map(|one| {
                let stay = one.stay(user)?;
                let cursor = self.cursors.get(&one.id).copied().unwrap_or(0);
                let cursor = cursor.max(stay.joined - 1);
                let head = stay.left.unwrap_or(i64::MAX).min(one.head());
                let conversation = one.id;
                (head > cursor).then_some(Pending {
                    conversation,
                    cursor,
                    head,
                })
            })
            .collect()
    }
}

pub(crate) fn covers(coverage: &Coverage, id: ConversationId) -> bool {
    match coverage {
        Coverage::All => true,
        Coverage::Only(only) => only.contains(&id),
    }
}
