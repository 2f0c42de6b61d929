//! What the server says of its pushes, from `/metrics`.

use crate::histogram::Quantiles;

const BUCKET: &str = "homing_push_commit_to_push_seconds_bucket{le=\"";

/// A histogram of the time from commit to push: upper bounds in seconds, counts up to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PushFigures {
    buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
}

impl PushFigures {
    pub(crate) fn read(metrics: &str) -> Self {
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(BUCKET)?.split_once("\"} ")?;
            let bound = if bound == "+Inf" {
                f64::MAX
            } else {
                bound.parse().ok()?
            };
            Some((bound, count.split(' ').next()?.parse().ok()?))
        };
        let buckets: Vec<(f64, u64)> = metrics.lines().filter_map(bucket).collect();
        let count = buckets.last().map_or(0, |&(_, count)| count);
        Self { buckets, count }
    }

    /// What came after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |place: usize| before.buckets.get(place).map_or(0, |bucket| bucket.1);
        let buckets = self.buckets.iter().enumerate();
        Self {
            buckets: buckets
                .map(|(place, &(bound, count))| (bound, count.saturating_sub(earlier(place))))
                .collect(),
            count: self.count.saturating_sub(before.count),
        }
    }

    /// Upper bounds of the buckets: no value is told smaller than it was.
    pub(crate) fn quantiles(&self) -> Quantiles {
        let at = |percent: u64| {
            let rank = (self.count * percent).div_ceil(100).max(1);
            let bucket = self.buckets.iter().find(|bucket| bucket.1 >= rank);
            bucket.map_or(0.0, |bucket| bucket.0 * 1e6)
        };
        Quantiles {
            count: self.count,
            p50_micros: at(50),
            p90_micros: at(90),
            p99_micros: at(99),
            max_micros: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_bounds_of_what_came_since() {
        let metrics = |counts: [u64; 3]| {
            let [one, two, all] = counts;
            format!("x 1\n{BUCKET}1.0\"}} {one}\n{BUCKET}2.0\"}} {two}\n{BUCKET}+Inf\"}} {all}\n")
        };
        let before = PushFigures::read(&metrics([5, 5, 5]));
        let figures = PushFigures::read(&metrics([65, 104, 105])).since(&before);
        let quantiles = figures.quantiles();
        assert_eq!(quantiles.count, 100);
        let seconds = [
            quantiles.p50_micros,
            quantiles.p90_micros,
            quantiles.p99_micros,
        ];
        assert!(
            seconds
                .iter()
                .zip([1e6, 2e6, 2e6])
                .all(|(is, want)| (is - want).abs() < 1.0)
        );
    }
}
