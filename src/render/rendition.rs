//! The rope: added octets and spans of the original.

use std::{io, ops::Range};

use bytes::Bytes;

use super::stamp::{Stamp, TAG_MAX};
use crate::mail::{Field, Fields, Message};

/// Where the original's octets come from.
pub trait Source {
    /// Octets in all.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    fn len(&self) -> u64;

    /// Reads octets from `offset` on into `buf`; fewer than asked for are fine, none means the end.
    ///
    /// # Errors
    /// Whatever the medium says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl Source for Bytes {
    fn len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// A piece of a rendition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Octets of ours.
    Added(Bytes),
    /// Octets of the original, from where to where.
    Original(Range<u64>),
}

impl Segment {
    /// Octets in it.
    #[allow(clippy::len_without_is_empty, reason = "segments are never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Added(bytes) => bytes.len() as u64,
            Self::Original(span) => span.end - span.start,
        }
    }

    /// The octets from `from` to `to` of it; both within it.
    fn part(&self, from: u64, to: u64) -> Self {
        match self {
            Self::Added(bytes) => Self::Added(bytes.slice(from as usize..to as usize)),
            Self::Original(span) => Self::Original(span.start + from..span.start + to),
        }
    }
}

/// The octets that leave: a view over the original, which nothing ever edits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    segments: Vec<Segment>,
}

impl Rendition {
    /// The original as it is, `len` octets long.
    pub fn untouched(len: u64) -> Self {
        let mut rendition = Self { segments: Vec::new() };
        rendition.keep(0..len);
        rendition
    }

    /// The message under its header block, and with `tag` before its subject.
    ///
    /// With a stamp that has lines about the judgement, fields from outside named `X-Spam-*` (all of them: filters
    /// and users' sorting rules trust any) or `X-Gatepost` are left out. With an `authserv_id`, so is any
    /// `Authentication-Results` that claims to be this site's (RFC 8601 section 5). Everything else stays as it is:
    ///
    /// - The block stands first, but after an mbox `From ` line. Its lines end in CRLF, whatever the original's end in.
    /// - A message without any header gets the empty line that parts header and body, so that no word of its body
    ///   is taken for a field or a continuation of ours.
    /// - Where a header's first line begins with white space, the block ends in a field of its own for that line,
    ///   `X-Gatepost-Lead`, so that it cannot run into another.
    /// - The tag is put right before the first character of the subject, as ASCII; the subject is not re-encoded.
    ///   A subject that begins with it already stays. Without a subject the block gets one.
    /// - Of a first part that was cut inside the header nothing after the cut is changed, and no subject is added.
    pub fn stamped(message: &Message, stamp: &Stamp, tag: Option<&str>, authserv_id: Option<&str>) -> Self {
        let header = &message.as_bytes()[..message.header_len()];
        let fields: Vec<Field> = Fields::of(header).collect();
        let mut rendition = Self { segments: Vec::new() };
        let (mbox, fields) = match fields.split_first() {
            Some((first, rest)) if message.begins_with_mbox_line() => (first.end, rest),
            _ => (0, fields.as_slice()),
        };
        rendition.keep(0..mbox as u64);
        let tag = tag.and_then(Tag::new);
        rendition.add(&block(message, stamp, tag.as_ref(), fields));
        let mut kept = mbox;
        let mut tags = SUBJECTS_MAX;
        for field in fields {
            let octets = &header[field.start..field.end];
            let whole = field.end < header.len() || message.header_complete();
            if whole && is_foreign(field, octets, stamp, authserv_id) {
                rendition.keep(kept as u64..field.start as u64);
                kept = field.end;
            } else if let Some(tag) = &tag
                && tags > 0
                && field.name(header).eq_ignore_ascii_case(b"subject")
                && let Some((at, text)) = tag.place(field, octets)
            {
                tags -= 1;
                rendition.keep(kept as u64..at as u64);
                rendition.add(&text);
                kept = at;
            }
        }
        rendition.keep(kept as u64..message.len());
        rendition
    }

    /// Octets in all.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        self.segments.iter().map(Segment::len).sum()
    }

    /// The pieces in order; none is empty.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The octets of `range` only; what lies past the end is not there.
    pub fn range(&self, range: Range<u64>) -> Self {
        let mut cut = Self { segments: Vec::new() };
        let mut at = 0;
        for segment in &self.segments {
            let end = at + segment.len();
            let (from, to) = (range.start.max(at), range.end.min(end));
            if from < to {
                cut.segments.push(segment.part(from - at, to - at));
            }
            at = end;
        }
        cut
    }

    /// The octets themselves, in pieces of at most `chunk` octets. After an error nothing follows.
    pub fn chunks<'a>(
        &'a self,
        source: &'a dyn Source,
        chunk: usize,
    ) -> impl Iterator<Item = io::Result<Bytes>> + 'a {
        Chunks { rendition: self, source, chunk: chunk.max(1), segment: 0, at: 0 }
    }

    fn keep(&mut self, span: Range<u64>) {
        match self.segments.last_mut() {
            _ if span.is_empty() => {}
            Some(Segment::Original(last)) if last.end == span.start => last.end = span.end,
            _ => self.segments.push(Segment::Original(span)),
        }
    }

    fn add(&mut self, text: &str) {
        if !text.is_empty() {
            self.segments.push(Segment::Added(Bytes::copy_from_slice(text.as_bytes())));
        }
    }
}

