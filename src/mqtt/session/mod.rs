//! The state machine of one connected session.
//!
//! `handle_*` takes what comes in: packets, verdicts, commit notices, pages of the log, the
//! passing of time. `poll_*` says what must go out: bytes, actions for the bridge, the next
//! moment to look again. It never waits. A driver that wakes up calls
//! [`Session::handle_timeout`] first: it tells the time.
//!
//! ```text
//!   PUBLISH ─▶ publishes ─▶ Action::Accept ─▶ verdict ─▶ PUBACK, in order
//!   notice ─▶ replay ─▶ inflight ─▶ PUBLISH … PUBACK ─▶ settled, in order ─▶ cursor
//!   q/… ─▶ Action::Request ─▶ answer ─▶ PUBLISH, then PUBACK in its turn
//! ```

mod format;
mod incoming;
mod outgoing;
mod requests;
mod silence;
#[cfg(test)]
mod tests;
mod timers;

pub use requests::Ask;

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    alias::{AliasesIn, AliasesOut},
    frame::{self, ConnAck},
    inflight::{Inflight, Settled},
    packet::{Connect, PacketId, QoS, Subscribe, Unsubscribe, Version},
    publishes::{Publishes, Ticket},
    rate::Rate,
    reason::ReasonCode,
    replay::{PageRequest, Pending, Replay},
    subscriptions::{Coverage, Subscriptions},
};
use crate::domain::{
    format::WireFormat,
    ids::DeviceId,
    message::Position,
    topic::{Leaf, PublishTopic},
};
use silence::Silence;

/// What the server grants every session; shared by all of them.
#[derive(Clone, Debug)]
pub struct Limits {
    pub keep_alive_max: Duration,
    pub session_expiry_max: Duration,
    pub inflight_max: NonZeroU16,
    pub receive_max: NonZeroU16,
    pub packet_bytes_max: u32,
    pub topic_alias_max: u16,
    pub topic_alias_out_max: u16,
    pub subscriptions_max: usize,
    /// Past this many bytes that the device has not read, nothing new is written.
    pub outbound_bytes_max: usize,
    pub backlog_entries_max: usize,
    pub publishes_per_second: u32,
    /// How long before the end of the token the device is warned.
    pub expiry_warning: Duration,
    /// How long a device may be silent after a delivery before its connection is suspect.
    pub suspect_after: Duration,
}

/// What the session was before this connection, as the store remembers it.
#[derive(Debug, Default)]
pub struct Remembered {
    pub is_present: bool,
    pub subscriptions: Subscriptions,
    /// Sent and not settled, oldest first; without a packet id if acknowledged already.
    pub inflight: Vec<(Position, Option<PacketId>)>,
    /// Where the device stands in conversations that have something for it.
    pub pending: Vec<Pending>,
    /// The format of payloads, unless the CONNECT names one.
    pub format: WireFormat,
}

/// What the driver must do for the session.
#[derive(Debug)]
pub enum Action {
    /// Give a publish to the bridge; answer with [`Session::handle_verdict`].
    Accept {
        ticket: Ticket,
        topic: PublishTopic,
        payload: Bytes,
    },
    /// Do what the device asks for; answer with [`Session::handle_answer`].
    Request(Box<Ask>),
    /// Store changed subscriptions; answer with [`Session::handle_persisted`].
    Persist(SubscriptionChange),
    /// Read a page of the log; answer with [`Session::handle_page`].
    Read(PageRequest),
    /// Remember what is in flight, should the process die.
    Remember(Vec<(Position, Option<PacketId>)>),
    /// The device took messages and gives no sign of life (true), or does again.
    Suspect(bool),
    /// Write what is left and close the connection.
    Close { reason: ReasonCode },
}

/// Subscriptions as they should be stored.
#[derive(Debug)]
pub struct SubscriptionChange {
    pub subscriptions: Subscriptions,
    /// Whose logs were covered before, and are now.
    pub before: Coverage,
    pub after: Coverage,
}

/// A SUBSCRIBE or UNSUBSCRIBE that waits for its turn.
#[derive(Debug)]
enum Control {
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
}

/// What to answer when the subscriptions are stored.
#[derive(Debug)]
enum Answer {
    SubAck {
        packet_id: PacketId,
        codes: Vec<Result<QoS, ReasonCode>>,
        before: Subscriptions,
    },
    UnsubAck {
        packet_id: PacketId,
        codes: Vec<ReasonCode>,
        after: Subscriptions,
    },
}

