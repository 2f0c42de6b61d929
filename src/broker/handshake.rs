//! From the first byte to an open session: CONNECT, token, takeover, what was missed.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{
    Shared,
    hub::Place,
    opening::{self, Opening},
    operations::{restore_pending, wanted},
    reading::read_into,
};
use crate::{
    bridge::{
        BridgeError,
        conversations::Caller,
        identity::Identity,
        mailbox::Mailbox,
        sessions::{Connecting, Held},
    },
    domain::{
        ids::{ConversationId, UserId},
        message::Position,
    },
    mqtt::{
        codec::{CodecError, Decoder},
        frame,
        packet::{Connect, Packet, PacketId, Version},
        reason::ReasonCode,
        session::{self, Remembered, Session, granted_expiry},
        subscriptions::Subscriptions,
    },
    telemetry::metrics::ConnectOutcome,
};

/// The longest MQTT client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// The largest CONNECT, in bytes: a token and some properties fit, and no more is read from
/// somebody who has not shown one.
const CONNECT_BYTES_MAX: u32 = 16_384;

/// A connection that passed the handshake.
pub(super) struct Opened<'a> {
    pub place: Place<'a>,
    pub held: Held,
    pub caller: Caller,
    pub mailbox: Arc<Mailbox>,
    pub session: Session,
    pub decoder: Decoder,
    /// What the client sent after its CONNECT.
    pub inbound: BytesMut,
}

/// Why there is no session. Everything was answered already.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("no CONNECT came in time")]
    Timeout,
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    #[error("no valid CONNECT: {0}")]
    Invalid(#[from] CodecError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("unavailable: {0}")]
    Unavailable(String),
}

impl HandshakeError {
    pub(super) fn outcome(&self) -> ConnectOutcome {
        match self {
            Self::Timeout | Self::Io(_) | Self::Invalid(_) => ConnectOutcome::Invalid,
            Self::Refused(_) => ConnectOutcome::Refused,
            Self::Unavailable(_) => ConnectOutcome::Unavailable,
        }
    }
}

/// A refusal: its reason code, and a text that says what to do.
struct Refuse(ReasonCode, String);

impl Refuse {
    fn new(code: ReasonCode, why: &(impl ToString + ?Sized)) -> Self {
        Self(code, why.to_string())
    }
}

/// Reads a CONNECT and opens its session, or answers why not.
pub(super) async fn open<'a, S>(
    shared: &'a Shared,
    stream: &mut S,
) -> Result<Box<Opened<'a>>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut decoder = Decoder::new(CONNECT_BYTES_MAX);
    let mut inbound = BytesMut::new();
    let read = read_connect(stream, &mut decoder, &mut inbound);
    let read = tokio::time::timeout(shared.config.connect_timeout, read);
    let stopping = shared.hub.stopping();
    let connect = match stopping.run_until_cancelled(read).await {
        None => return Err(HandshakeError::Unavailable("the server stops".to_owned())),
        Some(Err(_)) => return Err(HandshakeError::Timeout),
        Some(Ok(Ok(connect))) => connect,
        Some(Ok(Err(error))) => {
            if let (HandshakeError::Invalid(error), Some(version)) =
                (&error, version(&decoder, &error))
            {
                refuse(stream, version, error.code, error.what).await;
            }
            return Err(error);
        }
    };
    decoder.set_packet_bytes_max(shared.config.packet_bytes_max);
    // Few at a time: the memory that a session takes to open is used again by the next one.
    let begun = async {
        let _permit = shared.handshakes.acquire().await;
        Box::pin(begin(shared, &connect)).await
    };
    // Whatever it waits for, an older connection or the store: there is an answer in time.
    let begun = tokio::time::timeout(shared.config.connect_timeout, begun);
    let begun = begun.await.unwrap_or_else(|_| {
        let why = "the server is busy; connect again later";
        Err(Refuse::new(ReasonCode::SERVER_UNAVAILABLE, why))
    });
    match begun {
        Ok(begun) => {
            let Begun {
                place,
                held,
                caller,
                mailbox,
                session,
            } = begun;
            Ok(Box::new(Opened {
                place,
                held,
                caller,
                mailbox,
                session,
                decoder,
                inbound,
            }))
        }
        Err(Refuse(code, why)) => {
            refuse(stream, connect.version, code, &why).await;
            Err(match code {
                ReasonCode::SERVER_UNAVAILABLE
                | ReasonCode::SERVER_BUSY
                | ReasonCode::SERVER_SHUTTING_DOWN => HandshakeError::Unavailable(why),
                _ => HandshakeError::Refused(why),
            })
        }
    }
}

