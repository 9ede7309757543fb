//! Rule files as a tree of values, each with its place, so that every fault of a file can be told at once.
//!
//! The only place in `rules` that knows the YAML crate.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_yaml::Spanned;

/// Where something stands in a file; lines and columns from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Place, Node)>),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Value {
    /// What it is, for a fault: `a list`, the text in backticks.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Number(value) => format!("`{value}`"),
            Self::Text(text) => format!("`{}`", text.chars().take(60).collect::<String>()),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a mapping".into(),
        }
    }
}

/// Reads a file's text. The error is a place and what is wrong there.
pub(super) fn read(text: &str) -> Result<Node, (Place, String)> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_nodes: NODES_MAX, max_events: 4 * NODES_MAX },
        with_snippet: false,
    };
    match serde_yaml::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(spanned) => Ok(spanned.into()),
        Err(error) => {
            let place = error.location().map(place).unwrap_or_default();
            let told = error.without_snippet().render();
            let told = told.lines().next().unwrap_or_default();
            Err((place, told.split(" at line ").next().unwrap_or_default().to_owned()))
        }
    }
}

/// Nodes of a rule file at most.
const NODES_MAX: usize = 10_000_000;

fn place(location: serde_yaml::Location) -> Place {
    Place { line: location.line() as usize, column: location.column() as usize }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { place: place(spanned.referenced), value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element::<Spanned<Value>>()? {
            nodes.push(node.into());
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Spanned<Value>>()?;
            entries.push((key.value, place(key.referenced), value.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_places() {
        let node = read("a: 1\nb:\n  - x\n  - [true, ~]\nc: |\n  text\n").unwrap();
        let Value::Map(entries) = node.value else { panic!("a mapping") };
        let places: Vec<_> = entries.iter().map(|(key, at, node)| (key.as_str(), *at, node.place)).collect();
        let place = |line, column| Place { line, column };
        assert_eq!(
            places,
            [
                ("a", place(1, 1), place(1, 4)),
                ("b", place(2, 1), place(3, 3)),
                ("c", place(5, 1), place(6, 3))
            ]
        );
        let Value::List(list) = &entries[1].2.value else { panic!("a list") };
        assert_eq!(list[0].value, Value::Text("x".into()));
        assert_eq!(list[1].place, place(4, 5));
        assert_eq!(entries[2].2.value, Value::Text("text\n".into()));
    }

    #[test]
    fn faults_have_places() {
        for (text, line) in [("a: 1\na: 2\n", 2), ("a: [\n", 1), ("a:\n\t- b\n", 2)] {
            let (place, told) = read(text).unwrap_err();
            assert_eq!(place.line, line, "{text:?}: {told}");
            assert!(!told.is_empty());
        }
    }
}
