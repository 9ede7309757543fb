//! Rule files: what an operator writes, checked and turned into specifications. Every fault of a file is told at once.
//!
//! ```yaml
//! group: phish                      # of all rules in the file
//! rules:
//!   - id: PHISH_VERIFY              # capitals, digits, _
//!     description: Asks to verify an account
//!     points: 1.5                   # negative for honest signs; 0 for rules that only serve others
//!     target: body                  # body text raw full url attachment defect check headers sender helo
//!                                   # subject from to cc reply-to, `header X-Any`, each with :addr :name :raw
//!     as: words                     # how patterns are read: regex (default), text, words
//!     any: [verify your account]    # one of these
//!     all: [...]                    # and each of these
//!     none: [...]                   # and none of these
//!     case: true                    # capitals matter; default false
//!     max_hits: 3                   # each match counts, up to so many; default 1
//!     language: en
//!     hits: [Please verify your account now.]
//!     misses: [Thank you., { mail: "Subject: a whole message\n\ntext" }]
//! ```
//!
//! `^` and `$` are the ends of a line: of a value in a header, of a paragraph in a body. In a pattern that holds nothing but
//! ASCII, `\w`, `\b` and `\s` are those of ASCII.
//!
//! In place of patterns a rule has `exists: true|false` for a target, or `meta:` with an expression over other rules.

use std::{collections::HashMap, sync::Arc};

use super::{
    meta::Meta,
    rule::Rule,
    target::Target,
    yaml::{self, Node, Place, Value},
};
use crate::fault::{Fault, nearest};

/// A rule as written: sound in itself, not compiled yet.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) rule: Rule,
    pub(super) place: Place,
    pub(super) test: Test,
    pub(super) hits: Vec<Example>,
    pub(super) misses: Vec<Example>,
}

/// What a rule looks for.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Patterns { target: Target, any: Vec<Pattern>, all: Vec<Pattern>, none: Vec<Pattern>, max_hits: usize },
    Exists { target: Target, wanted: bool },
    Meta(Meta<String>),
}

/// A pattern, as a regular expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) regex: String,
    pub(super) case: bool,
    pub(super) place: Place,
    /// As the operator wrote it, for a fault.
    pub(super) written: String,
}

/// A message that a rule must hit, or miss.
#[derive(Clone, Debug)]
pub(super) struct Example {
    pub(super) place: Place,
    pub(super) text: String,
    /// A whole message, not only text for the rule's target.
    pub(super) mail: bool,
}

/// The rules of a file, as far as they are sound, and the file's faults.
pub(super) fn read(file: &Arc<str>, text: &str) -> (Vec<Spec>, Vec<Fault>) {
    let mut reader = Reader { file: file.clone(), faults: Vec::new() };
    let specs = match yaml::read(text) {
        Ok(root) => reader.file(&root),
        Err((place, told)) => {
            reader.fault(place, told, "write valid YAML");
            Vec::new()
        }
    };
    (specs, reader.faults)
}

const FILE_KEYS: [&str; 3] = ["group", "language", "rules"];
const RULE_KEYS: [&str; 16] = [
    "id",
    "description",
    "points",
    "target",
    "as",
    "any",
    "all",
    "none",
    "case",
    "max_hits",
    "exists",
    "meta",
    "group",
    "language",
    "hits",
    "misses",
];
/// Points of a rule, of either sign, at most.
const POINTS_MAX: f64 = 1000.0;
/// Hits of a rule that count at most.
const HITS_MAX: f64 = 1000.0;

/// How patterns are read.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Regex,
    Text,
    Words,
}

