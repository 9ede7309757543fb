//! The header: where each field begins and ends, exactly, and what it says.
//!
//! The fields of a header stand side by side without gaps, so that they put the original together again; lines that
//! are no fields are kept as entries without a name. A line ends at LF, with or without CR. Nothing is repaired here.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use memchr::memchr;

use super::{
    address::{self, Address},
    defect::{DefectKind, Defects},
    encoded_word,
    limits::{HEADER_VALUE_MAX, HEADERS_MAX},
};

/// One field of a header, or a line in it that is none.
#[derive(Clone, Debug)]
pub struct Header {
    field: Bytes,
    at: usize,
    name: usize,
    value: usize,
}

impl Header {
    /// The name as it is spelled; empty for a line that is no field.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.field[..self.name]).unwrap_or_default()
    }

    /// Whether this is the field of that name, in any case of letters.
    pub fn is(&self, name: &str) -> bool {
        self.name != 0 && self.field[..self.name].eq_ignore_ascii_case(name.as_bytes())
    }

    /// The whole field with its folds and its line end.
    pub fn field(&self) -> &[u8] {
        &self.field
    }

    /// Where the whole field stands, in octets from the start of the header it belongs to.
    pub fn span(&self) -> Range<usize> {
        self.at..self.at + self.field.len()
    }

    /// What follows the colon, folds kept, without the last line end.
    pub fn raw(&self) -> &[u8] {
        let value = &self.field[self.value..];
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        value.strip_suffix(b"\r").unwrap_or(value)
    }

    /// Whether this is an mbox `From ` line.
    pub(super) fn is_mbox_line(&self) -> bool {
        self.name == 0 && self.at == 0 && is_mbox_line(&self.field)
    }

    /// The value as shown: unfolded, encoded words decoded (RFC 2047), other octets as UTF-8 or else Windows-1252,
    /// without white space around it. At most [`HEADER_VALUE_MAX`] octets of the original are read.
    pub fn decoded(&self) -> String {
        encoded_word::decode(&self.unfolded())
    }

    /// The addresses in the value, at most 100.
    pub fn addresses(&self) -> Vec<Address> {
        address::read(&self.unfolded())
    }

    /// The value unfolded and trimmed, not decoded.
    pub(super) fn unfolded(&self) -> Cow<'_, [u8]> {
        let raw = self.raw();
        unfold(&raw[..raw.len().min(HEADER_VALUE_MAX)])
    }
}

/// Takes line ends out of folded text and white space off both ends.
fn unfold(raw: &[u8]) -> Cow<'_, [u8]> {
    let raw = raw.trim_ascii();
    if !raw.iter().any(|octet| matches!(octet, b'\r' | b'\n')) {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(raw.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect())
}

/// A header and where it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) headers: Vec<Header>,
    /// Octets of the fields, without the separating empty line.
    pub(super) len: usize,
    /// Where the body begins.
    pub(super) body: usize,
    /// Whether an empty line (or, in a whole message, the end) follows the fields.
    pub(super) complete: bool,
}

/// A field found in the bytes: where it stands, the length of its name (0: no field), and where its value begins,
/// counted from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) name: usize,
    pub(crate) value: usize,
}

impl Field {
    pub(crate) fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.start + self.name]
    }
}

/// The fields of `bytes`, one after the other, up to an empty line or the end.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        let start = self.at;
        let rest = &self.bytes[start..];
        if rest.is_empty() || line_end(rest) != 0 {
            return None;
        }
        let mut end = start + line_len(rest);
        // An empty line is never a continuation; a line of blanks is.
        while self.bytes.get(end).is_some_and(|octet| matches!(octet, b' ' | b'\t')) {
            end += line_len(&self.bytes[end..]);
        }
        self.at = end;
        let (name, value) = split(&self.bytes[start..end]);
        Some(Field { start, end, name, value })
    }
}

/// The length of the line at the front, with its line end.
pub(super) fn line_len(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |lf| lf + 1)
}

/// The length of the line end at the front, 0 if there is none.
pub(super) fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    }
}

