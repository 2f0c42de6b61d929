//! `homing send`: publishes one message and waits until it is committed.

use std::time::Duration;

use clap::Args;
use homing::{
    client::{
        backoff::Backoff,
        device::{Device, DeviceOptions, Session},
        error::DeviceError,
    },
    config::Config,
    domain::{
        envelope::KIND_TEXT,
        ids::{ClientMessageId, ConversationId, Subject},
        message::{Content, Sequence},
    },
    lifecycle::Exit,
};
use serde_json::json;
use tokio::time;

use super::{
    failure::Failure,
    output,
    target::{Target, TargetArgs},
};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  homing send AZjzwgAAcACAAAAAAAAAAQ 'on my way' --user alice
  homing send AZjzwgAAcACAAAAAAAAAAQ 'order 17 is paid' --user shop --id order-17-paid

The same --id is stored once, however often it is sent; the sequence is always the first one's.";

/// Send a message over MQTT, wait until it is stored, print its sequence
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Send {
    /// The conversation
    #[arg(value_name = "CID")]
    conversation: ConversationId,
    /// What to say
    text: String,
    /// Who sends it
    #[arg(long)]
    user: Subject,
    /// The message's id, to repeat it safely [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long to try again when the broker or its store goes away
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Send {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        let content = self.content()?;
        let target = Target::new(self.target.clone(), settings);
        let sequence = self.publish(&target, &content).await?.map(Sequence::get);
        if self.json {
            output::json(&json!({ "seq": sequence, "id": content.id }))?;
        } else if let Some(sequence) = sequence {
            output::line(&sequence.to_string())?;
        }
        Ok(())
    }

    fn content(&self) -> Result<Content, Failure> {
        let id = self
            .id
            .clone()
            .unwrap_or_else(|| ConversationId::random().to_string());
        let id = ClientMessageId::new(id)
            .map_err(|error| Failure::new(error.to_string()).exit(Exit::Usage))?;
        Ok(Content::new(id, KIND_TEXT, json!(self.text).to_string()))
    }

    /// Tries until the message is committed or refused, or the time is over. Every attempt
    /// carries the same id, so that one that was committed unheard is not stored again.
    async fn publish(
        &self,
        target: &Target,
        content: &Content,
    ) -> Result<Option<Sequence>, Failure> {
        let mut last = None;
        let attempts = async {
            let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
            loop {
                match self.attempt(target, content).await? {
                    Ok(sequence) => return Ok(sequence),
                    Err(error @ DeviceError::Unreachable { .. }) if last.is_none() => {
                        return Err(error.into());
                    }
                    Err(error) if error.is_transient() => last = Some(error),
                    Err(error) => return Err(Failure::from(error)),
                }
                time::sleep(backoff.wait()).await;
            }
        };
        match time::timeout(self.timeout, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last
                .map_or_else(
                    || Failure::new("the broker has not answered in time").exit(Exit::Unavailable),
                    Failure::from,
                )
                .hint(format!(
                    "it may or may not be stored; repeat it safely with --id {}",
                    content.id.as_str()
                ))),
        }
    }

    async fn attempt(
        &self,
        target: &Target,
        content: &Content,
    ) -> Result<Result<Option<Sequence>, DeviceError>, Failure> {
        let options = DeviceOptions {
            mqtt: target.mqtt()?,
            token: target.user_token(&self.user)?,
            user: self.user.clone(),
            client_id: format!("send-{}", content.id.as_str()),
            session: Session::Fresh,
        };
        Ok(publish_once(&options, self.conversation, content).await)
    }
}

async fn publish_once(
    options: &DeviceOptions,
    conversation: ConversationId,
    content: &Content,
) -> Result<Option<Sequence>, DeviceError> {
    let mut device = Device::connect(options).await?;
    let sequence = device.publish(conversation, content).await?;
    // The message is committed; a connection that breaks now changes nothing.
    drop(device.disconnect().await);
    Ok(sequence)
}
