//! The rules in force: loaded, compiled, matched.
//!
//! For every target one automaton looks for the required literals of all its patterns at once; only patterns whose
//! literal was seen are tried, one by one, in linear time. The score does not depend on the order of rules.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aho_corasick::AhoCorasick;
use bytes::Bytes;
use regex::bytes::{Regex, RegexBuilder};

use super::{
    evidence::printable,
    literal,
    meta::Meta,
    parse::{self, Example, Pattern, Spec, Test},
    rule::Rule,
    score::{Hit, Score},
    target::Target,
    yaml::Place,
};
use crate::{
    fault::{Fault, nearest},
    mail::{Envelope, Message},
};

/// Octets of one compiled pattern at most; a larger one is a fault of its file.
const REGEX_SIZE_MAX: usize = 4 * 1024 * 1024;
/// Octets of a pattern's cache of states; past it matching is slower, never wrong.
const REGEX_CACHE_MAX: usize = 512 * 1024;

/// The rule files that are built in: name and text.
const BUILT_IN: [(&str, &str); 12] = [
    ("rules/advance_fee.yaml", include_str!("../../rules/advance_fee.yaml")),
    ("rules/body.yaml", include_str!("../../rules/body.yaml")),
    ("rules/crypto.yaml", include_str!("../../rules/crypto.yaml")),
    ("rules/extortion.yaml", include_str!("../../rules/extortion.yaml")),
    ("rules/gtube.yaml", include_str!("../../rules/gtube.yaml")),
    ("rules/header_forgery.yaml", include_str!("../../rules/header_forgery.yaml")),
    ("rules/honest.yaml", include_str!("../../rules/honest.yaml")),
    ("rules/job_loan.yaml", include_str!("../../rules/job_loan.yaml")),
    ("rules/pharma.yaml", include_str!("../../rules/pharma.yaml")),
    ("rules/phish.yaml", include_str!("../../rules/phish.yaml")),
    ("rules/seo_b2b.yaml", include_str!("../../rules/seo_b2b.yaml")),
    ("rules/subject.yaml", include_str!("../../rules/subject.yaml")),
];

/// The rules in force.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    matchers: Vec<Matcher>,
    targets: Vec<Indexed>,
    /// Indexes of meta rules, each after those it speaks of.
    metas: Vec<usize>,
    examples: Vec<Examples>,
}

#[derive(Debug)]
enum Matcher {
    Patterns { target: usize, any: Vec<usize>, all: Vec<usize>, none: Vec<usize>, max_hits: usize },
    Exists { target: usize, wanted: bool },
    Meta(Meta<usize>),
}

/// A target and the patterns held against it.
#[derive(Debug)]
struct Indexed {
    target: Target,
    patterns: Vec<Regex>,
    prefilter: Option<AhoCorasick>,
    /// For every literal of the prefilter, the patterns that require it.
    owners: Vec<Vec<usize>>,
    /// Patterns without a required literal.
    always: Vec<usize>,
}

/// The examples of one rule.
#[derive(Debug)]
struct Examples {
    rule: usize,
    file: Arc<str>,
    target: Option<Target>,
    hits: Vec<Example>,
    misses: Vec<Example>,
}

/// A rule's value on a message, and what it is founded on.
#[derive(Clone, Debug, Default)]
struct Outcome {
    count: f64,
    evidence: String,
}

impl RuleSet {
    /// The rules that are built in.
    ///
    /// # Panics
    /// Never: a test loads them.
    #[allow(clippy::expect_used, reason = "the files are part of the program, and a test loads them")]
    pub fn built_in() -> Self {
        let sources = BUILT_IN.map(|(name, text)| (Arc::from(name), text.to_owned()));
        Self::from_sources(&sources).expect("the built-in rules are sound")
    }

