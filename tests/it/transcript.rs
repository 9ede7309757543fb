//! Whole dialogues as golden files: `tests/transcripts/<protocol>/*.txt`. Reading the folder is reading what the
//! gateway does.
//!
//! Four speakers: `C>` the client to us, `>U` us to the upstream, `U>` the upstream to us, `>C` us to the client.
//! A line is sent and expected with CRLF behind it; a `\` at its end leaves that off, and `\r`, `\n`, `\0`, `\\` and
//! `\s` (a blank) are read inside it. In what is expected `*` stands for any text within the line. Further lines:
//!
//! - `# …` a comment; `@ key value` the setting, before the first speaker (see `apply`).
//! - `U! connected` the next connection to the upstream arrives; `U! closes` the upstream closes it; `U! refuses`
//!   there is no further one to be had.
//! - `U! closed`, `C! closed` we close that side, and nothing else was sent there; `C! closes` the client goes.
//! - `U! starts tls`, `C! starts tls` that side takes its part of a TLS handshake.
//! - `U! idle`, `C! idle` nothing is sent to that side.
//! - `wait 6m` time passes (`s`, `m`); `drain` the gateway is told to stop.
//!
//! Time is paused and everything runs on one thread, so that a dialogue takes no time and has one outcome.

use std::{fs, path::Path, time::Duration};

use gatepost::{
    net::{ServerTls, Stream},
    policy::Action,
    session::{self, Protocol, TlsMode},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::kit::{Scene, SelfSigned, Setting, scene};

/// Paused time, so a bound on what never comes rather than on speed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come for a side to count as idle; less than any timeout of the gateway.
const SILENCE: Duration = Duration::from_millis(500);

#[test]
fn every_transcript_is_played_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut played = 0;
    let mut failed = Vec::new();
    for (folder, protocol) in [("smtp", Protocol::Smtp), ("pop3", Protocol::Pop3), ("imap", Protocol::Imap)] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = format!("{folder}/{}", file.file_name().unwrap().to_string_lossy());
            let text = fs::read_to_string(&file).unwrap();
            // One that fails says where; the others are played all the same.
            if std::panic::catch_unwind(|| play(&name, &text, protocol)).is_err() {
                failed.push(name);
            }
            played += 1;
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
    assert!(played >= 10, "only {played} transcripts were found");
}

#[tokio::main(flavor = "current_thread")]
async fn play(name: &str, text: &str, protocol: Protocol) {
    tokio::time::pause();
    let mut setting = Setting::new(protocol);
    for line in text.lines().filter_map(|line| line.strip_prefix("@ ")) {
        apply(&mut setting, line, name);
    }
    let certificate = SelfSigned::shared();
    let folder = TempDir::new().unwrap();
    let scene = scene(&setting, certificate, &folder);
    let upstream_tls = certificate.server(protocol);
    let mut stage = Stage { scene, upstream: None, upstream_tls, place: String::new() };
    for (number, line) in text.lines().enumerate() {
        stage.place = format!("tests/transcripts/{name}:{}: {line}", number + 1);
        stage.step(line).await;
    }
}

/// One `@` line.
fn apply(setting: &mut Setting, line: &str, name: &str) {
    let (key, value) = line.split_once(' ').unwrap_or((line, ""));
    match (key, value) {
        ("tls", "starttls") => setting.tls_mode = TlsMode::StartTls,
        ("upstream", "starttls") => setting.upstream_starttls = true,
        ("relay", domains) => setting.relay_domains = domains.split(' ').map(str::to_owned).collect(),
        ("stamp", "off") => {
            setting.policy.stamp.headers = false;
            setting.policy.stamp.received = false;
        }
        ("certain", action) => setting.policy.smtp.certain = action_of(action),
        ("recipients", limit) => setting.limits.recipients = limit.parse().unwrap(),
        ("errors", limit) => setting.limits.errors_per_session = limit.parse().unwrap(),
        ("message_bytes", limit) => setting.limits.message_bytes = limit.parse().unwrap(),
        _ => panic!("{name}: `@ {line}` is not a setting"),
    }
}

fn action_of(word: &str) -> Action {
    let all =
        [Action::Deliver, Action::Stamp, Action::Quarantine, Action::Reject, Action::Defer, Action::Discard];
    all.into_iter().find(|action| action.as_str() == word).unwrap()
}

struct Stage {
    scene: Scene,
    upstream: Option<Stream>,
    upstream_tls: ServerTls,
    /// For messages: the file, the line and its text.
    place: String,
}

impl Stage {
    async fn step(&mut self, line: &str) {
        match line.split_at_checked(2) {
            Some(("C>", said)) => say(&mut self.scene.client, said, &self.place).await,
            Some(("U>", said)) => {
                let place = self.place.clone();
                say(self.upstream(), said, &place).await;
            }
            Some((">C", want)) => hear(&mut self.scene.client, want, &self.place).await,
            Some((">U", want)) => {
                let place = self.place.clone();
                hear(self.upstream(), want, &place).await;
            }
            Some(("C!", act)) => self.client_act(act.trim()).await,
            Some(("U!", act)) => self.upstream_act(act.trim()).await,
            Some(("# " | "@ ", _)) => {}
            _ if line.trim().is_empty() || line == "#" => {}
            _ => match line.split_once(' ') {
                Some(("wait", time)) => sleep(duration(time)).await,
                None if line == "drain" => self.scene.drain.send(session::Stage::Draining).unwrap(),
                _ => panic!("{}: nobody says this", self.place),
            },
        }
    }

