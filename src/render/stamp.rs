//! The header block: what a judged message says about itself, with a seal that only this site can make.
//!
//! Lines, in this order: `Received` (given ready-made), `X-Spam-Flag`, `X-Spam-Score`, `X-Spam-Level`,
//! `X-Spam-Status`, `X-Gatepost`. Lines end in CRLF and are folded at 78 octets. No line holds octets from the message.

use std::fmt::Write;

use aws_lc_rs::{constant_time, digest, hmac};

use crate::{
    mail::Recipient,
    verdict::{Class, Verdict},
};

/// Octets that the header block and a subject tag add to a message at most; what an SMTP listener takes off the
/// upstream's SIZE. A `Received` that does not fit is left out, and test names are cut to fit.
pub const STAMP_MAX: usize = 4096;

/// Octets of a given `Received` line at most.
const RECEIVED_MAX: usize = 1500;
/// Octets of the list of tests, folds included, at most.
const TESTS_MAX: usize = 1200;
/// Octets of a subject tag at most.
pub(super) const TAG_MAX: usize = 128;
/// Stars in `X-Spam-Level` at most.
const LEVEL_MAX: usize = 50;
/// Where lines are folded (RFC 5322 section 2.1.1).
const FOLD: usize = 78;
/// Octets of the code that are shown: 128 bits.
const MAC_LEN: usize = 16;

/// The site's secret, at least 32 octets.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// Makes a key of secret octets.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

/// What the seal vouches for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The message's `Message-ID` as [`crate::mail::Message::message_id`] gives it; empty where there is none.
    pub message_id: &'a str,
    /// The journal's name for the judgement.
    pub journal: &'a str,
    /// The recipients of the transaction; their order and the case of letters do not matter.
    pub recipients: &'a [Recipient],
    /// The class.
    pub class: Class,
    /// The points, to one decimal.
    pub points: f64,
    /// Seconds since 1970 at which the seal ends.
    pub expires: i64,
}

impl Claim<'_> {
    /// The octets that are authenticated: every value with its length before it, so that none can run into the next.
    fn octets(&self) -> Vec<u8> {
        let mut recipients: Vec<_> =
            self.recipients.iter().map(|recipient| recipient.address.to_lowercase()).collect();
        recipients.sort_unstable();
        let recipients = lengthed(recipients.iter().map(String::as_bytes));
        let recipients = digest::digest(&digest::SHA256, &recipients);
        lengthed(
            [
                b"gatepost stamp 1".as_slice(),
                self.message_id.as_bytes(),
                self.journal.as_bytes(),
                recipients.as_ref(),
                self.class.as_str().as_bytes(),
                points(self.points).as_bytes(),
                self.expires.to_string().as_bytes(),
            ]
            .into_iter(),
        )
    }

    fn mac(&self, key: &Key) -> [u8; MAC_LEN] {
        let tag = hmac::sign(&key.0, &self.octets());
        let mut mac = [0; MAC_LEN];
        for (to, from) in mac.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        mac
    }
}

fn lengthed<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    values
        .flat_map(|value| (value.len() as u64).to_be_bytes().into_iter().chain(value.iter().copied()))
        .collect()
}

/// An `X-Gatepost` value, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The journal's name for the judgement.
    pub journal: String,
    /// The class.
    pub class: Class,
    /// Seconds since 1970 at which the seal ends.
    pub expires: i64,
    mac: String,
}

impl Seal {
    /// Reads the value of an `X-Gatepost` field. None: it is not one of ours.
    pub fn read(value: &str) -> Option<Self> {
        let (mut journal, mut class, mut expires, mut mac) = (None, None, None, None);
        for pair in value.split(';') {
            let (key, value) = pair.trim().split_once('=')?;
            let slot_was_empty = match key {
                "id" => journal.replace(value.to_owned()).is_none(),
                "class" => {
                    class.replace(Class::ALL.into_iter().find(|known| known.as_str() == value)?).is_none()
                }
                "expires" => expires.replace(value.parse().ok()?).is_none(),
                "mac" => mac.replace(value.to_owned()).is_none(),
                _ => return None,
            };
            if !slot_was_empty {
                return None;
            }
        }
        Some(Self { journal: journal?, class: class?, expires: expires?, mac: mac? })
    }

    /// Whether this site made the seal for exactly this, and it has not ended at `now` (seconds since 1970).
    /// The points are those of the `X-Spam-Score` beside it.
    pub fn verify(
        &self,
        key: &Key,
        message_id: &str,
        recipients: &[Recipient],
        points: f64,
        now: i64,
    ) -> bool {
        let claim = Claim {
            message_id,
            journal: &self.journal,
            recipients,
            class: self.class,
            points,
            expires: self.expires,
        };
        let expected = base64url(&claim.mac(key));
        now < self.expires
            && constant_time::verify_slices_are_equal(expected.as_bytes(), self.mac.as_bytes()).is_ok()
    }
}

/// Unpadded base64 with the URL alphabet (RFC 4648 section 5).
fn base64url(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &octet| bits << 8 | u32::from(octet)) << (8 * (3 - group.len()));
        for at in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