/// The entries of one mapping.
type Entries<'a> = HashMap<&'a str, (Place, &'a Node)>;

struct Reader {
    file: Arc<str>,
    faults: Vec<Fault>,
}

impl Reader {
    fn fault(&mut self, place: Place, problem: impl Into<String>, remedy: impl Into<String>) {
        let (line, column) = (place.line, place.column);
        self.faults.push(Fault {
            file: self.file.clone(),
            line,
            column,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    fn file(&mut self, root: &Node) -> Vec<Spec> {
        let Some(entries) = self.entries(root, &FILE_KEYS, "write `rules:` and a list of rules") else {
            return Vec::new();
        };
        let group = self.text(&entries, "group");
        let language = self.text(&entries, "language");
        let Some((_, node)) = entries.get("rules") else {
            self.fault(root.place, "no `rules`", "write `rules:` and a list of rules");
            return Vec::new();
        };
        let Value::List(rules) = &node.value else {
            self.fault(node.place, format!("`rules` is {}", node.value.name()), "write a list of rules");
            return Vec::new();
        };
        rules.iter().filter_map(|rule| self.rule(rule, &group, &language)).collect()
    }

    fn rule(&mut self, node: &Node, group: &Option<String>, language: &Option<String>) -> Option<Spec> {
        let entries = self.entries(node, &RULE_KEYS, "write a mapping that begins with `id:`")?;
        let before = self.faults.len();
        let place = entries.get("id").map_or(node.place, |(place, _)| *place);
        let id = self.required(&entries, "id", node.place);
        if let Some(id) = &id {
            self.check_id(id, entries["id"].1.place);
        }
        let description = self.required(&entries, "description", place);
        let points = self.points(&entries, place);
        let test = self.test(&entries, place);
        let group = self.text(&entries, "group").or_else(|| group.clone());
        let language = self.text(&entries, "language").or_else(|| language.clone());
        let hits = self.examples(&entries, "hits");
        let misses = self.examples(&entries, "misses");
        if self.faults.len() > before {
            return None;
        }
        let at = format!("{}:{}", self.file, place.line).into();
        let rule = Rule { id: id?.into(), description: description?, points: points?, group, language, at };
        Some(Spec { rule, place, test: test?, hits, misses })
    }

    /// The entries of a mapping, each key known.
    fn entries<'a>(&mut self, node: &'a Node, known: &[&str], remedy: &str) -> Option<Entries<'a>> {
        let Value::Map(map) = &node.value else {
            self.fault(node.place, format!("{} stands here", node.value.name()), remedy);
            return None;
        };
        for (key, place, _) in map.iter().filter(|(key, ..)| !known.contains(&key.as_str())) {
            let remedy = match nearest(key, known.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.fault(*place, format!("unknown key `{key}`"), remedy);
        }
        Some(map.iter().map(|(key, place, node)| (key.as_str(), (*place, node))).collect())
    }

    fn text(&mut self, entries: &Entries<'_>, key: &str) -> Option<String> {
        let (_, node) = entries.get(key)?;
        match &node.value {
            Value::Text(text) => Some(text.trim_end().to_owned()),
            other => {
                self.fault(
                    node.place,
                    format!("`{key}` is {}", other.name()),
                    "write text; in quotes if need be",
                );
                None
            }
        }
    }

    fn required(&mut self, entries: &Entries<'_>, key: &str, place: Place) -> Option<String> {
        if !entries.contains_key(key) {
            self.fault(place, format!("no `{key}`"), format!("write `{key}:`"));
        }
        self.text(entries, key)
    }

    fn check_id(&mut self, id: &str, place: Place) {
        let sound = id.starts_with(|first: char| first.is_ascii_uppercase())
            && id.len() <= 50
            && id.bytes().all(|octet| matches!(octet, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        if !sound {
            let remedy = "use capitals, digits and `_`, a capital first, at most 50 characters";
            self.fault(place, format!("`{id}` is no rule name"), remedy);
        }
    }

    fn points(&mut self, entries: &Entries<'_>, place: Place) -> Option<f64> {
        if !entries.contains_key("points") {
            self.fault(place, "no `points`", "write `points:` and a number such as 1.5");
        }
        self.number(entries, "points", -POINTS_MAX, POINTS_MAX)
    }

    fn number(&mut self, entries: &Entries<'_>, key: &str, least: f64, most: f64) -> Option<f64> {
        let (_, node) = entries.get(key)?;
        match node.value {
            Value::Number(number) if (least..=most).contains(&number) => Some(number),
            ref other => {
                let remedy = format!("write a number from {least} to {most}");
                self.fault(node.place, format!("`{key}` is {}", other.name()), remedy);
                None
            }
        }
    }

    fn truth(&mut self, entries: &Entries<'_>, key: &str) -> Option<bool> {
        let (_, node) = entries.get(key)?;
        match node.value {
            Value::Bool(truth) => Some(truth),
            ref other => {
                self.fault(node.place, format!("`{key}` is {}", other.name()), "write true or false");
                None
            }
        }
    }

    fn test(&mut self, entries: &Entries<'_>, place: Place) -> Option<Test> {
        let patterns = ["any", "all", "none"].iter().any(|key| entries.contains_key(key));
        let (exists, meta) = (entries.contains_key("exists"), entries.contains_key("meta"));
        if u8::from(patterns) + u8::from(exists) + u8::from(meta) != 1 {
            let remedy = "write exactly one of: patterns (`any`, `all`, `none`), `exists`, `meta`";
            self.fault(place, "the rule does not say what it looks for", remedy);
            return None;
        }
        if meta {
            return self.meta(entries);
        }
        let target = self.target(entries, place);
        if exists {
            let wanted = self.truth(entries, "exists");
            return Some(Test::Exists { target: target?, wanted: wanted? });
        }
        let manner = self.manner(entries);
        let case = self.truth(entries, "case").unwrap_or(false);
        let mut list = |key| self.patterns(entries, key, manner, case);
        let (any, all, none) = (list("any"), list("all"), list("none"));
        if any.is_empty() && all.is_empty() {
            self.fault(place, "the rule has no pattern", "write at least one pattern under `any` or `all`");
        }
        let max_hits = self.number(entries, "max_hits", 1.0, HITS_MAX).map_or(1, |most| most as usize);
        Some(Test::Patterns { target: target?, any, all, none, max_hits })
    }

    fn meta(&mut self, entries: &Entries<'_>) -> Option<Test> {
        let written = self.text(entries, "meta")?;
        if let Some((place, _)) = entries.get("target") {
            self.fault(*place, "a `meta` rule has no `target`", "take `target` out");
        }
        match Meta::read(&written) {
            Ok(meta) => Some(Test::Meta(meta)),
            Err(told) => {
                let place = entries["meta"].1.place;
                self.fault(place, format!("`{written}`: {told}"), "write it like `A + B >= 2 && !C`");
                None
            }
        }
    }

    fn target(&mut self, entries: &Entries<'_>, place: Place) -> Option<Target> {
        let written = self.required(entries, "target", place)?;
        Target::read(&written)
            .map_err(|remedy| {
                let place = entries.get("target").map_or(place, |(_, node)| node.place);
                self.fault(place, format!("unknown target `{written}`"), remedy);
            })
            .ok()
    }

    fn manner(&mut self, entries: &Entries<'_>) -> Manner {
        let Some(written) = self.text(entries, "as") else { return Manner::Regex };
        match written.as_str() {
            "regex" => Manner::Regex,
            "text" => Manner::Text,
            "words" => Manner::Words,
            _ => {
                let place = entries["as"].1.place;
                self.fault(place, format!("`as` is `{written}`"), "write `regex`, `text` or `words`");
                Manner::Regex
            }
        }
    }

    /// The items of a list of texts; one text alone stands for a list of one.
    fn texts<'a>(&mut self, entries: &Entries<'a>, key: &str) -> Vec<&'a Node> {
        match entries.get(key).map(|(_, node)| *node) {
            None => Vec::new(),
            Some(Node { value: Value::List(items), .. }) => items.iter().collect(),
            Some(one) => vec![one],
        }
    }

    fn patterns(&mut self, entries: &Entries<'_>, key: &str, manner: Manner, case: bool) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for node in self.texts(entries, key) {
            match &node.value {
                Value::Text(written) if !written.trim().is_empty() => {
                    let written = written.trim_end_matches('\n').to_owned();
                    let regex = regex_of(&written, manner);
                    patterns.push(Pattern { regex, case, place: node.place, written });
                }
                other => {
                    let problem = format!("a pattern under `{key}` is {}", other.name());
                    self.fault(node.place, problem, "write text; in quotes if need be");
                }
            }
        }
        if key == "any" && manner != Manner::Regex { joined(patterns) } else { patterns }
    }

    fn examples(&mut self, entries: &Entries<'_>, key: &str) -> Vec<Example> {
        let mut examples = Vec::new();
        for node in self.texts(entries, key) {
            match &node.value {
                Value::Text(text) => {
                    examples.push(Example { place: node.place, text: text.clone(), mail: false });
                }
                Value::Map(_) => {
                    let Some(entries) = self.entries(node, &["mail"], "write text") else { continue };
                    let Some((_, Node { value: Value::Text(text), place })) = entries.get("mail") else {
                        self.fault(node.place, "no `mail` text", "write `mail: |` and a message");
                        continue;
                    };
                    examples.push(Example { place: *place, text: text.clone(), mail: true });
                }
                other => {
                    let problem = format!("an example under `{key}` is {}", other.name());
                    self.fault(node.place, problem, "write text, or `mail: |` and a message");
                }
            }
        }
        examples
    }
}

/// One pattern for a whole list of literals: one look instead of many.
fn joined(patterns: Vec<Pattern>) -> Vec<Pattern> {
    let Some(first) = patterns.first().cloned() else { return patterns };
    let all: Vec<_> = patterns.iter().map(|pattern| pattern.regex.as_str()).collect();
    vec![Pattern { regex: all.join("|"), ..first }]
}

fn regex_of(written: &str, manner: Manner) -> String {
    if manner == Manner::Regex {
        return written.to_owned();
    }
    let literal = written.split_whitespace().map(regex::escape).collect::<Vec<_>>().join(r"\s+");
    if manner == Manner::Text {
        return literal;
    }
    let edge = |character: Option<char>| if character.is_some_and(is_word) { r"\b" } else { "" };
    let trimmed = written.trim();
    format!("{}{literal}{}", edge(trimmed.chars().next()), edge(trimmed.chars().next_back()))
}

/// Whether a word may end beside it. In scripts without spaces words do not end: there the bare text counts.
fn is_word(character: char) -> bool {
    let unspaced =
        matches!(character, '\u{e00}'..='\u{eff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}');
    (character.is_alphanumeric() || character == '_') && !unspaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, told: &[&str]) {
        let (_, faults) = read(&"t.yaml".into(), text);
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(shown, told, "{text}");
    }

    #[test]
    fn every_fault_is_told_at_once() {
        check(
            "rules:\n  - id: lower\n    descripton: x\n    points: many\n    target: bdy\n    any: [1]\n",
            &[
                "t.yaml:3:5: unknown key `descripton`\n  fix: did you mean `description`?",
                "t.yaml:2:9: `lower` is no rule name\n  fix: use capitals, digits and `_`, a capital first, at most 50 characters",
                "t.yaml:2:5: no `description`\n  fix: write `description:`",
                "t.yaml:4:13: `points` is `many`\n  fix: write a number from -1000 to 1000",
                "t.yaml:5:13: unknown target `bdy`\n  fix: did you mean `body`?",
                "t.yaml:6:11: a pattern under `any` is `1`\n  fix: write text; in quotes if need be",
                "t.yaml:2:5: the rule has no pattern\n  fix: write at least one pattern under `any` or `all`",
            ],
        );
        check("", &["t.yaml:1:1: nothing stands here\n  fix: write `rules:` and a list of rules"]);
        check("rules: 1\n", &["t.yaml:1:8: `rules` is `1`\n  fix: write a list of rules"]);
        check(
            "rules: [{id: A, description: d, points: 1}]\n",
            &["t.yaml:1:10: the rule does not say what it looks for\n  \
               fix: write exactly one of: patterns (`any`, `all`, `none`), `exists`, `meta`"],
        );
        check(
            "rules: [{id: A, description: d, points: 1, meta: A B}]\n",
            &[
                "t.yaml:1:50: `A B`: an operator is missing before `B`\n  fix: write it like `A + B >= 2 && !C`",
            ],
        );
    }

    #[test]
    fn literals_become_regexes() {
        for (written, manner, regex) in [
            ("a+b", Manner::Regex, "a+b"),
            ("a+b  c", Manner::Text, r"a\+b\s+c"),
            ("a b", Manner::Words, r"\ba\s+b\b"),
            ("$5", Manner::Words, r"\$5\b"),
            ("请验证", Manner::Words, "请验证"),
        ] {
            assert_eq!(regex_of(written, manner), regex);
        }
    }
}