    /// Loads rule files, and the `.yaml` and `.yml` files of folders, those by name.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(paths: &[PathBuf]) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut sources = Vec::new();
        for path in paths.iter().flat_map(|path| files(path)) {
            let name: Arc<str> = path.display().to_string().into();
            match fs::read_to_string(&path) {
                Ok(text) => sources.push((name, text)),
                Err(error) => faults.push(Fault {
                    file: name,
                    line: 0,
                    column: 0,
                    problem: format!("cannot be read: {error}"),
                    remedy: "name a readable rule file or folder".into(),
                }),
            }
        }
        match Self::from_sources(&sources) {
            Ok(set) if faults.is_empty() => Ok(set),
            Ok(_) => Err(faults),
            Err(more) => Err([faults, more].concat()),
        }
    }

    /// Compiles rule files given as name and text.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn from_sources(sources: &[(Arc<str>, String)]) -> Result<Self, Vec<Fault>> {
        let mut compiler = Compiler::default();
        let mut specs = Vec::new();
        for (name, text) in sources {
            let (found, faults) = parse::read(name, text);
            compiler.faults.extend(faults);
            specs.extend(found.into_iter().map(|spec| (name.clone(), spec)));
        }
        compiler.incomplete = !compiler.faults.is_empty();
        compiler.compile(specs)
    }

    /// The rules, in the order they were written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of that name.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| &*rule.id == id)
    }

    /// Scores a message.
    pub fn score(&self, envelope: &Envelope, message: &Message) -> Score {
        let outcomes = self.outcomes(envelope, message);
        let hits = self
            .rules
            .iter()
            .zip(outcomes)
            .filter(|(rule, outcome)| outcome.count != 0.0 && rule.points != 0.0);
        Score::new(
            hits.map(|(rule, outcome)| Hit {
                rule: rule.id.clone(),
                points: rule.points * outcome.count,
                evidence: outcome.evidence,
                at: rule.at.clone(),
            })
            .collect(),
        )
    }

    /// Tries the examples beside the rules; a fault for each that does not do as it should.
    pub fn examples(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for examples in &self.examples {
            for (wanted, list) in [(true, &examples.hits), (false, &examples.misses)] {
                for example in list {
                    if self.hits_example(examples, example) != wanted {
                        let id = &self.rules[examples.rule].id;
                        let told = if wanted { "does not hit its example" } else { "hits what it must miss" };
                        faults.push(Fault {
                            file: examples.file.clone(),
                            line: example.place.line,
                            column: example.place.column,
                            problem: format!("{id} {told}: {}", printable(example.text.as_bytes())),
                            remedy: "change the rule or the example".into(),
                        });
                    }
                }
            }
        }
        faults
    }

    fn hits_example(&self, examples: &Examples, example: &Example) -> bool {
        let (envelope, text) = match &examples.target {
            Some(target) if !example.mail => target.example(&example.text),
            _ => (Envelope::default(), example.text.clone()),
        };
        let message = Message::parse(Bytes::from(text.replace('\n', "\r\n")));
        self.outcomes(&envelope, &message)[examples.rule].count != 0.0
    }

    /// What each rule makes of a message.
    fn outcomes(&self, envelope: &Envelope, message: &Message) -> Vec<Outcome> {
        let seen: Vec<_> = self.targets.iter().map(|target| target.look(envelope, message)).collect();
        let mut outcomes: Vec<_> =
            self.matchers.iter().map(|matcher| matcher.outcome(&self.targets, &seen)).collect();
        for &at in &self.metas {
            if let Some(Matcher::Meta(meta)) = self.matchers.get(at) {
                outcomes[at] = self.meta_outcome(meta, &outcomes);
            }
        }
        outcomes
    }

    /// A meta rule counts once, however large its value is.
    fn meta_outcome(&self, meta: &Meta<usize>, outcomes: &[Outcome]) -> Outcome {
        if meta.value(|&rule| outcomes[rule].count) <= 0.0 {
            return Outcome::default();
        }
        let mut founded: Vec<&str> = Vec::new();
        for &rule in meta.rules().filter(|&&rule| outcomes[rule].count != 0.0) {
            if !founded.contains(&&*self.rules[rule].id) {
                founded.push(&self.rules[rule].id);
            }
        }
        Outcome { count: 1.0, evidence: printable(founded.join(", ").as_bytes()) }
    }
}

/// The rule files that a path names: itself, or those of a folder in order of name.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    let is_rules = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_rules).collect();
    files.sort();
    files
}

