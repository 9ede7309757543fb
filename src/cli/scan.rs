//! `gatepost scan`: judges files, folders, mbox, Maildir or standard input with the engine of the gates.
//!
//! A mail gets the verdict it would get at a gate: where a file has LF line ends throughout they are read as CRLF, and an
//! mbox `From ` line is taken off. Messages are told one by one, in the order given, folders in order of name.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anstyle::{AnsiColor, Style};
use bytes::Bytes;
use serde::Serialize;

use crate::{
    filter::Filter,
    mail::{Envelope, Message},
    rules::{Hit, RuleSet},
    verdict::{Class, Thresholds, Verdict},
};

/// What can be said after `gatepost scan`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    /// One JSON object a line, in the order given
    #[arg(long)]
    pub json: bool,
    /// Say for every message which rules hit, with points, evidence and where the rule is written
    #[arg(long)]
    pub explain: bool,
    /// Rules and thresholds of this configuration; without it, those that are built in
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Files, folders, mbox files, Maildirs; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Scans and prints. 0: done; 1: something could not be read or judged.
pub fn run(args: &ScanArgs, rules: Arc<RuleSet>, thresholds: Thresholds) -> ExitCode {
    let scan = Scan { filter: Filter::new(rules), thresholds, json: args.json, explain: args.explain };
    let mut report = Report { out: anstream::stdout().lock(), failed: false, seen: [0; Class::ALL.len()] };
    let told = args.paths.iter().try_for_each(|path| scan.path(path, &mut report));
    match told.and_then(|()| report.finish(args.json)) {
        Ok(()) if !report.failed => ExitCode::SUCCESS,
        // Nobody reads on: that is not our failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            report_failure("standard output", &error);
            ExitCode::FAILURE
        }
    }
}

fn report_failure(what: &str, error: &io::Error) {
    anstream::eprintln!("gatepost scan: {what}: {error}");
}

struct Scan {
    filter: Filter,
    thresholds: Thresholds,
    json: bool,
    explain: bool,
}

/// What was printed so far. Errors of its methods are those of the output.
struct Report<W: Write> {
    out: W,
    failed: bool,
    seen: [usize; Class::ALL.len()],
}

impl<W: Write> Report<W> {
    fn fail(&mut self, path: &Path, error: &io::Error) {
        self.failed = true;
        report_failure(&shown(&path.display().to_string()), error);
    }

    /// Says how many messages of each class there were.
    fn finish(&mut self, json: bool) -> io::Result<()> {
        let total: usize = self.seen.iter().sum();
        if !json && total > 1 {
            let counts = Class::ALL.iter().zip(self.seen).filter(|&(_, count)| count > 0);
            let counts: Vec<_> = counts.map(|(class, count)| format!("{count} {}", class.as_str())).collect();
            writeln!(self.out, "{total} messages: {}", counts.join(", "))?;
        }
        self.out.flush()
    }
}

impl Scan {
    fn path(&self, path: &Path, report: &mut Report<impl Write>) -> io::Result<()> {
        if path == Path::new("-") {
            return self.reader(&mut io::stdin().lock(), path, report);
        }
        let mut files = Vec::new();
        if let Err((path, error)) = gather(path, &mut files) {
            report.fail(&path, &error);
        }
        files.iter().try_for_each(|file| match File::open(file) {
            Ok(open) => self.reader(&mut BufReader::new(open), file, report),
            Err(error) => {
                report.fail(file, &error);
                Ok(())
            }
        })
    }

    /// Scans what one file holds: a message, or the messages of an mbox.
    fn reader(
        &self,
        input: &mut dyn BufRead,
        path: &Path,
        report: &mut Report<impl Write>,
    ) -> io::Result<()> {
        let name = path.display().to_string();
        let mut messages = match Messages::of(input) {
            Ok(messages) => messages,
            Err(error) => {
                report.fail(path, &error);
                return Ok(());
            }
        };
        let mut number = 0;
        while let Some(message) = messages.next() {
            match message {
                Ok(octets) => {
                    number += 1;
                    let only = number == 1 && !messages.more();
                    let name = if only { name.clone() } else { format!("{name}:{number}") };
                    self.message(&name, octets, report)?;
                }
                Err(error) => {
                    report.fail(path, &error);
                    break;
                }
            }
        }
        Ok(())
    }