/// In which version to answer an unreadable CONNECT; nothing if it is no MQTT at all.
fn version(decoder: &Decoder, error: &HandshakeError) -> Option<Version> {
    match error {
        // [MQTT-3.1.2-2]: an unknown level is answered in the oldest form.
        HandshakeError::Invalid(error) if error.code == ReasonCode::UNSUPPORTED_VERSION => {
            Some(Version::V311)
        }
        // [MQTT-3.1.4-1] of 3.1.1: what does not conform is closed, unless a code says why.
        HandshakeError::Invalid(error) if error.code != ReasonCode::CLIENT_ID_NOT_VALID => {
            decoder.version().filter(|version| *version == Version::V5)
        }
        _ => decoder.version(),
    }
}

async fn read_connect<S: AsyncRead + Unpin>(
    stream: &mut S,
    decoder: &mut Decoder,
    inbound: &mut BytesMut,
) -> Result<Box<Connect>, HandshakeError> {
    loop {
        match decoder.decode(inbound)? {
            Some(Packet::Connect(connect)) => {
                if inbound.is_empty() {
                    *inbound = BytesMut::new(); // waiting for its turn, it keeps no buffer
                }
                return Ok(connect);
            }
            Some(_) => unreachable!("the decoder accepts nothing but CONNECT first"),
            None => {}
        }
        if poll_fn(|cx| read_into(stream, cx, inbound)).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// [MQTT-3.2.2-7]: a refusal is sent, then the connection is closed.
async fn refuse<S: AsyncWrite + Unpin>(
    stream: &mut S,
    version: Version,
    code: ReasonCode,
    why: &str,
) {
    let mut out = BytesMut::new();
    frame::write_connack_refusal(version, code, why, &mut out);
    // A peer that is gone already needs no answer.
    drop(stream.write_all(&out).await);
    drop(stream.shutdown().await);
}

struct Begun<'a> {
    place: Place<'a>,
    held: Held,
    caller: Caller,
    mailbox: Arc<Mailbox>,
    session: Session,
}

async fn begin<'a>(shared: &'a Shared, connect: &Connect) -> Result<Begun<'a>, Refuse> {
    let now = now();
    let identity = authenticate(shared, connect)?;
    check(connect)?;
    let unavailable = |error: BridgeError| {
        if let BridgeError::SignedOut = error {
            return Refuse::new(ReasonCode::NOT_AUTHORIZED, &error);
        }
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a device cannot connect"
        );
        Refuse::new(
            ReasonCode::SERVER_UNAVAILABLE,
            "the store is away; connect again later",
        )
    };
    let user = shared
        .bridge
        .user(&identity.subject)
        .await
        .map_err(unavailable)?;
    let assigned = connect
        .client_id
        .is_empty()
        .then(|| format!("homing-{}", ConversationId::random()));
    let client_id = assigned.as_deref().unwrap_or(&connect.client_id);

    let mailbox = Arc::new(Mailbox::default());
    let enter = shared.hub.enter(user, client_id, mailbox.clone());
    let place = enter
        .await
        .map_err(|error| Refuse::new(ReasonCode::SERVER_SHUTTING_DOWN, &error))?;
    let listening = Listening::begin(shared, user, mailbox.clone());
    let (held, remembered, opening) = remember(shared, connect, &identity, user, client_id)
        .await
        .map_err(unavailable)?;
    let identity_of_session = session::Identity {
        device: held.device,
        token_expires: now
            .instant
            .checked_add(expires_in(&identity, shared.leeway, now.unix)),
    };
    let limits = shared.limits.clone();
    let session = Session::open(
        connect,
        identity_of_session,
        remembered,
        assigned,
        limits,
        now.instant,
    );
    listening.goes_on();
    opening.done();
    Ok(Begun {
        place,
        held,
        caller: Caller {
            subject: identity.subject,
            user,
            is_admin: identity.is_admin,
            issued_at: identity.issued_at,
        },
        mailbox,
        session,
    })
}

/// A clock difference that is forgiven at CONNECT is forgiven afterwards too.
fn expires_in(identity: &Identity, leeway: Duration, now_unix: u64) -> Duration {
    let expires_at = identity.expires_at.saturating_add(leeway.as_secs());
    Duration::from_secs(expires_at.saturating_sub(now_unix))
}