/// One connected session.
#[derive(Debug)]
#[expect(
    clippy::struct_field_names,
    clippy::struct_excessive_bools,
    reason = "Session Expiry is a term of MQTT; each of the others is a fact of its own"
)]
pub struct Session {
    version: Version,
    /// Of the payloads, in both directions.
    format: WireFormat,
    device: DeviceId,
    limits: Arc<Limits>,
    packet_bytes_max: Option<NonZeroU32>,
    wants_problem_information: bool,
    session_expiry_seconds: u32,
    keep_alive: Option<Duration>,
    /// The last moment that the driver told.
    clock: Instant,
    last_heard: Instant,
    token_expires: Option<Instant>,
    was_warned: bool,
    remember_at: Option<Instant>,
    silence: Silence,
    subscriptions: Subscriptions,
    has_new_subscriptions: bool,
    replay: Replay,
    inflight: Inflight,
    publishes: Publishes,
    /// None without a limit, as most have it.
    rate: Option<Box<Rate>>,
    aliases_in: AliasesIn,
    aliases_out: AliasesOut,
    controls: VecDeque<Control>,
    answer: Option<Box<Answer>>,
    actions: VecDeque<Action>,
    settled: Vec<Settled>,
    out: BytesMut,
    is_closing: bool,
    /// Requests that have no answer yet.
    requests: u8,
    events_dropped: u16,
    repeated: u16,
}

/// Who connected, as far as the session must know.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub device: DeviceId,
    pub token_expires: Option<Instant>,
}

impl Session {
    /// Opens a session for an accepted CONNECT and writes the CONNACK. `assigned_client_id`
    /// is set if the server chose it. [MQTT-3.2.2-16]
    #[must_use]
    pub fn open(
        connect: &Connect,
        identity: Identity,
        remembered: Remembered,
        assigned_client_id: Option<String>,
        limits: Arc<Limits>,
        now: Instant,
    ) -> Self {
        let inflight_max = connect.receive_max.min(limits.inflight_max);
        let keep_alive_seconds = keep_alive_seconds(connect, &limits);
        let session_expiry_seconds = granted_expiry(connect, &limits);
        let format = connect.format.unwrap_or(remembered.format);
        let (pending, interrupted) = resumed(remembered.pending, remembered.inflight, |position| {
            remembered
                .subscriptions
                .route(&position.conversation, Leaf::Messages)
                .is_some()
        });
        let connack = ConnAck {
            is_session_present: remembered.is_present,
            session_expiry_seconds: (session_expiry_seconds != connect.session_expiry_seconds)
                .then_some(session_expiry_seconds),
            receive_max: limits.receive_max,
            packet_bytes_max: limits.packet_bytes_max,
            assigned_client_id,
            topic_alias_max: limits.topic_alias_max,
            server_keep_alive_seconds: (keep_alive_seconds != connect.keep_alive_seconds)
                .then_some(keep_alive_seconds),
            format: (connect.asks_for_format || format == WireFormat::Cbor).then_some(format),
        };
        let mut session = Self {
            version: connect.version,
            format,
            device: identity.device,
            packet_bytes_max: connect.packet_bytes_max,
            wants_problem_information: connect.wants_problem_information,
            session_expiry_seconds,
            keep_alive: (keep_alive_seconds > 0)
                .then(|| Duration::from_millis(u64::from(keep_alive_seconds) * 1500)),
            clock: now,
            last_heard: now,
            token_expires: identity.token_expires,
            was_warned: false,
            remember_at: None,
            silence: Silence::Excused,
            has_new_subscriptions: !remembered.subscriptions.is_empty(),
            subscriptions: remembered.subscriptions,
            replay: Replay::new(limits.backlog_entries_max),
            inflight: Inflight::new(inflight_max, interrupted),
            publishes: Publishes::default(),
            rate: (limits.publishes_per_second > 0)
                .then(|| Box::new(Rate::new(limits.publishes_per_second, now))),
            aliases_in: AliasesIn::default(),
            aliases_out: AliasesOut::new(connect.topic_alias_max.min(limits.topic_alias_out_max)),
            controls: VecDeque::new(),
            answer: None,
            actions: VecDeque::new(),
            settled: Vec::new(),
            out: BytesMut::new(),
            is_closing: false,
            requests: 0,
            events_dropped: 0,
            repeated: 0,
            limits,
        };
        session.write_connack(connack);
        for pending in pending {
            session.replay.resume(pending);
        }
        session.pump();
        session
    }

