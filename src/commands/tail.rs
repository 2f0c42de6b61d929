//! `homing tail`: a device that prints what arrives and acknowledges what it has printed.

use std::{collections::HashMap, time::Duration};

use clap::Args;
use homing::{
    client::{
        backoff::Backoff,
        device::{Device, DeviceOptions, Session},
        error::DeviceError,
        message::{Entry, EntryText, Event},
    },
    config::Config,
    domain::{
        envelope::KIND_TEXT,
        ids::{ConversationId, Subject},
        message::Sequence,
    },
};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time,
};

use super::{
    failure::Failure,
    output,
    target::{Target, TargetArgs},
};

/// The server keeps the session as long as it allows; this is more than its default.
const SESSION_EXPIRY: Duration = Duration::from_hours(365 * 24);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  homing tail --user bob --client-id phone                   everything bob may see
  homing tail AZjzwgAAcACAAAAAAAAAAQ --user bob --json       one conversation, as JSON lines
  homing tail --user bob --client-id phone --count 0         only begin the session, and go away

The session stays when the command ends: what is sent meanwhile arrives at its next start.";

/// Receive over MQTT, in a persistent session, and print what arrives
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// One conversation [default: all in which the user takes part]
    #[arg(value_name = "CID")]
    conversation: Option<ConversationId>,
    /// Who receives
    #[arg(long)]
    user: Subject,
    /// Names the device, and with it the session
    #[arg(long, value_name = "ID", default_value = "tail")]
    client_id: String,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Tail {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        let mut signals = Signals::listen()?;
        let target = Target::new(self.target.clone(), settings);
        let mut receiver = Receiver {
            remaining: self.count,
            args: self,
            target,
            printed: HashMap::new(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            was_connected: false,
        };
        loop {
            let failure = match receiver.connection(&mut signals).await {
                Ok(()) => return Ok(()),
                Err(Interruption::Final(failure)) => return Err(failure),
                Err(Interruption::Transient(reason)) => reason,
            };
            output::note(&format!("{failure}; connecting again"));
            select! {
                () = time::sleep(receiver.backoff.wait()) => {}
                () = signals.stop() => return Ok(()),
            }
        }
    }
}

/// Why a connection ended before the command did.
enum Interruption {
    /// The next connection may work.
    Transient(String),
    Final(Failure),
}

impl From<Failure> for Interruption {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

impl From<std::io::Error> for Interruption {
    fn from(error: std::io::Error) -> Self {
        Self::Final(error.into())
    }
}

/// What outlives a connection.
struct Receiver {
    args: Tail,
    target: Target,
    remaining: Option<u64>,
    /// The last printed sequence of each conversation that sent something: what the server
    /// repeats after a lost acknowledgement is acknowledged, not printed again.
    printed: HashMap<ConversationId, Sequence>,
    backoff: Backoff,
    was_connected: bool,
}

impl Receiver {
    /// One connection, until the command is done or the connection ends.
    async fn connection(&mut self, signals: &mut Signals) -> Result<(), Interruption> {
        let options = match self.options() {
            // The broker is being started again.
            Err(failure) if self.was_connected => {
                return Err(Interruption::Transient(failure.text().to_owned()));
            }
            options => options?,
        };
        let connected = select! {
            device = Device::connect(&options) => device,
            () = signals.stop() => return Ok(()),
        };
        let mut device = connected.map_err(|error| self.interruption(error))?;
        let subscribed = device.subscribe(self.args.conversation).await;
        subscribed.map_err(|error| self.interruption(error))?;
        self.was_connected = true;
        while self.remaining != Some(0) {
            let event = select! {
                event = device.next() => event.map_err(|error| self.interruption(error))?,
                () = signals.stop() => break,
            };
            self.backoff.reset();
            // Receipts and warnings concern devices that publish.
            let Event::Entry(entry) = event else { continue };
            self.print(&entry)?;
            let acknowledged = device.acknowledge(&entry).await;
            acknowledged.map_err(|error| self.interruption(error))?;
        }
        // Everything printed is acknowledged; what a broken connection loses comes again.
        drop(device.disconnect().await);
        Ok(())
    }

    fn options(&self) -> Result<DeviceOptions, Failure> {
        Ok(DeviceOptions {
            mqtt: self.target.mqtt()?,
            token: self.target.user_token(&self.args.user)?,
            user: self.args.user.clone(),
            client_id: self.args.client_id.clone(),
            session: Session::Kept(SESSION_EXPIRY),
        })
    }

    /// The first connection must succeed; later ones may take their time.
    fn interruption(&self, error: DeviceError) -> Interruption {
        let has_expired = matches!(error, DeviceError::Unauthorized { .. });
        let is_transient = error.is_transient() || (has_expired && self.target.signs_tokens());
        if self.was_connected && is_transient {
            Interruption::Transient(error.to_string())
        } else {
            Interruption::Final(error.into())
        }
    }

    fn print(&mut self, entry: &Entry) -> Result<(), Failure> {
        let position = entry.position;
        let printed = self.printed.get(&position.conversation);
        if printed.is_some_and(|&printed| printed >= position.sequence) {
            return Ok(());
        }
        if self.args.json {
            output::line(&json_line(entry))?;
        } else {
            output::line(&text_line(entry, self.args.conversation))?;
        }
        self.printed
            .insert(position.conversation, position.sequence);
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(1));
        Ok(())
    }
}

/// `#42 alice: on my way`, after the conversation if that is not known already.
fn text_line(entry: &Entry, expected: Option<ConversationId>) -> String {
    let conversation = entry.position.conversation;
    let place = if expected == Some(conversation) {
        String::new()
    } else {
        format!("{conversation} ")
    };
    let number = entry.position.sequence.get();
    let said = match &entry.text {
        EntryText::Message { from, kind, body } if kind == KIND_TEXT => {
            let text = serde_json::from_str::<String>(body);
            format!("{from}: {}", text.as_ref().unwrap_or(body))
        }
        EntryText::Message { from, kind, body } => format!("{from} [{kind}]: {body}"),
        EntryText::TooLarge { href } => format!("(too large for this device; get {href})"),
    };
    output::printable(&format!("{place}#{number} {said}"))
}

/// The entry as it arrived, on one line, and with its conversation.
fn json_line(entry: &Entry) -> String {
    let payload = String::from_utf8_lossy(&entry.payload);
    // In JSON, a line break stands between tokens only: in a string it is escaped.
    let members = payload
        .trim_start()
        .trim_start_matches('{')
        .replace(['\n', '\r'], " ");
    format!(
        "{{\"conversation\":\"{}\",{members}",
        entry.position.conversation
    )
}

/// The wish to leave: ^C, or `kill`.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn stop(&mut self) {
        select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