/// A mailbox hears of commits before the session is read, so that nothing falls between.
struct Listening<'a> {
    shared: &'a Shared,
    user: UserId,
    mailbox: Option<Arc<Mailbox>>,
}

impl<'a> Listening<'a> {
    fn begin(shared: &'a Shared, user: UserId, mailbox: Arc<Mailbox>) -> Self {
        shared.bridge.commits().subscribe(user, mailbox.clone());
        Self {
            shared,
            user,
            mailbox: Some(mailbox),
        }
    }

    /// The connection task unsubscribes when it ends.
    fn goes_on(mut self) {
        self.mailbox = None;
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if let Some(mailbox) = &self.mailbox {
            self.shared.bridge.commits().unsubscribe(self.user, mailbox);
        }
    }
}

fn authenticate(shared: &Shared, connect: &Connect) -> Result<Identity, Refuse> {
    if connect.has_authentication_method {
        let why = "enhanced authentication is not offered; send a token as password";
        return Err(Refuse::new(ReasonCode::BAD_AUTHENTICATION_METHOD, why));
    }
    let token = connect.password.as_deref().unwrap_or_default();
    let token = std::str::from_utf8(token).unwrap_or_default();
    if token.is_empty() {
        let why = "a token is needed as password";
        return Err(Refuse::new(ReasonCode::BAD_USER_NAME_OR_PASSWORD, why));
    }
    let identity = shared.keys.verify(token, now().unix).map_err(|error| {
        let code = if error.is_expired_kind() {
            ReasonCode::NOT_AUTHORIZED
        } else {
            ReasonCode::BAD_USER_NAME_OR_PASSWORD
        };
        Refuse::new(code, &error)
    })?;
    match connect.user_name.as_deref() {
        None | Some("") => Ok(identity),
        Some(name) if name == identity.subject.as_str() => Ok(identity),
        Some(_) => {
            let why = "the user name is not the subject of the token; send that one, or none";
            Err(Refuse::new(ReasonCode::BAD_USER_NAME_OR_PASSWORD, why))
        }
    }
}

fn check(connect: &Connect) -> Result<(), Refuse> {
    if connect.has_will {
        let why = "wills are not offered: presence does not depend on them here";
        return Err(Refuse::new(ReasonCode::NOT_AUTHORIZED, why));
    }
    let id = &connect.client_id;
    if id.len() > CLIENT_ID_BYTES_MAX || id.contains(char::is_control) {
        let why = "a client id has at most 128 bytes and no control characters";
        return Err(Refuse::new(ReasonCode::CLIENT_ID_NOT_VALID, why));
    }
    Ok(())
}

async fn remember(
    shared: &Shared,
    connect: &Connect,
    identity: &Identity,
    user: UserId,
    client_id: &str,
) -> Result<(Held, Remembered, Opening), BridgeError> {
    let connecting = Connecting {
        user,
        client_id,
        clean_start: connect.clean_start,
        expiry_seconds: granted_expiry(connect, &shared.limits),
        issued_at: identity.issued_at,
    };
    let (opened, opening) = opening::open(&shared.bridge, &shared.tasks, connecting).await?;
    let subscriptions: Subscriptions =
        serde_json::from_value(opened.subscriptions).unwrap_or_else(|error| {
            tracing::error!(%error, "stored subscriptions cannot be read and are forgotten");
            Subscriptions::default()
        });
    let wanted = wanted(&subscriptions.coverage());
    let pending = if opened.is_present && !subscriptions.is_empty() {
        shared.bridge.pending(opened.held, &wanted).await?
    } else {
        Vec::new()
    };
    let inflight = opened.inflight.into_iter().map(restore_inflight).collect();
    let remembered = Remembered {
        is_present: opened.is_present,
        subscriptions,
        inflight,
        pending: pending.into_iter().map(restore_pending).collect(),
        format: opened.format,
    };
    Ok((opened.held, remembered, opening))
}

fn restore_inflight((packet_id, position): (u16, Position)) -> (Position, Option<PacketId>) {
    (position, PacketId::new(packet_id))
}

/// The same moment on both clocks.
pub(super) struct Now {
    pub instant: Instant,
    pub unix: u64,
    pub unix_millis: i64,
}

/// The driver of the protocol core is where the clock is read.
#[expect(clippy::disallowed_methods, reason = "the driver reads the clock")]
pub(super) fn now() -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        instant: Instant::now(),
        unix: unix.as_secs(),
        unix_millis: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
    }
}
