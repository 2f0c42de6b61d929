//! One task per connection: it drives the session until the connection ends.
//!
//! Nothing in here waits for a commit. The loop looks at everything that may have happened,
//! hands it to the session, does what the session says, and sleeps when nothing is left.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf as _, BytesMut};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::OwnedSemaphorePermit,
    time::Sleep,
};

use super::{
    Broker, Shared,
    handshake::{self, Opened},
    hub::Place,
    operations::{Completed, Lane, Operation, inflight},
    reading::read_into,
};
use crate::{
    bridge::{
        conversations::Caller,
        mailbox::{Event, Mailbox},
        sessions::Held,
    },
    domain::{ids::Subject, topic::ME_INBOX},
    mqtt::{
        codec::Decoder,
        reason::ReasonCode,
        session::{Action, Session},
    },
    telemetry::metrics::{ConnectLabels, ConnectOutcome, DisconnectCause, DisconnectLabels},
};

/// How long the last bytes of a connection may take.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);
/// Output up to this size is kept for the next packets of an active connection.
const OUTPUT_KEPT_BYTES: usize = 512;

/// An open connection and the session it holds.
pub(super) struct Connection<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: S,
    pub(super) held: Held,
    pub(super) subject: Subject,
    pub(super) is_admin: bool,
    issued_at: Option<u64>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) session: Session,
    decoder: Decoder,
    inbound: BytesMut,
    /// What the session waits for.
    operations: Lane,
    /// What its user asked for.
    requests: Lane,
    /// A publish that found the queue of its writer full; nothing is read meanwhile.
    pub(super) blocked: Option<BoxFuture<'static, ()>>,
    timer: Pin<Box<Sleep>>,
    /// Since when the device takes nothing of what waits for it.
    stalled_since: Option<Instant>,
    ended: Option<DisconnectCause>,
    shown: Shown,
}

/// What the metrics hold of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    in_flight: i64,
    behind: i64,
}

impl Broker {
    /// Serves one connection from its first byte to its last.
    pub(super) async fn serve<S>(self, mut stream: S, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let shared = self.0;
        let connects = &shared.metrics.connects;
        // Boxed: what only the handshake needs is freed after it.
        let opened = match Box::pin(handshake::open(&shared, &mut stream)).await {
            Ok(opened) => opened,
            Err(error) => {
                let outcome = error.outcome();
                connects.get_or_create(&ConnectLabels { outcome }).inc();
                tracing::debug!(%error, "no session");
                return;
            }
        };
        let outcome = ConnectOutcome::Accepted;
        connects.get_or_create(&ConnectLabels { outcome }).inc();
        shared.metrics.connections.inc();
        let (place, connection) = Connection::new(&shared, stream, opened);
        let cause = connection.run().await;
        shared.metrics.connections.dec();
        shared
            .metrics
            .disconnects
            .get_or_create(&DisconnectLabels { cause })
            .inc();
        drop(place);
        drop(permit);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new<'a>(shared: &Arc<Shared>, stream: S, opened: Box<Opened<'a>>) -> (Place<'a>, Box<Self>) {
        let Opened {
            place,
            held,
            caller,
            mailbox,
            session,
            decoder,
            inbound,
        } = *opened;
        let Caller {
            subject,
            is_admin,
            issued_at,
            ..
        } = caller;
        tracing::debug!(user = %subject, device = held.device.0, "connected");
        shared.bridge.presence().connected(held, mailbox.clone());
        // Boxed: it is moved once, and the task around it stays small.
        let connection = Box::new(Self {
            shared: shared.clone(),
            stream,
            held,
            subject,
            is_admin,
            issued_at,
            mailbox,
            session,
            decoder,
            inbound,
            operations: Lane::default(),
            requests: Lane::default(),
            blocked: None,
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            stalled_since: None,
            ended: None,
            shown: Shown::default(),
        });
        (place, connection)
    }

    async fn run(mut self: Box<Self>) -> DisconnectCause {
        let cause = poll_fn(|cx| self.poll_drive(cx)).await;
        // Who took nothing before takes no farewell either; the next connection of the device
        // does not wait for it.
        if self.stalled_since.is_none() {
            let farewell = async {
                self.stream.write_all_buf(self.session.output()).await?;
                self.stream.shutdown().await
            };
            drop(tokio::time::timeout(FAREWELL, Box::pin(farewell)).await);
        }
        Box::pin(self.close()).await;
        cause
    }

    /// Writes what a later connection must find.
    async fn close(mut self: Box<Self>) {
        let bridge = &self.shared.bridge;
        bridge.commits().unsubscribe(self.held.user, &self.mailbox);
        let now = handshake::now();
        self.settle(now.instant);
        self.show(Shown::default());
        let expiry_seconds = self.session.session_expiry_seconds();
        let inflight = inflight(self.session.unsettled());
        let bridge = &self.shared.bridge;
        bridge
            .close_session(self.held, now.unix_millis, expiry_seconds, inflight)
            .await;
        tracing::debug!(user = %self.subject, device = self.held.device.0, "disconnected");
    }

