//! All is quiet, and a model device asks for what differs.

use homing::client::cache::{Applied, Next, Question, Reconcile, State, Told, Wrong};
use rand::{Rng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, Piece},
    truth::members,
};
use crate::harness::TestBroker;

/// How a device gets in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Catching {
    /// It reads every thread again, whatever it is told.
    All,
    /// It reads what reconciliation names, and no thread but those that it never opened. Half
    /// of the devices do not even read what waits for them.
    Named,
    /// The same while news go on: one part of an answer may be newer than another.
    Meanwhile,
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
        if self.inbox.as_of().is_none() {
            self.fetch_inbox(broker).await;
            self.apply_all(rng);
        }
        let asks = Reconcile::new(&self.inbox);
        let differences = self.reconcile(broker, asks, catching).await;
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
            let asks = Reconcile::new(&self.inbox);
            let left = self.reconcile(broker, asks, catching).await;
            self.apply_all(rng);
            assert_eq!(left, 0, "{}: still differs", self.name);
        }
        self.inbox.hide_expired(now_millis);
        for thread in self.threads.values_mut() {
            thread.hide_expired(now_millis);
        }
    }

    /// Asks for the rows of which it missed a patch.
    pub(super) async fn fetch_missed(&mut self, broker: &TestBroker) {
        let asks = Reconcile::missed(&self.inbox);
        self.reconcile(broker, asks, Catching::Meanwhile).await;
        assert_eq!(self.inbox.missed(), [], "{}", self.name);
    }

    /// Says what it shows; answers of how many conversations something differs.
    pub(super) async fn reconcile(
        &mut self,
        broker: &TestBroker,
        mut asks: Reconcile,
        catching: Catching,
    ) -> usize {
        let mut differences = 0;
        loop {
            let asked = self.outgoing.ask();
            let Some(question) = asks.question(&self.inbox, &self.threads) else {
                return differences;
            };
            let answer = self.put(broker, &question).await;
            let told = asks.answer(members(answer.clone()), &mut self.inbox, &mut self.threads);
            for told in told.unwrap() {
                let id = told.conversation;
                if let Some(last_seq) = told.last_seq {
                    self.outgoing.answered(asked, id, last_seq);
                    self.in_step(id);
                }
                assert_ne!(
                    told.next,
                    Next::Anew(Wrong::Mismatch),
                    "{question:?} {answer}"
                );
                if catching != Catching::Meanwhile {
                    check_named(&question, &answer, told);
                }
                // What changed since is told although it is known: versions tell.
                let is_news = told.applied != Applied::Stale || told.next != Next::Nothing;
                differences += usize::from(is_news);
                if catching != Catching::All {
                    self.follow(broker, told).await;
                }
            }
        }
    }

    async fn put(&mut self, broker: &TestBroker, question: &Question) -> Value {
        let (method, path, body) = match question {
            Question::Differences(arguments) => {
                let held = arguments["conversations"].as_array().unwrap();
                self.hashed += held
                    .iter()
                    .filter(|held| held.get("hash").is_some())
                    .count();
                let body = Value::Object(arguments.clone());
                (Method::POST, "/v1/reconcile".to_owned(), Some(body))
            }
            Question::Changed(arguments) => {
                let parameters = arguments.iter().map(|(name, value)| match value {
                    Value::String(value) => format!("{name}={value}"),
                    value => format!("{name}={value}"),
                });
                let parameters: Vec<_> = parameters.collect();
                (
                    Method::GET,
                    format!("/v1/inbox?{}", parameters.join("&")),
                    None,
                )
            }
        };
        let (status, answer) = broker.request(method, &self.user, &path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Reads what it is told to.
    async fn follow(&mut self, broker: &TestBroker, told: Told) {
        let id = told.conversation;
        match told.next {
            Next::Nothing | Next::Gone => {}
            Next::Anew(_) => self.fetch_thread(broker, id).await,
            Next::Changes { since } => {
                let path = format!("/v1/conversations/{id}/thread?changed_since={since}");
                if let Some((messages, last_seq)) = self.read_changes(broker, &path).await {
                    self.arrived
                        .push(Piece::Changes(id, messages, since, last_seq));
                }
            }
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

/// What is to be read, and what is not there any more, is what the server names: what lies between
/// would be missing still.
fn check_named(question: &Question, answer: &Value, told: Told) {
    let (Question::Differences(asked), id) = (question, json!(told.conversation)) else {
        return;
    };
    let about = |list: &Value| {
        let mut about = list.as_array().unwrap().iter();
        about.find(|item| item["conversation"] == id).cloned()
    };
    let Some(seq) = about(&asked["conversations"]).and_then(|held| held["seq"].as_i64()) else {
        return;
    };
    let said = about(&answer["conversations"]).unwrap_or_default();
    let (behind, gap) = (&said["behind"], &said["gap"]);
    let gone = gap["to"].as_i64().filter(|_| gap["href"].is_null());
    if gone.is_some() {
        assert_eq!(gap["from"], seq + 1, "{said}");
    }
    // Whoever holds nothing lacks nothing of before.
    let next = gone.unwrap_or(seq) + 1;
    assert!(
        behind.is_null() || behind["from"] == next || seq == 0,
        "{seq}: {said}"
    );
    match told.next {
        // Entries that came early may follow upon what is gone.
        Next::Changes { since } => assert!(!behind.is_null() && since + 1 >= next, "{seq}: {said}"),
        Next::Nothing => {
            assert!(
                behind.is_null() || gone.is_some() || seq == 0,
                "{seq}: {said}"
            );
        }
        Next::Anew(_) => assert!(gap["href"].is_string(), "{said}"),
        Next::Gone => assert!(said["removed"] == true || said["unknown"] == true, "{said}"),
    }
}
