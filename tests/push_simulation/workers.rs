//! Workers: claim, send, finish; each of them may end between any two steps.

use std::collections::BTreeMap;

use homing::store::push::{
    finish::{Finished, JobResult, finish},
    jobs::{Claim, Job, JobKind, claim},
};
use rand::{Rng as _, rngs::SmallRng};
use sqlx::{Connection, PgConnection};

use crate::{
    consumers::GRACES,
    people::{Index, People},
    provider::Provider,
    setting_up::{ROUTES, START},
};

pub(crate) const LEASE_MILLIS: i64 = 30_000;
pub(crate) const BURST: u32 = 8;
pub(crate) const INTERVAL_MILLIS: i64 = 3_000;

/// What is known of a job at the moment of its claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) at: i64,
    /// How often something goes wrong.
    pub(crate) faults: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Worker {
    /// What was sent, or not, and is finished later.
    slow: Vec<(Finished, i64)>,
}

/// Claims and sends that were seen so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Who holds a job, and until when: (device, conversation, kind).
    leases: BTreeMap<(Index, Index, &'static str), (i64, i64)>,
    /// Of each device: the first claim, and how many.
    claims: BTreeMap<Index, (i64, i64)>,
    /// When the last notification of a (device, conversation) was reported as sent.
    reported: BTreeMap<(Index, Index), i64>,
    pub(crate) claimed: usize,
    pub(crate) violations: Vec<String>,
}

impl Worker {
    pub(crate) async fn step(
        &mut self,
        conn: &mut PgConnection,
        now: Now,
        people: &mut People,
        provider: &mut Provider,
        watch: &mut Watch,
        rng: &mut SmallRng,
    ) {
        if rng.random_bool(now.faults / 5.0) {
            self.slow.clear(); // the process ends; the leases do
        }
        let mut batch = Vec::new();
        for route in ROUTES {
            let mut tx = conn.begin().await.unwrap();
            let jobs = claim(&mut tx, &claim_of(route), Some(START + now.at)).await;
            if rng.random_bool(now.faults / 5.0) {
                continue; // the transaction is rolled back
            }
            tx.commit().await.unwrap();
            let mut jobs = jobs.unwrap();
            // What is due at the same time comes in any order; a seed repeats one.
            for job in &mut jobs {
                job.held.parts.sort_by_key(|part| part.conversation);
            }
            jobs.sort_by_key(|job| {
                let held = &job.held;
                (held.device, held.kind.as_str(), held.parts[0].conversation)
            });
            for job in jobs {
                watch.claimed(&job, now.at, people);
                if rng.random_bool(now.faults / 5.0) {
                    continue; // lost before it was sent
                }
                let result = provider.send(&job, people, now.faults, rng);
                let finished = Finished {
                    token: job.address.token.clone(),
                    held: job.held,
                    result,
                };
                match rng.random_range(0.0..1.0) {
                    chance if chance < now.faults / 5.0 => {} // lost after it was sent
                    chance if chance < now.faults / 2.0 => {
                        let later = now.at + rng.random_range(0..2 * LEASE_MILLIS);
                        self.slow.push((finished, later));
                    }
                    _ => batch.push(finished),
                }
            }
        }
        let held = finish_all(conn, &batch, now, people, watch, rng).await;
        let parts = batch.iter().map(|one| one.held.parts.len() as u64);
        if held.is_some_and(|held| held != parts.sum::<u64>()) {
            watch.violations.push(format!("not held at {}", now.at));
        }
        // Alone, since others may have the jobs by now: then it changes nothing.
        let is_due = |(_, later): &mut (Finished, i64)| *later <= now.at;
        let due: Vec<_> = self.slow.extract_if(.., is_due).collect();
        for (finished, _) in due {
            let is_superseded = watch.is_superseded(&finished, people);
            let held = finish_all(conn, &[finished], now, people, watch, rng).await;
            if is_superseded && held.is_some_and(|held| held > 0) {
                watch
                    .violations
                    .push(format!("finished by another at {}", now.at));
            }
        }
    }
}

/// How many were still held; none if it was rolled back.
async fn finish_all(
    conn: &mut PgConnection,
    batch: &[Finished],
    now: Now,
    people: &People,
    watch: &mut Watch,
    rng: &mut SmallRng,
) -> Option<u64> {
    let mut tx = conn.begin().await.unwrap();
    let held = finish(&mut tx, batch, GRACES.repeat, Some(START + now.at))
        .await
        .unwrap();
    if rng.random_bool(now.faults / 10.0) {
        return None; // whoever claims the jobs next sends them again
    }
    tx.commit().await.unwrap();
    if held > 0 {
        for finished in batch {
            watch.finished(finished, now.at, people);
        }
    }
    Some(held)
}

