//! `GET /v1/events`: what happens, as it happens, for who cannot use MQTT (server-sent events).
//!
//! ```text
//!   event: message    {"conversation", "entry"}    every entry of every conversation
//!   event: receipt    {"conversation", "receipt"}
//!   event: typing     {"conversation", "typing"}
//!   event: inbox      a patch of an inbox row, as on me/inbox
//!   event: presence   as on me/presence, of the users of ?watch=bob,cleo: now, and what changes
//!   event: gap        {"conversation", "from", "to", "href"}: entries to be read there
//!   event: gap        {"conversation", "from", "to"}: entries that cannot be read (any more)
//!   event: resync     {"changed_since", "href"}: first of all, if Last-Event-ID was sent
//! ```
//!
//! It is live only. `id` is the time, so that whoever comes back knows since when to ask. What a
//! slow reader has no room for waits in the log, and is read from there or named in a gap.

mod streams;

use std::{collections::VecDeque, convert::Infallible, future::poll_fn, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName},
    response::{
        IntoResponse, Response,
        sse::{Event as Frame, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    ApiState,
    error::ApiError,
    extract::{AuthFor, now_unix_millis},
};
use crate::{
    bridge::{
        Bridge,
        conversations::{Caller, ConversationError},
        mailbox::{Event, Mailbox, Notice},
    },
    domain::{
        ids::{ConversationId, DeviceId, Subject},
        message::SharedEntry,
        topic::{ME_INBOX, ME_PRESENCE},
    },
};

use streams::Seat;
pub(super) use streams::Streams;

/// Entries read from the log at once.
const PAGE_ENTRIES_MAX: usize = 100;
/// Of entries that did not fit into memory so many are read from the log; more are a gap.
const CATCH_UP_ENTRIES_MAX: i64 = 200;
/// How much earlier than the last event a reader should ask for changes: clocks differ, and
/// some changes are written a moment later.
const RESYNC_MARGIN_MILLIS: u64 = 10_000;

/// The query of `GET /v1/events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Users whose presence is told, with commas between.
    watch: Option<String>,
}

impl Wanted {
    fn users(&self) -> Result<Vec<Subject>, ApiError> {
        let names = self.watch.as_deref().unwrap_or_default().split(',');
        let users = names.filter(|name| !name.is_empty()).map(Subject::new);
        users
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::Invalid(format!("`watch`: {error}")))
    }
}

/// `GET /v1/events`
pub(super) async fn follow(
    State(state): State<ApiState>,
    AuthFor { caller, remains }: AuthFor,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    state.bridge.rates().request(&caller)?;
    let Query(wanted) = wanted.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    let watched = wanted.users()?;
    let now = Instant::now();
    let ends = now + remains.min(Duration::from_hours(24 * 365));
    let seat = state.streams.take_seat(caller.user, ends, now)?;
    let mailbox = Arc::new(Mailbox::default());
    mailbox.set_wants_inbox(true);
    let presence = state.bridge.presence();
    let (stream, watch_ttl) = (
        presence.stream_opened(caller.user, mailbox.clone()),
        presence.watch_ttl(),
    );
    let commits = state.bridge.commits();
    commits.subscribe(caller.user, mailbox.clone());
    let mut heartbeat = tokio::time::interval(state.http.events_heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut follower = Follower {
        bridge: state.bridge.clone(),
        caller,
        mailbox,
        stream,
        watched,
        watch_again: tokio::time::interval(watch_ttl / 2),
        frames: headers
            .get("last-event-id")
            .map(|id| resync(id.to_str().ok()))
            .into_iter()
            .collect(),
        events: VecDeque::new(),
        events_since: now_unix_millis(),
        looked_at: now_unix_millis(),
        heartbeat,
        stop: state.stop.clone(),
        ends,
        _seat: seat,
    };
    follower.watch().await?;
    follower.watch_again.reset();
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((
        unbuffered,
        Sse::new(stream::unfold(follower, Follower::next)),
    )
        .into_response())
}

/// One open stream.
struct Follower {
    bridge: Bridge,
    caller: Caller,
    mailbox: Arc<Mailbox>,
    /// The device that it is for presence.
    stream: DeviceId,
    watched: Vec<Subject>,
    /// Before the watch would end.
    watch_again: Interval,
    /// Ready to be sent.
    frames: VecDeque<Frame>,
    /// Not looked at yet.
    events: VecDeque<Event>,
    /// When there was no other event: they have come since, in milliseconds since 1970.
    events_since: u64,
    /// When the mailbox was looked at last.
    looked_at: u64,
    heartbeat: Interval,
    stop: CancellationToken,
    /// When the token does.
    ends: Instant,
    _seat: Seat,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let commits = self.bridge.commits();
        commits.unsubscribe(self.caller.user, &self.mailbox);
        let at_millis = i64::try_from(now_unix_millis()).unwrap_or(i64::MAX);
        self.bridge
            .close_stream(self.caller.user, self.stream, at_millis);
    }
}

