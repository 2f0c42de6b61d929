//! `homing push register`: gives a device a push token, as its app would.

use clap::{Args, ValueEnum};
use homing::{config::Config, domain::ids::Subject};
use reqwest::Method;
use serde_json::{Map, Value};

use super::Common;
use crate::commands::{
    failure::Failure,
    output,
    rest::{Rest, not_ours},
};

const EXAMPLES: &str = "\
Examples:
  homing push register bob phone --provider fcm --app my-project --push-token dGVz...
  homing push register bob phone --provider apns --app com.example.chat --environment sandbox \\
      --push-token 740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad --locale de";

/// Say where a device is woken, as its app would; to try things out
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::commands) struct Register {
    /// Whose device it is
    user: Subject,
    /// The device's MQTT client id
    #[arg(value_name = "CLIENT_ID")]
    client_id: String,
    /// Who carries the notifications
    #[arg(long)]
    provider: Provider,
    /// The bundle id, the Firebase project, or the name of the web app
    #[arg(long)]
    app: String,
    /// Which of Apple's environments [default: production]
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// APNs and FCM: the token; Web Push: the endpoint
    #[arg(long, value_name = "TOKEN")]
    push_token: String,
    /// APNs: the token of PushKit
    #[arg(long, value_name = "TOKEN")]
    voip_token: Option<String>,
    /// Web Push: the public key of the subscription
    #[arg(long, value_name = "KEY")]
    p256dh: Option<String>,
    /// Web Push: the secret of the subscription
    #[arg(long, value_name = "SECRET")]
    auth: Option<String>,
    /// The language of the device, as in de or pt-BR
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Provider {
    Apns,
    Fcm,
    Webpush,
}

impl Register {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        let Common { json, target } = self.common;
        let provider = match self.provider {
            Provider::Apns => "apns",
            Provider::Fcm => "fcm",
            Provider::Webpush => "webpush",
        };
        let members = [
            ("provider", Some(provider.to_owned())),
            ("app", Some(self.app)),
            ("environment", self.environment),
            ("token", Some(self.push_token)),
            ("voip_token", self.voip_token),
            ("p256dh", self.p256dh),
            ("auth", self.auth),
            ("locale", self.locale),
        ];
        let body: Map<String, Value> = members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect();
        let path = ["v1", "devices", &self.client_id, "push-token"];
        let answer = Rest::as_user(target, settings, &self.user)?
            .request(Method::PUT, &path, Some(&body.into()))
            .await?;
        if json {
            output::json(&answer)?;
        } else {
            let fingerprint = answer["fingerprint"].as_str();
            output::line(fingerprint.ok_or_else(|| not_ours(&answer))?)?;
        }
        Ok(())
    }
}
