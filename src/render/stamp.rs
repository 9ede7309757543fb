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

/// ` tests=A,B`, folded before `tests` or after commas where the line would be too long; cut at [`TESTS_MAX`].
fn push_tests(lines: &mut String, verdict: &Verdict) {
    let names =
        verdict.score.hits.iter().map(|hit| hit.rule.chars().map(plain).take(FOLD - 10).collect::<String>());
    let names: Vec<String> =
        if verdict.score.hits.is_empty() { vec!["none".into()] } else { names.collect() };
    let (start, mut line) = (lines.len(), lines.rfind('\n').map_or(0, |at| at + 1));
    for (at, name) in names.iter().enumerate() {
        if lines.len() - start + name.len() + 12 > TESTS_MAX {
            break;
        }
        let before = if at == 0 { " tests=" } else { "," };
        // One more for the comma that may follow.
        if lines.len() - line + before.len() + name.len() + 1 > FOLD {
            lines.push_str(if at == 0 { "\r\n" } else { ",\r\n\t" });
            line = lines.rfind('\n').map_or(0, |at| at + 1);
            lines.push_str(if at == 0 { before } else { "" });
        } else {
            lines.push_str(before);
        }
        lines.push_str(name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rules::{Hit, Score},
        verdict::Thresholds,
    };

    const ID: &str = "0199f0a0-0000-7000-8000-000000000001";

    fn verdict(points: f64, rules: &[&str]) -> Verdict {
        let hit = |rule: &&str| Hit {
            rule: (*rule).into(),
            points: 0.0,
            evidence: String::new(),
            at: "t:1".into(),
        };
        let score = Score { points, hits: rules.iter().map(hit).collect() };
        Verdict::of_score(score, Thresholds::default())
    }

    fn facts<'a>(verdict: &'a Verdict, key: &'a Key, recipients: &'a [Recipient]) -> StampFacts<'a> {
        StampFacts {
            verdict,
            journal: ID,
            key,
            message_id: "a@b.example",
            recipients,
            expires: 1_800_000_000,
            received: Some("Received: from a.example ([192.0.2.1])\n\tby b.example with ESMTP"),
            headers: true,
        }
    }

    #[test]
    fn the_block_is_written_in_order() {
        let key = Key::new(&[7; 32]);
        let verdict = verdict(7.3, &["AB", "CD"]);
        let stamp = Stamp::new(&facts(&verdict, &key, &[]));
        let (block, mac) = stamp.as_str().split_once("mac=").unwrap();
        assert_eq!(
            block,
            "Received: from a.example ([192.0.2.1])\r\n\tby b.example with ESMTP\r\n\
             X-Spam-Flag: YES\r\n\
             X-Spam-Score: 7.3\r\n\
             X-Spam-Level: *******\r\n\
             X-Spam-Status: Yes, score=7.3 required=5.0 tests=AB,CD\r\n\
             X-Gatepost: id=0199f0a0-0000-7000-8000-000000000001; class=spam;\r\n\texpires=1800000000; "
        );
        assert_eq!(mac.trim_end().len(), 22);
        let without = Stamp::new(&StampFacts { headers: false, ..facts(&verdict, &key, &[]) });
        assert_eq!(
            without.as_str(),
            "Received: from a.example ([192.0.2.1])\r\n\tby b.example with ESMTP\r\n"
        );
    }

    #[test]
    fn scores_are_told_plainly() {
        let key = Key::new(&[7; 32]);
        for (points, level, flag) in
            [(-1.2, None, "NO"), (0.0, None, "NO"), (4.9, Some(4), "NO"), (1000.0, Some(50), "YES")]
        {
            let verdict = verdict(points, &[]);
            let stamp = Stamp::new(&facts(&verdict, &key, &[]));
            let field = |name: &str| stamp.as_str().lines().find_map(|line| line.strip_prefix(name));
            assert_eq!(field("X-Spam-Level: ").map(str::len), level, "{points}");
            assert_eq!(field("X-Spam-Flag: "), Some(flag), "{points}");
            assert_eq!(field("X-Spam-Score: "), Some(format!("{points:.1}").as_str()));
            assert!(
                field("X-Spam-Status: ").is_some_and(|status| status.ends_with("required=5.0 tests=none"))
            );
        }
    }

    #[test]
    fn the_block_is_bounded_and_folded() {
        let key = Key::new(&[7; 32]);
        let names: Vec<String> = (0..400).map(|at| format!("{}_{at}", "N".repeat(at % 60))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let received = format!("Received: from a.example\r\n\t{}", "x".repeat(1400));
        let verdict = verdict(99.9, &names);
        let stamp = Stamp::new(&StampFacts { received: Some(&received), ..facts(&verdict, &key, &[]) });
        assert!(stamp.as_str().len() + 4 * (TAG_MAX + 3) + 64 <= STAMP_MAX);
        for line in stamp.as_str().lines().skip(2) {
            assert!(line.len() <= FOLD, "{line}");
        }
        assert!(stamp.as_str().replace("\r\n", "").bytes().all(|octet| octet == b'\t' || octet >= b' '));
    }

    #[test]
    fn a_received_line_is_one_field_or_none() {
        for (given, written) in [
            ("Received: x\r\n", Some("Received: x\r\n")),
            ("Received: x\n y\n", Some("Received: x\r\n y\r\n")),
            ("Received: x\r\nBcc: y", None),
            ("Received: x\r\n\r\nbody", None),
            ("Received: x\ry", None),
            ("Bcc: x", None),
            ("", None),
        ] {
            assert_eq!(field(given).as_deref(), written, "{given:?}");
        }
        assert_eq!(field(&format!("Received: {}", "x".repeat(RECEIVED_MAX))), None);
    }

    #[test]
    fn a_seal_vouches_for_exactly_what_it_was_made_for() {
        let key = Key::new(&[7; 32]);
        let recipient = |address: &str| Recipient { address: address.into(), parameters: String::new() };
        let recipients = [recipient("a@b.example"), recipient("c@d.example")];
        let verdict = verdict(7.3, &["AB"]);
        let stamp = Stamp::new(&facts(&verdict, &key, &recipients));
        let value = stamp.as_str().split_once("X-Gatepost: ").unwrap().1.replace("\r\n", "");
        let seal = Seal::read(value.trim()).unwrap();
        assert_eq!((seal.journal.as_str(), seal.class, seal.expires), (ID, Class::Spam, 1_800_000_000));
        let swapped = [recipient("C@d.example"), recipient("a@b.example")];
        let now = 1_700_000_000;
        for (id, recipients, points, now, good) in [
            ("a@b.example", &recipients[..], 7.3, now, true),
            ("a@b.example", &swapped[..], 7.3, now, true),
            ("x@b.example", &recipients[..], 7.3, now, false),
            ("a@b.example", &recipients[..1], 7.3, now, false),
            ("a@b.example", &recipients[..], 0.3, now, false),
            ("a@b.example", &recipients[..], 7.3, 1_800_000_000, false),
        ] {
            assert_eq!(seal.verify(&key, id, recipients, points, now), good, "{id} {points} {now}");
        }
        assert!(!seal.verify(&Key::new(&[8; 32]), "a@b.example", &recipients, 7.3, now));
        let forged = Seal::read(&value.replace("class=spam", "class=ham")).unwrap();
        assert!(!forged.verify(&key, "a@b.example", &recipients, 7.3, now));
        for odd in
            ["", "id=x", "id=x; id=y; class=ham; expires=1; mac=z", "id=x; class=nice; expires=1; mac=z"]
        {
            assert_eq!(Seal::read(odd), None, "{odd}");
        }
    }

    #[test]
    fn base64url_is_that_of_the_rfc() {
        for (octets, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("\u{3ff}\u{3f}", "z78_"),
        ] {
            assert_eq!(base64url(octets.as_bytes()), text);
        }
    }
}