    fn message(&self, path: &str, octets: Vec<u8>, report: &mut Report<impl Write>) -> io::Result<()> {
        let octets = crlf(octets);
        let start = Instant::now();
        let message = Message::parse(Bytes::from(octets));
        let verdict = self.filter.judge(&Envelope::default(), &message, self.thresholds);
        let us = start.elapsed().as_micros() as u64;
        report.failed |= verdict.class == Class::Unscanned;
        if let Some(at) = Class::ALL.iter().position(|&class| class == verdict.class) {
            report.seen[at] += 1;
        }
        if self.json {
            serde_json::to_writer(&mut report.out, &Told::of(path, &message, &verdict, us))?;
            return writeln!(report.out);
        }
        let style = style(verdict.class);
        let class = verdict.class.as_str();
        writeln!(report.out, "{style}{class:<9}{style:#} {:>7.1}  {}", verdict.score.points, shown(path))?;
        if self.explain { self.explain(&message, &verdict, &mut report.out) } else { Ok(()) }
    }

    /// The hits, the heaviest first, and the defects.
    fn explain(&self, message: &Message, verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
        let mut hits: Vec<&Hit> = verdict.score.hits.iter().collect();
        hits.sort_by(|a, b| b.points.total_cmp(&a.points));
        let rules = hits.iter().map(|hit| hit.rule.len()).max().unwrap_or(0);
        for hit in hits {
            let rule = self.filter.rules().rule(&hit.rule);
            let description = rule.map_or("", |rule| rule.description.as_str());
            writeln!(out, "  {:>+8.1}  {:<rules$}  {description}", hit.points, hit.rule)?;
            let quoted = if hit.evidence.is_empty() {
                String::new()
            } else {
                format!("\u{201c}{}\u{201d} ", hit.evidence)
            };
            writeln!(out, "  {:>8}  {:<rules$}  {quoted}({})", "", "", hit.at)?;
        }
        for defect in message.defects() {
            writeln!(out, "  {:>8}  {} at octet {}", "defect", defect.kind.as_str(), defect.at)?;
        }
        Ok(())
    }
}

/// A judged message as JSON.
#[derive(Serialize)]
struct Told<'a> {
    path: &'a str,
    class: Class,
    score: f64,
    required: f64,
    probability: Option<f64>,
    hits: Vec<ToldHit<'a>>,
    defects: Vec<ToldDefect>,
    us: u64,
}

#[derive(Serialize)]
struct ToldHit<'a> {
    rule: &'a str,
    points: f64,
    evidence: &'a str,
    at: &'a str,
}

#[derive(Serialize)]
struct ToldDefect {
    kind: &'static str,
    at: u64,
}

impl<'a> Told<'a> {
    fn of(path: &'a str, message: &Message, verdict: &'a Verdict, us: u64) -> Self {
        let hit = |hit: &'a Hit| ToldHit {
            rule: &hit.rule,
            // Sums of tenths are no tenths in binary.
            points: (hit.points * 1000.0).round() / 1000.0,
            evidence: &hit.evidence,
            at: &hit.at,
        };
        Self {
            path,
            class: verdict.class,
            score: verdict.score.points,
            required: verdict.required,
            probability: None,
            hits: verdict.score.hits.iter().map(hit).collect(),
            defects: message
                .defects()
                .iter()
                .map(|defect| ToldDefect { kind: defect.kind.as_str(), at: defect.at })
                .collect(),
            us,
        }
    }
}

const fn style(class: Class) -> Style {
    let colour = match class {
        Class::Ham => AnsiColor::Green,
        Class::Unsure | Class::Unscanned => AnsiColor::Yellow,
        Class::Spam | Class::Certain | Class::Malware => AnsiColor::Red,
    };
    colour.on_default()
}