    fn upstream(&mut self) -> &mut Stream {
        self.upstream.as_mut().unwrap_or_else(|| panic!("{}: the upstream is not connected", self.place))
    }

    async fn client_act(&mut self, act: &str) {
        match act {
            "closes" => self.scene.client.shutdown().await.unwrap(),
            "closed" => closed(&mut self.scene.client, &self.place).await,
            "idle" => idle(&mut self.scene.client, &self.place).await,
            "starts tls" => {
                let client = self.scene.client.take();
                let tls = client.connect_tls(&SelfSigned::client()).await;
                self.scene.client = tls.unwrap_or_else(|error| panic!("{}: {error}", self.place));
            }
            _ => panic!("{}: not an act", self.place),
        }
    }

    async fn upstream_act(&mut self, act: &str) {
        match act {
            "connected" => {
                let call = timeout(PATIENCE, self.scene.dialled.recv()).await;
                let Ok(Some(pipe)) = call else { panic!("{}: nobody connects", self.place) };
                self.upstream = Some(Stream::new(pipe));
            }
            "refuses" => self.scene.dialled.close(),
            "closes" => drop(self.upstream.take()),
            "closed" => {
                let place = self.place.clone();
                closed(self.upstream(), &place).await;
            }
            "idle" => {
                let place = self.place.clone();
                idle(self.upstream(), &place).await;
            }
            "starts tls" => {
                let upstream = self.upstream().take();
                let tls = upstream.accept_tls(&self.upstream_tls).await;
                self.upstream = Some(tls.unwrap_or_else(|error| panic!("{}: {error}", self.place)));
            }
            _ => panic!("{}: not an act", self.place),
        }
    }
}

async fn say(stream: &mut Stream, said: &str, place: &str) {
    let octets = octets(said.strip_prefix(' ').unwrap_or(said));
    stream.queue(&octets);
    let said = timeout(PATIENCE, stream.flush()).await;
    assert!(matches!(said, Ok(Ok(()))), "{place}\n  nobody listens: {said:?}");
}

/// Expects exactly these octets next; with `*`, a line that fits.
async fn hear(stream: &mut Stream, want: &str, place: &str) {
    let want = want.strip_prefix(' ').unwrap_or(want);
    if want.contains('*') {
        while !stream.input().contains(&b'\n') {
            fill(stream, want, place).await;
        }
        let end = stream.input().iter().position(|&octet| octet == b'\n').unwrap();
        let line = stream.input().split_to(end + 1);
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r\n").unwrap_or(&line)).into_owned();
        assert!(fits(want, &line), "{place}\n  heard: {line}");
        return;
    }
    let want = octets(want);
    while stream.input().len() < want.len() && want.starts_with(stream.input()) {
        fill(stream, &want.escape_ascii().to_string(), place).await;
    }
    let heard = stream.input().len().min(want.len());
    let heard = stream.input().split_to(heard);
    let rest = stream.input().escape_ascii().to_string();
    assert!(heard == want, "{place}\n  heard: {}{rest}", heard.escape_ascii());
}

async fn fill(stream: &mut Stream, want: &str, place: &str) {
    let heard = stream.input().escape_ascii().to_string();
    match timeout(PATIENCE, stream.fill()).await {
        Ok(Ok(0)) => panic!("{place}\n  the stream ends after: {heard}\n  wanted: {want}"),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => panic!("{place}\n  {error} after: {heard}\n  wanted: {want}"),
        Err(_) => panic!("{place}\n  nothing more comes after: {heard}\n  wanted: {want}"),
    }
}

async fn closed(stream: &mut Stream, place: &str) {
    assert!(stream.input().is_empty(), "{place}\n  still heard: {}", stream.input().escape_ascii());
    let end = timeout(PATIENCE, stream.fill()).await;
    let heard = stream.input().escape_ascii().to_string();
    // A pipe or TLS session that is dropped may also end with an error.
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{place}\n  not closed: {end:?} {heard}");
}

async fn idle(stream: &mut Stream, place: &str) {
    assert!(stream.input().is_empty(), "{place}\n  heard: {}", stream.input().escape_ascii());
    let more = timeout(SILENCE, stream.fill()).await;
    assert!(more.is_err(), "{place}\n  heard: {more:?} {}", stream.input().escape_ascii());
}

fn octets(text: &str) -> Vec<u8> {
    let (text, ends) = match text.strip_suffix('\\') {
        Some(open) if !open.ends_with('\\') => (open, false),
        _ => (text, true),
    };
    let mut octets = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('r') => octets.push(b'\r'),
                Some('n') => octets.push(b'\n'),
                Some('0') => octets.push(0),
                Some('s') => octets.push(b' '),
                other => octets.extend(other.unwrap_or('\\').to_string().bytes()),
            },
            character => octets.extend(character.to_string().bytes()),
        }
    }
    if ends {
        octets.extend(b"\r\n");
    }
    octets
}

/// Whether `line` fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    Duration::from_secs(number * if unit == "m" { 60 } else { 1 })
}
