//! Holds the tree against the keys: what is unknown, missing, doubled, of the wrong kind or not built yet.
//!
//! One walk finds everything that can be said of a value by itself. After it, [`Section`] reads values without
//! any more faults: what is unsound counts as not written.

use super::{
    keys::{Key, Kind, LATER, Otherwise, Table, Words},
    node::{Finding, Name, Node, NodeKind, Place, Scalar},
};
use crate::fault::nearest;

/// What the walk found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

impl Findings {
    pub(super) fn fault(&mut self, at: Place, problem: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push((at, problem.into(), remedy.into()));
    }

    pub(super) fn warn(&mut self, at: Place, problem: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push((at, problem.into(), remedy.into()));
    }
}

/// Checks a mapping against its table; `path` is the keys above it, joined by dots.
pub(super) fn check(table: &Table, node: &Node, path: &str, findings: &mut Findings) {
    let entries = match &node.kind {
        NodeKind::Map(entries) => entries,
        NodeKind::Broken => return,
        _ => {
            let remedy = format!("write `key: value` lines; the keys are {}", names(table));
            return findings.fault(
                node.at,
                format!("{} is a mapping, not {}", table.what, shown(node)),
                remedy,
            );
        }
    };
    for (index, (name, value)) in entries.iter().enumerate() {
        if let Some((first, _)) = entries[..index].iter().find(|(before, _)| before.text == name.text) {
            let remedy = format!("keep one; the first is in line {}", first.at.line);
            findings.fault(name.at, format!("`{}` is given twice", name.text), remedy);
        }
        match table.keys.iter().find(|key| key.name == name.text) {
            Some(key) => check_key(key, name, value, &join(path, key.name), findings),
            None => unknown_key(table, name, findings),
        }
    }
    for key in table.keys.iter().filter(|key| matches!(key.default, Otherwise::Required)) {
        let meant = |name: &Name| name.text == key.name || guess(table, &name.text) == Some(key.name);
        if !entries.iter().any(|(name, _)| meant(name)) {
            let remedy = format!("add `{}`: {}", key.name, key.doc);
            findings.fault(node.at, format!("{} has no `{}`", table.what, key.name), remedy);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The known key that an unknown one is meant to be.
fn guess(table: &Table, name: &str) -> Option<&'static str> {
    nearest(name, table.keys.iter().map(|key| key.name))
}

fn unknown_key(table: &Table, name: &Name, findings: &mut Findings) {
    let remedy = match guess(table, &name.text) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the keys of {} are {}", table.what, names(table)),
    };
    findings.fault(name.at, format!("unknown key `{}`", name.text), remedy);
}

fn check_key(key: &Key, name: &Name, value: &Node, path: &str, findings: &mut Findings) {
    if let Some(later) = LATER.iter().find(|later| later.path == path && later.words.is_empty()) {
        let problem = format!("`{}` is not supported by this version yet", name.text);
        if later.fault {
            return findings.fault(name.at, problem, later.remedy);
        }
        findings.warn(name.at, problem, later.remedy);
    }
    check_value(&key.kind, key.name, value, path, findings);
}

fn check_value(kind: &Kind, name: &str, value: &Node, path: &str, findings: &mut Findings) {
    match (kind, &value.kind) {
        (Kind::Anything, _) | (_, NodeKind::Broken) => {}
        (Kind::Section(table), NodeKind::Map(_)) => check(table, value, path, findings),
        // All its keys may have been switched off.
        (Kind::Section(table), NodeKind::Nothing) => check(table, &Node::empty(value.at), path, findings),
        (Kind::Named(_), NodeKind::Nothing) => {}
        (Kind::Named(table), NodeKind::Map(entries)) => check_named(table, entries, path, findings),
        (Kind::List(item) | Kind::OneOrMore(item), NodeKind::List(items)) => {
            for value in items {
                check_value(item, name, value, path, findings);
            }
        }
        (Kind::OneOrMore(item), NodeKind::Scalar(_)) => check_value(item, name, value, path, findings),
        (Kind::Word(words), NodeKind::Scalar(word)) => {
            check_word(words, name, value.at, word, path, findings);
        }
        (kind, NodeKind::Scalar(scalar)) if kind.accepts(&scalar.text) => {}
        (_, NodeKind::Nothing) => {
            let remedy = format!("write {}, or remove the key", wanted(kind));
            findings.fault(value.at, format!("`{name}` has no value"), remedy);
        }
        _ => {
            let problem = format!("`{name}` is {}", shown(value));
            findings.fault(value.at, problem, format!("write {}{}", wanted(kind), quotes(kind, value)));
        }
    }
}

fn check_named(table: &Table, entries: &[(Name, Node)], path: &str, findings: &mut Findings) {
    for (index, (name, value)) in entries.iter().enumerate() {
        if let Some((first, _)) = entries[..index].iter().find(|(before, _)| before.text == name.text) {
            let remedy = format!("rename one; the first is in line {}", first.at.line);
            findings.fault(name.at, format!("`{}` is given twice", name.text), remedy);
        }
        if !Kind::Label.accepts(&name.text) {
            findings.fault(name.at, format!("`{}` cannot be a name", name.text), Kind::Label.expected());
        }
        match value.kind {
            NodeKind::Nothing => {
                check(table, &Node::empty(name.at), path, findings);
            }
            _ => check(table, value, path, findings),
        }
    }
}

fn check_word(words: &Words, name: &str, at: Place, word: &Scalar, path: &str, findings: &mut Findings) {
    let text = word.text.as_str();
    let later = LATER.iter().find(|later| later.path == path && later.words.contains(&text));
    if let Some(later) = later {
        let problem = format!("`{name}: {}` is not supported by this version yet", word.written());
        return findings.fault(at, problem, later.remedy);
    }
    if words.words.contains(&text) {
        return;
    }
    let supported = supported(words, path);
    let known = list(&supported);
    let instead = words.instead.iter().find(|(elsewhere, _)| *elsewhere == text).map(|(_, here)| *here);
    let remedy = match instead.or_else(|| nearest(text, supported.iter().copied())) {
        Some(here) if instead.is_some() => format!("use `{here}`; possible here: {known}"),
        Some(near) => format!("did you mean `{near}`? possible: {known}"),
        None => format!("possible: {known}"),
    };
    let problem = match (instead, path.split('.').nth(1)) {
        (Some(_), Some(protocol)) => {
            let article = if protocol == "pop3" { "a" } else { "an" };
            format!(
                "`{name}: {}`: {article} {} policy cannot do that",
                word.written(),
                protocol.to_uppercase()
            )
        }
        _ => format!("`{name}` cannot be `{}`", word.written()),
    };
    findings.fault(at, problem, remedy);
}

/// The words that this version understands at `path`.
pub(super) fn supported(words: &Words, path: &str) -> Vec<&'static str> {
    let later = |word: &&str| LATER.iter().any(|later| later.path == path && later.words.contains(word));
    words.words.iter().copied().filter(|word| !later(word)).collect()
}

