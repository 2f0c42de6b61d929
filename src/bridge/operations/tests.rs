//! What the operations share.

use std::collections::HashSet;

use super::*;

#[test]
fn names_and_routes_are_unique_and_well_formed() {
    let mut names = HashSet::new();
    let mut routes = HashSet::new();
    for operation in all() {
        assert!(names.insert(operation.name), "{}", operation.name);
        assert!(
            routes.insert((operation.method, operation.path)),
            "{:?} {}",
            operation.method,
            operation.path
        );
        let topic = format!("q/{}", operation.name);
        let topic = crate::domain::topic::PublishTopic::parse(&topic);
        topic.unwrap_or_else(|error| panic!("q/{}: {error}", operation.name));
    }
}

#[test]
fn every_operation_is_documented() {
    let page = include_str!("../../../docs/operations.md");
    let rows = page.lines().filter(|line| line.starts_with("| `q/"));
    let rows: HashSet<_> = rows.map(str::to_owned).collect();
    let operations: HashSet<_> = all().map(documented).collect();
    let differences: Vec<_> = operations.symmetric_difference(&rows).collect();
    assert!(
        differences.is_empty(),
        "docs/operations.md: {differences:#?}"
    );
}

/// The row of an operation: what stands in its path first, then the rest as the schema has it.
fn documented(operation: &Operation) -> String {
    let schema = (operation.arguments)(&mut SchemaGenerator::default());
    let members = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let of_path = |name: &str| operation.path.find(&format!("{{{name}}}"));
    let mut names: Vec<_> = members.into_iter().flat_map(Map::keys).collect();
    names.sort_by_key(|name| of_path(name).unwrap_or(usize::MAX));
    let arguments = names.into_iter().map(|name| {
        let is_required = required.is_some_and(|names| names.iter().any(|known| known == name));
        let may_lack = !is_required && of_path(name).is_none();
        format!("`{name}{}`", if may_lack { "?" } else { "" })
    });
    format!(
        "| `q/{}` | `{} /v1{}` | {} | {} |",
        operation.name,
        format!("{:?}", operation.method).to_uppercase(),
        operation.path,
        arguments.collect::<Vec<_>>().join(", "),
        operation.summary,
    )
}

#[test]
fn a_whole_number_is_an_integer_however_it_is_written() {
    let read = |text: &str| {
        let mut value = serde_json::from_str(text).unwrap();
        whole_numbers(&mut value);
        serde_json::to_string(&value).unwrap()
    };
    for (written, is) in [
        ("3.0", "3"),
        ("-3e2", "-300"),
        (r#"{"a":[1.0,{"b":-0.0}]}"#, r#"{"a":[1,{"b":0}]}"#),
        ("9007199254740992.0", "9007199254740992"),
        ("1.5", "1.5"),
        ("9223372036854775807", "9223372036854775807"),
        (r#""3.0""#, r#""3.0""#),
    ] {
        assert_eq!(read(written), is);
    }
}

/// Goal: the path and the arguments of an operation say the same.
#[test]
fn what_a_path_holds_is_an_argument() {
    for operation in all() {
        let schema = (operation.arguments)(&mut SchemaGenerator::default());
        let members = schema.get("properties").and_then(Value::as_object);
        for part in operation.path.split('/') {
            let Some(name) = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            else {
                continue;
            };
            let is_known = members.is_some_and(|members| members.contains_key(name));
            assert!(
                is_known,
                "{}: `{name}` is no argument: {schema:?}",
                operation.name
            );
        }
    }
}