/// What was seen of one target in one message.
struct Seen<'a> {
    text: Option<std::borrow::Cow<'a, [u8]>>,
    candidates: Vec<bool>,
}

impl Indexed {
    fn look<'a>(&self, envelope: &'a Envelope, message: &'a Message) -> Seen<'a> {
        let text = self.target.text(envelope, message);
        let mut candidates = vec![false; self.patterns.len()];
        if let Some(text) = &text {
            self.always.iter().for_each(|&pattern| candidates[pattern] = true);
            if let Some(prefilter) = &self.prefilter {
                let mut missing = self.owners.len();
                let mut found = vec![false; missing];
                for literal in prefilter.find_overlapping_iter(&*literal::fold(text)) {
                    let literal = literal.pattern().as_usize();
                    if !std::mem::replace(&mut found[literal], true) {
                        self.owners[literal].iter().for_each(|&pattern| candidates[pattern] = true);
                        missing -= 1;
                        if missing == 0 {
                            break;
                        }
                    }
                }
            }
        }
        Seen { text, candidates }
    }

    /// Matches of a pattern, up to `most`, and the first.
    fn count<'s>(&self, pattern: usize, seen: &'s Seen<'_>, most: usize) -> (usize, Option<&'s [u8]>) {
        let Some(text) = seen.text.as_deref().filter(|_| seen.candidates[pattern]) else { return (0, None) };
        let mut matches = self.patterns[pattern].find_iter(text).take(most).map(|found| found.as_bytes());
        let first = matches.next();
        (usize::from(first.is_some()) + matches.count(), first)
    }
}

impl Matcher {
    fn outcome(&self, targets: &[Indexed], seen: &[Seen<'_>]) -> Outcome {
        match self {
            Self::Meta(_) => Outcome::default(),
            Self::Exists { target, wanted } => {
                let exists = seen[*target].text.is_some();
                let evidence = if exists { targets[*target].target.to_string() } else { String::new() };
                Outcome { count: f64::from(u8::from(exists == *wanted)), evidence }
            }
            Self::Patterns { target, any, all, none, max_hits } => {
                let (target, seen) = (&targets[*target], &seen[*target]);
                patterns_outcome(target, seen, [any, all, none], *max_hits).unwrap_or_default()
            }
        }
    }
}

fn patterns_outcome(
    target: &Indexed,
    seen: &Seen<'_>,
    [any, all, none]: [&[usize]; 3],
    max_hits: usize,
) -> Option<Outcome> {
    let mut first = None;
    for &pattern in all {
        first = first.or(Some(target.count(pattern, seen, 1).1?));
    }
    let mut count = usize::from(any.is_empty());
    for &pattern in any {
        let (matches, matched) = target.count(pattern, seen, max_hits - count.min(max_hits));
        count += matches;
        first = first.or(matched);
        if count >= max_hits {
            break;
        }
    }
    let excluded = none.iter().any(|&pattern| target.count(pattern, seen, 1).0 > 0);
    (count > 0 && !excluded)
        .then(|| Outcome { count: count as f64, evidence: printable(first.unwrap_or_default()) })
}

/// Turns specifications into a set.
#[derive(Default)]
struct Compiler {
    faults: Vec<Fault>,
    /// Rules were left out.
    incomplete: bool,
    targets: Vec<Draft>,
}

/// A target whose patterns are being gathered.
struct Draft {
    target: Target,
    patterns: Vec<Regex>,
    literals: BTreeMap<Vec<u8>, Vec<usize>>,
    always: Vec<usize>,
}

impl Compiler {
    fn fault(&mut self, file: &Arc<str>, place: Place, problem: String, remedy: String) {
        self.faults.push(Fault {
            file: file.clone(),
            line: place.line,
            column: place.column,
            problem,
            remedy,
        });
    }