impl Follower {
    /// Called when the client has room for another one.
    async fn next(mut self) -> Option<(Result<Frame, Infallible>, Self)> {
        loop {
            if self.stop.is_cancelled() || Instant::now() >= self.ends {
                return None;
            }
            if let Some(frame) = self.frames.pop_front() {
                return Some((Ok(frame), self));
            }
            if let Some(event) = self.events.pop_front() {
                self.look(event).await;
                continue;
            }
            let looked_before = std::mem::replace(&mut self.looked_at, now_unix_millis());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
                events = poll_fn(|cx| self.mailbox.poll_take(cx)) => {
                    self.events.extend(events);
                    // They may have waited for a reader who was slow.
                    self.events_since = looked_before;
                }
                _ = self.watch_again.tick(), if !self.watched.is_empty() => {
                    if let Err(error) = self.watch().await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a watch is not renewed");
                    }
                }
                _ = self.heartbeat.tick() => self.frames.push_back(now().comment("")),
            }
        }
    }

    /// Watches for as long as a watch lasts, and says what is shown now.
    async fn watch(&mut self) -> Result<(), ConversationError> {
        if self.watched.is_empty() {
            return Ok(());
        }
        let users = self.watched.clone();
        let shown = self.bridge.watch(&self.caller, self.stream, users);
        for shown in shown.await? {
            let shown = serde_json::to_string(&shown).unwrap_or_default();
            self.say("presence", &shown);
        }
        Ok(())
    }

    async fn look(&mut self, event: Event) {
        match event {
            Event::Commit {
                notice, from, to, ..
            } => self.commit(&notice, from, to).await,
            Event::Behind {
                conversation,
                from,
                to,
            } => self.catch_up(conversation, from, to).await,
            Event::Receipt(receipt) => {
                let payload = String::from_utf8_lossy(&receipt.payload);
                self.say("receipt", &of(receipt.conversation, "receipt", &payload));
            }
            Event::Typing(typing) => {
                let payload = String::from_utf8_lossy(&typing.payload);
                self.say("typing", &of(typing.conversation, "typing", &payload));
            }
            Event::Mine { topic, payload } => {
                let payload = String::from_utf8_lossy(&payload);
                match topic {
                    ME_INBOX => self.say("inbox", &payload),
                    ME_PRESENCE => self.say("presence", &payload),
                    _ => {}
                }
            }
            // For those who publish, or hold a session.
            _ => {}
        }
    }

    /// A notice may not hold all entries; the others are in the log.
    async fn commit(&mut self, notice: &Notice, from: i64, to: i64) {
        let number = |entry: &SharedEntry| entry.position.sequence.get();
        let entries = notice.entries.iter();
        let entries: Vec<_> = entries
            .filter(|entry| (from..=to).contains(&number(entry)))
            .collect();
        let mut next = from;
        for entry in entries {
            if next < number(entry) {
                let missing_to = number(entry) - 1;
                self.catch_up(notice.conversation, next, missing_to).await;
            }
            self.entry(entry);
            next = number(entry) + 1;
        }
        if next <= to {
            self.catch_up(notice.conversation, next, to).await;
        }
    }

    /// Reads entries from the log, or says where they are.
    async fn catch_up(&mut self, conversation: ConversationId, from: i64, to: i64) {
        let mut next = from;
        while next <= to && to - from < CATCH_UP_ENTRIES_MAX {
            let page =
                self.bridge
                    .log_after(self.caller.user, conversation, next - 1, PAGE_ENTRIES_MAX);
            let page = match page.await {
                Ok(page) => page,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a page of the log is not read");
                    break;
                }
            };
            let (Some(first), Some(last)) = (page.first(), page.last()) else {
                // Erased, or the user may not see more.
                let gap = json!({"conversation": conversation, "from": next, "to": to});
                return self.say("gap", &gap.to_string());
            };
            let first = first.position.sequence.get();
            if first > next {
                let to = to.min(first - 1);
                let gap = json!({"conversation": conversation, "from": next, "to": to});
                self.say("gap", &gap.to_string());
            }
            next = last.position.sequence.get() + 1;
            for entry in page {
                if entry.position.sequence.get() <= to {
                    self.entry(&entry);
                }
            }
        }
        if next <= to {
            let after = next - 1;
            let href = format!("/v1/conversations/{conversation}/messages?after={after}");
            let gap = json!({"conversation": conversation, "from": next, "to": to, "href": href});
            self.say("gap", &gap.to_string());
        }
    }

    fn entry(&mut self, entry: &SharedEntry) {
        let payload = String::from_utf8_lossy(&entry.payload);
        let conversation = entry.position.conversation;
        self.say("message", &of(conversation, "entry", &payload));
    }

    fn say(&mut self, name: &str, data: &str) {
        let frame = Frame::default().id(self.events_since.to_string());
        self.frames.push_back(frame.event(name).data(data));
    }
}

/// JSON in JSON, as it is.
fn of(conversation: ConversationId, name: &str, payload: &str) -> String {
    format!("{{\"conversation\":\"{conversation}\",\"{name}\":{payload}}}")
}

fn now() -> Frame {
    Frame::default().id(now_unix_millis().to_string())
}

/// The last thing somebody saw was this; what changed since must be asked for. Of a time that is
/// still to come nobody knows what was seen: everything must be.
fn resync(last: Option<&str>) -> Frame {
    let since = last.and_then(|last| last.parse::<u64>().ok());
    let since = since.map(|since| since.saturating_sub(RESYNC_MARGIN_MILLIS));
    let data = match since.filter(|since| *since <= now_unix_millis()) {
        Some(since) => {
            let href = format!("/v1/inbox?changed_since={since}");
            json!({"changed_since": since, "href": href})
        }
        None => json!({"changed_since": null, "href": "/v1/inbox"}),
    };
    now().event("resync").data(data.to_string())
}
