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
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
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
                    limit: *limit,
                };
                self.list(&query, *json)
            }
            QuarantineCommand::Show { id, raw: true, .. } => self.write_raw(id),
            QuarantineCommand::Show { id, json, .. } => self.show(id, *json),
            QuarantineCommand::Release { ids, json } => self.release(ids, delivery, *json),
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
            let (result, detail) = self.release_one(&entry, delivery);
            self.failed |= result != "released";
            self.tell(&entry.held.id, result, &detail, json)?;
        }
        Ok(())
    }

    /// Releases one message: the word for what it is afterwards, and a sentence about it.
    fn release_one(&mut self, entry: &Entry, delivery: &mut dyn Delivery) -> (&'static str, String) {
        let (quarantine, id) = (self.store.quarantine(), &entry.held.id);
        let kept = entry.status.state.as_str();
        // Looked through before anything begins: what is damaged is not delivered.
        let body = match quarantine.open_body(id) {
            Ok(body) => body,
            Err(error) => return (kept, error.to_string()),
        };
        let release = match quarantine.begin_release(id) {
            Ok(release) => release,
            Err(error) => return (kept, error.to_string()),
        };
        match delivery.deliver(release.held(), body) {
            Ok(reply) => match quarantine.confirm_release(release, &reply) {
                Ok(()) => ("released", reply),
                Err(error) => (
                    "unconfirmed",
                    format!("it was delivered ({reply}), but that could not be noted: {error}"),
                ),
            },
            Err(Undelivered::Certain(why)) => match quarantine.fail_release(release, &why) {
                Ok(()) => ("held", format!("it was not delivered: {why}")),
                Err(error) => (
                    "unconfirmed",
                    format!("it was not delivered ({why}), but that could not be noted: {error}"),
                ),
            },
            Err(Undelivered::Doubtful(why)) => {
                // It stays unconfirmed with or without this remark.
                let _ = quarantine.doubt_release(release, &why);
                ("unconfirmed", format!("it may have been delivered: {why}"))
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