    fn compile(mut self, specs: Vec<(Arc<str>, Spec)>) -> Result<RuleSet, Vec<Fault>> {
        let names = self.names(&specs);
        let (mut rules, mut matchers, mut examples) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = Vec::new();
        for (index, (file, spec)) in specs.into_iter().enumerate() {
            let Spec { rule, place, test, hits, misses } = spec;
            let target = match &test {
                Test::Patterns { target, .. } | Test::Exists { target, .. } => Some(target.clone()),
                Test::Meta(_) => None,
            };
            matchers.push(self.matcher(&file, place, test, &names));
            examples.push(Examples { rule: index, file: file.clone(), target, hits, misses });
            rules.push(rule);
            places.push((file, place));
        }
        let metas = self.order(&matchers, &rules, &places);
        let targets = self.targets.drain(..).map(Draft::index).collect::<Result<_, _>>();
        match targets {
            Ok(targets) if self.faults.is_empty() => {
                Ok(RuleSet { rules, matchers, targets, metas, examples })
            }
            Ok(_) => Err(self.faults),
            Err(error) => {
                let problem = format!("the patterns together are too large: {error}");
                self.fault(&"rules".into(), Place::default(), problem, "load fewer rules".into());
                Err(self.faults)
            }
        }
    }

    /// The index of every name; a name that stands twice is a fault.
    fn names(&mut self, specs: &[(Arc<str>, Spec)]) -> HashMap<Arc<str>, usize> {
        let mut names = HashMap::new();
        for (index, (file, spec)) in specs.iter().enumerate() {
            if let Some(&earlier) = names.get(&spec.rule.id) {
                let (_, earlier): &(Arc<str>, Spec) = &specs[earlier];
                let problem = format!("`{}` is there already, at {}", spec.rule.id, earlier.rule.at);
                self.fault(file, spec.place, problem, "give the rule another name".into());
            } else {
                names.insert(spec.rule.id.clone(), index);
            }
        }
        names
    }

    fn matcher(
        &mut self,
        file: &Arc<str>,
        place: Place,
        test: Test,
        names: &HashMap<Arc<str>, usize>,
    ) -> Matcher {
        match test {
            Test::Exists { target, wanted } => Matcher::Exists { target: self.target(target), wanted },
            Test::Patterns { target, any, all, none, max_hits } => {
                let target = self.target(target);
                let mut compile = |patterns: Vec<Pattern>| {
                    patterns.iter().filter_map(|pattern| self.pattern(file, target, pattern)).collect()
                };
                let (any, all, none) = (compile(any), compile(all), compile(none));
                Matcher::Patterns { target, any, all, none, max_hits }
            }
            Test::Meta(meta) => match meta.resolve(|name| names.get(name).copied()) {
                Ok(meta) => Matcher::Meta(meta),
                // Where rules were left out for their faults, missing names are no news.
                Err(_) if self.incomplete => Matcher::Meta(Meta::default()),
                Err(unknown) => {
                    let mut known: Vec<_> = names.keys().map(|name| &**name).collect();
                    known.sort_unstable();
                    let remedy = match nearest(&unknown, known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "name a rule that is loaded".into(),
                    };
                    self.fault(file, place, format!("no rule `{unknown}`"), remedy);
                    Matcher::Meta(Meta::default())
                }
            },
        }
    }

    fn target(&mut self, target: Target) -> usize {
        if let Some(known) = self.targets.iter().position(|draft| draft.target == target) {
            return known;
        }
        self.targets.push(Draft {
            target,
            patterns: Vec::new(),
            literals: BTreeMap::new(),
            always: Vec::new(),
        });
        self.targets.len() - 1
    }

    fn pattern(&mut self, file: &Arc<str>, target: usize, pattern: &Pattern) -> Option<usize> {
        let regex = build(&pattern.regex, pattern.case);
        match regex {
            Ok(regex) => Some(self.targets[target].add(regex, required(pattern))),
            Err(error) => {
                let told = error.to_string();
                let told = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let problem = format!("bad pattern `{}`: {told}", pattern.written);
                let remedy = "write a regular expression as Rust's `regex` reads it: no look-around, no back-references";
                self.fault(file, pattern.place, problem, remedy.into());
                None
            }
        }
    }