    /// [MQTT-3.2.2-20]: no user property that makes the CONNACK too large.
    fn write_connack(&mut self, mut connack: ConnAck) {
        frame::write_connack(self.version, &connack, &mut self.out);
        let max = self.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get);
        if connack.format.is_some() && self.out.len() > max as usize {
            connack.format = None;
            self.out.clear();
            frame::write_connack(self.version, &connack, &mut self.out);
        }
    }

    /// How long the session outlives its connection, in seconds; 0 ends it with it.
    #[must_use]
    pub fn session_expiry_seconds(&self) -> u32 {
        self.session_expiry_seconds
    }

    /// Whether the session is remembered by the store while it is connected.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.session_expiry_seconds > 0
    }

    /// What the device receives.
    #[must_use]
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Whether the subscriptions may have changed since the last call.
    pub fn take_has_new_subscriptions(&mut self) -> bool {
        std::mem::take(&mut self.has_new_subscriptions)
    }

    /// What a later connection must know: see [`Remembered::inflight`].
    #[must_use]
    pub fn unsettled(&self) -> Vec<(Position, Option<PacketId>)> {
        self.inflight.unsettled().collect()
    }

    /// Whether everything known to be for the device was sent and acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.replay.is_caught_up() && self.inflight.is_empty() && self.publishes.is_empty()
    }

    /// Whether something waits until the device acknowledges or reads, or is read from the log.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.replay.is_caught_up()
    }

    /// Messages that were sent and have not settled.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inflight.len()
    }

    /// Events that a slow reader did not get, since the last call.
    pub fn take_events_dropped(&mut self) -> u32 {
        std::mem::take(&mut self.events_dropped).into()
    }

    /// Messages that were sent again, since the last call.
    pub fn take_repeated(&mut self) -> u32 {
        std::mem::take(&mut self.repeated).into()
    }

    /// The next thing to do for the session.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the device has acknowledged in order since the last call, oldest first.
    pub fn poll_settled(&mut self) -> Option<Vec<Settled>> {
        (!self.settled.is_empty()).then(|| std::mem::take(&mut self.settled))
    }

    /// The bytes to write. Take from the front what was written, then call
    /// [`Session::handle_written`].
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Ends the connection: tells the client why, as far as its MQTT can say it.
    pub fn close(&mut self, reason: ReasonCode, why: &str) {
        if !self.is_closing {
            self.is_closing = true;
            frame::write_disconnect(self.version, reason, why, &mut self.out);
            self.actions.push_back(Action::Close { reason });
        }
    }

    /// Until when no publish is read; nothing if one is welcome.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.rate.as_ref()?.paused_until(now)
    }

    /// Whether the connection is about to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }
}

/// Seconds of silence the client may keep; 0 is any. MQTT 3.1.1 cannot be told another value.
fn keep_alive_seconds(connect: &Connect, limits: &Limits) -> u16 {
    let max = u16::try_from(limits.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
    match (connect.version, connect.keep_alive_seconds) {
        (Version::V311, seconds) => seconds,
        (Version::V5, 0) => max,
        (Version::V5, seconds) => seconds.min(max),
    }
}

/// How long the session of this CONNECT outlives its connection, in seconds.
#[must_use]
pub fn granted_expiry(connect: &Connect, limits: &Limits) -> u32 {
    let max = u32::try_from(limits.session_expiry_max.as_secs()).unwrap_or(u32::MAX);
    connect.session_expiry_seconds.min(max)
}

/// What the device still has to get, and what of it was sent before. [MQTT-4.4.0-1]
///
/// What was sent and not acknowledged is sent again even if the cursor is past it: a new
/// subscription begins at the head of the log when it is stored, and what is committed
/// shortly before that may be in flight already.
fn resumed(
    mut pending: Vec<Pending>,
    mut inflight: Vec<(Position, Option<PacketId>)>,
    is_covered: impl Fn(&Position) -> bool,
) -> (Vec<Pending>, Vec<(Position, Option<PacketId>)>) {
    inflight.retain(|(position, _)| is_covered(position));
    for (position, _) in inflight.iter().filter(|(_, id)| id.is_some()) {
        let (conversation, head) = (position.conversation, position.sequence.get());
        let cursor = head - 1;
        let known = pending
            .iter_mut()
            .find(|known| known.conversation == conversation);
        if let Some(known) = known {
            known.cursor = known.cursor.min(cursor);
        } else {
            pending.push(Pending {
                conversation,
                cursor,
                head,
            });
        }
    }
    // What lies before the cursor will not be read again.
    inflight.retain(|(position, _)| {
        pending.iter().any(|known| {
            known.conversation == position.conversation && known.cursor < position.sequence.get()
        })
    });
    (pending, inflight)
}
