//! What a partial payload says, and how it changes what is known.
//!
//! Absent is unchanged, null is cleared, objects merge member by member. An object with another
//! `seq` is about something else, and takes the place of the one that was known.

use serde_json::{Map, Value};

/// The members of a JSON object.
pub type Members = Map<String, Value>;

/// Merges a patch into what is known.
pub fn merge(known: &mut Members, patch: Members) {
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

/// The patch that makes `now` of `known`: only what differs.
#[must_use]
pub fn difference(known: &Members, now: &Members) -> Members {
    let mut patch = Members::new();
    for (name, value) in now {
        match (known.get(name), value) {
            (Some(known), value) if known == value => {}
            (Some(Value::Object(known)), Value::Object(now)) if is_same(known, now) => {
                patch.insert(name.clone(), difference(known, now).into());
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    let is_gone = |name: &&String| !now.contains_key(*name);
    for name in known.keys().filter(is_gone) {
        patch.insert(name.clone(), Value::Null);
    }
    patch
}

fn is_same(known: &Members, patch: &Members) -> bool {
    patch
        .get("seq")
        .is_none_or(|seq| seq.is_null() || known.get("seq") == Some(seq))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    #[test]
    fn a_difference_names_what_changed_and_nothing_else() {
        let known = members(json!({
            "title": "Team", "unread": 2, "muted_until": 5, "with": "bob",
            "settings": {"sound": "a", "badge": true},
            "last_message": {"seq": 4, "preview": "x", "retracted": false},
        }));
        let mut now = known.clone();
        assert_eq!(difference(&known, &now), Members::new());
        now.insert("unread".into(), 3.into());
        now.insert("muted_until".into(), Value::Null);
        now.remove("with");
        now["settings"]["badge"] = false.into();
        now["last_message"]["retracted"] = true.into();
        let expected = json!({
            "unread": 3, "muted_until": null, "with": null, "settings": {"badge": false},
            "last_message": {"retracted": true},
        });
        assert_eq!(Value::Object(difference(&known, &now)), expected);
        now["last_message"] = json!({"seq": 5, "preview": "x", "retracted": false});
        assert_eq!(
            difference(&known, &now)["last_message"],
            now["last_message"]
        );
    }

    fn any_members() -> impl Strategy<Value = Members> {
        let leaf = prop_oneof![Just(Value::Null), (0..3_i64).prop_map(Value::from)];
        let name = prop_oneof![Just("a"), Just("b"), Just("seq")];
        let value = leaf.prop_recursive(2, 12, 3, move |inner| {
            let members = proptest::collection::btree_map(name.clone(), inner, 0..3);
            members.prop_map(|members| members.into_iter().collect::<Value>())
        });
        let name = prop_oneof![Just("a"), Just("b"), Just("c")];
        proptest::collection::btree_map(name, value, 0..4).prop_map(|members| {
            let named = members.into_iter();
            named
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        })
    }

    /// What is null is as good as absent.
    fn without_nulls(members: Members) -> Members {
        let mut kept = Members::new();
        for (name, value) in members {
            match value {
                Value::Null => {}
                Value::Object(inner) => {
                    kept.insert(name, without_nulls(inner).into());
                }
                value => {
                    kept.insert(name, value);
                }
            }
        }
        kept
    }

    proptest! {
        /// Goal: who holds what the patch was made for, holds what is now.
        #[test]
        fn a_difference_that_is_merged_gives_what_is_now(known in any_members(), now in any_members()) {
            let mut merged = known.clone();
            merge(&mut merged, difference(&known, &now));
            prop_assert_eq!(without_nulls(merged), without_nulls(now));
        }
    }
}