    /// Does all that can be done now; ready when the connection has ended.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<DisconnectCause> {
        loop {
            let now = handshake::now().instant;
            if self.blocked.is_some() {
                self.session.excuse_silence(now);
            }
            self.session.handle_timeout(now);
            let mut has_moved = self.poll_mailbox(cx).is_ready();
            has_moved |= self.poll_operations(cx).is_ready();
            self.give_up_blocked();
            has_moved |= self.poll_blocked(cx).is_ready();
            self.perform(now);
            has_moved |= self.poll_read(cx, now).is_ready();
            self.perform(now);
            has_moved |= self.poll_write(cx, now).is_ready();
            self.settle(now);
            self.show(Shown {
                in_flight: i64::try_from(self.session.in_flight()).unwrap_or(i64::MAX),
                behind: self.session.is_behind().into(),
            });
            if let Some(cause) = self.ended.take() {
                return Poll::Ready(cause);
            }
            if !has_moved && self.poll_timer(cx, now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_mailbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let events = ready!(self.mailbox.poll_take(cx));
        for event in events {
            self.handle_event(event);
        }
        Poll::Ready(())
    }

    fn poll_operations(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lanes = [&mut self.operations, &mut self.requests];
        let completed = lanes.map(|lane| lane.poll_next(cx, &self.shared, self.held));
        let mut has_moved = Poll::Pending;
        for completed in completed {
            let Poll::Ready(completed) = completed else {
                continue;
            };
            has_moved = Poll::Ready(());
            match completed {
                Completed::Persisted { is_stored } => self.session.handle_persisted(is_stored),
                Completed::Page { page, entries } => self.session.handle_page(page, entries),
                Completed::Answered { ask, answer } => self.session.handle_answer(&ask, &answer),
                Completed::TakenOver => self.handle_event(Event::TakenOver),
            }
        }
        has_moved
    }

    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(blocked) = &mut self.blocked else {
            return Poll::Pending;
        };
        ready!(blocked.as_mut().poll(cx));
        self.blocked = None;
        Poll::Ready(())
    }

    /// A connection that must end does not wait for room in a queue: what has no room yet
    /// is not acknowledged, and the device repeats it.
    fn give_up_blocked(&mut self) {
        if self.blocked.is_none() || !self.session.is_closing() {
            return;
        }
        self.blocked = None;
        while let Some(action) = self.session.poll_action() {
            if let Action::Close { reason } = action {
                self.end(cause(reason));
            }
        }
    }

