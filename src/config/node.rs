//! The file as a tree in which every value and every key knows its place.
//!
//! Scalars stay text until somebody says what they are to be: YAML's own guesses (`off` is false, `1.10` is a
//! number) never happen. `${NAME}`, `${NAME:-default}` and `!file PATH` are resolved here. A syntax error ends the
//! reading; everything else is reported and read on.

use std::{collections::HashMap, fmt, io, path::Path, vec};

use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// How deep lists and mappings may be nested.
const DEPTH_MAX: usize = 32;
/// How many values the file may have, those repeated by aliases included.
const NODES_MAX: usize = 100_000;

/// Where something stands: line and column in characters, from 1; line 0 is the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) kind: NodeKind,
}

impl Node {
    /// A mapping without keys.
    pub(super) const fn empty(at: Place) -> Self {
        Self { at, kind: NodeKind::Map(Vec::new()) }
    }

    /// Whether it is a list without items.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.kind, NodeKind::List(items) if items.is_empty())
    }
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// Nothing is written, or `null` or `~`.
    Nothing,
    /// Could not be resolved, which is reported already: taken for sound from here on.
    Broken,
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file; a key may be there twice.
    Map(Vec<(Name, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) at: Place,
    /// Control characters are escaped: no known key has any.
    pub(super) text: String,
}

/// A scalar's text.
#[derive(Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// What is written in the file where that is not the text itself, so that no message shows a secret.
    written: Option<String>,
}

impl Scalar {
    /// How messages name it: as it is written in the file, with control characters made visible.
    pub(super) fn written(&self) -> String {
        visible(self.written.as_deref().unwrap_or(&self.text))
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.written())
    }
}

/// A text with its control characters escaped.
pub(super) fn visible(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// What the file may refer to besides itself.
pub(super) struct Surroundings<'a> {
    /// An environment variable.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file; a relative path is relative to the configuration.
    pub(super) file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A fault and its place in the file: problem, remedy.
pub(super) type Finding = (Place, String, String);

/// Reads one document; none after a syntax error. An empty file is an empty mapping.
pub(super) fn read(text: &str, around: &Surroundings<'_>, found: &mut Vec<Finding>) -> Option<Node> {
    let mut events = Vec::new();
    let mut depth = 0_usize;
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                match event {
                    Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                    Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > DEPTH_MAX {
                    let problem = format!("nested more than {DEPTH_MAX} deep");
                    found.push((place(&span), problem, "no setting is that deep".into()));
                    return None;
                }
                events.push((event, span));
            }
            Err(error) => {
                let mark = error.marker();
                let at = Place { line: mark.line(), column: mark.col() + 1 };
                let remedy = "look here and on the line before: indentation by spaces, a closing quote or bracket, \
                              quotes around a text that begins with one of %@`*&!|>[{ or that contains \": \"";
                found.push((at, format!("not YAML: {}", error.info()), remedy.into()));
                return None;
            }
        }
    }
    let mut reader =
        Reader { events: events.into_iter(), anchors: HashMap::new(), nodes: 0, documents: 0, around, found };
    let mut root = None;
    while let Some((event, span)) = reader.events.next() {
        match event {
            Event::DocumentStart(..) => reader.begin_document(&span),
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            event => {
                let node = reader.node(event, &span);
                root.get_or_insert(node);
            }
        }
    }
    let written = root.filter(|root| !matches!(root.kind, NodeKind::Nothing));
    Some(written.unwrap_or(Node::empty(Place { line: 1, column: 1 })))
}

struct Reader<'a, 'text> {
    events: vec::IntoIter<(Event<'text>, Span)>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
    around: &'a Surroundings<'a>,
    found: &'a mut Vec<Finding>,
}

impl Reader<'_, '_> {
    fn begin_document(&mut self, span: &Span) {
        self.documents += 1;
        if self.documents == 2 {
            self.report(place(span), "a second document".into(), "keep one document in the file");
        }
    }