struct Chunks<'a> {
    rendition: &'a Rendition,
    source: &'a dyn Source,
    chunk: usize,
    segment: usize,
    at: u64,
}

impl Chunks<'_> {
    fn fail(&mut self, error: io::Error) -> Option<io::Result<Bytes>> {
        self.segment = self.rendition.segments.len();
        Some(Err(error))
    }
}

impl Iterator for Chunks<'_> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let segment = self.rendition.segments.get(self.segment)?;
        let (from, len) = (self.at, segment.len());
        let to = len.min(from + self.chunk as u64);
        if to == len {
            (self.segment, self.at) = (self.segment + 1, 0);
        } else {
            self.at = to;
        }
        match segment.part(from, to) {
            Segment::Added(bytes) => Some(Ok(bytes)),
            Segment::Original(span) => match read_exact(self.source, &span) {
                Ok(bytes) => Some(Ok(bytes)),
                Err(error) => self.fail(error),
            },
        }
    }
}

fn read_exact(source: &dyn Source, span: &Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (span.end - span.start) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match source.read_at(span.start + filled as u64, &mut bytes[filled..])? {
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the original is shorter than it was",
                ));
            }
            len => filled += len,
        }
    }
    Ok(bytes.into())
}

/// Subject fields that are tagged at most: clients differ in which of several they show.
const SUBJECTS_MAX: usize = 4;
/// Octets of a line at most (RFC 5322 section 2.1.1).
const LINE_MAX: usize = 998;

/// The octets put before the fields: the stamp, a subject where none is, and what keeps the original's first line apart.
fn block(message: &Message, stamp: &Stamp, tag: Option<&Tag>, fields: &[Field]) -> String {
    let mut block = stamp.as_str().to_owned();
    let header = &message.as_bytes()[..message.header_len()];
    let has_subject = fields.iter().any(|field| field.name(header).eq_ignore_ascii_case(b"subject"));
    if let Some(tag) = tag
        && !has_subject
        && message.header_complete()
    {
        block.push_str("Subject: ");
        block.push_str(&tag.0);
        block.push_str("\r\n");
    }
    if block.is_empty() {
        return block;
    }
    match fields.first() {
        Some(first) if header.get(first.start).is_some_and(|octet| matches!(octet, b' ' | b'\t')) => {
            block.push_str("X-Gatepost-Lead:\r\n");
        }
        None if !message.has_separator() && message.header_complete() => block.push_str("\r\n"),
        _ => {}
    }
    block
}

/// Whether a field from outside must go.
fn is_foreign(field: &Field, octets: &[u8], stamp: &Stamp, authserv_id: Option<&str>) -> bool {
    let name = octets[..field.name].to_ascii_lowercase();
    match name.as_slice() {
        b"x-gatepost" | b"x-gatepost-lead" => stamp.speaks(),
        b"authentication-results" => {
            let value = &octets[field.value..];
            authserv_id.is_some_and(|id| claimed_by(value).eq_ignore_ascii_case(id.as_bytes()))
        }
        name => stamp.speaks() && name.starts_with(b"x-spam-"),
    }
}

/// The authserv-id that an `Authentication-Results` value begins with, after white space and comments (RFC 8601
/// section 2.2).
fn claimed_by(value: &[u8]) -> Vec<u8> {
    let mut octets = value.iter().copied().peekable();
    let mut depth = 0_usize;
    while let Some(&octet) = octets.peek() {
        match octet {
            b'\\' if depth > 0 => drop(octets.next()),
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if depth > 0 => {}
            _ => break,
        }
        octets.next();
    }
    if octets.next_if_eq(&b'"').is_some() {
        let mut id = Vec::new();
        while let Some(octet) = octets.next().filter(|&octet| octet != b'"') {
            id.push(if octet == b'\\' { octets.next().unwrap_or(octet) } else { octet });
        }
        return id;
    }
    octets.take_while(|octet| !matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b'/')).collect()
}

/// A subject tag: printable ASCII without white space at its ends.
struct Tag(String);

impl Tag {
    fn new(tag: &str) -> Option<Self> {
        let printable: String = tag.chars().filter(|tag| matches!(tag, ' '..='~')).take(TAG_MAX).collect();
        let tag = printable.trim();
        (!tag.is_empty()).then(|| Self(tag.to_owned()))
    }

    /// Where in the header the tag goes, and what goes there; none when it is there already.
    fn place(&self, field: &Field, octets: &[u8]) -> Option<(usize, String)> {
        let value = &octets[field.value..];
        let blanks = value.iter().position(|octet| !matches!(octet, b' ' | b'\t' | b'\r' | b'\n'));
        let Some(blanks) = blanks else { return Some((field.start + field.value, format!(" {}", self.0))) };
        if value[blanks..].starts_with(self.0.as_bytes()) {
            return None;
        }
        let line = octets.iter().position(|&octet| octet == b'\n').unwrap_or(octets.len());
        let gap = if line + self.0.len() + 1 > LINE_MAX { "\r\n " } else { " " };
        Some((field.start + field.value + blanks, format!("{}{gap}", self.0)))
    }
}
