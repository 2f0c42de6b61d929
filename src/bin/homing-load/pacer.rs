//! A schedule, and the thread that wakes senders when it is time.
//!
//! The timers of the runtime have a resolution of a millisecond, which is more than the
//! latencies to be measured; a sleeping thread has one of some microseconds.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::Notify;

use crate::clock::{Clock, Nanos};

/// Wake-ups closer than this are one.
const SLEEP_MIN: Duration = Duration::from_micros(100);
/// How soon a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);
const NANOS_PER_SECOND: f64 = 1e9;

/// When the messages of one sender are due, whatever the server does (open loop).
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    first: Nanos,
    interval: f64,
    pub(crate) wake: Arc<Notify>,
}

impl Schedule {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "days in nanoseconds are exact in an f64, and never negative"
    )]
    pub(crate) fn due(&self, number: u64) -> Nanos {
        self.first + (number as f64 * self.interval) as u64
    }
}

/// Wakes each sender in turn until it is dropped.
#[derive(Debug)]
pub(crate) struct Pacer {
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Begins at once: `per_second` messages, taken from `senders` in turn.
    #[expect(clippy::cast_precision_loss, reason = "the number of senders is small")]
    pub(crate) fn start(clock: Clock, senders: usize, per_second: f64) -> (Self, Vec<Schedule>) {
        let step = NANOS_PER_SECOND / per_second;
        let all = Schedule {
            first: clock.now(),
            interval: step,
            wake: Arc::default(),
        };
        let of_sender = |sender: usize| Schedule {
            first: all.due(sender as u64),
            interval: step * senders as f64,
            wake: Arc::default(),
        };
        let schedules: Vec<Schedule> = (0..senders).map(of_sender).collect();
        let wakes: Vec<Arc<Notify>> = schedules.iter().map(|one| Arc::clone(&one.wake)).collect();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_stopped);
        let thread = thread::spawn(move || wake_in_turn(clock, &all, &wakes, &flag));
        (
            Self {
                is_stopped,
                thread: Some(thread),
            },
            schedules,
        )
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it cannot panic, and if it did, the run says so
        }
    }
}

fn wake_in_turn(clock: Clock, all: &Schedule, wakes: &[Arc<Notify>], is_stopped: &AtomicBool) {
    sleep_precisely();
    let mut turns = wakes.iter().cycle();
    for number in 0.. {
        let due = all.due(number);
        loop {
            if is_stopped.load(Ordering::Relaxed) {
                return;
            }
            let now = clock.now();
            if due <= now {
                break;
            }
            thread::sleep(Duration::from_nanos(due - now).clamp(SLEEP_MIN, SLEEP_MAX));
        }
        if let Some(wake) = turns.next() {
            wake.notify_one();
        }
    }
}

/// Asks the kernel not to let this thread oversleep by its usual 50 µs; only better if it obeys.
fn sleep_precisely() {
    if let Ok(link) = fs::read_link("/proc/thread-self")
        && let Some(thread_id) = link.file_name()
    {
        let _ = fs::write(
            std::path::Path::new("/proc")
                .join(thread_id)
                .join("timerslack_ns"),
            "1000",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_take_turns() {
        let (_pacer, schedules) = Pacer::start(Clock::start(), 2, 1000.0);
        let first = schedules[0].due(0);
        let due = |sender: usize, number| schedules[sender].due(number) - first;
        assert_eq!(
            [due(0, 0), due(1, 0), due(0, 1), due(1, 1)],
            [0, 1_000_000, 2_000_000, 3_000_000]
        );
    }
}
