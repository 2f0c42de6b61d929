//! The clients of the push providers: one for each app, all of them thin and on one HTTP stack.
//!
//! A client gives a [`Notification`] the form its provider wants, signs, sends once and says
//! what the answer means ([`Outcome`]). It does not wait, count or repeat: the worker does. The
//! exceptions cost nothing and hide nothing: a stream that the provider has refused unseen is
//! sent again, and so is what a token was too old for, with a new one, once.
//!
//! A fault of ours (a wrong key, a wrong topic, a clock that is off) is [`Outcome::Retry`] after
//! [`FAULT_WAIT`] and an error in the log once a minute, so that no backlog is lost by it.

mod access_token;
mod addresses;
mod answer;
mod apns;
mod credentials;
mod error;
mod faults;
mod fcm;
mod http;
mod keys;
mod payload;
mod provider_token;
mod vapid;
mod web;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::notification::{Address, Notification, Outcome};
use crate::{
    config::{ApnsEnvironment, PushConfig},
    domain::push::{Environment, Provider, Route},
};
pub use apns::Apns;
pub use error::ProviderError;
pub use fcm::Fcm;
pub use web::Web;

/// How long notifications wait before a provider that refuses us, not them, is asked again.
pub const FAULT_WAIT: Duration = Duration::from_mins(5);

/// One app at one provider.
#[derive(Debug)]
pub enum Client {
    Apns(Apns),
    Fcm(Fcm),
    Web(Web),
}

impl Client {
    /// Sends a notification and says what became of it. `now_unix_millis` is in milliseconds
    /// since 1970. Dropping the future gives the request up.
    pub async fn send(
        &self,
        address: &Address,
        notification: &Notification,
        now_unix_millis: i64,
    ) -> Outcome {
        let outcome = match self {
            Self::Apns(apns) => apns.send(address, notification, now_unix_millis).await,
            Self::Fcm(fcm) => fcm.send(address, notification, now_unix_millis).await,
            Self::Web(web) => web.send(address, notification, now_unix_millis).await,
        };
        tracing::debug!(
            client = ?self,
            token = fingerprint(&address.token),
            notification = %notification.id,
            ?outcome,
            "sent to the provider"
        );
        outcome
    }
}

/// Opens a client for each configured app. Connects nowhere.
///
/// # Errors
///
/// The first [`ProviderError`]; its text names the app and the file, and says what to do.
pub fn open(config: &PushConfig) -> Result<Vec<(Route, Client)>, ProviderError> {
    clients(config)
        .map(|(route, client)| Ok((route, client?)))
        .collect()
}

/// An app whose keys and settings can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Web Push: what browsers want as `applicationServerKey`, base64url.
    pub application_server_key: Option<String>,
}

/// Each configured app, and whether its keys and settings can be used. Connects nowhere.
#[must_use]
pub fn check(config: &PushConfig) -> Vec<(Route, Result<Usable, ProviderError>)> {
    let usable = |client: Client| Usable {
        application_server_key: match client {
            Client::Web(web) => Some(web.application_server_key()),
            Client::Apns(_) | Client::Fcm(_) => None,
        },
    };
    clients(config)
        .map(|(route, client)| (route, client.map(usable)))
        .collect()
}

fn clients(
    config: &PushConfig,
) -> impl Iterator<Item = (Route, Result<Client, ProviderError>)> + '_ {
    let timeout = config.request_timeout;
    let apns = config.apns.iter().map(move |app| {
        let environment = match app.environment {
            ApnsEnvironment::Production => Environment::Production,
            ApnsEnvironment::Sandbox => Environment::Sandbox,
        };
        let route = route(Provider::Apns, &app.app, environment);
        let client = Apns::open(route.clone(), app, timeout).map(Client::Apns);
        (route, client)
    });
    let fcm = config.fcm.iter().map(move |app| {
        let route = route(Provider::Fcm, &app.app, Environment::Production);
        let client = Fcm::open(route.clone(), app, timeout).map(Client::Fcm);
        (route, client)
    });
    let web = config.web.iter().map(move |app| {
        let route = route(Provider::WebPush, &app.app, Environment::Production);
        let client = Web::open(route.clone(), app, timeout).map(Client::Web);
        (route, client)
    });
    apns.chain(fcm).chain(web)
}

fn route(provider: Provider, app: &str, environment: Environment) -> Route {
    Route {
        provider,
        app: app.to_owned(),
        environment,
    }
}

/// Tells tokens apart in a log without giving them away: 8 characters.
#[must_use]
pub fn fingerprint(token: &str) -> String {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    format!("{:08x}", hasher.finish() >> 32)
}
