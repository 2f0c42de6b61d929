//! The figures of a run, as one JSON object; [`crate::text`] shows them to people.

use serde::Serialize;

use crate::{
    clock::Nanos,
    histogram::Quantiles,
    process::{CpuSeconds, Resident},
    target::Target,
    tracker::Tally,
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) target: &'static str,
    pub(crate) run: String,
    pub(crate) connections: u64,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<Messages>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) latencies: Vec<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receipts: Option<Receipts>,
    /// What at-least-once delivery in order does not allow; empty if all is well.
    pub(crate) violations: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_refusal: Option<String>,
    pub(crate) pubacks_out_of_order: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) repeated: u64,
    pub(crate) reordered: u64,
    pub(crate) gaps: u64,
    pub(crate) misdelivered: u64,
    /// Nothing if the sending was not what was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acknowledged_per_second: Option<f64>,
    pub(crate) delivered_per_second: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) of: &'static str,
    #[serde(flatten)]
    pub(crate) quantiles: Quantiles,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cores: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_micros_per_delivery: Option<f64>,
    pub(crate) generator_cores: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generator_micros_per_delivery: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) before: Resident,
    pub(crate) after: Resident,
    pub(crate) rss_bytes_per_connection: f64,
    pub(crate) pss_bytes_per_connection: f64,
}

/// What the author of a message is told.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Receipts {
    pub(crate) frames: u64,
    /// After the last one has read.
    pub(crate) exact_after_seconds: f64,
}

impl Report {
    pub(crate) fn new(
        scenario: &'static str,
        target: &Target,
        connections: usize,
        span: Nanos,
    ) -> Self {
        Self {
            scenario,
            target: target.kind(),
            run: target.run_name(),
            connections: connections as u64,
            seconds: crate::clock::seconds(span),
            messages: None,
            latencies: Vec::new(),
            cpu: None,
            memory: None,
            receipts: None,
            violations: Vec::new(),
        }
    }

    pub(crate) fn latency(&mut self, of: &'static str, quantiles: Quantiles) {
        if quantiles.count > 0 {
            self.latencies.push(Latency { of, quantiles });
        }
    }
}

impl Messages {
    pub(crate) fn add(&mut self, tally: Tally) {
        self.delivered += tally.delivered;
        self.doubled += tally.doubled;
        self.repeated += tally.repeated;
        self.reordered += tally.reordered;
        self.gaps += tally.gaps;
        self.misdelivered += tally.misdelivered;
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        let unacknowledged = self.sent.saturating_sub(self.acknowledged);
        [
            (self.lost, "acknowledged messages were lost"),
            (
                self.doubled,
                "messages came twice without being marked as repeated",
            ),
            (self.reordered, "messages came after a later one"),
            (self.gaps, "sequences were skipped"),
            (self.misdelivered, "messages came where they do not belong"),
            (self.refused, "publishes were refused"),
            (unacknowledged, "publishes were never acknowledged"),
            (self.pubacks_out_of_order, "PUBACKs came out of order"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }
}

impl Cpu {
    #[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
    pub(crate) fn new(
        target: &Target,
        used: CpuSeconds,
        span: Nanos,
        deliveries: Option<u64>,
    ) -> Self {
        let has_server = !target.server.0.is_empty();
        let seconds = crate::clock::seconds(span);
        let cores = |used: f64| if seconds > 0.0 { used / seconds } else { 0.0 };
        let per_delivery = |used: f64| {
            deliveries
                .filter(|count| *count > 0)
                .map(|count| used * 1e6 / count as f64)
        };
        Self {
            server_cores: has_server.then(|| cores(used.server)),
            server_micros_per_delivery: per_delivery(used.server).filter(|_| has_server),
            generator_cores: cores(used.own),
            generator_micros_per_delivery: per_delivery(used.own),
        }
    }
}

impl Memory {
    #[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
    pub(crate) fn new(before: Resident, after: Resident, connections: usize) -> Self {
        let each = |from: u64, to: u64| (to as f64 - from as f64) / connections as f64;
        Self {
            before,
            after,
            rss_bytes_per_connection: each(before.rss_bytes, after.rss_bytes),
            pss_bytes_per_connection: each(before.pss_bytes, after.pss_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_at_least_once_allows_is_no_violation() {
        let fine = Messages {
            sent: 5,
            acknowledged: 5,
            repeated: 3,
            ..Messages::default()
        };
        assert!(fine.violations().is_empty());
        let wrong = Messages {
            lost: 1,
            sent: 6,
            ..fine
        };
        assert_eq!(wrong.violations().len(), 2, "{:?}", wrong.violations());
    }
}
