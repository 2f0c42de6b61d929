//! The log, read over REST, held against what was promised.

use std::{collections::HashMap, sync::Arc};

use crate::{
    device::Device,
    ledger::{Ledger, Place},
    rest::{Entry, Rest},
};

/// Reads the logs of all conversations as they grow.
pub(crate) struct Audit {
    rest: Rest,
    ledger: Arc<Ledger>,
    /// By place: the id of each sequence, from 1; a token that may read.
    logs: Vec<Log>,
    acknowledged: usize,
}

pub(crate) struct Log {
    pub(crate) conversation: String,
    pub(crate) token: String,
    ids: Vec<String>,
    sequences: HashMap<String, i64>,
    /// The last number of each sender.
    numbers: HashMap<String, u64>,
}

impl Log {
    pub(crate) fn new(conversation: String, token: String) -> Self {
        let (ids, sequences, numbers) = (Vec::new(), HashMap::new(), HashMap::new());
        Self {
            conversation,
            token,
            ids,
            sequences,
            numbers,
        }
    }

    fn head(&self) -> i64 {
        i64::try_from(self.ids.len()).unwrap()
    }

    fn take(&mut self, place: Place, entry: &Entry, ledger: &Ledger) -> Result<(), String> {
        let Entry { sequence, id } = entry;
        if *sequence != self.head() + 1 {
            return Err(format!("{sequence} follows {} in the log", self.head()));
        }
        self.ids.push(id.clone());
        if let Some(before) = self.sequences.insert(id.clone(), *sequence) {
            return Err(format!("{id} is stored twice, as {before} and {sequence}"));
        }
        let Some(sent) = ledger.sent_as(id).filter(|sent| sent.conversation == place) else {
            return Err(format!("{id}, stored as {sequence}, was never sent there"));
        };
        let before = self.numbers.insert(sent.sender, sent.number).unwrap_or(0);
        if sent.number <= before {
            return Err(format!(
                "{id} is stored after number {before} of its sender"
            ));
        }
        Ok(())
    }
}

impl Audit {
    pub(crate) fn new(rest: Rest, ledger: Arc<Ledger>, logs: Vec<Log>) -> Self {
        Self {
            rest,
            ledger,
            logs,
            acknowledged: 0,
        }
    }

    /// Reads what is new: all that was acknowledged before must be there.
    ///
    /// # Errors
    ///
    /// A log could not be read, because Postgres was killed: the next call reads on.
    pub(crate) async fn read_on(&mut self) -> reqwest::Result<()> {
        let promises = self.ledger.acknowledged_after(self.acknowledged);
        for (place, log) in self.logs.iter_mut().enumerate() {
            let new = self
                .rest
                .log_after(&log.token, &log.conversation, log.head())
                .await?;
            for entry in &new {
                if let Err(what) = log.take(place, entry, &self.ledger) {
                    self.ledger.violation(what);
                }
            }
        }
        self.acknowledged += promises.len();
        for promise in promises {
            let sequences = &self.logs[promise.conversation].sequences;
            let Some(&stored) = sequences.get(&promise.id) else {
                let what = format!("{} was acknowledged and is lost", promise.id);
                self.ledger.violation(what);
                continue;
            };
            if let Some(said) = promise.sequence.filter(|said| *said != stored) {
                let id = promise.id;
                let what = format!("{id} was acknowledged as {said}, stored as {stored}");
                self.ledger.violation(what);
            }
        }
        Ok(())
    }

    /// What was read once is still so.
    ///
    /// # Errors
    ///
    /// A log could not be read.
    pub(crate) async fn read_again(&self) -> reqwest::Result<()> {
        for log in &self.logs {
            let all = self
                .rest
                .log_after(&log.token, &log.conversation, 0)
                .await?;
            let ids: Vec<_> = all.into_iter().map(|entry| entry.id).collect();
            if ids != log.ids {
                let id = &log.conversation;
                self.ledger
                    .violation(format!("the log of {id} has changed"));
            }
        }
        Ok(())
    }

    /// Nothing is stored but what was acknowledged, now that all has been.
    pub(crate) fn compare_totals(&self) {
        let stored: usize = self.logs.iter().map(|log| log.ids.len()).sum();
        if stored != self.acknowledged {
            let acknowledged = self.acknowledged;
            self.ledger
                .violation(format!("{stored} stored, {acknowledged} acknowledged"));
        }
    }

    /// Every device got every log, entry by entry.
    pub(crate) fn compare(&self, device: &Device, places: &[Place]) {
        for &place in places {
            let (stored, received) = (&self.logs[place].ids, &device.received(place).ids);
            if stored != received {
                let (name, stored, received) = (device.name(), stored.len(), received.len());
                let what = format!(
                    "{name} has {received} entries of {place}, {stored} are stored, or others"
                );
                self.ledger.violation(what);
            }
        }
    }

    /// The last sequence of the conversation at each of these places.
    pub(crate) fn heads(&self) -> Vec<i64> {
        self.logs.iter().map(Log::head).collect()
    }
}