fn shown(node: &Node) -> String {
    match &node.kind {
        NodeKind::Nothing | NodeKind::Broken => "empty".into(),
        NodeKind::Scalar(scalar) => format!("`{}`", scalar.written()),
        NodeKind::List(_) => "a list".into(),
        NodeKind::Map(_) => "a mapping".into(),
    }
}

fn wanted(kind: &Kind) -> String {
    match kind {
        Kind::Section(table) => format!("a mapping with the keys {}", names(table)),
        kind => kind.expected().to_owned(),
    }
}

fn quotes(kind: &Kind, node: &Node) -> &'static str {
    match (kind, &node.kind) {
        (Kind::List(_) | Kind::OneOrMore(_) | Kind::Section(_) | Kind::Named(_), _) => "",
        (_, NodeKind::List(_) | NodeKind::Map(_)) => "; a text that begins with [ or { needs quotes",
        _ => "",
    }
}

fn names(table: &Table) -> String {
    list(&table.keys.iter().map(|key| key.name).collect::<Vec<_>>())
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A mapping that was checked: gives its values, or the defaults of its table.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) table: &'static Table,
    /// Where it stands; where the mapping around it stands, if it is not written.
    pub(super) at: Place,
    entries: &'a [(Name, Node)],
}

impl<'a> Section<'a> {
    pub(super) fn new(table: &'static Table, node: &'a Node) -> Self {
        let entries = if let NodeKind::Map(entries) = &node.kind { entries.as_slice() } else { &[] };
        Self { table, at: node.at, entries }
    }

    /// A section of which nothing is written.
    pub(super) const fn empty(table: &'static Table) -> Self {
        Self { table, at: Place { line: 0, column: 0 }, entries: &[] }
    }

    /// What is written under the key, the first if it is written twice.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        debug_assert!(
            self.table.keys.iter().any(|key| key.name == name),
            "{} has no {name}",
            self.table.what
        );
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// Where the key's value stands, or else the section.
    pub(super) fn place(&self, name: &str) -> Place {
        self.node(name).map_or(self.at, |node| node.at)
    }

    /// The value of the key, or of its default; none where neither is there or sound.
    pub(super) fn value<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.all(name, &parse).into_iter().next().map(|(value, _)| value).or_else(|| {
            match self.table.keys.iter().find(|key| key.name == name)?.default {
                Otherwise::Is(text) => parse(text),
                _ => None,
            }
        })
    }

    /// The sound values that are written under the key, one or a list of them, with their places.
    pub(super) fn all<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<(T, Place)> {
        let nodes = match self.node(name) {
            Some(Node { kind: NodeKind::List(items), .. }) => items.as_slice(),
            Some(node) => std::slice::from_ref(node),
            None => &[],
        };
        let sound = |node: &Node| match &node.kind {
            NodeKind::Scalar(scalar) if self.accepts(name, &scalar.text) => {
                parse(&scalar.text).map(|value| (value, node.at))
            }
            _ => None,
        };
        nodes.iter().filter_map(sound).collect()
    }

    fn accepts(&self, name: &str, text: &str) -> bool {
        self.table.keys.iter().find(|key| key.name == name).is_some_and(|key| match key.kind {
            Kind::List(item) | Kind::OneOrMore(item) => item.accepts(text),
            kind => kind.accepts(text),
        })
    }

    /// The section under the key; empty where none is written.
    pub(super) fn section(&self, name: &str) -> Self {
        let key = self.table.keys.iter().find(|key| key.name == name);
        let Some(Key { kind: Kind::Section(table), .. }) = key else {
            debug_assert!(false, "{} has no section {name}", self.table.what);
            return *self;
        };
        match self.node(name) {
            Some(node) => Self::new(table, node),
            None => Self { table, at: self.at, entries: &[] },
        }
    }

    /// The sections in the list under the key.
    pub(super) fn sections(&self, name: &str, table: &'static Table) -> Vec<Self> {
        match self.node(name) {
            Some(Node { kind: NodeKind::List(items), .. }) => {
                items.iter().map(|item| Section::new(table, item)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The sections under the key, each with the name that the operator gave it.
    pub(super) fn named(&self, name: &str, table: &'static Table) -> Vec<(&'a Name, Self)> {
        match self.node(name) {
            Some(Node { kind: NodeKind::Map(entries), .. }) => {
                entries.iter().map(|(name, node)| (name, Section::new(table, node))).collect()
            }
            _ => Vec::new(),
        }
    }
}