    /// Meta rules, each after those it speaks of; a circle is a fault.
    fn order(&mut self, matchers: &[Matcher], rules: &[Rule], places: &[(Arc<str>, Place)]) -> Vec<usize> {
        let meta = |at: &usize| match &matchers[*at] {
            Matcher::Meta(meta) => Some(meta),
            _ => None,
        };
        let mut waiting: Vec<usize> = (0..matchers.len()).filter(|at| meta(at).is_some()).collect();
        let mut done: Vec<bool> =
            matchers.iter().map(|matcher| !matches!(matcher, Matcher::Meta(_))).collect();
        let mut order = Vec::new();
        loop {
            let ready = |at: &usize| meta(at).is_some_and(|meta| meta.rules().all(|&rule| done[rule]));
            let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(ready);
            waiting = later;
            if now.is_empty() {
                break;
            }
            now.iter().for_each(|&at| done[at] = true);
            order.extend(now);
        }
        for at in waiting {
            let (file, place) = &places[at];
            let problem = format!("`{}` needs its own value", rules[at].id);
            self.fault(file, *place, problem, "take the circle out of `meta`".into());
        }
        order
    }
}

/// Compiles a pattern. `^` and `$` are the ends of lines.
fn build(pattern: &str, case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(!is_plain(pattern))
        .case_insensitive(!case)
        .multi_line(true)
        .crlf(true)
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_CACHE_MAX)
        .build()
}

/// Whether a pattern speaks of ASCII alone. Then it is matched octet by octet, where `\w`, `\b` and `\s` are those of ASCII:
/// Unicode's word boundaries cost some thirty times as much in text that is not ASCII.
fn is_plain(pattern: &str) -> bool {
    let speaks_of_more =
        |at: usize| pattern.as_bytes().get(at + 1).is_some_and(|next| b"xuUpP".contains(next));
    pattern.is_ascii() && !memchr::memchr_iter(b'\\', pattern.as_bytes()).any(speaks_of_more)
}

/// The literals that a pattern requires.
fn required(pattern: &Pattern) -> Option<Vec<Vec<u8>>> {
    let mut parser = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .unicode(!is_plain(&pattern.regex))
        .case_insensitive(!pattern.case)
        .multi_line(true)
        .crlf(true)
        .build();
    literal::required(&parser.parse(&pattern.regex).ok()?)
}

impl Draft {
    fn add(&mut self, regex: Regex, literals: Option<Vec<Vec<u8>>>) -> usize {
        let index = self.patterns.len();
        self.patterns.push(regex);
        match literals {
            Some(literals) => {
                for literal in literals {
                    self.literals.entry(literal).or_default().push(index);
                }
            }
            None => self.always.push(index),
        }
        index
    }

