//! What a device registers, and whether it can be used.

use std::{collections::HashMap, fmt};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use web_push_native::p256::PublicKey;

use crate::{
    config::{ApnsEnvironment, PushConfig},
    domain::{
        address::is_public as is_public_address,
        push::{Environment, Provider, Route},
    },
    store::push::tokens::NewPushToken,
};

/// Apple announces no length; tokens of today have 64 digits.
const APNS_DIGITS: std::ops::RangeInclusive<usize> = 64..=200;
/// The longest token of FCM and the longest endpoint, in bytes: an index holds it, together
/// with the app. Tokens of today have about 160, endpoints about 200.
const TOKEN_BYTES_MAX: usize = 2048;
/// An uncompressed point of P-256: 0x04 and two coordinates.
const POINT_BYTES: usize = 65;
/// RFC 8291 §3.2.
const AUTH_BYTES: usize = 16;
/// RFC 5646 §4.4.1 recommends room for this many.
const LOCALE_BYTES_MAX: usize = 35;

/// How much of an unknown app is repeated in the answer.
const ASKED_CHARS_MAX: usize = 100;

/// base64url, with or without padding: browsers leave it out, libraries do not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a device wants to be woken.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    pub provider: Provider,
    /// The bundle id, the Firebase project, or the name of the web app.
    pub app: String,
    #[serde(default)]
    pub environment: Environment,
    /// APNs and FCM: the token. Web Push: the endpoint.
    pub token: String,
    /// APNs: the token of PushKit, for calls.
    pub voip_token: Option<String>,
    /// Web Push: the keys of the subscription, base64url.
    pub p256dh: Option<String>,
    pub auth: Option<String>,
    /// BCP 47: the language of texts that the server writes.
    pub locale: Option<String>,
}

/// Whoever has a token can wake the device: it is not shown.
impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({}, secret)", self.route())
    }
}

/// Why a registration cannot be used. The text is meant for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistration {
    #[error("this server does not push: no app is configured, see [push] in its settings")]
    PushIsOff,
    #[error("this server cannot push to `{asked}`; it can push to {known}")]
    UnknownApp { asked: String, known: String },
    #[error("`token`: a token of APNs has 64 to 200 hexadecimal digits")]
    ApnsToken,
    #[error("`token`: a token of FCM has 1 to {TOKEN_BYTES_MAX} visible ASCII characters")]
    FcmToken,
    #[error(
        "`token`: the endpoint of a push service is an https URL of at most {TOKEN_BYTES_MAX} bytes"
    )]
    Endpoint,
    #[error("`token`: the endpoint is not in the public internet")]
    PrivateEndpoint,
    #[error("`p256dh`: 65 bytes in base64url, an uncompressed point of P-256")]
    P256dh,
    #[error("`auth`: 16 bytes in base64url")]
    Auth,
    #[error("`p256dh` and `auth` belong to Web Push")]
    NeedlessKeys,
    #[error("`voip_token` belongs to APNs")]
    NeedlessVoipToken,
    #[error("`voip_token`: a token of PushKit has 64 to 200 hexadecimal digits")]
    VoipToken,
    #[error("`locale`: a language tag as in `de` or `pt-BR`, at most {LOCALE_BYTES_MAX} bytes")]
    Locale,
}

/// The apps this server can push to.
#[derive(Clone, Debug, Default)]
pub struct Apps {
    routes: Vec<Route>,
    /// Of each web app: hosts that may be reached at private addresses and over plain HTTP.
    private_hosts: HashMap<String, Vec<String>>,
}

impl Apps {
    #[must_use]
    pub fn new(config: &PushConfig) -> Self {
        let route = |provider, app: &String, environment| Route {
            provider,
            app: app.clone(),
            environment,
        };
        let apns = config.apns.iter().map(|app| {
            let environment = match app.environment {
                ApnsEnvironment::Production => Environment::Production,
                ApnsEnvironment::Sandbox => Environment::Sandbox,
            };
            route(Provider::Apns, &app.app, environment)
        });
        let fcm = config
            .fcm
            .iter()
            .map(|app| route(Provider::Fcm, &app.app, Environment::Production));
        let web = config
            .web
            .iter()
            .map(|app| route(Provider::WebPush, &app.app, Environment::Production));
        Self {
            routes: apns.chain(fcm).chain(web).collect(),
            private_hosts: config
                .web
                .iter()
                .map(|app| (app.app.clone(), app.private_hosts.clone()))
                .collect(),
        }
    }

    fn check(&self, asked: &Route) -> Result<(), InvalidRegistration> {
        if self.routes.contains(asked) {
            return Ok(());
        }
        if self.routes.is_empty() {
            return Err(InvalidRegistration::PushIsOff);
        }
        let known: Vec<_> = self.routes.iter().map(Route::to_string).collect();
        Err(InvalidRegistration::UnknownApp {
            asked: asked.to_string().chars().take(ASKED_CHARS_MAX).collect(),
            known: known.join(", "),
        })
    }

