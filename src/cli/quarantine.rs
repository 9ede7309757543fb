//! `gatepost quarantine`: the held mail, listed, shown, released and deleted by hand.
//!
//! Works beside a running gateway. What came from outside is never written to a terminal as it is: control
//! characters and those that turn the reading direction are spelled out, except under `show --raw`, which gives the
//! message byte for byte. How a message reaches its upstream is not known here; see [`Delivery`].

use std::{
    fmt::Write as _,
    io::{self, BufRead, IsTerminal, Read, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use serde_json::json;

use crate::{
    store::{Body, Entry, Held, QuarantineId, Query, State, Store, StoreError},
    verdict::Class,
};

/// What `gatepost quarantine` is asked to do.
#[derive(Args, Debug)]
pub struct QuarantineArgs {
    /// Configuration file [default: ./gatepost.yaml, then /etc/gatepost/gatepost.yaml]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: QuarantineCommand,
}

/// What to do with the held mail.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List held mail, newest first
    List {
        /// Only mail in this state
        #[arg(long, value_parser = ["held", "unconfirmed", "released"])]
        state: Option<String>,
        /// Only mail of this class
        #[arg(long, value_parser = class)]
        class: Option<Class>,
        /// Only mail with a recipient that contains TEXT
        #[arg(long, value_name = "TEXT")]
        recipient: Option<String>,
        /// Only mail taken since then: 2026-11-01, 2026-11-01T08:00:00Z, or an age such as 12h or 7d
        #[arg(long, value_name = "WHEN", value_parser = since)]
        since: Option<Timestamp>,
        /// At most so many [default: 100, with --json all]
        #[arg(long)]
        limit: Option<usize>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of a message, and how it begins
    Show {
        /// Its id, or at least 8 characters of the end or the beginning of it
        id: String,
        /// Write the message itself, byte for byte
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Deliver messages to their upstream, with the envelope they came with
    Release {
        /// Their ids, or at least 8 characters of the end or the beginning of each
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Deliver by this SMTP upstream instead of the one each was meant for
        #[arg(long, value_name = "UPSTREAM")]
        via: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Delete messages for good
    Delete {
        /// Their ids, or at least 8 characters of the end or the beginning of each
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// How a released message gets to its upstream.
pub trait Delivery {
    /// Delivers `body` to `held.upstream`, with the envelope in `held` and `held.received` before it; the reply.
    ///
    /// # Errors
    /// It was not delivered, or nobody knows.
    fn deliver(&mut self, held: &Held, body: Body) -> Result<String, Undelivered>;
}

/// Why a delivery did not end with a 2xx. The text is one phrase for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The upstream has certainly not taken it: not reached, or it said no.
    Certain(String),
    /// The connection ended after the final dot and before the reply.
    Doubtful(String),
}

/// Runs the command on standard input and output. The exit status: 0 done, 1 something failed, 2 usage.
pub fn run(args: &QuarantineArgs, store: &Store, delivery: &mut dyn Delivery) -> u8 {
    let (stdin, mut out, mut err) = (io::stdin(), io::stdout().lock(), io::stderr().lock());
    let interactive = stdin.is_terminal();
    let mut answers = stdin.lock();
    let mut desk = Desk {
        store,
        out: &mut out,
        err: &mut err,
        answers: interactive.then_some(&mut answers as &mut dyn BufRead),
        failed: false,
    };
    desk.run(&args.command, delivery)
}

/// Messages that a table shows unless told otherwise.
const LIST_LIMIT: usize = 100;
const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// The place where the operator's wishes are served.
struct Desk<'a> {
    store: &'a Store,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Where to read answers from; `None` where nobody is there to answer.
    answers: Option<&'a mut dyn BufRead>,
    failed: bool,
}

/// Why a command stopped.
enum Stop {
    Store(StoreError),
    Output(io::Error),
    Usage(&'static str),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Desk<'_> {
    fn run(&mut self, command: &QuarantineCommand, delivery: &mut dyn Delivery) -> u8 {
        let done = match command {
            QuarantineCommand::List { state, class, recipient, since, limit, json } => {
                let query = Query {
                    state: state.clone(),
                    class: *class,
                    recipient: recipient.clone(),
                    since: *since,
                    limit: limit.unwrap_or(if *json { usize::MAX } else { LIST_LIMIT }),
                };
                self.list(&query, *json)
            }
            QuarantineCommand::Show { id, raw: true, .. } => self.write_raw(id),
            QuarantineCommand::Show { id, json, .. } => self.show(id, *json),
            QuarantineCommand::Release { ids, json, .. } => self.release(ids, delivery, *json),
            QuarantineCommand::Delete { ids, yes, json } => self.delete(ids, *yes, *json),
        };
        match done.and_then(|()| Ok(self.out.flush()?)) {
            Ok(()) if self.failed => FAILED,
            Ok(()) => DONE,
            // Whoever reads has seen enough.
            Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
            Err(Stop::Output(error)) => self.complain(&error, FAILED),
            Err(Stop::Store(error @ (StoreError::InvalidId(_) | StoreError::Ambiguous(_)))) => {
                self.complain(&error, USAGE)
            }
            Err(Stop::Store(error)) => self.complain(&error, FAILED),
            Err(Stop::Usage(problem)) => self.complain(&problem, USAGE),
        }
    }

    fn complain(&mut self, problem: &dyn std::fmt::Display, status: u8) -> u8 {
        let _ = writeln!(self.err, "gatepost: {}", visible(&problem.to_string()));
        status
    }

    fn list(&mut self, query: &Query, json: bool) -> Result<(), Stop> {
        let entries = self.store.quarantine().list(query)?;
        if json {
            return entries.iter().try_for_each(|entry| Ok(writeln!(self.out, "{}", object(entry))?));
        }
        if entries.is_empty() {
            return Ok(writeln!(self.out, "No held mail.")?);
        }
        writeln!(self.out, "{}", table(&entries, Timestamp::now()))?;
        if entries.len() == query.limit {
            writeln!(self.out, "There may be more: --limit {} was reached.", query.limit)?;
        }
        Ok(())
    }

    fn show(&mut self, id: &str, json: bool) -> Result<(), Stop> {
        let entry = self.entry(id)?;
        if json {
            return Ok(writeln!(self.out, "{}", object(&entry))?);
        }
        write!(self.out, "{}", facts(&entry))?;
        if !entry.missing {
            let mut body = self.store.quarantine().open_body(&entry.held.id)?;
            writeln!(self.out, "\n{}", head(&mut body)?)?;
        }
        Ok(())
    }

    fn write_raw(&mut self, id: &str) -> Result<(), Stop> {
        let id = self.store.quarantine().find(id)?;
        let mut body = self.store.quarantine().open_body(&id)?;
        io::copy(&mut body, &mut self.out)?;
        Ok(())
    }

    fn release(&mut self, ids: &[String], delivery: &mut dyn Delivery, json: bool) -> Result<(), Stop> {
        for entry in self.entries(ids)? {
            let id = &entry.held.id;
            if let State::Releasing { .. } = entry.status.state {
                writeln!(self.err, "{id}: it may have been delivered before; now it may arrive twice")?;
            }
            match self.release_one(&entry, delivery) {
                Ok(reply) => self.tell(id, "released", &reply, json)?,
                Err((state, why)) => {
                    self.failed = true;
                    self.tell(id, state, &why, json)?;
                }
            }
        }
        Ok(())
    }

    /// Releases one message; the upstream's reply, or the state it is in now, and why.
    fn release_one(
        &self,
        entry: &Entry,
        delivery: &mut dyn Delivery,
    ) -> Result<String, (&'static str, String)> {
        let (quarantine, id) = (self.store.quarantine(), &entry.held.id);
        let unbegun = |error: StoreError| (entry.status.state.as_str(), error.to_string());
        // Looked through before anything begins: what is damaged is not delivered.
        let body = quarantine.open_body(id).map_err(unbegun)?;
        let release = quarantine.begin_release(id).map_err(unbegun)?;
        let unnoted = |what: String| {
            move |error: StoreError| ("unconfirmed", format!("{what}, but that could not be noted: {error}"))
        };
        match delivery.deliver(release.held(), body) {
            Ok(reply) => {
                let noted = quarantine.confirm_release(release, &reply);
                noted.map_err(unnoted(format!("it was delivered ({reply})")))?;
                Ok(reply)
            }
            Err(Undelivered::Certain(why)) => {
                let why = format!("it was not delivered: {why}");
                quarantine.fail_release(release, &why).map_err(unnoted(why.clone()))?;
                Err((entry.status.state.as_str(), why))
            }
            Err(Undelivered::Doubtful(why)) => {
                let why = format!("it may have been delivered: {why}");
                // It stays unconfirmed with or without this remark.
                let _ = quarantine.doubt_release(release, &why);
                Err(("unconfirmed", why))
            }
        }
    }

    fn delete(&mut self, ids: &[String], yes: bool, json: bool) -> Result<(), Stop> {
        let entries = self.entries(ids)?;
        if !yes && !self.agreed(&entries)? {
            self.failed = true;
            return Ok(());
        }
        for Entry { held: Held { id, .. }, .. } in entries {
            match self.store.quarantine().delete(&id) {
                Ok(()) => self.tell(&id, "deleted", "", json)?,
                Err(error) => {
                    self.failed = true;
                    self.tell(&id, "failed", &error.to_string(), json)?;
                }
            }
        }
        Ok(())
    }

    /// Asks whether these are to be deleted.
    fn agreed(&mut self, entries: &[Entry]) -> Result<bool, Stop> {
        let Some(answers) = &mut self.answers else {
            return Err(Stop::Usage("nobody is at the terminal to confirm the deletion; say --yes"));
        };
        writeln!(self.err, "{}", table(entries, Timestamp::now()))?;
        let count = entries.len();
        write!(self.err, "Delete {count} message{} for good? [y/N] ", if count == 1 { "" } else { "s" })?;
        self.err.flush()?;
        let mut answer = String::new();
        answers.take(100).read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    fn tell(&mut self, id: &QuarantineId, result: &str, detail: &str, json: bool) -> io::Result<()> {
        if json {
            let object = json!({ "id": id.as_str(), "result": result, "detail": detail });
            writeln!(self.out, "{}", harmless(&object))
        } else if detail.is_empty() {
            writeln!(self.out, "{id}: {result}")
        } else {
            writeln!(self.out, "{id}: {result}; {}", visible(detail))
        }
    }

    fn entry(&self, id: &str) -> Result<Entry, Stop> {
        let quarantine = self.store.quarantine();
        Ok(quarantine.get(&quarantine.find(id)?)?)
    }

    /// The messages named, each once; nothing is done before all of them are known.
    fn entries(&self, ids: &[String]) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        for id in ids {
            let entry = self.entry(id)?;
            if entries.iter().all(|other| other.held.id != entry.held.id) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

fn table(entries: &[Entry], now: Timestamp) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "AGE", "FROM", "TO", "SUBJECT", "CLASS", "SCORE", "SIZE", "STATE"]);
    for entry in entries {
        let Held { envelope, .. } = &entry.held;
        let to = match envelope.recipients.as_slice() {
            [] => String::new(),
            [one] => cut(&one.address, 30),
            [first, others @ ..] => format!("{} +{}", cut(&first.address, 26), others.len()),
        };
        table.add_row([
            entry.held.id.short().to_owned(),
            age(entry.held.at, now),
            sender(&entry.held, 30),
            to,
            cut(entry.held.subject.as_deref().unwrap_or_default(), 40),
            entry.held.class.as_str().to_owned(),
            format!("{:.1}", entry.held.points),
            size(entry.held.len),
            if entry.missing { "missing".to_owned() } else { entry.status.state.as_str().to_owned() },
        ]);
    }
    for column in [1, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The reverse path; the null sender as `<>`.
fn sender(held: &Held, limit: usize) -> String {
    match held.envelope.sender.as_deref() {
        Some("") => "<>".to_owned(),
        sender => cut(sender.unwrap_or_default(), limit),
    }
}

fn facts(entry: &Entry) -> String {
    let Entry { held, status, missing } = entry;
    let envelope = &held.envelope;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12}{}", visible(value));
        }
    };
    line("Id", held.id.as_str());
    line("Taken", &held.at.to_string());
    line("State", &state(entry));
    if *missing {
        line("", "its file is missing: there is nothing left of it but these facts");
    }
    line("Last error", status.last_error.as_deref().unwrap_or_default());
    line("Way", &format!("{} to {}", held.listener, held.upstream));
    line("Client", &client(held));
    line("Account", envelope.account.as_deref().unwrap_or_default());
    line("Sender", &sender(held, usize::MAX));
    for recipient in &envelope.recipients {
        line("Recipient", &recipient.address);
    }
    line("From", held.from.as_deref().unwrap_or_default());
    line("Subject", held.subject.as_deref().unwrap_or_default());
    line("Message-ID", held.message_id.as_deref().unwrap_or_default());
    line("Size", &format!("{} ({} octets)", size(held.len), held.len));
    line("Verdict", &format!("{}, {:.1} of {:.1} points", held.class.as_str(), held.points, held.required));
    for (rule, points) in &held.rules {
        line("", &format!("{points:>8.1}  {rule}"));
    }
    text
}

fn client(held: &Held) -> String {
    let envelope = &held.envelope;
    let mut text = envelope.client.map(|client| client.to_string()).unwrap_or_default();
    for (before, part) in [(" as ", &envelope.helo), (" over ", &envelope.tls)] {
        if let Some(part) = part {
            let _ = write!(text, "{before}{part}");
        }
    }
    text
}

fn state(entry: &Entry) -> String {
    let times = match entry.status.attempts {
        0 | 1 => String::new(),
        attempts => format!(" ({attempts} attempts)"),
    };
    match &entry.status.state {
        State::Held => format!("held{times}"),
        State::Releasing { since } => {
            format!("unconfirmed: may have been delivered; the delivery began at {since}{times}")
        }
        State::Released { at, reply } => format!("released at {at}{times}: {reply}"),
    }
}

/// How a message begins, with what a terminal would act on spelled out.
fn head(body: &mut Body) -> io::Result<String> {
    let mut octets = Vec::new();
    let whole = body.len();
    body.take(HEAD_OCTETS).read_to_end(&mut octets)?;
    let lines: Vec<&[u8]> = octets.split_inclusive(|octet| *octet == b'\n').take(HEAD_LINES).collect();
    let shown: u64 = lines.iter().map(|line| line.len() as u64).sum();
    let mut text = String::new();
    for line in lines {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let _ = writeln!(text, "| {}", visible_octets(line));
    }
    if shown < whole {
        let _ = write!(text, "{} more octets; show --raw writes the whole message.", whole - shown);
    }
    Ok(text.trim_end().to_owned())
}

fn object(entry: &Entry) -> String {
    let Entry { held, status, missing } = entry;
    let (since, reply) = match &status.state {
        State::Held => (None, None),
        State::Releasing { since } => (Some(since), None),
        State::Released { at, reply } => (Some(at), Some(reply)),
    };
    let envelope = &held.envelope;
    let recipients: Vec<&str> = envelope.recipients.iter().map(|recipient| &*recipient.address).collect();
    let hits: Vec<_> =
        held.rules.iter().map(|(rule, points)| json!({ "rule": rule, "points": points })).collect();
    harmless(&json!({
        "id": held.id.as_str(),
        "at": held.at.to_string(),
        "state": status.state.as_str(),
        "state_since": since.map(Timestamp::to_string),
        "reply": reply,
        "attempts": status.attempts,
        "last_error": status.last_error,
        "missing": missing,
        "listener": held.listener,
        "upstream": held.upstream,
        "client": envelope.client.map(|client| client.to_string()),
        "helo": envelope.helo,
        "account": envelope.account,
        "sender": envelope.sender,
        "recipients": recipients,
        "from": held.from,
        "subject": held.subject,
        "message_id": held.message_id,
        "size": held.len,
        "class": held.class.as_str(),
        "score": held.points,
        "required": held.required,
        "hits": hits,
    }))
}

/// JSON that does nothing to a terminal: it escapes the first 32 control characters by itself, and here the others.
fn harmless(object: &serde_json::Value) -> String {
    let mut text = String::new();
    for letter in object.to_string().chars() {
        if is_unsafe(letter) {
            letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(text, "\\u{unit:04x}");
            });
        } else {
            text.push(letter);
        }
    }
    text
}

/// Text with its control characters spelled out.
fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, letter| {
        if is_unsafe(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
        shown
    })
}

/// Octets as text, where they are text; what is not, as `\xNN`.
fn visible_octets(octets: &[u8]) -> String {
    octets.utf8_chunks().fold(String::new(), |mut shown, chunk| {
        // A tab moves the cursor, and no further than mail is used to.
        let pieces: Vec<String> = chunk.valid().split('\t').map(visible).collect();
        shown.push_str(&pieces.join("\t"));
        for octet in chunk.invalid() {
            let _ = write!(shown, "\\x{octet:02x}");
        }
        shown
    })
}

/// Control characters, and those that turn the reading direction or part lines.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Visible text of at most `limit` characters.
fn cut(text: &str, limit: usize) -> String {
    let text = visible(text);
    match text.char_indices().nth(limit) {
        None => text,
        Some(_) => text.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn size(len: u64) -> String {
    match len {
        0..1000 => format!("{len} B"),
        1000..1_000_000 => format!("{:.1} kB", len as f64 / 1e3),
        _ => format!("{:.1} MB", len as f64 / 1e6),
    }
}

fn class(word: &str) -> Result<Class, String> {
    let words = Class::ALL.map(Class::as_str);
    let known = Class::ALL.into_iter().find(|class| class.as_str() == word);
    known.ok_or_else(|| format!("the classes are {}", words.join(", ")))
}

fn since(text: &str) -> Result<Timestamp, String> {
    since_as_of(text, Timestamp::now())
}

fn since_as_of(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(midnight) = text.parse::<Date>().and_then(|date| date.to_zoned(TimeZone::system())) {
        return Ok(midnight.timestamp());
    }
    let ago = text.parse::<Span>().and_then(|span| now.to_zoned(TimeZone::UTC).checked_sub(span));
    ago.map(|then| then.timestamp())
        .map_err(|_| "give a date (2026-11-01), a time (2026-11-01T08:00:00Z) or an age (12h, 7d)".to_owned())
}

/// Of a message, so much is shown at most.
const HEAD_OCTETS: u64 = 8192;
const HEAD_LINES: usize = 40;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        mail::{Envelope, Recipient},
        store::JournalId,
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: QuarantineArgs,
    }

    /// Answers with what it was given, and notes what was delivered.
    struct Upstream {
        answer: Result<String, Undelivered>,
        delivered: Vec<Vec<u8>>,
    }

    impl Delivery for Upstream {
        fn deliver(&mut self, held: &Held, mut body: Body) -> Result<String, Undelivered> {
            assert_eq!(held.upstream, "exchange");
            let mut octets = held.received.clone().into_bytes();
            body.read_to_end(&mut octets).unwrap();
            self.delivered.push(octets);
            self.answer.clone()
        }
    }

    const MESSAGE: &[u8] =
        b"Subject: \x1b]0;owned\x07\r\nX: \xff\xc2\x9b2J\xe2\x80\xae\ttab\r\n\r\n.\r\nbody, \xc3\xbcml\rx\r\n";

    struct Scene {
        folder: tempfile::TempDir,
        store: Store,
        upstream: Upstream,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let upstream = Upstream { answer: Ok("250 2.0.0 taken".to_owned()), delivered: Vec::new() };
            Self { folder, store, upstream }
        }

        fn put(&self) -> JournalId {
            let recipient = |address: &str| Recipient { address: address.to_owned(), ..Recipient::default() };
            let held = Held {
                id: JournalId::new(),
                at: Timestamp::now(),
                listener: "mx".to_owned(),
                upstream: "exchange".to_owned(),
                envelope: Envelope {
                    client: Some("192.0.2.7".parse().unwrap()),
                    helo: Some("\u{1b}[2Jevil".to_owned()),
                    sender: Some(String::new()),
                    recipients: vec![recipient("bob@example.org"), recipient("eve@example.org")],
                    ..Envelope::default()
                },
                received: "Received: by gate\r\n".to_owned(),
                message_id: None,
                subject: Some("Win \u{1b}[31m\u{9b}1m\u{202e}now\r\nX".to_owned()),
                from: Some("Bank <a@example.net>".to_owned()),
                len: MESSAGE.len() as u64,
                class: Class::Certain,
                points: 12.34,
                required: 5.0,
                rules: vec![("GTUBE".to_owned(), 1000.0)],
            };
            self.store.quarantine().put(&held, &mut &*MESSAGE).unwrap().id().clone()
        }

        /// Runs a command line: status, standard output, standard error.
        fn run(&mut self, line: &[&str], answer: Option<&str>) -> (u8, Vec<u8>, String) {
            let args = Line::try_parse_from([&["quarantine"], line].concat()).unwrap().args;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut answers = answer.unwrap_or_default().as_bytes();
            let mut desk = Desk {
                store: &self.store,
                out: &mut out,
                err: &mut err,
                answers: answer.is_some().then_some(&mut answers as &mut dyn BufRead),
                failed: false,
            };
            let status = desk.run(&args.command, &mut self.upstream);
            (status, out, String::from_utf8(err).unwrap())
        }

        fn text(&mut self, line: &[&str]) -> (u8, String) {
            let (status, out, err) = self.run(line, None);
            (status, String::from_utf8(out).unwrap() + &err)
        }

        fn state(&self, id: &JournalId) -> &'static str {
            self.store.quarantine().get(id).unwrap().status.state.as_str()
        }
    }

    /// Nothing in it does anything to a terminal.
    #[track_caller]
    fn check_harmless(text: &str) {
        let bad = text.chars().find(|letter| is_unsafe(*letter) && !matches!(letter, '\n' | '\t'));
        assert_eq!(bad, None, "{text:?}");
    }

    #[test]
    fn the_table_is_readable_and_harmless() {
        let mut scene = Scene::new();
        assert_eq!(scene.text(&["list"]), (0, "No held mail.\n".to_owned()));
        let id = scene.put();
        let (status, table) = scene.text(&["list"]);
        check_harmless(&table);
        assert_eq!(status, 0);
        for shown in
            [id.short(), "<>", "bob@example.org +1", "certain", "12.3", " B", "held", "Win \\u{1b}[31m"]
        {
            assert!(table.contains(shown), "{shown}: {table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 190), "{table}");
        scene.put();
        assert!(scene.text(&["list", "--limit", "1"]).1.contains("There may be more"));
        assert_eq!(scene.text(&["list", "--state", "released"]).1, "No held mail.\n");
    }

    #[test]
    fn json_is_one_object_a_line_and_harmless() {
        let mut scene = Scene::new();
        let id = scene.put();
        for line in [&["list", "--json"][..], &["show", id.as_str(), "--json"]] {
            let (status, text) = scene.text(line);
            assert_eq!((status, text.lines().count()), (0, 1));
            check_harmless(&text);
            let object: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(object["id"], id.as_str());
            assert_eq!(object["subject"], "Win \u{1b}[31m\u{9b}1m\u{202e}now\r\nX");
            assert_eq!(object["recipients"], json!(["bob@example.org", "eve@example.org"]));
            assert_eq!(object["hits"], json!([{ "rule": "GTUBE", "points": 1000.0 }]));
            assert_eq!(object["state"], "held");
        }
    }

    #[test]
    fn show_spells_out_what_a_terminal_would_act_on() {
        let mut scene = Scene::new();
        let id = scene.put();
        let (status, text) = scene.text(&["show", id.short()]);
        assert_eq!(status, 0);
        check_harmless(&text);
        for shown in [
            "GTUBE",
            "192.0.2.7 as \\u{1b}[2Jevil",
            "| Subject: \\u{1b}]0;owned\\u{7}\n",
            "| X: \\xff\\u{9b}2J\\u{202e}\ttab\n",
            "| .\n| body, üml\\rx",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert_eq!(scene.run(&["show", "--raw", id.short()], None), (0, MESSAGE.to_vec(), String::new()));
    }

    #[test]
    fn a_long_message_is_shown_by_its_beginning() {
        let mut scene = Scene::new();
        let mut held = scene.store.quarantine().get(&scene.put()).unwrap().held;
        for (message, lines, rest) in
            [(vec![b'\n'; 1000], HEAD_LINES, "960 more octets"), (vec![b'x'; 10_000], 1, "1808 more octets")]
        {
            (held.id, held.len) = (JournalId::new(), message.len() as u64);
            let _ = scene.store.quarantine().put(&held, &mut message.as_slice()).unwrap();
            let (_, text) = scene.text(&["show", held.id.short()]);
            assert!(text.contains(rest), "{text}");
            assert_eq!(text.lines().filter(|line| line.starts_with("| ")).count(), lines);
        }
    }

    #[test]
    fn release_writes_down_how_the_delivery_ended() {
        for (answer, status, state, told) in [
            (Ok("250 2.0.0 ok \u{1b}[2J".to_owned()), 0, "released", "released; 250 2.0.0 ok \\u{1b}[2J"),
            (Err(Undelivered::Certain("550 no".to_owned())), 1, "held", "held; it was not delivered: 550 no"),
            (
                Err(Undelivered::Doubtful("connection lost".to_owned())),
                1,
                "unconfirmed",
                "unconfirmed; it may have been delivered: connection lost",
            ),
        ] {
            let mut scene = Scene::new();
            scene.upstream.answer = answer;
            let id = scene.put();
            let told = format!("{id}: {told}\n");
            assert_eq!(scene.text(&["release", id.short()]), (status, told));
            assert_eq!(scene.state(&id), state);
            assert_eq!(scene.upstream.delivered, [[b"Received: by gate\r\n", MESSAGE].concat()]);
            check_harmless(&scene.text(&["show", id.short()]).1);
            // Once released it is not sent again; otherwise it may be.
            scene.upstream.answer = Ok("250 ok".to_owned());
            let again = scene.text(&["release", "--json", id.short()]);
            assert_eq!(scene.upstream.delivered.len(), if state == "released" { 1 } else { 2 });
            assert_eq!(again.0, if state == "released" { 1 } else { 0 });
            assert!(again.1.contains(r#""result":"released""#), "{again:?}");
            assert_eq!(again.1.contains("may arrive twice"), state == "unconfirmed");
        }
    }

    #[test]
    fn a_damaged_message_is_neither_shown_nor_delivered() {
        let mut scene = Scene::new();
        let id = scene.put();
        let folder = scene.folder.path().join("quarantine").join(&id.as_str()[34..]);
        let file = folder.join(format!("{id}.held"));
        let mut octets = std::fs::read(&file).unwrap();
        *octets.last_mut().unwrap() ^= 1;
        std::fs::write(file, octets).unwrap();
        for (command, told) in [("show", "is damaged"), ("release", "held; ")] {
            let (status, text) = scene.text(&[command, id.short()]);
            assert_eq!(status, 1);
            assert!(text.contains(told) && text.contains("is damaged"), "{text}");
        }
        assert_eq!((scene.state(&id), scene.upstream.delivered.len()), ("held", 0));
        std::fs::remove_dir_all(folder).unwrap();
        assert!(scene.text(&["list"]).1.contains("missing"));
        let (status, text) = scene.text(&["show", id.short()]);
        assert_eq!(status, 0);
        assert!(text.contains("its file is missing"), "{text}");
    }

    #[test]
    fn delete_asks_before_it_acts() {
        let gone = |scene: &Scene, id: &JournalId| scene.store.quarantine().get(id).is_err();
        for (options, answer, status, deleted) in [
            (&["delete"][..], Some("y\n"), 0, true),
            (&["delete"], Some("YES\n"), 0, true),
            (&["delete"], Some("\n"), 1, false),
            (&["delete"], Some("n\n"), 1, false),
            (&["delete"], Some(""), 1, false),
            (&["delete"], None, 2, false),
            (&["delete", "--yes"], None, 0, true),
            (&["delete", "--yes", "--json"], None, 0, true),
        ] {
            let mut scene = Scene::new();
            let (one, other) = (scene.put(), scene.put());
            let line = [options, &[one.short(), one.as_str()]].concat();
            let (actual, _, err) = scene.run(&line, answer);
            assert_eq!((actual, gone(&scene, &one)), (status, deleted), "{options:?} {answer:?}: {err}");
            assert_eq!(err.contains("Delete 1 message for good?"), answer.is_some(), "{err}");
            check_harmless(&err);
            assert!(!gone(&scene, &other));
        }
    }

    #[test]
    fn what_names_no_message_is_refused_before_anything_is_done() {
        let mut scene = Scene::new();
        let id = scene.put();
        scene.put();
        let start = &id.as_str()[..8];
        for (name, status, told) in [
            ("../../etc/passwd", 2, "is not a message id"),
            ("short", 2, "is not a message id"),
            (start, 2, "begins or ends more than one"),
            ("ffffffffffff", 1, "is not in the quarantine"),
        ] {
            for command in
                [&["show", name][..], &["release", id.short(), name], &["delete", "--yes", id.short(), name]]
            {
                let (actual, text) = scene.text(command);
                assert_eq!(actual, status, "{command:?}");
                assert!(text.contains(told), "{text}");
            }
        }
        assert_eq!((scene.state(&id), scene.upstream.delivered.len()), ("held", 0));
    }

    #[test]
    fn moments_are_dates_times_or_ages() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2026-11-01T08:00:00Z", Some("2026-11-01T08:00:00Z")),
            ("12h", Some("2026-11-22T00:00:00Z")),
            ("7d", Some("2026-11-15T12:00:00Z")),
            ("yesterday", None),
            ("", None),
        ] {
            let since = since_as_of(text, now).ok().map(|at| at.to_string());
            assert_eq!(since.as_deref(), wanted, "{text}");
        }
        assert!(since_as_of("2026-11-01", now).is_ok());
    }

    #[test]
    fn ages_and_sizes_are_short() {
        let now = Timestamp::now();
        for (seconds, wanted) in [(-5, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (172_800, "2d")] {
            assert_eq!(age(now - jiff::SignedDuration::from_secs(seconds), now), wanted);
        }
        for (len, wanted) in [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (5_250_000, "5.2 MB")] {
            assert_eq!(size(len), wanted);
        }
    }
}