/// The length of a field's name and where its value begins; (0, 0) for a line that is no field.
fn split(field: &[u8]) -> (usize, usize) {
    let name = field.iter().position(|octet| !matches!(octet, 33..=57 | 59..=126)).unwrap_or(field.len());
    let blanks = field[name..].iter().position(|octet| !matches!(octet, b' ' | b'\t'));
    match blanks {
        Some(blanks) if name > 0 && field[name + blanks] == b':' => (name, name + blanks + 1),
        _ => (0, 0),
    }
}

/// Fields that may stand only once (RFC 5322 section 3.6, RFC 2045 section 3), lower case.
const ONCE: [&str; 13] = [
    "date",
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "message-id",
    "in-reply-to",
    "references",
    "subject",
    "content-type",
    "content-transfer-encoding",
];

/// Reads the header at the front of `bytes`. `whole`: nothing follows `bytes`. `origin` is added to the places of defects.
pub(super) fn read(bytes: &Bytes, whole: bool, origin: usize, room: usize, defects: &mut Defects) -> Head {
    let mut reader = Reader { headers: Vec::new(), room: room.min(HEADERS_MAX), named: 0, junk: None };
    let mut end = 0;
    for field in Fields::of(bytes) {
        reader.take(bytes, field, origin, defects);
        end = field.end;
    }
    let separated = line_end(&bytes[end..]) != 0;
    let complete = separated || whole;
    let Reader { mut headers, named, junk, .. } = reader;
    if complete && named == 0 && end != 0 {
        // No field at all: it is all body, but an mbox line stays what it is.
        end = headers.first().filter(|first| is_mbox_line(&first.field)).map_or(0, |first| first.span().end);
        headers.truncate(usize::from(end != 0));
        defects.add(DefectKind::NoHeader, origin);
    } else if whole && !separated {
        // Without an empty line anywhere the body begins at the first line that cannot belong to a header.
        if let Some(junk) = junk {
            end = junk;
            headers.retain(|header| header.at < junk);
            defects.add(DefectKind::NoSeparator, origin + end);
        }
    }
    note_repeated(&headers, origin, defects);
    Head { headers, len: end, body: end + line_end(&bytes[end..]), complete }
}

/// Gathers the fields of one header.
struct Reader {
    headers: Vec<Header>,
    room: usize,
    named: usize,
    junk: Option<usize>,
}

impl Reader {
    fn take(&mut self, bytes: &Bytes, field: Field, origin: usize, defects: &mut Defects) {
        let octets = &bytes[field.start..field.end];
        if let Some(kind) = oddity(octets, field) {
            defects.add(kind, origin + field.start);
        }
        if field.name != 0 {
            self.named += 1;
        } else if field.start != 0 || !is_mbox_line(octets) {
            self.junk = self.junk.or(Some(field.start));
        }
        if self.headers.len() == self.room {
            defects.add(DefectKind::TooManyHeaders, origin + field.start);
            return;
        }
        self.headers.push(Header {
            field: bytes.slice(field.start..field.end),
            at: field.start,
            name: field.name,
            value: field.value,
        });
    }
}

/// What is odd about a field, the gravest first.
fn oddity(octets: &[u8], field: Field) -> Option<DefectKind> {
    if field.name == 0 {
        return Some(match octets {
            _ if field.start == 0 && is_mbox_line(octets) => DefectKind::MboxLine,
            [b' ' | b'\t', ..] => DefectKind::LeadingContinuation,
            _ => DefectKind::NotAField,
        });
    }
    if field.value != field.name + 1 {
        return Some(DefectKind::SpaceBeforeColon);
    }
    if !octets.is_ascii() && std::str::from_utf8(octets).is_err() {
        return Some(DefectKind::EightBitHeader);
    }
    let mut folds = octets.split(|&octet| octet == b'\n').skip(1);
    folds.any(|fold| !fold.is_empty() && fold.trim_ascii().is_empty()).then_some(DefectKind::BlankFold)
}

fn is_mbox_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

fn note_repeated(headers: &[Header], origin: usize, defects: &mut Defects) {
    let mut seen = [false; ONCE.len()];
    for header in headers {
        if let Some(which) = ONCE.iter().position(|name| header.is(name))
            && std::mem::replace(&mut seen[which], true)
        {
            defects.add(DefectKind::RepeatedField, origin + header.at);
        }
    }
}
