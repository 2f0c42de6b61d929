//! @parse/node-apn: an APNs client that somebody else wrote.

use serde_json::json;

use super::{apns::types, client::Stage, node, play};
use crate::providers::{APP, Fault, KEY_ID, Kind, TEAM_ID};

/// Goal: the fake refuses nothing of its notifications, and it understands the fake's answers.
#[tokio::test]
async fn node_apn_lives_with_the_fake() {
    let stage = Stage::set().await;
    let token = |digit: &str| digit.repeat(64);
    let providers = &stage.providers;
    providers.script(
        &token("b"),
        [Fault::gone("Unregistered", 1_700_000_000_000)],
    );
    providers.script_always(&token("c"), Fault::refuse(429, "TooManyRequests"));
    providers.script(&token("d"), [Fault::refuse(403, "ExpiredProviderToken")]);
    let credentials = providers.credentials();
    let setting = json!({
        "key": credentials.apns_key,
        "keyId": KEY_ID,
        "teamId": TEAM_ID,
        "ca": credentials.ca,
        "port": providers.apns.port(),
        "topic": APP,
        "tokens": [token("a"), token("b"), token("c"), token("d"), "not-hexadecimal"],
    });
    play(node("node_apn_story.js", "@parse/node-apn", &setting)).await;

    let seen = providers.seen();
    assert_eq!(
        types(&seen.accepted),
        ["alert", "background", "voip", "alert"]
    );
    let alert = &seen.accepted[0];
    assert_eq!(
        alert.payload["aps"]["alert"]["loc-key"],
        "HOMING_NEW_MESSAGE"
    );
    assert_eq!(alert.payload["conversation"], "c");
    assert_eq!(alert.headers["apns-collapse-id"], "talk");
    assert_eq!(
        (seen.connections[&Kind::Apns], seen.count(Kind::Apns, 413)),
        (1, 1)
    );
}