    /// Whether the settings let this app be woken there, wherever it is.
    fn is_private_host(&self, app: &str, url: &Url) -> bool {
        let Some(host) = url.host_str() else {
            return false;
        };
        let with_port = url
            .port_or_known_default()
            .map(|port| format!("{host}:{port}"));
        let hosts = self.private_hosts.get(app).map_or(&[][..], Vec::as_slice);
        hosts
            .iter()
            .any(|known| known == host || Some(known) == with_port.as_ref())
    }
}

impl Registration {
    fn route(&self) -> Route {
        Route {
            provider: self.provider,
            app: self.app.clone(),
            environment: self.environment,
        }
    }

    /// Checks everything that can be known without asking the provider, and writes what is
    /// the same in one way.
    pub(super) fn checked(mut self, apps: &Apps) -> Result<Self, InvalidRegistration> {
        apps.check(&self.route())?;
        match self.provider {
            Provider::Apns => {
                if !is_apns_token(&self.token) {
                    return Err(InvalidRegistration::ApnsToken);
                }
                self.token.make_ascii_lowercase();
            }
            Provider::Fcm => {
                let is_visible = self.token.bytes().all(|byte| byte.is_ascii_graphic());
                if !is_visible || !(1..=TOKEN_BYTES_MAX).contains(&self.token.len()) {
                    return Err(InvalidRegistration::FcmToken);
                }
            }
            Provider::WebPush => self.check_endpoint(apps)?,
        }
        self.check_keys()?;
        self.check_voip_token()?;
        if self.locale.as_deref().is_some_and(|tag| !is_locale(tag)) {
            return Err(InvalidRegistration::Locale);
        }
        Ok(self)
    }

    /// Names are resolved, and judged again, by whoever connects.
    fn check_endpoint(&mut self, apps: &Apps) -> Result<(), InvalidRegistration> {
        let url = Url::parse(&self.token).map_err(|_| InvalidRegistration::Endpoint)?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        if !is_plain || url.fragment().is_some() || url.as_str().len() > TOKEN_BYTES_MAX {
            return Err(InvalidRegistration::Endpoint);
        }
        let is_http = matches!(url.scheme(), "http" | "https");
        if !(is_http && apps.is_private_host(&self.app, &url)) {
            if url.scheme() != "https" {
                return Err(InvalidRegistration::Endpoint);
            }
            if !is_public(&url) {
                return Err(InvalidRegistration::PrivateEndpoint);
            }
        }
        self.token = url.into();
        Ok(())
    }

    fn check_keys(&self) -> Result<(), InvalidRegistration> {
        if self.provider != Provider::WebPush {
            return match (&self.p256dh, &self.auth) {
                (None, None) => Ok(()),
                _ => Err(InvalidRegistration::NeedlessKeys),
            };
        }
        let bytes = |text: &Option<String>| BASE64URL.decode(text.as_deref().unwrap_or_default());
        let point = bytes(&self.p256dh).map_err(|_| InvalidRegistration::P256dh)?;
        if point.len() != POINT_BYTES || PublicKey::from_sec1_bytes(&point).is_err() {
            return Err(InvalidRegistration::P256dh);
        }
        match bytes(&self.auth) {
            Ok(auth) if auth.len() == AUTH_BYTES => Ok(()),
            _ => Err(InvalidRegistration::Auth),
        }
    }

    fn check_voip_token(&mut self) -> Result<(), InvalidRegistration> {
        match &mut self.voip_token {
            None => Ok(()),
            Some(_) if self.provider != Provider::Apns => {
                Err(InvalidRegistration::NeedlessVoipToken)
            }
            Some(token) if is_apns_token(token) => {
                token.make_ascii_lowercase();
                Ok(())
            }
            Some(_) => Err(InvalidRegistration::VoipToken),
        }
    }

    pub(super) fn as_new(&self) -> NewPushToken<'_> {
        NewPushToken {
            provider: self.provider.as_str(),
            app: &self.app,
            environment: self.environment.as_str(),
            token: &self.token,
            voip_token: self.voip_token.as_deref(),
            keys: self.p256dh.as_deref().zip(self.auth.as_deref()),
            locale: self.locale.as_deref(),
        }
    }
}

fn is_apns_token(text: &str) -> bool {
    APNS_DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The shape of RFC 5646: subtags of 1 to 8 letters and digits, the first one of letters.
fn is_locale(tag: &str) -> bool {
    let mut subtags = tag.split('-');
    let is_language = |tag: &str| {
        (2..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    let is_subtag = |tag: &str| {
        (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    tag.len() <= LOCALE_BYTES_MAX
        && subtags.next().is_some_and(is_language)
        && subtags.all(is_subtag)
}

/// Whether a URL names a host of the public internet, as far as its text tells.
fn is_public(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return is_public_address(address);
    }
    let name = host.trim_end_matches('.');
    let top = name.rsplit('.').next().unwrap_or_default();
    name.contains('.') && !["localhost", "local", "internal"].contains(&top)
}
