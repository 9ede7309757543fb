//! The JSON Schema of the file, from the table of keys, so that editors complete and check it.
//!
//! What only the reader can know (`${NAME}` in a number, names that refer to each other) is left open.

use serde_json::{Map, Value, json};

use super::{
    keys::{self, Key, Kind, LATER, Otherwise, Table},
    shape::supported,
};

/// The schema, draft 2020-12.
pub(super) fn schema() -> Value {
    let mut schema = section(&keys::FILE, "");
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "Gatepost configuration".into());
    }
    schema
}

fn section(table: &Table, path: &str) -> Value {
    let mut properties = Map::new();
    for key in table.keys {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        properties.insert(key.name.into(), property(key, &path));
    }
    let required: Vec<_> = table
        .keys
        .iter()
        .filter(|key| matches!(key.default, Otherwise::Required))
        .map(|key| key.name)
        .collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(key: &Key, path: &str) -> Value {
    let mut value = kind(&key.kind, path);
    let Value::Object(map) = &mut value else { return value };
    let mut sentence = key.doc.to_owned();
    match key.default {
        Otherwise::Is(text) => drop(map.insert("default".into(), scalar(&key.kind, text))),
        Otherwise::Told(phrase) => sentence.push_str(&format!(" Default: {phrase}.")),
        Otherwise::Required | Otherwise::Absent => {}
    }
    if LATER.iter().any(|later| later.path == path && later.words.is_empty()) {
        sentence.push_str(" Not supported by this version yet.");
        map.insert("deprecated".into(), true.into());
    }
    map.insert("description".into(), sentence.into());
    value
}

fn kind(kind: &Kind, path: &str) -> Value {
    match kind {
        Kind::Section(table) => section(table, path),
        Kind::Named(table) => json!({ "type": "object", "additionalProperties": section(table, path) }),
        Kind::List(item) => json!({ "type": "array", "items": self::kind(item, path) }),
        Kind::OneOrMore(item) => {
            let one = self::kind(item, path);
            json!({ "oneOf": [one, { "type": "array", "items": one }] })
        }
        Kind::Word(words) => json!({ "enum": supported(words, path) }),
        Kind::Switch => json!({ "type": ["boolean", "string"] }),
        Kind::Count | Kind::CountFromOne | Kind::Size => json!({ "type": ["integer", "string"] }),
        Kind::Points => json!({ "type": ["number", "string"] }),
        Kind::Anything => json!({}),
        _ => json!({ "type": "string" }),
    }
}

/// A default as JSON has it.
fn scalar(kind: &Kind, text: &str) -> Value {
    match kind {
        Kind::Switch | Kind::Count | Kind::CountFromOne | Kind::Size | Kind::Points => {
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
        _ => text.into(),
    }
}
