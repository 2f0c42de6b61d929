//! When it is quiet for a user.

use serde_json::{Value, json};
use sqlx::PgPool;

use super::Api;

const PATH: &str = "/v1/me/quiet-hours";

fn hours(from: &str, until: &str, zone: &str) -> Value {
    json!({"from": from, "until": until, "zone": zone})
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn quiet_hours_are_kept_replaced_and_ended(pool: PgPool) {
    let api = Api::start(pool).await;
    let shown = api.get("alice", PATH).await;
    assert_eq!((shown.status, shown.text.as_str()), (200, "null"));

    for times in [
        hours("22:00", "07:00", "Europe/Berlin"),
        hours("22:00", "07:00", "Europe/Berlin"),
        hours("00:00", "23:59", "America/Argentina/Buenos_Aires"),
        hours("13:05", "14:30", "Etc/GMT+5"),
    ] {
        let set = api.put("alice", PATH, times.clone()).await;
        assert_eq!((set.status, &set.body), (200, &times));
        assert_eq!(api.get("alice", PATH).await.body, times);
        assert_eq!(api.get("bob", PATH).await.text, "null");
    }
    for _ in 0..2 {
        assert_eq!(api.delete("alice", PATH).await.status, 204);
        assert_eq!(api.get("alice", PATH).await.text, "null");
    }
}

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn what_is_no_time_and_no_zone_is_refused(pool: PgPool) {
    let api = Api::start(pool).await;
    let kept = hours("22:00", "07:00", "Europe/Berlin");
    api.put("alice", PATH, kept.clone()).await;
    for (times, says) in [
        (hours("24:00", "07:00", "Europe/Berlin"), "00:00 to 23:59"),
        (hours("22:00", "7:00", "Europe/Berlin"), "00:00 to 23:59"),
        (hours("22:00", "", "Europe/Berlin"), "00:00 to 23:59"),
        (hours("22:00", "22:00", "Europe/Berlin"), "the same time"),
        (
            hours("22:00", "07:00", "Europe/Bärlin"),
            "no time zone `Europe/Bärlin`",
        ),
        (
            hours("22:00", "07:00", "Europe/Atlantis"),
            "no time zone `Europe/Atlantis`",
        ),
        (hours("22:00", "07:00", "CEST-2"), "no time zone"),
        (hours("22:00", "07:00", ""), "no time zone"),
        (hours("22:00", "07:00", "UTC\u{0}"), "no time zone"),
        (hours("22:00", "07:00", &"x".repeat(5000)), "no time zone"),
        (
            json!({"from": "22:00", "until": "07:00"}),
            "missing field `zone`",
        ),
        (
            json!({"from": "22:00", "zone": "UTC"}),
            "missing field `until`",
        ),
        (
            json!({"from": 22, "until": "07:00", "zone": "UTC"}),
            "expected a string",
        ),
        (
            json!({"from": "22:00", "until": "07:00", "zone": null}),
            "expected a string",
        ),
        (
            json!({"from": "22:00", "until": "07:00", "zone": "UTC", "days": []}),
            "unknown field",
        ),
        (json!({}), "missing field"),
        (json!(["22:00", "07:00", "UTC"]), "a JSON object"),
        (json!(false), "a JSON object"),
    ] {
        let refused = api.put("alice", PATH, times).await;
        refused.assert_problem(400, "invalid", says);
    }
    assert_eq!(api.get("alice", PATH).await.body, kept);
}