/// What goes into a stamp.
#[derive(Clone, Copy)]
pub struct StampFacts<'a> {
    /// The judgement.
    pub verdict: &'a Verdict,
    /// The journal's name for it: letters, digits, `-`, `_` and `.`; other characters are shown as `_`.
    pub journal: &'a str,
    /// The key of the seal.
    pub key: &'a Key,
    /// See [`Claim::message_id`].
    pub message_id: &'a str,
    /// See [`Claim::recipients`].
    pub recipients: &'a [Recipient],
    /// See [`Claim::expires`].
    pub expires: i64,
    /// A whole `Received` field, folded, with or without its last line end; left out when it is none or too long.
    pub received: Option<&'a str>,
    /// Whether to write the `X-Spam-*` and `X-Gatepost` lines, and remove those that came from outside.
    pub headers: bool,
}

/// The header block, ready to be put before a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    lines: String,
    headers: bool,
}

impl Stamp {
    /// Writes the block.
    pub fn new(facts: &StampFacts<'_>) -> Self {
        let mut lines = String::new();
        if let Some(received) = facts.received.and_then(field) {
            lines.push_str(&received);
        }
        if facts.headers {
            push_spam_lines(&mut lines, facts.verdict);
            push_seal(&mut lines, facts);
        }
        Self { lines, headers: facts.headers }
    }

    /// A block without a line: with it a rendition removes nothing and adds at most a subject tag.
    pub fn empty() -> Self {
        Self { lines: String::new(), headers: false }
    }

    /// A block of a `Received` field alone, given ready-made; empty if it would not stand as exactly one field.
    pub fn received(given: &str) -> Self {
        Self { lines: field(given).unwrap_or_default(), headers: false }
    }

    /// The block; each line ends in CRLF.
    pub fn as_str(&self) -> &str {
        &self.lines
    }

    /// Whether the block speaks for this site, so that such lines from outside must go.
    pub(super) fn speaks(&self) -> bool {
        self.headers
    }
}

/// A field given ready-made, with CRLF line ends; none if it would not stand as exactly one field.
fn field(given: &str) -> Option<String> {
    let mut lines = given.trim_end().lines();
    let first = lines.next().filter(|line| line.starts_with("Received:"))?;
    let mut field = format!("{first}\r\n");
    for line in lines {
        if !line.starts_with([' ', '\t']) || line.trim().is_empty() {
            return None;
        }
        let _ = write!(field, "{line}\r\n");
    }
    let clean =
        field.bytes().filter(|&octet| octet == b'\r' || octet == 0).count() == field.matches("\r\n").count();
    (clean && field.len() <= RECEIVED_MAX).then_some(field)
}

fn points(points: f64) -> String {
    format!("{points:.1}")
}

fn push_spam_lines(lines: &mut String, verdict: &Verdict) {
    let spam = verdict.class.is_spam();
    let score = verdict.score.points;
    let _ = write!(lines, "X-Spam-Flag: {}\r\n", if spam { "YES" } else { "NO" });
    let _ = write!(lines, "X-Spam-Score: {}\r\n", points(score));
    let level = (score.max(0.0) as usize).min(LEVEL_MAX);
    if level > 0 {
        let _ = write!(lines, "X-Spam-Level: {}\r\n", "*".repeat(level));
    }
    let _ = write!(
        lines,
        "X-Spam-Status: {}, score={} required={}",
        if spam { "Yes" } else { "No" },
        points(score),
        points(verdict.required)
    );
    push_tests(lines, verdict);
    lines.push_str("\r\n");
}

/// ` tests=A,B`, folded after commas; cut at [`TESTS_MAX`].
fn push_tests(lines: &mut String, verdict: &Verdict) {
    lines.push_str("\r\n\ttests=");
    let start = lines.len();
    let mut column = 8 + "tests=".len();
    if verdict.score.hits.is_empty() {
        lines.push_str("none");
    }
    for (at, hit) in verdict.score.hits.iter().enumerate() {
        let name: String = hit.rule.chars().map(plain).take(FOLD - 10).collect();
        if lines.len() - start + name.len() + 5 > TESTS_MAX {
            break;
        }
        if at > 0 {
            lines.push(',');
            column += 1;
            if column + name.len() + 1 > FOLD {
                lines.push_str("\r\n\t");
                column = 8;
            }
        }
        column += name.len();
        lines.push_str(&name);
    }
}

/// A character that means nothing to a header's grammar.
fn plain(character: char) -> char {
    if character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.') { character } else { '_' }
}

fn push_seal(lines: &mut String, facts: &StampFacts<'_>) {
    let journal: String = facts.journal.chars().map(plain).take(64).collect();
    let class = facts.verdict.class;
    let claim = Claim {
        message_id: facts.message_id,
        journal: &journal,
        recipients: facts.recipients,
        class,
        points: facts.verdict.score.points,
        expires: facts.expires,
    };
    let _ = write!(
        lines,
        "X-Gatepost: id={journal}; class={};\r\n\texpires={}; mac={}\r\n",
        class.as_str(),
        facts.expires,
        base64url(&claim.mac(facts.key))
    );
}