    /// Does what the session says, in order. A full queue stops it.
    fn perform(&mut self, now: Instant) {
        if self.session.take_has_new_subscriptions() {
            let wants_inbox = self.session.subscriptions().cover_mine(ME_INBOX);
            self.mailbox.set_wants_inbox(wants_inbox);
        }
        while self.blocked.is_none()
            && let Some(action) = self.session.poll_action()
        {
            match action {
                Action::Accept {
                    ticket,
                    topic,
                    payload,
                } => {
                    self.accept(ticket, &topic, &payload, now);
                }
                Action::Persist(change) => {
                    let expiry_seconds = self.session.session_expiry_seconds();
                    self.operations.push(Operation::Persist {
                        change,
                        expiry_seconds,
                    });
                }
                Action::Read(page) => self.operations.push(Operation::Read(page)),
                Action::Request(ask) => {
                    let caller = self.caller();
                    self.requests.push(Operation::Answer { ask, caller });
                }
                Action::Remember(unsettled) => {
                    let Held {
                        device, generation, ..
                    } = self.held;
                    let receipts = self.shared.bridge.receipts();
                    receipts.remember(device, generation, inflight(unsettled));
                }
                Action::Suspect(is_suspect) => {
                    self.shared.bridge.receipts().suspect(self.held, is_suspect);
                }
                Action::Close { reason } => self.end(cause(reason)),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        if self.blocked.is_some() || !self.session.can_read(now) {
            return Poll::Pending;
        }
        let had_bytes = !self.inbound.is_empty();
        if self.decode(now) && had_bytes {
            return Poll::Ready(());
        }
        if self.blocked.is_some() || !self.session.can_read(now) {
            return Poll::Pending;
        }
        match ready!(read_into(&mut self.stream, cx, &mut self.inbound)) {
            Ok(0) | Err(_) => self.end(DisconnectCause::Network),
            Ok(_) => {
                self.session.handle_sign_of_life();
                self.decode(now);
            }
        }
        Poll::Ready(())
    }

    /// Hands packets to the session while it takes some. Whether there was one.
    fn decode(&mut self, now: Instant) -> bool {
        let mut has_packets = false;
        while self.blocked.is_none() && self.session.can_read(now) && !self.inbound.is_empty() {
            match self.decoder.decode(&mut self.inbound) {
                Ok(Some(packet)) => {
                    has_packets = true;
                    self.session.handle_packet(packet, now);
                    self.perform(now);
                }
                Ok(None) => break,
                Err(error) => self.session.close(error.code, error.what),
            }
        }
        if self.inbound.is_empty() {
            self.inbound = BytesMut::new(); // an idle connection keeps no buffer
        }
        has_packets
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        if self.session.output().is_empty() {
            self.stalled_since = None;
            // TLS and WebSocket may hold written bytes back; a failure shows at the next read.
            let _: Poll<_> = Pin::new(&mut self.stream).poll_flush(cx);
            return Poll::Pending;
        }
        let stalled_since = *self.stalled_since.get_or_insert(now);
        let written = match Pin::new(&mut self.stream).poll_write(cx, self.session.output()) {
            Poll::Ready(Ok(written)) if written > 0 => written,
            Poll::Ready(_) => {
                self.end(DisconnectCause::Network);
                return Poll::Ready(());
            }
            Poll::Pending => {
                if now >= stalled_since + self.shared.config.write_timeout {
                    self.end(DisconnectCause::SlowReader);
                    return Poll::Ready(());
                }
                return Poll::Pending;
            }
        };
        self.stalled_since = None;
        let out = self.session.output();
        out.advance(written);
        if out.is_empty() && (out.capacity() > OUTPUT_KEPT_BYTES || self.session.is_idle()) {
            *self.session.output() = BytesMut::new(); // an idle connection keeps no buffer
        }
        self.session.handle_written();
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let write = self
            .stalled_since
            .map(|since| since + self.shared.config.write_timeout);
        let next = [self.session.poll_timeout(), write]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next else {
            return Poll::Pending;
        };
        if next <= now {
            return Poll::Ready(());
        }
        // A timer that rings too early is set again then; one that rings too late is not.
        let is_late = self.timer.deadline().into_std() > next;
        if is_late || self.timer.is_elapsed() {
            self.timer.as_mut().reset(next.into());
        }
        self.timer.as_mut().poll(cx)
    }

    /// Cursors move with what the device has acknowledged, in order.
    fn settle(&mut self, now: Instant) {
        if let Some(settled) = self.session.poll_settled() {
            let metrics = &self.shared.metrics;
            metrics.deliveries.inc_by(settled.len() as u64);
            for at in settled.iter().filter_map(|settled| settled.committed_at) {
                let since = now.saturating_duration_since(at);
                metrics
                    .commit_to_puback_seconds
                    .observe(since.as_secs_f64());
            }
            let device = self.session.is_persistent().then_some(self.held.device);
            let positions = settled.into_iter().map(|settled| settled.position);
            let receipts = self.shared.bridge.receipts();
            receipts.settled(self.held.user, device, positions);
        }
        let dropped = self.session.take_events_dropped();
        if dropped > 0 {
            self.shared.metrics.events_dropped.inc_by(dropped.into());
        }
        let repeated = self.session.take_repeated();
        if repeated > 0 {
            self.shared.metrics.repeated.inc_by(repeated.into());
        }
    }

    /// Moves the gauges by what has changed since the last call.
    fn show(&mut self, shown: Shown) {
        let before = std::mem::replace(&mut self.shown, shown);
        if before != shown {
            let metrics = &self.shared.metrics;
            metrics.in_flight.inc_by(shown.in_flight - before.in_flight);
            metrics.sessions_behind.inc_by(shown.behind - before.behind);
        }
    }

    fn caller(&self) -> Caller {
        Caller {
            subject: self.subject.clone(),
            user: self.held.user,
            is_admin: self.is_admin,
            issued_at: self.issued_at,
        }
    }

    fn end(&mut self, cause: DisconnectCause) {
        self.ended.get_or_insert(cause);
    }
}

fn cause(reason: ReasonCode) -> DisconnectCause {
    match reason {
        ReasonCode::SUCCESS | ReasonCode::DISCONNECT_WITH_WILL => DisconnectCause::Client,
        ReasonCode::KEEP_ALIVE_TIMEOUT => DisconnectCause::KeepAlive,
        ReasonCode::SESSION_TAKEN_OVER => DisconnectCause::TakenOver,
        ReasonCode::NOT_AUTHORIZED => DisconnectCause::TokenExpired,
        ReasonCode::ADMINISTRATIVE_ACTION => DisconnectCause::SignedOut,
        ReasonCode::SERVER_SHUTTING_DOWN => DisconnectCause::Shutdown,
        _ => DisconnectCause::Protocol,
    }
}
