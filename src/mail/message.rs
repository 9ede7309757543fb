//! The message: bytes, header, parts, defects, and the views that rules and classifiers read.
//!
//! Parsing is total, linear in the length and bounded by [`super::limits`]. The views are made when first asked for
//! and kept. URLs and attachments' contents are not looked into yet.

use std::sync::OnceLock;

use bytes::Bytes;
use memchr::memchr_iter;

use super::{
    defect::{Defect, DefectKind, Defects},
    header::{self, Head, Header},
    limits::HEADERS_MAX,
    mime::{self, Part},
    views::Views,
};

/// A message, immutable.
#[derive(Debug)]
pub struct Message {
    bytes: Bytes,
    len: u64,
    head: Head,
    parts: Vec<Part>,
    defects: Vec<Defect>,
    views: OnceLock<Views>,
}

impl Message {
    /// Reads a whole message.
    pub fn parse(bytes: Bytes) -> Self {
        let len = bytes.len() as u64;
        Self::parse_prefix(bytes, len)
    }

    /// Reads the first part of a message that is `whole_len` octets long. What the part does not show is not there
    /// for the judge; a [`crate::render::Rendition`] still renders the whole.
    pub fn parse_prefix(bytes: Bytes, whole_len: u64) -> Self {
        let len = whole_len.max(bytes.len() as u64);
        let mut defects = Defects::default();
        note_lines(&bytes, &mut defects);
        let head = header::read(&bytes, len == bytes.len() as u64, 0, HEADERS_MAX, &mut defects);
        let parts = mime::read(&bytes, &head, &mut defects);
        Self { bytes, len, head, parts, defects: defects.finish(), views: OnceLock::new() }
    }

    /// The octets it was read from: all of the message, or its first part.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Octets of the whole message.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether a message is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The header, in order, at most [`HEADERS_MAX`] fields; together they are the first `header_len()` octets.
    pub fn headers(&self) -> &[Header] {
        &self.head.headers
    }

    /// The first field of that name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.head.headers.iter().find(|header| header.is(name))
    }

    /// Octets of the header without the empty line after it; 0 when the message begins with its body.
    pub fn header_len(&self) -> usize {
        self.head.len
    }

    /// Whether the end of the header was seen. False only for a first part that was cut before it.
    pub fn header_complete(&self) -> bool {
        self.head.complete
    }

    /// Whether the message begins with an mbox `From ` line, the first entry of its header.
    pub fn begins_with_mbox_line(&self) -> bool {
        self.head.headers.first().is_some_and(Header::is_mbox_line)
    }

    /// Whether an empty line parts header and body.
    pub fn has_separator(&self) -> bool {
        self.head.body > self.head.len
    }

    /// What follows the header, as far as it is known.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head.body..]
    }

    /// The MIME parts; the first is the message itself, and each stands after the one that holds it.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What was odd, in order of place. The views may be short of oddities found only when text is decoded.
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// The subject as shown.
    pub fn subject(&self) -> Option<String> {
        self.header("Subject").map(Header::decoded)
    }

    /// The message's own name for itself, without white space and angle brackets, if it is ASCII.
    pub fn message_id(&self) -> Option<&str> {
        let raw = std::str::from_utf8(self.header("Message-ID")?.raw()).ok()?.trim();
        let id = raw.strip_prefix('<').unwrap_or(raw);
        let id = id.strip_suffix('>').unwrap_or(id);
        (!id.is_empty() && id.is_ascii()).then_some(id)
    }

    /// The views of the text.
    pub fn views(&self) -> &Views {
        self.views.get_or_init(|| Views::of(self))
    }
}

/// Notes what is odd about lines, wherever they stand.
fn note_lines(bytes: &[u8], defects: &mut Defects) {
    if let Some(at) = memchr::memchr(0, bytes) {
        defects.add(DefectKind::Nul, at);
    }
    if let Some(at) =
        memchr_iter(b'\r', bytes).find(|&at| bytes.get(at + 1).is_some_and(|&next| next != b'\n'))
    {
        defects.add(DefectKind::BareCr, at);
    }
    let (mut start, mut first, mut mixed, mut long) = (0, None, None, None);
    for lf in memchr_iter(b'\n', bytes) {
        let crlf = lf > 0 && bytes[lf - 1] == b'\r';
        if *first.get_or_insert(crlf) != crlf {
            mixed = mixed.or(Some(lf));
        }
        if lf - start - usize::from(crlf && lf > start) > 998 {
            long = long.or(Some(start));
        }
        start = lf + 1;
    }
    for (at, kind) in [(mixed, DefectKind::MixedLineEnds), (long, DefectKind::LongLine)] {
        if let Some(at) = at {
            defects.add(kind, at);
        }
    }
}
