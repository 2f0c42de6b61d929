use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::telemetry::metrics::Metrics;

fn sign(generation: i64, activity: Option<Activity>, is_suspect: Option<bool>) -> Sign {
    Sign {
        device: DeviceId(1),
        generation,
        activity,
        is_suspect,
    }
}

#[test]
fn the_last_word_of_the_newest_connection_counts() {
    let (away, active) = (Some(Activity::Away), Some(Activity::Active));
    let mut signs = HashMap::new();
    let mut gathered = |newer| {
        gather_sign(&mut signs, newer);
        signs[&newer.device]
    };
    gathered(sign(5, away, None));
    assert_eq!(
        gathered(sign(5, None, Some(true))),
        sign(5, away, Some(true))
    );
    assert_eq!(gathered(sign(5, active, None)), sign(5, active, Some(true)));
    assert_eq!(
        gathered(sign(5, None, Some(false))),
        sign(5, active, Some(false))
    );
    assert_eq!(
        gathered(sign(4, away, Some(true))),
        sign(5, active, Some(false))
    );
    assert_eq!(
        gathered(sign(6, None, Some(true))),
        sign(6, None, Some(true))
    );
}

/// With room for ten positions.
fn receipts() -> Receipts {
    let metrics = Metrics::register(&mut Registry::default()).bridge;
    Receipts::new(1, metrics)
}

/// A user has read the first message of a conversation.
fn read(receipts: &Receipts, user: i64) -> oneshot::Receiver<Result<(), Refusal>> {
    let (reply, answer) = oneshot::channel();
    let report = Report {
        delivered: None,
        read: Some(Sequence::FIRST),
    };
    let conversation = ConversationId(uuid::Uuid::nil());
    let reply = ReportReply::Request(reply);
    receipts.report(UserId(user), None, conversation, report, reply);
    answer
}

/// A store that cannot be reached.
fn nowhere() -> PgPool {
    PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(100))
        .connect_lazy("postgres://127.0.0.1:1/nowhere")
        .unwrap()
}

#[tokio::test]
async fn a_report_without_room_is_refused_and_never_answered_with_success() {
    let receipts = receipts();
    let mut kept: Vec<_> = (1..=10).map(|user| read(&receipts, user)).collect();
    assert_eq!(read(&receipts, 11).try_recv(), Ok(Err(Refusal::Full)));
    kept.push(read(&receipts, 1)); // it is known
    assert!(kept.iter_mut().all(|answer| answer.try_recv().is_err()));
    assert_eq!(receipts.metrics.positions_dropped.get(), 1);
}

/// Goal: what is kept while the store is asked for is still kept when that fails.
#[tokio::test]
async fn what_is_being_written_keeps_its_room() {
    let receipts = receipts();
    let mut kept: Vec<_> = (1..=10).map(|user| read(&receipts, user)).collect();
    let (pool, mut moved) = (nowhere(), Vec::new());
    let (flushed, refused) = tokio::join!(receipts.flush(&pool, &mut moved), async {
        read(&receipts, 11).try_recv()
    });
    flushed.unwrap_err();
    assert_eq!(refused, Ok(Err(Refusal::Full)));
    assert!(kept.iter_mut().all(|answer| answer.try_recv().is_err()));
    assert_eq!(receipts.lock().positions.len(), 10);
}

/// Goal: who waits for a write that will not be is told so, before and after the end.
#[tokio::test]
async fn after_the_last_write_nobody_waits() {
    let receipts = receipts();
    let mut waiting = read(&receipts, 1);
    let stop = CancellationToken::new();
    stop.cancel();
    let interval = Duration::from_secs(1);
    receipts.run(nowhere(), interval, stop, async |_| {}).await;
    assert_eq!(waiting.try_recv(), Ok(Err(Refusal::Unavailable)));
    let refused = read(&receipts, 2).try_recv();
    assert_eq!(refused, Ok(Err(Refusal::Unavailable)));
    receipts.flushed().now_or_never().unwrap();
}