    /// The node that begins with `event`; what belongs to it is taken off the events.
    fn node(&mut self, event: Event<'_>, span: &Span) -> Node {
        let at = place(span);
        let before = self.nodes;
        self.nodes += 1;
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(at, &text, style, tag.as_deref()))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                (anchor, self.list())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                (anchor, self.map())
            }
            Event::Alias(anchor) => (0, self.alias(at, anchor)),
            _ => (0, NodeKind::Broken),
        };
        let node = Node { at, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        node
    }

    fn list(&mut self) -> NodeKind {
        let mut items = Vec::new();
        while let Some((event, span)) = self.events.next() {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, &span));
        }
        NodeKind::List(items)
    }

    fn map(&mut self) -> NodeKind {
        let mut entries = Vec::new();
        while let Some((event, span)) = self.events.next() {
            if event == Event::MappingEnd {
                break;
            }
            let name = self.name(event, &span);
            let Some((event, span)) = self.events.next() else { break };
            let value = self.node(event, &span);
            entries.extend(name.map(|name| (name, value)));
        }
        NodeKind::Map(entries)
    }

    fn name(&mut self, event: Event<'_>, span: &Span) -> Option<Name> {
        let at = place(span);
        if let Event::Scalar(text, ..) = event {
            return Some(Name { at, text: visible(&text) });
        }
        self.node(event, span);
        self.report(at, "a key that is not a word".into(), "write `key: value`");
        None
    }

    fn alias(&mut self, at: Place, anchor: usize) -> NodeKind {
        match self.anchors.get(&anchor) {
            Some((node, size)) if self.nodes + size <= NODES_MAX => {
                self.nodes += size;
                node.kind.clone()
            }
            Some(_) => {
                self.report(
                    at,
                    format!("more than {NODES_MAX} values with this alias"),
                    "write less of them",
                );
                NodeKind::Broken
            }
            None => {
                self.report(at, "an alias to what it stands in".into(), "write the value out");
                NodeKind::Broken
            }
        }
    }

    fn refuse_tag(&mut self, at: Place, tag: Option<&Tag>) {
        if let Some(tag) = tag.filter(|tag| tag.handle() == "!" && !tag.suffix().is_empty()) {
            let problem = format!("`!{}` before a list or a mapping", tag.suffix());
            self.report(at, problem, "remove it; the only tag is `!file PATH`");
        }
    }

    fn scalar(&mut self, at: Place, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> NodeKind {
        let plain = style == ScalarStyle::Plain;
        let tag = tag.filter(|tag| tag.handle() == "!").map(Tag::suffix).filter(|suffix| !suffix.is_empty());
        if plain && tag.is_none() && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return NodeKind::Nothing;
        }
        let Some(full) = self.interpolate(at, text) else { return NodeKind::Broken };
        let written = (full != text).then(|| text.to_owned());
        match tag {
            None => NodeKind::Scalar(Scalar { text: full, written }),
            Some("file") => self.secret(at, text, &full),
            Some(other) => {
                self.report(at, format!("unknown tag `!{other}`"), "the only tag is `!file PATH`");
                NodeKind::Broken
            }
        }
    }

    /// The text of the file, without the line end that editors leave at its end.
    fn secret(&mut self, at: Place, written: &str, path: &str) -> NodeKind {
        match (self.around.file)(Path::new(path)) {
            Ok(text) => {
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                NodeKind::Scalar(Scalar { text, written: Some(format!("!file {written}")) })
            }
            Err(error) => {
                let remedy = "make it readable for the user Gatepost runs as; \
                              a relative path starts at the configuration's folder";
                self.report(at, format!("`!file {written}` cannot be read: {error}"), remedy);
                NodeKind::Broken
            }
        }
    }

    /// Puts variables in their places. `$${` stands for `${` itself.
    fn interpolate(&mut self, at: Place, text: &str) -> Option<String> {
        let mut full = String::new();
        let mut rest = text;
        while let Some(begin) = rest.find("${") {
            let (before, after) = (&rest[..begin], &rest[begin + 2..]);
            if let Some(kept) = before.strip_suffix('$') {
                full.push_str(kept);
                full.push_str("${");
                rest = after;
                continue;
            }
            let Some(end) = after.find('}') else {
                self.report(at, format!("`{text}` opens `${{` and does not close it"), "write `${NAME}`");
                return None;
            };
            full.push_str(before);
            full.push_str(&self.variable(at, &after[..end])?);
            rest = &after[end + 1..];
        }
        full.push_str(rest);
        Some(full)
    }

    fn variable(&mut self, at: Place, inside: &str) -> Option<String> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let value = (self.around.variable)(name).filter(|value| default.is_none() || !value.is_empty());
        let value = value.or_else(|| default.map(str::to_owned));
        if value.is_none() {
            let remedy = format!("set {name}, or write `${{{name}:-default}}`");
            self.report(at, format!("the environment has no variable {name}"), &remedy);
        }
        value
    }

    fn report(&mut self, at: Place, problem: String, remedy: &str) {
        self.found.push((at, problem, remedy.to_owned()));
    }
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}
