//! How a partial payload changes what is known.

use serde_json::Value;

use super::Members;

/// Merges a patch: what is absent stays, null clears, objects merge member by member. An object
/// with another `seq` is about something else, and takes the place of the one that was known.
pub(super) fn merge(known: &mut Members, patch: Members) {
    for (name, value) in patch {
        match (known.get_mut(&name), value) {
            (Some(Value::Object(known)), Value::Object(patch)) if is_same(known, &patch) => {
                merge(known, patch);
            }
            (_, value) => {
                known.insert(name, value);
            }
        }
    }
}

fn is_same(known: &Members, patch: &Members) -> bool {
    patch
        .get("seq")
        .is_none_or(|seq| known.get("seq") == Some(seq))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(value: Value) -> Members {
        match value {
            Value::Object(members) => members,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn absent_stays_null_clears_and_objects_merge() {
        let mut known = members(json!({
            "title": "Team", "unread": 2, "muted_until": 5,
            "settings": {"sound": "a", "badge": true},
            "last_message": {"seq": 4, "preview": "x", "retracted": true},
        }));
        let patch = members(json!({
            "unread": 3, "muted_until": null, "settings": {"badge": false},
            "last_message": {"seq": 5, "preview": "y"},
        }));
        merge(&mut known, patch);
        let expected = json!({
            "title": "Team", "unread": 3, "muted_until": null,
            "settings": {"sound": "a", "badge": false},
            "last_message": {"seq": 5, "preview": "y"},
        });
        assert_eq!(Value::Object(known), expected);
    }
}
