//! What is to go wrong: scripted for a token, or named in the token itself.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::seen::Kind;

/// In place of a token: every token that has no script of its own.
pub(crate) const EVERY: &str = "*";
/// In place of a token: the next fetch of an access token.
pub(crate) const OAUTH: &str = "oauth";

/// How a valid request is answered, once.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// With an error.
    Refuse(Refusal),
    /// Well, when the gate is opened.
    Hold(Gate),
    /// With an error, when the gate is opened.
    HoldAndRefuse(Gate, Refusal),
    /// Well, after this long: for the program; tests have gates.
    Delay(Duration),
    /// Well; and GOAWAY follows on the connection.
    GoAway,
    /// With `RST_STREAM`.
    Reset,
    /// Not at all: the connection is closed.
    Cut,
    /// Well: a place in a script between others.
    Accept,
}

/// An error as a provider writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// Apple's `reason`, Google's `errorCode`.
    pub(crate) reason: String,
    /// The header, in seconds or as a date.
    pub(crate) retry_after: Option<String>,
    /// Apple's `timestamp`, in milliseconds since 1970.
    pub(crate) since_millis: Option<i64>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            retry_after: None,
            since_millis: None,
        }
    }

    /// Of what the real provider would let pass.
    pub(crate) fn strict(mistake: impl std::fmt::Display) -> Self {
        Self::new(400, format!("strict: {mistake}"))
    }
}

impl Fault {
    /// An error with this status and reason.
    pub(crate) fn refuse(status: u16, reason: &str) -> Self {
        Self::Refuse(Refusal::new(status, reason))
    }

    /// An error with a `Retry-After` header.
    pub(crate) fn retry_after(status: u16, reason: &str, after: &str) -> Self {
        Self::Refuse(Refusal {
            retry_after: Some(after.to_owned()),
            ..Refusal::new(status, reason)
        })
    }

    /// Apple's 410: since when the token is not valid any more.
    pub(crate) fn gone(reason: &str, since_millis: i64) -> Self {
        Self::Refuse(Refusal {
            since_millis: Some(since_millis),
            ..Refusal::new(410, reason)
        })
    }
}

/// Holds requests until it is opened; it stays open.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    is_open: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            is_open: watch::Sender::new(false),
        }
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    pub(super) async fn passed(&self) {
        let mut watched = self.is_open.subscribe();
        watched.wait_for(|is_open| *is_open).await.unwrap();
    }
}

/// The faults of every token, in order.
#[derive(Default)]
pub(crate) struct Scripts {
    of_token: Mutex<HashMap<String, Script>>,
}

#[derive(Default)]
struct Script {
    next: VecDeque<Fault>,
    /// After the others.
    always: Option<Fault>,
}

impl Scripts {
    pub(super) fn push(&self, token: &str, faults: impl IntoIterator<Item = Fault>) {
        self.edit(token, |script| script.next.extend(faults));
    }

    pub(super) fn set_always(&self, token: &str, fault: Fault) {
        self.edit(token, |script| script.always = Some(fault));
    }

    pub(super) fn clear(&self, token: &str) {
        self.edit(token, |script| *script = Script::default());
    }

    /// What happens to this request.
    pub(super) fn next(&self, kind: Kind, token: &str) -> Fault {
        let mut scripts = self.of_token.lock().unwrap_or_else(PoisonError::into_inner);
        for key in [token, EVERY] {
            if let Some(script) = scripts.get_mut(key)
                && let Some(fault) = script.next.pop_front().or_else(|| script.always.clone())
            {
                return fault;
            }
        }
        named(kind, token).unwrap_or(Fault::Accept)
    }

    fn edit(&self, token: &str, edit: impl FnOnce(&mut Script)) {
        let mut scripts = self.of_token.lock().unwrap_or_else(PoisonError::into_inner);
        edit(scripts.entry(token.to_owned()).or_default());
    }
}

/// Apple's reasons, by status: the place in the list is the digit after the status in a token.
const APNS_REASONS: [(u16, &[&str]); 6] = [
    (
        400,
        &[
            "BadDeviceToken",
            "DeviceTokenNotForTopic",
            "TopicDisallowed",
            "IdleTimeout",
        ],
    ),
    (
        403,
        &[
            "ExpiredProviderToken",
            "InvalidProviderToken",
            "Forbidden",
            "UnrelatedKeyIdInToken",
            "BadEnvironmentKeyInToken",
        ],
    ),
    (410, &["Unregistered", "ExpiredToken"]),
    (429, &["TooManyRequests", "TooManyProviderTokenUpdates"]),
    (500, &["InternalServerError"]),
    (503, &["ServiceUnavailable", "Shutdown"]),
];

/// Apple's tokens are hexadecimal: `fa17`, the status, and a digit.
const APNS_MARK: &str = "fa17";
/// Of the others: `fault-404-UNREGISTERED-1`, `fault-slow-1`.
const MARK: &str = "fault-";
const NETWORK_FAULTS: [&str; 4] = ["slow", "goaway", "reset", "cut"];
/// What `Retry-After` says in faults that are named in the token.
const RETRY_AFTER_SECONDS: &str = "2";
const SLOW: Duration = Duration::from_secs(3);

/// A device token of Apple's form with a fault in it: a reason, or `slow`, `goaway`, `reset`,
/// `cut`. `number` tells tokens apart.
pub(crate) fn apns_token(fault: &str, number: u32) -> Option<String> {
    let network = (0, NETWORK_FAULTS.as_slice());
    let (status, digit) =
        APNS_REASONS
            .into_iter()
            .chain([network])
            .find_map(|(status, reasons)| {
                let digit = reasons.iter().position(|reason| *reason == fault)?;
                Some((status, digit))
            })?;
    Some(format!("{APNS_MARK}{status:03}{digit}{number:056x}"))
}

fn named(kind: Kind, token: &str) -> Option<Fault> {
    if kind == Kind::Apns {
        let rest = token.strip_prefix(APNS_MARK)?;
        let status: u16 = rest.get(..3)?.parse().ok()?;
        let digit: usize = rest.get(3..4)?.parse().ok()?;
        if status == 0 {
            return network(NETWORK_FAULTS.get(digit)?);
        }
        let (_, reasons) = APNS_REASONS.into_iter().find(|(of, _)| *of == status)?;
        return Some(refuse(status, reasons.get(digit)?));
    }
    let mut parts = token.strip_prefix(MARK)?.split('-');
    let first = parts.next()?;
    match first.parse() {
        Ok(status) => Some(refuse(status, parts.next()?)),
        Err(_) => network(first),
    }
}

fn network(name: &str) -> Option<Fault> {
    match name {
        "slow" => Some(Fault::Delay(SLOW)),
        "goaway" => Some(Fault::GoAway),
        "reset" => Some(Fault::Reset),
        "cut" => Some(Fault::Cut),
        _ => None,
    }
}

fn refuse(status: u16, reason: &str) -> Fault {
    match status {
        // The end of time: later than any registration.
        410 => Fault::gone(reason, 4_102_444_800_000),
        429 | 503 => Fault::retry_after(status, reason, RETRY_AFTER_SECONDS),
        _ => Fault::refuse(status, reason),
    }
}
