//! The clients of the push providers, against providers that are stricter than the real ones.

mod apns;
mod fcm;
mod network;
mod settings;
mod web;

use std::{collections::HashMap, sync::Arc, time::Duration};

use homing::{
    config::{Config, Overrides, PushConfig},
    domain::{
        ids::ConversationId,
        message::Sequence,
        push::{Environment, Provider},
    },
    push::{
        notification::{Address, Class, Notification, Outcome, Preview, Purpose, Text, Wake},
        provider::{Client, FAULT_WAIT, open},
    },
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    harness::now_unix,
    providers::{Options, Providers, Subscription},
};

/// A day from now.
const LIFETIME_SECONDS: i64 = 24 * 60 * 60;

/// Providers, and the settings of a broker that is to use them.
struct Stage {
    providers: Providers,
    config: PushConfig,
    _folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let providers = Providers::start_with(folder.path(), options).await;
        let profile = folder.path().join("push.toml");
        let config = Config::load(Some(&profile), HashMap::new(), Overrides::default());
        let config = config.unwrap().push;
        Self {
            providers,
            config,
            _folder: folder,
        }
    }

    /// The client of the production app.
    fn client(&self, provider: Provider) -> Arc<Client> {
        let clients = open(&self.config).unwrap();
        let mut fitting = clients.into_iter().filter(|(route, _)| {
            route.provider == provider && route.environment == Environment::Production
        });
        Arc::new(fitting.next().unwrap().1)
    }
}

fn now() -> i64 {
    i64::try_from(now_unix()).unwrap() * 1000
}

fn notification(purpose: Purpose) -> Notification {
    Notification {
        id: Uuid::now_v7(),
        purpose,
        badge: Some(3),
        expires_at_unix: now() / 1000 + LIFETIME_SECONDS,
    }
}

fn wake(class: Class) -> Wake {
    Wake {
        class,
        conversation: ConversationId::random(),
        sequence: Sequence::new(7).unwrap(),
        is_urgent: false,
        text: Text {
            loc_key: Some("HOMING_NEW_MESSAGE".to_owned()),
            generic: "New message".to_owned(),
            preview: None,
        },
        sound: "default".to_owned(),
    }
}

fn alert() -> Notification {
    notification(Purpose::Wake(wake(Class::Alert)))
}

/// With more text than any provider takes, in characters of three bytes.
fn long_preview(class: Class) -> Notification {
    let mut wake = wake(class);
    wake.text.preview = Some(Preview {
        title: "Zoë".to_owned(),
        body: "日本語\"\n".repeat(2000),
    });
    notification(Purpose::Wake(wake))
}

/// A token that every provider takes for one; the number tells them apart.
fn token(number: usize) -> String {
    format!("{number:064x}")
}

fn address(token: &str) -> Address {
    Address {
        token: token.to_owned(),
        voip_token: None,
        keys: None,
    }
}

fn subscriber(subscription: &Subscription) -> Address {
    Address {
        token: subscription.endpoint.clone(),
        voip_token: None,
        keys: Some((subscription.p256dh.clone(), subscription.auth.clone())),
    }
}

async fn send(client: &Client, token: &str) -> Outcome {
    client.send(&address(token), &alert(), now()).await
}

/// To so many devices at once; all must be accepted.
async fn send_to_many(client: &Arc<Client>, count: usize) {
    let mut sends = JoinSet::new();
    for number in 0..count {
        let client = Arc::clone(client);
        sends.spawn(async move { send(&client, &token(number)).await });
    }
    let mut outcomes = sends.join_all().await;
    outcomes.retain(|outcome| *outcome != Outcome::Accepted);
    assert_eq!(outcomes, []);
}

fn retry(reason: &str, after: Option<Duration>) -> Outcome {
    Outcome::Retry {
        reason: reason.to_owned(),
        after,
    }
}

fn our_fault(reason: &str) -> Outcome {
    retry(reason, Some(FAULT_WAIT))
}

fn dead(reason: &str, since_millis: Option<i64>) -> Outcome {
    Outcome::Dead {
        reason: reason.to_owned(),
        since_millis,
    }
}

fn mismatched(reason: &str) -> Outcome {
    Outcome::Mismatched {
        reason: reason.to_owned(),
    }
}

fn dropped(reason: &str) -> Outcome {
    Outcome::Dropped {
        reason: reason.to_owned(),
    }
}