    fn index(self) -> Result<Indexed, aho_corasick::BuildError> {
        let Self { target, patterns, literals, always } = self;
        let (literals, owners): (Vec<_>, Vec<_>) = literals.into_iter().unzip();
        let prefilter = (!literals.is_empty()).then(|| AhoCorasick::new(&literals)).transpose()?;
        Ok(Indexed { target, patterns, prefilter, owners, always })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> RuleSet {
        RuleSet::from_sources(&[("t.yaml".into(), text.into())]).unwrap()
    }

    fn score(set: &RuleSet, message: &str) -> Score {
        set.score(&Envelope::default(), &Message::parse(Bytes::copy_from_slice(message.as_bytes())))
    }

    /// Rules of one pattern each, named R0, R1 and so on, worth a point.
    fn rules(patterns: &[&str]) -> String {
        let mut text = String::from("rules:\n");
        for (at, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.replace('\'', "''");
            text += &format!(
                "  - {{id: R{at}, description: d, points: 1, target: body, any: ['{pattern}'], max_hits: 9}}\n"
            );
        }
        text
    }

    #[test]
    fn hits_say_what_matched_and_where_the_rule_is() {
        let set = set(
            "rules:\n- id: A\n  description: d\n  points: 1.5\n  target: text\n  as: words\n  any: [cheap pills]\n  max_hits: 2\n",
        );
        let score = score(&set, "Subject: Cheap Pills\n\nbuy cheap\npills, cheap pills");
        assert_eq!(score.points, 3.0);
        let hit = &score.hits[0];
        assert_eq!((&*hit.rule, hit.evidence.as_str(), &*hit.at), ("A", "Cheap Pills", "t.yaml:2"));
    }

    #[track_caller]
    fn check(rule: &str, message: &str, hit: bool) {
        let set = set(&format!("rules:\n  - {{id: A, description: d, points: 1, {rule}}}\n"));
        assert_eq!(!score(&set, message).hits.is_empty(), hit, "{rule}: {message}");
    }

    #[test]
    fn targets_and_lists() {
        let message = "From: \"Ann\" <ann@a.example>\nX-Odd: one\nX-Odd : two\nSubject: =?utf-8?q?caf=C3=A9?=\n\
            Content-Type: text/html; name=a.exe\n\n<a href=\"http://x.example/\">go there</a>";
        for (rule, hit) in [
            ("target: subject, any: café", true),
            ("target: 'subject:raw', any: café", false),
            ("target: 'from:addr', any: '^ann@a\\.example$'", true),
            ("target: 'from:name', any: '^ann$'", true),
            ("target: 'from:name', any: '^ann$', case: true", false),
            ("target: header x-odd, any: '^two$'", true),
            ("target: header x-odd, all: [one, two]", true),
            ("target: header x-odd, all: [one, three]", false),
            ("target: header x-odd, any: one, none: two", false),
            ("target: header X-None, exists: false", true),
            ("target: header X-None, exists: true", false),
            ("target: header X-None, any: ''", false),
            ("target: url, any: '^http://x\\.example/$'", true),
            ("target: attachment, any: '\\.exe$'", true),
            ("target: defect, any: space-before-colon", true),
            ("target: headers, any: '^x-odd: two'", true),
            ("target: body, any: href", false),
            ("target: raw, any: href", true),
            ("target: full, any: '=C3=A9'", true),
            ("target: text, any: '^café$'", true),
            ("target: sender, exists: true", false),
        ] {
            if rule.ends_with("any: ''") {
                continue; // An empty pattern is a fault.
            }
            check(rule, message, hit);
        }
    }

    #[test]
    fn meta_rules_build_on_others_whatever_the_order() {
        let set = set("rules:\n\
             - {id: C, description: d, points: 2, meta: B && A}\n\
             - {id: B, description: d, points: 1, meta: A + X >= 2}\n\
             - {id: A, description: d, points: 0, target: body, any: a}\n\
             - {id: X, description: d, points: 0, target: body, any: x}\n");
        let score = score(&set, "\na x");
        assert_eq!(score.points, 3.0);
        assert_eq!(score.hits[1].evidence, "B, A");
    }

    #[track_caller]
    fn check_faults(sources: &[(&str, &str)], told: &[&str]) {
        let sources: Vec<_> =
            sources.iter().map(|(name, text)| (Arc::from(*name), (*text).to_owned())).collect();
        let faults = RuleSet::from_sources(&sources).unwrap_err();
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(shown, told);
    }

    #[test]
    fn faults_between_rules_are_told() {
        let rule = "rules:\n  - {id: A, description: d, points: 1, target: body, any: x}\n";
        check_faults(
            &[("a", rule), ("b", rule)],
            &["b:2:6: `A` is there already, at a:2\n  fix: give the rule another name"],
        );
        check_faults(
            &[(
                "a",
                "rules:\n- {id: A, description: d, points: 1, meta: B}\n- {id: C, description: d, points: 1, meta: C}\n",
            )],
            &[
                "a:2:4: no rule `B`\n  fix: did you mean `A`?",
                "a:3:4: `C` needs its own value\n  fix: take the circle out of `meta`",
            ],
        );
        let regex = "rules:\n- {id: A, description: d, points: 1, target: body, any: '(x'}\n";
        check_faults(
            &[("a", regex)],
            &[
                "a:2:57: bad pattern `(x`: unclosed group\n  fix: write a regular expression as Rust's `regex` \
               reads it: no look-around, no back-references",
            ],
        );
    }

    #[test]
    fn the_built_in_rules_do_as_their_examples_say() {
        let faults = RuleSet::built_in().examples();
        assert!(faults.is_empty(), "{}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>());
    }

    #[test]
    fn every_built_in_rule_has_examples_and_none_decides_alone() {
        let set = RuleSet::built_in();
        assert!(set.rules.len() >= 40);
        for examples in &set.examples {
            let rule = &set.rules[examples.rule];
            assert!(!examples.hits.is_empty() && !examples.misses.is_empty(), "{} has no example", rule.id);
            assert!(rule.points < 5.0 || &*rule.id == "GTUBE", "{} decides alone", rule.id);
            assert!(rule.group.is_some() && rule.description.len() > 8, "{} is not described", rule.id);
        }
    }

    #[test]
    fn a_plain_phish_is_spam_and_plain_letters_are_ham() {
        let set = RuleSet::built_in();
        for (message, spam) in [
            (
                "From: \"Sparkasse Kundendienst\" <service.team77@gmail.com>\nTo: ann@firm.example\nDate: x\nMessage-ID: <a@b>\n\
                 Subject: Your account will be suspended\n\nDear customer,\n\nwe noticed unusual activity. Please verify your \
                 password within 24 hours at http://login.example.net/verify or your account will be suspended.\n",
                true,
            ),
            (
                "From: Mrs Ann Bee <ann@b.example>\nReply-To: mrsbee@gmail.com\nDate: x\nMessage-ID: <a@b>\nSubject: Dear beloved\n\n\
                 I am a widow with terminal cancer. My late husband left 10.5 million US dollars in a bank, and I seek your \
                 assistance as my next of kin.\n",
                true,
            ),
            (
                "From: Ann <ann@firm.example>\nTo: bob@firm.example\nDate: x\nMessage-ID: <a@b>\nSubject: Invoice for May\n\n\
                 Hello Bob,\n\nplease find the invoice attached. Could you confirm the address until Friday?\n\nAnn\n",
                false,
            ),
            (
                "From: Shop <news@shop.example>\nTo: bob@firm.example\nDate: x\nMessage-ID: <a@b>\nSubject: Your order 4711\n\
                 Content-Type: text/html\n\n<table><tr><td style=\"padding:1px\">Thank you for your order. <a href=\"https://shop.example\">\
                 Track the parcel</a>. <a href=\"https://shop.example/u\">Unsubscribe</a></td></tr></table>\n",
                false,
            ),
        ] {
            let score = score(&set, &message.replace('\n', "\r\n"));
            assert_eq!(score.points >= 5.0, spam, "{score:?}");
        }
    }

    const PATTERNS: [&str; 12] = [
        "abc",
        "a.c",
        "(?:ab|bc)+",
        "[ks]iss",
        "x*",
        r"\bwe b\b",
        "ПРИВ",
        "(?-u:\\xff)",
        "a{2,3}",
        "(?i-s:B)c",
        "^ab",
        "c$",
    ];

    proptest! {
        #[test]
        fn one_pass_finds_what_each_pattern_alone_finds(
            text in "[abckisxСПРИВ привKſ \n]{0,40}",
            picked in prop::sample::subsequence(PATTERNS.to_vec(), 1..PATTERNS.len()),
        ) {
            let set = set(&rules(&picked));
            let message = Message::parse(Bytes::from(format!("\n{text}")));
            let body = message.views().body.as_bytes();
            let outcomes = set.outcomes(&Envelope::default(), &message);
            for (pattern, outcome) in picked.iter().zip(outcomes) {
                let alone = build(pattern, false).unwrap();
                prop_assert_eq!(outcome.count as usize, alone.find_iter(body).take(9).count(), "{}", pattern);
            }
        }

        #[test]
        fn the_order_of_rules_does_not_matter(
            text in "[abckisx \n]{0,40}",
            order in Just((0..PATTERNS.len()).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let rule = |at: &usize| format!(
                "  - {{id: R{at}, description: d, points: {}, target: body, any: ['{}']}}\n", 0.1 * *at as f64, PATTERNS[*at]
            );
            let straight: String = (0..PATTERNS.len()).map(|at| rule(&at)).collect();
            let shuffled: String = order.iter().map(rule).collect();
            let message = format!("\n{text}");
            let one = score(&set(&format!("rules:\n{straight}")), &message);
            let other = score(&set(&format!("rules:\n{shuffled}")), &message);
            prop_assert_eq!(one.points, other.points);
            prop_assert_eq!(one.hits.len(), other.hits.len());
        }
    }
}