/// A path without characters that a terminal would act on.
fn shown(path: &str) -> String {
    path.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// The files that a path names, folders in order of name. Of a Maildir only `cur`, `new` and other Maildirs in it count.
/// Links to folders are not followed inside a folder.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    if !fs::metadata(path).map_err(fail(path))?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut waiting = vec![path.to_owned()];
    let mut first = Ok(());
    while let Some(folder) = waiting.pop() {
        match entries(&folder) {
            Ok(entries) => {
                let (folders, plain): (Vec<_>, Vec<_>) = entries.into_iter().partition(|&(_, is_dir)| is_dir);
                files.extend(plain.into_iter().map(|(path, _)| path));
                waiting.extend(folders.into_iter().rev().map(|(path, _)| path));
            }
            Err(error) => first = first.and(Err((folder, error))),
        }
    }
    first
}

/// The folders and plain files in a folder, by name.
fn entries(folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let maildir = folder.join("cur").is_dir() && folder.join("new").is_dir();
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let plain = kind.is_file() || (kind.is_symlink() && entry.path().is_file());
        let counts = !maildir || (kind.is_dir() && entry.file_name() != "tmp");
        if counts && (plain || kind.is_dir()) {
            entries.push((entry.path(), kind.is_dir()));
        }
    }
    entries.sort();
    Ok(entries)
}

/// The messages in a file.
struct Messages<'a> {
    input: &'a mut dyn BufRead,
    /// The line that was read ahead; for a file that is no mbox, the start of it.
    ahead: Vec<u8>,
    mbox: bool,
    done: bool,
}

impl<'a> Messages<'a> {
    fn of(input: &'a mut dyn BufRead) -> io::Result<Self> {
        let mut ahead = Vec::new();
        input.read_until(b'\n', &mut ahead)?;
        let mbox = ahead.starts_with(b"From ");
        Ok(Self { input, ahead, mbox, done: false })
    }

    /// Whether another message follows.
    fn more(&self) -> bool {
        !self.done
    }

    fn whole(&mut self) -> io::Result<Vec<u8>> {
        let mut octets = std::mem::take(&mut self.ahead);
        self.done = true;
        self.input.read_to_end(&mut octets)?;
        Ok(octets)
    }

    /// The message after the `From ` line that was read ahead, up to the next one that follows an empty line.
    fn next_of_mbox(&mut self) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.input.read_until(b'\n', &mut line)? == 0 {
                self.done = true;
                break;
            }
            let after_empty = octets.is_empty() || octets.ends_with(b"\n\n") || octets.ends_with(b"\n\r\n");
            if after_empty && line.starts_with(b"From ") {
                break;
            }
            let quotes = line.iter().take_while(|&&octet| octet == b'>').count();
            let quoted = quotes > 0 && line[quotes..].starts_with(b"From ");
            octets.extend_from_slice(&line[usize::from(quoted)..]);
        }
        // The empty line before the next `From ` line belongs to the mbox.
        let separator = [b"\n\r\n".as_slice(), b"\n\n"].into_iter().find(|end| octets.ends_with(end));
        octets.truncate(octets.len() - separator.map_or(0, |end| end.len() - 1));
        Ok(octets)
    }
}

impl Iterator for Messages<'_> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = if self.mbox { self.next_of_mbox() } else { self.whole() };
        self.done |= next.is_err();
        Some(next)
    }
}

