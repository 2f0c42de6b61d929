//! A histogram of durations: 64 buckets for each power of two, so that every value is known
//! to about 1.6 percent, from a nanosecond to centuries, in 30 kB at most.

use serde::Serialize;

use crate::clock::Nanos;

const SUB_BUCKETS_LOG2: u32 = 6;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKETS_LOG2;

#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    /// Grows to the largest bucket seen.
    counts: Vec<u64>,
    count: u64,
    max: Nanos,
}

/// The four numbers of a report, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_micros: f64,
    pub(crate) p90_micros: f64,
    pub(crate) p99_micros: f64,
    pub(crate) max_micros: f64,
}

impl Histogram {
    pub(crate) fn record(&mut self, value: Nanos) {
        let bucket = bucket(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The smallest recorded value that at least `percent` of all do not exceed, up to the
    /// width of its bucket; 0 if nothing was recorded.
    pub(crate) fn percentile(&self, percent: u64) -> Nanos {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(bucket).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.count,
            p50_micros: micros(self.percentile(50)),
            p90_micros: micros(self.percentile(90)),
            p99_micros: micros(self.percentile(99)),
            max_micros: micros(self.max),
        }
    }
}

/// Below 64 a bucket each; above, the power of two and the six bits after it.
fn bucket(value: Nanos) -> usize {
    let index = match value.checked_ilog2() {
        Some(log2) if log2 >= SUB_BUCKETS_LOG2 => {
            let shift = log2 - SUB_BUCKETS_LOG2;
            u64::from(shift) * SUB_BUCKETS + (value >> shift)
        }
        _ => value,
    };
    usize::try_from(index).expect("there are fewer than 4,000 buckets")
}

/// The largest value that falls into `bucket`.
fn highest(bucket: usize) -> Nanos {
    let index = bucket as u64;
    if index < 2 * SUB_BUCKETS {
        return index;
    }
    let shift = index / SUB_BUCKETS - 1;
    let lowest = (index - shift * SUB_BUCKETS) << shift;
    lowest + ((1 << shift) - 1)
}

#[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
fn micros(nanos: Nanos) -> f64 {
    (nanos / 100) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::default().percentile(99), 0);
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_a_64th_of_the_exact_one(
            mut values in prop::collection::vec(any::<u64>().prop_flat_map(|bits| (0..=bits).boxed()), 1..200),
            percent in 1_u64..=100,
        ) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.record(*value);
            }
            values.sort_unstable();
            let rank = (values.len() * usize::try_from(percent).unwrap()).div_ceil(100).max(1);
            let exact = values[rank - 1];
            let told = histogram.percentile(percent);
            prop_assert!(told >= exact && told - exact <= exact / SUB_BUCKETS, "{told} for {exact}");
        }

        #[test]
        fn a_merge_is_as_if_all_had_been_recorded_together(
            left in prop::collection::vec(any::<u32>(), 0..100),
            right in prop::collection::vec(any::<u32>(), 0..100),
        ) {
            let filled = |values: &[u32]| {
                let mut histogram = Histogram::default();
                for value in values {
                    histogram.record(u64::from(*value));
                }
                histogram
            };
            let mut merged = filled(&left);
            merged.merge(&filled(&right));
            let together = filled(&[left, right].concat());
            prop_assert_eq!(merged.counts, together.counts);
            prop_assert_eq!(merged.max, together.max);
        }
    }
}
