//! The fake providers as a program, for trying out a deployment by hand:
//!
//! ```text
//!   cargo run --example fake-providers -- FOLDER [APNS_PORT [FCM_PORT [WEB_PORT]]]
//! ```
//!
//! It writes into FOLDER what a broker needs to push through them: `push.toml` is a profile
//! (`homing serve --config FOLDER/push.toml`), `web-subscription.json` a subscription of the
//! web that it can decrypt. It prints `ready …`, and then one line for every notification it
//! accepts. Any token will do; some have a fault in them:
//!
//! ```text
//!   APNs   64 to 200 hexadecimal digits; the first are `fa17`, a status, and a digit:
//!          fa174000 BadDeviceToken         fa174001 DeviceTokenNotForTopic
//!          fa174030 ExpiredProviderToken   fa174290 TooManyRequests
//!          fa174100 Unregistered           fa174101 ExpiredToken
//!          fa175000 InternalServerError    fa175030 ServiceUnavailable
//!          fa170000 slow   fa170001 goaway   fa170002 reset   fa170003 cut
//!   FCM    fault-404-UNREGISTERED   fault-403-SENDER_ID_MISMATCH   fault-429-QUOTA_EXCEEDED
//!          fault-503-UNAVAILABLE    fault-slow   fault-goaway   fault-reset   fault-cut
//!          and anything behind a further hyphen
//!   Web    https://localhost:PORT/push/fault-410-gone, and so on
//! ```

#![expect(
    clippy::unwrap_used,
    reason = "part of the tests: it fails by panicking"
)]
#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

#[path = "mod.rs"]
#[expect(dead_code, reason = "tests need more of it than the program")]
#[expect(unused_imports, reason = "tests need more of it than the program")]
mod providers;

use std::path::PathBuf;

use providers::{Accepted, Kind, Options, Providers, Subscription};
use serde_json::json;

/// Headers that say how the notification is to be delivered.
const SHOWN: [&str; 9] = [
    ":authority",
    "apns-topic",
    "apns-push-type",
    "apns-priority",
    "apns-expiration",
    "apns-collapse-id",
    "ttl",
    "urgency",
    "topic",
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("the first argument is a folder"));
    let ports: Vec<u16> = arguments
        .map(|port| port.parse().expect("the others are ports"))
        .collect();
    let mut options = Options::default();
    for (place, port) in options.ports.iter_mut().zip(ports) {
        *place = port;
    }
    let providers = Providers::start_with(&folder, options).await;
    let subscription = providers.subscribe("browser");
    let text = json!({
        "endpoint": subscription.endpoint,
        "keys": { "p256dh": subscription.p256dh, "auth": subscription.auth },
    });
    std::fs::write(folder.join("web-subscription.json"), format!("{text:#}\n")).unwrap();
    println!(
        "ready apns={} fcm={} web={}",
        providers.apns, providers.fcm, providers.web
    );
    for count in 0.. {
        println!("{}", line(&providers.after(count).await, &subscription));
    }
}

/// The provider, the token, headers, what the device gets.
fn line(accepted: &Accepted, subscription: &Subscription) -> String {
    let name = match accepted.kind {
        Kind::Apns => "apns",
        Kind::WebPush => "webpush",
        Kind::Fcm | Kind::OAuth => "fcm",
    };
    let headers: String = SHOWN
        .iter()
        .filter_map(|name| Some((name.trim_start_matches(':'), accepted.headers.get(*name)?)))
        .map(|(name, value)| [" ", name, "=", value].concat())
        .collect();
    let payload = match accepted.kind {
        Kind::WebPush => subscription.decrypt(accepted).map_or_else(
            || format!("({} bytes for somebody else)", accepted.body.len()),
            |text| String::from_utf8_lossy(&text).into_owned(),
        ),
        _ => accepted.payload.to_string(),
    };
    format!("{name} {}{headers} {payload}", accepted.token)
}
