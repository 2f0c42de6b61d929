//! Which provider tokens APNs does not believe.

use serde_json::Value;

use super::{
    apns::{bearer, right},
    client::{Mistake, Sent, Signer, Stage, now_and},
};

type Lie = (&'static str, fn(&Stage, &mut Sent));

/// Shows a token that is changed before it is signed.
fn show(stage: &Stage, sent: &mut Sent, change: impl FnOnce(&mut Signer, &mut Value)) {
    sent.set("authorization", bearer(stage, change));
}

fn age(stage: &Stage, sent: &mut Sent, seconds: i64) {
    show(stage, sent, |_, claims| {
        claims["iat"] = now_and(-seconds).into();
    });
}

#[tokio::test]
async fn apns_wants_a_provider_token() {
    let mistakes: [Mistake; 5] = [
        (
            "none",
            |_, sent| sent.remove("authorization"),
            403,
            "MissingProviderToken",
        ),
        (
            "basic",
            |_, sent| sent.set("authorization", "basic YQ"),
            403,
            "MissingProviderToken",
        ),
        (
            "two",
            |stage, sent| sent.add("authorization", bearer(stage, |_, _| {})),
            400,
            "Duplicate",
        ),
        (
            "an hour old",
            |stage, sent| age(stage, sent, 3660),
            403,
            "ExpiredProviderToken",
        ),
        (
            "of the future",
            |stage, sent| age(stage, sent, -120),
            403,
            "InvalidProviderToken",
        ),
    ];
    Stage::set().await.refuses(right, &mistakes).await;
}

#[tokio::test]
async fn apns_believes_no_provider_token_but_the_right_one() {
    let lies: [Lie; 9] = [
        ("no token", |_, sent| sent.set("authorization", "bearer x")),
        ("a team", |stage, sent| {
            show(stage, sent, |_, claims| claims["iss"] = "OTHER".into());
        }),
        ("a key id", |stage, sent| {
            show(stage, sent, |signer, _| signer.header["kid"] = "X".into());
        }),
        ("a key", |stage, sent| {
            let other = Signer::es256(&stage.providers.credentials().vapid_key, "");
            show(stage, sent, |signer, _| signer.key = other.key);
        }),
        ("an algorithm", |stage, sent| {
            show(stage, sent, |signer, _| {
                signer.header["alg"] = "ES384".into();
            });
        }),
        ("padding", |stage, sent| {
            sent.set("authorization", bearer(stage, |_, _| {}) + "==");
        }),
        ("a signature of other claims", |stage, sent| {
            let mine = bearer(stage, |_, _| {});
            let other = bearer(stage, |_, claims| claims["iat"] = now_and(-1).into());
            let (signed, _) = mine.rsplit_once('.').unwrap();
            let (_, signature) = other.rsplit_once('.').unwrap();
            sent.set("authorization", format!("{signed}.{signature}"));
        }),
        ("no time", |stage, sent| {
            show(stage, sent, |_, claims| claims["iat"] = Value::Null);
        }),
        ("a time in words", |stage, sent| {
            show(stage, sent, |_, claims| claims["iat"] = "now".into());
        }),
    ];
    let mistakes = lies.map(|(name, lie)| (name, lie, 403, "InvalidProviderToken"));
    Stage::set().await.refuses(right, &mistakes).await;
}
