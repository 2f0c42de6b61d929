//! Keeps the layers of ARCHITECTURE.md true: a module imports only what stands below it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module, and the modules it may name after `crate::`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("lifecycle", &[]),
    ("mqtt", &["domain"]),
    ("store", &["domain"]),
    ("bridge", &["domain", "store", "config", "telemetry"]),
    (
        "broker",
        &["domain", "mqtt", "bridge", "config", "telemetry"],
    ),
    ("push", &["domain", "store", "config", "telemetry"]),
    ("api", &["domain", "store", "bridge", "config", "telemetry"]),
    ("client", &["domain"]),
];

/// Modules that put the others together.
const MAY_NAME_ALL: &[&str] = &["lib", "main", "serve", "commands", "bin"];

#[test]
fn modules_import_only_downwards() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let module = relative.split(['/', '.']).next().unwrap();
        if MAY_NAME_ALL.contains(&module) {
            continue;
        }
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("src/{relative} stands in no layer; give it one"));
        for named in named_modules(&fs::read_to_string(&file).unwrap()) {
            if named != module && !allowed.contains(&named.as_str()) {
                violations.push(format!("src/{relative} names crate::{named}"));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn only_the_store_speaks_sql() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let relative = file
            .strip_prefix(&source)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let has_sql = ["query!(", "query_scalar!(", "query_as!(", "sqlx::query("]
            .iter()
            .any(|macro_name| text.contains(macro_name));
        assert!(
            !has_sql || relative.starts_with("store"),
            "src/{relative} holds SQL"
        );
    }
}

#[test]
fn names_in_groups_and_alone_are_found() {
    let text = "use crate::{domain::{ids, message}, store};\nlet x = crate::mqtt::codec::y();";
    let named: Vec<_> = named_modules(text).into_iter().collect();
    assert_eq!(named, ["domain", "mqtt", "store"]);
}

/// The `x` of every `crate::x` and of every `crate::{x, y::z}`.
fn named_modules(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let heads = match rest.strip_prefix('{') {
            Some(group) => top_level_items(group),
            None => vec![rest],
        };
        for head in heads {
            let word: String = head
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            named.insert(word);
        }
    }
    named.remove("");
    named
}

/// The items of `x, y::{…}, z}…`, each from its first character on.
fn top_level_items(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (place, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..place]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    items
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
