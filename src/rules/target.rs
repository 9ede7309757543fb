//! Targets: what of a message a rule's patterns are held against.
//!
//! A target with several values (a field that stands several times, the file names) has one a line, so `^` and `$` are the
//! ends of a value; in bodies they are the ends of a paragraph. A target that is not there matches nothing.

use std::{borrow::Cow, fmt};

use super::checks;
use crate::mail::{Envelope, Header, Message, defect_names, limits::FULL_MAX};

/// What patterns are held against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The text of all parts as shown.
    Body,
    /// The subject and the text of all parts as shown, the subject as the first line.
    Text,
    /// The text of all parts, decoded, HTML as it is written.
    Raw,
    /// The message as it came.
    Full,
    /// Where links lead.
    Url,
    /// The file names of parts.
    Attachment,
    /// The names of the message's defects.
    Defect,
    /// The names of the checks that hold.
    Check,
    /// The reverse path of the envelope.
    Sender,
    /// What the client called itself.
    Helo,
    /// All header fields, `Name: value` a line, decoded.
    Headers,
    /// One header field.
    Header { name: String, side: Side },
}

/// What of a header field is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The decoded value.
    Value,
    /// The addresses.
    Addr,
    /// The display names.
    Name,
    /// The value as it came, folds taken out.
    Raw,
}

/// Targets that have a word of their own; `header NAME` is for any other field.
const WORDS: [(&str, Target); 11] = [
    ("body", Target::Body),
    ("text", Target::Text),
    ("raw", Target::Raw),
    ("full", Target::Full),
    ("url", Target::Url),
    ("attachment", Target::Attachment),
    ("defect", Target::Defect),
    ("check", Target::Check),
    ("sender", Target::Sender),
    ("helo", Target::Helo),
    ("headers", Target::Headers),
];

/// Header fields that need no `header` before their name.
const FIELDS: [&str; 5] = ["subject", "from", "to", "cc", "reply-to"];

/// What follows a colon.
const SIDES: [(&str, Side); 3] = [("addr", Side::Addr), ("name", Side::Name), ("raw", Side::Raw)];

impl Target {
    /// Reads a target as rules write it. The error is a remedy.
    pub(super) fn read(written: &str) -> Result<Self, String> {
        if let Some((_, target)) = WORDS.into_iter().find(|(word, _)| *word == written) {
            return Ok(target);
        }
        let (name, side) = match written.split_once(':') {
            None => (written, Side::Value),
            Some((name, side)) => (name, read_side(side)?),
        };
        if let Some(name) = name.strip_prefix("header ") {
            let sound = !name.is_empty() && name.bytes().all(|octet| matches!(octet, 33..=57 | 59..=126));
            return match sound {
                true => Ok(Self::Header { name: name.to_owned(), side }),
                false => Err("write a field name after `header`, such as `header X-Mailer`".into()),
            };
        }
        match FIELDS.contains(&name) {
            true => Ok(Self::Header { name: name.to_owned(), side }),
            false => Err(remedy(name)),
        }
    }

    /// Its text in a message; none if the message does not have it.
    pub(super) fn text<'a>(&self, envelope: &'a Envelope, message: &'a Message) -> Option<Cow<'a, [u8]>> {
        let views = || message.views();
        let owned = |text: String| Cow::Owned(text.into_bytes());
        match self {
            Self::Body => Some(Cow::Borrowed(views().body.as_bytes())),
            Self::Text => Some(owned(format!("{}\n{}", message.subject().unwrap_or_default(), views().body))),
            Self::Raw => Some(Cow::Borrowed(views().raw.as_bytes())),
            Self::Full => Some(Cow::Borrowed(&message.as_bytes()[..message.as_bytes().len().min(FULL_MAX)])),
            Self::Url => lines(views().urls.iter().cloned()).map(owned),
            Self::Attachment => lines(views().attachments.iter().cloned()).map(owned),
            Self::Defect => {
                Some(defect_names(message.defects())).filter(|names| !names.is_empty()).map(owned)
            }
            Self::Check => Some(checks::holding(message)).filter(|names| !names.is_empty()).map(owned),
            Self::Sender => envelope.sender.as_deref().map(|sender| Cow::Borrowed(sender.as_bytes())),
            Self::Helo => envelope.helo.as_deref().map(|helo| Cow::Borrowed(helo.as_bytes())),
            Self::Headers => {
                let named = message.headers().iter().filter(|header| !header.name().is_empty());
                lines(named.map(|header| format!("{}: {}", header.name(), header.decoded()))).map(owned)
            }
            Self::Header { name, side } => {
                let fields = message.headers().iter().filter(|header| header.is(name));
                lines(fields.take(FIELDS_MAX).map(|header| side.text(header))).map(owned)
            }
        }
    }

    /// A message that has `text` there and nothing else; for the examples beside rules.
    pub(super) fn example(&self, text: &str) -> (Envelope, String) {
        let mut envelope = Envelope::default();
        let folded = text.trim_end().replace('\n', "\n ");
        let message = match self {
            Self::Body | Self::Text | Self::Raw | Self::Full | Self::Url | Self::Defect | Self::Check => {
                format!("\n{text}")
            }
            Self::Attachment => format!("Content-Disposition: attachment; filename=\"{folded}\"\n\n"),
            Self::Headers => format!("{}\n\n", text.trim_end()),
            Self::Header { name, .. } => format!("{name}: {folded}\n\n"),
            Self::Sender => {
                envelope.sender = Some(text.to_owned());
                String::new()
            }
            Self::Helo => {
                envelope.helo = Some(text.to_owned());
                String::new()
            }
        };
        (envelope, message)
    }
}

/// Fields of one name that are read.
const FIELDS_MAX: usize = 100;

fn read_side(written: &str) -> Result<Side, String> {
    let known = SIDES.into_iter().find(|(word, _)| *word == written);
    known.map(|(_, side)| side).ok_or_else(|| "after the colon write `addr`, `name` or `raw`".to_owned())
}

fn remedy(name: &str) -> String {
    let words = WORDS.iter().map(|(word, _)| *word).chain(FIELDS);
    match crate::fault::nearest(name, words.clone()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("write one of {}, or `header NAME`", words.collect::<Vec<_>>().join(", ")),
    }
}

impl Side {
    fn text(self, header: &Header) -> String {
        let join =
            |parts: Vec<String>| lines(parts.into_iter().filter(|part| !part.is_empty())).unwrap_or_default();
        match self {
            Self::Value => header.decoded(),
            Self::Addr => join(header.addresses().into_iter().map(|address| address.address).collect()),
            Self::Name => join(header.addresses().into_iter().map(|address| address.name).collect()),
            Self::Raw => {
                let raw: Vec<u8> =
                    header.raw().iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
                String::from_utf8_lossy(&raw).into_owned()
            }
        }
    }
}

/// The values, one a line; none if there are none.
fn lines(mut values: impl Iterator<Item = String>) -> Option<String> {
    let mut text = values.next()?;
    for value in values {
        text.push('\n');
        text.push_str(&value);
    }
    Some(text)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Header { name, side } = self {
            let side = SIDES.iter().find(|(_, known)| known == side).map_or("", |(word, _)| word);
            let colon = if side.is_empty() { "" } else { ":" };
            return write!(f, "{name}{colon}{side}");
        }
        let word = WORDS.iter().find(|(_, target)| target == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}
