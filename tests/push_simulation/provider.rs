//! A provider that fails in the ways providers fail, and remembers what it delivered.

use std::{collections::BTreeMap, time::Duration};

use homing::store::push::{
    finish::JobResult,
    jobs::{Job, JobKind},
};
use rand::{Rng as _, rngs::SmallRng};
use uuid::Uuid;

use crate::people::{Index, People};

/// A notification that reached a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    pub(crate) device: Index,
    /// The device had acknowledged everything it tells of.
    pub(crate) is_late: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Provider {
    pub(crate) delivered: Vec<Delivered>,
    /// The newest message of each (device, conversation), and the id that told of it.
    pub(crate) newest: BTreeMap<(Index, Index), (i64, Uuid)>,
    pub(crate) cleared: usize,
    pub(crate) violations: Vec<String>,
}

impl Provider {
    /// Sends a job; whether it arrives, and what the worker hears of it.
    pub(crate) fn send(
        &mut self,
        job: &Job,
        people: &mut People,
        faults: f64,
        rng: &mut SmallRng,
    ) -> JobResult {
        let device = people.device_of(job.held.device);
        let is_current = people.devices[device].token == job.address.token;
        if !(is_current && people.devices[device].is_installed) {
            return JobResult::Dead {
                reason: "Unregistered".to_owned(),
                since_millis: None,
            };
        }
        let retry = JobResult::Retry {
            reason: "HTTP 503".to_owned(),
            after: Duration::from_millis(rng.random_range(1000..20_000)),
        };
        if rng.random_bool(faults) {
            match rng.random_range(0..10) {
                0 => {
                    for part in &job.held.parts {
                        let conversation = people.conversation_of(part.conversation);
                        people.excuse_up_to(device, conversation, part.to);
                        if job.held.kind == JobKind::Clear {
                            people.devices[device].shown.remove(&conversation);
                        }
                    }
                    return JobResult::Dropped {
                        reason: "PayloadTooLarge".to_owned(),
                    };
                }
                1..6 => return retry,
                // It arrives, and the answer does not.
                _ => {
                    self.deliver(job, device, people);
                    return retry;
                }
            }
        }
        self.deliver(job, device, people);
        JobResult::Sent {
            is_background: false,
        }
    }

    fn deliver(&mut self, job: &Job, device: Index, people: &mut People) {
        for part in &job.held.parts {
            let conversation = people.conversation_of(part.conversation);
            if job.held.kind == JobKind::Clear {
                self.cleared += 1;
                let shown = &mut people.devices[device].shown;
                if shown.get(&conversation).is_some_and(|seq| *seq <= part.to) {
                    shown.remove(&conversation);
                }
                continue;
            }
            let (seq, id) = (part.to, job.notification_id);
            let newest = self.newest.entry((device, conversation)).or_insert((0, id));
            if seq <= newest.0 && id != newest.1 {
                self.violations.push(format!(
                    "device {device} was told of {seq} twice, under two ids"
                ));
            }
            *newest = (seq.max(newest.0), id);
            let is_late = people.acknowledged(device, conversation) >= seq;
            self.delivered.push(Delivered { device, is_late });
            if people.devices[device].connection.is_none() {
                people.devices[device].shown.insert(conversation, seq);
            }
        }
    }
}
