//! All is quiet, and a model device asks for what differs.

use homing::{
    client::cache::{Applied, State, Thread},
    domain::ids::ConversationId,
};
use rand::{Rng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::{client::Client, truth::members};
use crate::harness::TestBroker;

/// How a device gets in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Catching {
    /// It reads every thread again, whatever it is told.
    All,
    /// It reads what reconciliation names, and no thread but those that it never opened. Half
    /// of the devices do not even read what waits for them.
    Named,
}

impl Client {
    /// Takes what waits, asks for what differs, until nothing does. `now_millis` is the clock
    /// of the device.
    pub(super) async fn settle(
        &mut self,
        broker: &TestBroker,
        rng: &mut StdRng,
        catching: Catching,
        now_millis: i64,
    ) {
        if catching == Catching::Named && rng.random_bool(0.5) {
            self.lose_connection();
        } else {
            self.connect(broker).await;
            self.drain().await;
        }
        self.apply_all(rng);
        if self.as_of.is_none() {
            self.fetch_inbox(broker).await;
            self.apply_all(rng);
        }
        let differences = self.reconcile(broker, catching).await;
        self.apply_all(rng);
        let ids: Vec<_> = self.inbox.rows().iter().map(|(id, _)| *id).collect();
        for id in ids {
            let is_open = self.threads.get(&id).is_some_and(|t| t.synced().is_some());
            if catching == Catching::All || !is_open {
                self.fetch_thread(broker, id).await;
                self.apply_all(rng);
            }
            if catching == Catching::All {
                self.fetch_changes(broker, id).await;
                self.apply_all(rng);
            }
        }
        if differences > 0 {
            let left = self.reconcile(broker, catching).await;
            self.apply_all(rng);
            assert_eq!(left, 0, "{}: still differs", self.name);
        }
        self.inbox.hide_expired(now_millis);
        for thread in self.threads.values_mut() {
            thread.hide_expired(now_millis);
        }
    }

    /// Says what it shows; answers how many rows differ.
    async fn reconcile(&mut self, broker: &TestBroker, catching: Catching) -> usize {
        let asked = self.outgoing.ask();
        let held = |id| self.threads.get(&id).and_then(Thread::synced);
        let body = json!({"conversations": self.inbox.known(held), "since": self.as_of});
        let (status, answer) = broker
            .request(Method::POST, &self.user, "/v1/reconcile", Some(body))
            .await;
        assert_eq!(status, 200, "{answer}");
        let mut differences = 0;
        for difference in answer["conversations"].as_array().unwrap() {
            let id = difference["conversation"].as_str().unwrap();
            let id: ConversationId = id.parse().unwrap();
            assert_ne!(difference["mismatch"], true, "{difference}");
            match difference.get("row") {
                // What changed since is told although it is known: versions tell.
                Some(row) => {
                    if let Some(last_seq) = row["last_seq"].as_i64() {
                        self.outgoing.answered(asked, id, last_seq);
                    }
                    let applied = self.apply_row(members(row.clone()), None);
                    differences += usize::from(applied != Applied::Stale);
                }
                None if self.inbox.row(id).is_some() => {
                    self.inbox.forget(id);
                    self.threads.remove(&id);
                    differences += 1;
                }
                None => {}
            }
            if catching == Catching::Named && self.inbox.row(id).is_some() {
                self.follow(broker, id, difference).await;
            }
        }
        differences
    }

    /// Reads what the thread lacks, as far as the answer says so. What lies between, and is not
    /// named as gone, is missing still.
    async fn follow(&mut self, broker: &TestBroker, id: ConversationId, difference: &Value) {
        let gap = &difference["gap"];
        if gap["href"].is_string() {
            self.threads.remove(&id); // all of it may be wrong
            return self.fetch_thread(broker, id).await;
        }
        let Some(synced) = self.threads.get(&id).and_then(Thread::synced) else {
            return;
        };
        let (behind, mut next) = (&difference["behind"], synced + 1);
        if gap["from"] == next {
            next = gap["to"].as_i64().unwrap() + 1;
        } else if synced == 0 {
            next = i64::MAX; // whoever holds nothing lacks nothing of before
        }
        let Some(href) = behind["href"].as_str() else {
            // All that it lacks is gone.
            let last_seq = self.inbox.row(id).map(|row| &row.fields["last_seq"]);
            if last_seq.and_then(Value::as_i64) == Some(next - 1) {
                self.thread(id).changed_up_to(next - 1);
                self.in_step(id);
            }
            return;
        };
        if let Some((messages, last_seq)) = self.read_changes(broker, href).await {
            self.apply_messages(id, messages);
            if behind["from"].as_i64() <= Some(next) {
                self.thread(id).changed_up_to(last_seq);
            }
            self.in_step(id);
        }
    }

    /// Nothing is on its way any more in conversations that the user takes part in.
    pub(super) fn assert_done(&self) {
        for (id, _) in self.inbox.rows() {
            for (message, sending) in self.outgoing.shown(id) {
                let is_over = matches!(sending.state, State::Failed(_));
                assert!(is_over, "{}: {message} of {id}: {sending:?}", self.name);
            }
        }
    }
}