fn claim_of(route: &str) -> Claim<'_> {
    Claim {
        route,
        limit: 200,
        lease: std::time::Duration::from_millis(LEASE_MILLIS.unsigned_abs()),
        graces: GRACES,
        has_badge: true,
        budget_burst: BURST,
        budget_interval: std::time::Duration::from_millis(INTERVAL_MILLIS.unsigned_abs()),
        time_to_live: std::time::Duration::from_hours(24),
    }
}

impl Watch {
    fn claimed(&mut self, job: &Job, at: i64, people: &People) {
        self.claimed += 1;
        let device = people.device_of(job.held.device);
        let (first, count) = self.claims.entry(device).or_insert((at, 0));
        *count += 1;
        let allowed = i64::from(BURST) + (at - *first) / INTERVAL_MILLIS;
        let mut wrong = Vec::new();
        if *count > allowed {
            wrong.push(format!("a storm: {count} of {allowed}"));
        }
        if job.address.token != people.devices[device].token {
            wrong.push("an old token".to_owned());
        }
        let kind = job.held.kind;
        for part in &job.held.parts {
            let conversation = people.conversation_of(part.conversation);
            let key = (device, conversation, kind.as_str());
            if self.leases.get(&key).is_some_and(|(_, until)| *until > at) {
                wrong.push("two hold it".to_owned());
            }
            self.leases.insert(key, (part.claim, at + LEASE_MILLIS));
            if kind == JobKind::Wake {
                wrong.extend(wrong_wake(job, device, conversation, at, people));
                let reported = self.reported.get(&(device, conversation));
                let repeat = i64::try_from(GRACES.repeat.as_millis()).unwrap();
                if reported.is_some_and(|last| at < last + repeat) {
                    wrong.push("too soon after another".to_owned());
                }
            }
        }
        let about = format!("device {device} at {at}: {:?}", job.held);
        self.violations
            .extend(wrong.into_iter().map(|what| format!("{what}: {about}")));
    }

    fn finished(&mut self, finished: &Finished, at: i64, people: &People) {
        let device = people.device_of(finished.held.device);
        for part in &finished.held.parts {
            let conversation = people.conversation_of(part.conversation);
            let kind = finished.held.kind.as_str();
            let key = (device, conversation, kind);
            if self
                .leases
                .get(&key)
                .is_some_and(|(claim, _)| *claim == part.claim)
            {
                self.leases.remove(&key);
            }
            if matches!(finished.result, JobResult::Sent { .. }) && kind == "wake" {
                self.reported.insert((device, conversation), at);
            }
        }
    }

    /// Whether another worker has claimed one of the jobs since.
    fn is_superseded(&self, finished: &Finished, people: &People) -> bool {
        let device = people.device_of(finished.held.device);
        let kind = finished.held.kind.as_str();
        finished.held.parts.len() == 1 && {
            let part = finished.held.parts[0];
            let conversation = people.conversation_of(part.conversation);
            let lease = self.leases.get(&(device, conversation, kind));
            lease.is_none_or(|(claim, _)| *claim != part.claim)
        }
    }
}

/// Rules that hold at the moment of a claim.
fn wrong_wake(
    job: &Job,
    device: Index,
    conversation: Index,
    at: i64,
    people: &People,
) -> Vec<String> {
    let user = people.devices[device].user;
    let member = &people.conversations[conversation].members[&user];
    let part = job.held.parts[0];
    let mut wrong = Vec::new();
    let mut check = |is_wrong: bool, what: &str| {
        if is_wrong {
            wrong.push(what.to_owned());
        }
    };
    check(member.is_removed, "the user was removed");
    check(member.is_muted && !job.is_mention, "it is muted");
    check(member.read >= part.to, "it has been read");
    let quiet = people.users[user].quiet;
    let is_quiet = quiet.is_some_and(|(from, until)| (from..until).contains(&at));
    check(is_quiet && !job.is_urgent, "quiet hours");
    let messages = &people.conversations[conversation].messages;
    let newest = messages.iter().find(|message| message.seq == part.to);
    check(
        newest.is_none_or(|newest| newest.sender == user),
        "not a message of others",
    );
    let grace = newest.map_or(0, |newest| newest.at + 1000);
    check(
        part.from == part.to && at < grace,
        "before the grace is over",
    );
    wrong
}