/// The message with CRLF line ends where all of its lines end in LF alone: so it would have come by SMTP, POP3 or IMAP.
/// A message that has any CRLF is left as it is.
fn crlf(octets: Vec<u8>) -> Vec<u8> {
    let lines = memchr::memchr_iter(b'\n', &octets).count();
    if lines == 0 || memchr::memmem::find(&octets, b"\r\n").is_some() {
        return octets;
    }
    let mut converted = Vec::with_capacity(octets.len() + lines);
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                converted.extend_from_slice(text);
                converted.extend_from_slice(b"\r\n");
            }
            None => converted.extend_from_slice(line),
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str =
        "rules:\n  - {id: PILL, description: Speaks of pills, points: 6, target: text, any: 'pill\\w*'}\n";

    fn scan(json: bool, explain: bool) -> Scan {
        let rules = RuleSet::from_sources(&[("t.yaml".into(), RULES.to_owned())]).unwrap();
        Scan { filter: Filter::new(Arc::new(rules)), thresholds: Thresholds::default(), json, explain }
    }

    fn told(scan: &Scan, input: &str) -> (String, bool) {
        let mut report = Report { out: Vec::new(), failed: false, seen: [0; Class::ALL.len()] };
        scan.reader(&mut input.as_bytes(), Path::new("in"), &mut report).unwrap();
        report.finish(scan.json).unwrap();
        (anstream::adapter::strip_str(std::str::from_utf8(&report.out).unwrap()).to_string(), report.failed)
    }

    #[test]
    fn people_get_a_table() {
        let (text, failed) = told(&scan(false, true), "Subject : pills\n\nx");
        assert_eq!(
            text,
            "spam          6.0  in\n      +6.0  PILL  Speaks of pills\n                  \u{201c}pills\u{201d} (t.yaml:2)\n    \
             defect  space-before-colon at octet 0\n"
        );
        assert!(!failed);
    }

    #[test]
    fn machines_get_an_object_a_line() {
        let (text, _) = told(&scan(true, false), "Subject : pills\n\nx");
        let mut object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(object["us"].take().is_u64());
        assert_eq!(
            object.to_string(),
            r#"{"class":"spam","defects":[{"at":0,"kind":"space-before-colon"}],"hits":[{"at":"t.yaml:2","evidence":"pills","points":6.0,"rule":"PILL"}],"path":"in","probability":null,"required":5.0,"score":6.0,"us":null}"#
        );
        assert!(text.starts_with(
            r#"{"path":"in","class":"spam","score":6.0,"required":5.0,"probability":null,"hits":"#
        ));
    }

    #[test]
    fn an_mbox_is_its_messages() {
        for (input, messages) in [
            ("From a\nA: 1\n\nx\n\nFrom b\nA: 2\n\ny\n", vec!["A: 1\n\nx\n", "A: 2\n\ny\n"]),
            (
                "From a\nA: 1\n\nx\n>From y\n>>From z\nFrom here on\n",
                vec!["A: 1\n\nx\nFrom y\n>From z\nFrom here on\n"],
            ),
            ("From a\r\nA: 1\r\n\r\nx\r\n\r\nFrom b\r\n", vec!["A: 1\r\n\r\nx\r\n", ""]),
            ("A: 1\n\nFrom x\n", vec!["A: 1\n\nFrom x\n"]),
            ("", vec![""]),
        ] {
            let mut bytes = input.as_bytes();
            let found: Vec<_> = Messages::of(&mut bytes).unwrap().map(|octets| octets.unwrap()).collect();
            let found: Vec<_> = found.iter().map(|octets| std::str::from_utf8(octets).unwrap()).collect();
            assert_eq!(found, messages, "{input:?}");
        }
        let (text, _) = told(&scan(false, false), "From a\nSubject: pill\n\n\nFrom b\nSubject: x\n\n");
        assert_eq!(text, "spam          6.0  in:1\nham           0.0  in:2\n2 messages: 1 ham, 1 spam\n");
    }

    #[test]
    fn line_ends_of_files_do_not_change_the_verdict() {
        for (octets, converted) in [
            ("A: 1\n\nx\n", "A: 1\r\n\r\nx\r\n"),
            ("A: 1\n\nx", "A: 1\r\n\r\nx"),
            ("A: 1\r\n\nx\n", "A: 1\r\n\nx\n"),
            ("no line end", "no line end"),
            ("", ""),
        ] {
            assert_eq!(crlf(octets.into()), converted.as_bytes(), "{octets:?}");
        }
    }

    #[test]
    fn folders_are_read_in_order_of_name() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "b/2",
            "b/1",
            "a.eml",
            "box/cur/1",
            "box/new/0",
            "box/tmp/x",
            "box/dovecot-uidlist",
            "box/.Junk/cur/9",
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "A: 1\n\n").unwrap();
        }
        let mut files = Vec::new();
        gather(root.path(), &mut files).unwrap();
        let files: Vec<_> =
            files.iter().map(|file| file.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(files, ["a.eml", "b/1", "b/2", "box/.Junk/cur/9", "box/cur/1", "box/new/0"]);
        assert!(gather(&root.path().join("none"), &mut Vec::new()).is_err());
    }
}
