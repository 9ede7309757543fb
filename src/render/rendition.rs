//! The rope: added octets and spans of the original.

use std::{io, ops::Range};

use bytes::Bytes;

use super::stamp::{Stamp, TAG_MAX};
use crate::mail::{Field, Fields, Message};

/// Where the original's octets come from.
#[allow(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait Source {
    /// Octets in all.
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

    /// The segments in order, none longer than `limit` octets: what to read and send at once.
    pub fn pieces(&self, limit: u64) -> impl Iterator<Item = Segment> {
        let limit = limit.max(1);
        self.segments.iter().flat_map(move |segment| {
            let len = segment.len();
            (0..len.div_ceil(limit)).map(move |piece| {
                let from = piece * limit;
                segment.part(from, len.min(from.saturating_add(limit)))
            })
        })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        render::{Key, StampFacts},
        rules::Score,
        verdict::{Thresholds, Verdict},
    };

    fn stamp() -> Stamp {
        let verdict = Verdict::of_score(Score::default(), Thresholds::default());
        let key = Key::new(&[7; 32]);
        Stamp::new(&StampFacts {
            verdict: &verdict,
            journal: "j",
            key: &key,
            message_id: "",
            recipients: &[],
            expires: 1,
            received: None,
            headers: true,
        })
    }

    fn whole(rendition: &Rendition, source: &Bytes, limit: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        for piece in rendition.pieces(limit as u64) {
            assert!(piece.len() > 0 && piece.len() <= limit as u64);
            match piece {
                Segment::Added(added) => octets.extend_from_slice(&added),
                Segment::Original(span) => {
                    octets.extend_from_slice(&source[span.start as usize..span.end as usize]);
                }
            }
        }
        octets
    }

    /// `{}` in `rendered` stands for the stamp.
    #[track_caller]
    fn check(original: &str, tag: Option<&str>, rendered: &str) {
        let bytes = Bytes::copy_from_slice(original.as_bytes());
        let message = Message::parse(bytes.clone());
        let stamp = stamp();
        let rendition = Rendition::stamped(&message, &stamp, tag, Some("mx.example.org"));
        let octets = whole(&rendition, &bytes, 7);
        assert_eq!(String::from_utf8_lossy(&octets), rendered.replace("{}", stamp.as_str()), "{original:?}");
        assert_eq!(rendition.len(), octets.len() as u64);
    }

    #[test]
    fn the_stamp_stands_first_and_swallows_nothing() {
        check("A: 1\r\n\r\nbody", None, "{}A: 1\r\n\r\nbody");
        check("A: 1\n\nbody", None, "{}A: 1\n\nbody");
        check("\r\nbody", None, "{}\r\nbody");
        check("", None, "{}\r\n");
        check("just a body", None, "{}\r\njust a body");
        check("just a body\r\n\r\nof two", None, "{}\r\njust a body\r\n\r\nof two");
        check("  body: first\r\n", None, "{}\r\n  body: first\r\n");
        check("  odd\r\nA: 1\r\n\r\nbody", None, "{}X-Gatepost-Lead:\r\n  odd\r\nA: 1\r\n\r\nbody");
        check("From a b\r\nA: 1\r\n\r\nbody", None, "From a b\r\n{}A: 1\r\n\r\nbody");
        check("A: 1\r\nno field here\r\n", None, "{}A: 1\r\nno field here\r\n");
        check("A: 1", None, "{}A: 1");
    }

    #[test]
    fn fields_that_speak_for_this_site_are_left_out() {
        check(
            "x-spam-flag : NO\r\nA: 1\r\nX-Spam-Report: a\r\n b\r\nX-Gatepost: id=1\r\nX-Spammer: 1\r\n\r\nX-Spam-Flag: NO",
            None,
            "{}A: 1\r\nX-Spammer: 1\r\n\r\nX-Spam-Flag: NO",
        );
        for (value, stays) in [
            (" mx.example.org; spf=pass", false),
            (" (a (comment\\)) ) MX.Example.ORG 1; none", false),
            ("\r\n \"mx.example\\.org\"; spf=pass", false),
            (" mx.example.org/1; x", false),
            (" mx.example.org.evil; spf=pass", true),
            (" other.example; mx.example.org", true),
            ("", true),
        ] {
            let field = format!("Authentication-Results:{value}\r\n");
            let rest = if stays { field.as_str() } else { "" };
            check(&format!("{field}A: 1\r\n\r\n"), None, &format!("{{}}{rest}A: 1\r\n\r\n"));
        }
    }

    #[test]
    fn the_subject_is_tagged_once_and_not_re_encoded() {
        let tag = Some("[SPAM] ");
        check("Subject: a\r\n\r\n", tag, "{}Subject: [SPAM] a\r\n\r\n");
        check("subject:a\r\n\r\n", tag, "{}subject:[SPAM] a\r\n\r\n");
        check("Subject: =?utf-8?q?a?=\r\n\r\n", tag, "{}Subject: [SPAM] =?utf-8?q?a?=\r\n\r\n");
        check("Subject:\r\n\ta\r\n\r\n", tag, "{}Subject:\r\n\t[SPAM] a\r\n\r\n");
        check("Subject:\r\n\r\n", tag, "{}Subject: [SPAM]\r\n\r\n");
        check("Subject: [SPAM] a\r\n\r\n", tag, "{}Subject: [SPAM] a\r\n\r\n");
        check("A: 1\r\n\r\n", tag, "{}Subject: [SPAM]\r\nA: 1\r\n\r\n");
        check("body", tag, "{}Subject: [SPAM]\r\n\r\nbody");
        check("Subject: a\r\nSubject: b\r\n\r\n", tag, "{}Subject: [SPAM] a\r\nSubject: [SPAM] b\r\n\r\n");
        check("Subject: a\r\n\r\n", Some("\r\nBcc: x"), "{}Subject: Bcc: x a\r\n\r\n");
        check("Subject: a\r\n\r\n", Some(" \u{e9} "), "{}Subject: a\r\n\r\n");
        let long = "x".repeat(995);
        check(&format!("Subject: {long}\r\n\r\n"), tag, &format!("{{}}Subject: [SPAM]\r\n {long}\r\n\r\n"));
    }

    #[test]
    fn a_first_part_is_enough_to_render_the_whole() {
        let whole_text = "Subject: a\r\nX-Spam-Flag: NO\r\n\r\nbody and more";
        let source = Bytes::from_static(whole_text.as_bytes());
        let whole_len = source.len() as u64;
        let stamp = stamp();
        let rendered = Rendition::stamped(&Message::parse(source.clone()), &stamp, Some("T"), None);
        let cut = Message::parse_prefix(source.slice(..whole_text.len() - 8), whole_len);
        assert_eq!(Rendition::stamped(&cut, &stamp, Some("T"), None), rendered);
        // Cut inside the header: nothing is added that might break it.
        let cut = Message::parse_prefix(source.slice(..14), whole_len);
        let octets = whole(&Rendition::stamped(&cut, &stamp, Some("T"), None), &source, 100);
        assert_eq!(
            octets,
            format!("{}Subject: T a\r\nX-Spam-Flag: NO\r\n\r\nbody and more", stamp.as_str()).as_bytes()
        );
        let untouched = Rendition::untouched(whole_len);
        assert_eq!(whole(&untouched, &source, 5), whole_text.as_bytes());
    }

    proptest! {
        #[test]
        fn a_range_is_the_slice_of_the_whole(
            text in "(A: 1\r\n|Subject: x\r\n|X-Spam-A: 1\r\n| y\r\n|\r\n|From a\r\n|junk\r\n|\n){0,8}",
            tag in prop::option::of(Just("[T]")),
            from in 0_u64..600,
            len in 0_u64..600,
            chunk in 1_usize..40,
        ) {
            let source = Bytes::from(text.into_bytes());
            let message = Message::parse(source.clone());
            let rendition = Rendition::stamped(&message, &stamp(), tag, None);
            prop_assert_eq!(&rendition, &Rendition::stamped(&message, &stamp(), tag, None));
            let all = whole(&rendition, &source, chunk);
            prop_assert_eq!(all.len() as u64, rendition.len());
            let part = rendition.range(from..from + len);
            let end = all.len().min((from + len) as usize);
            let expected = all.get(from as usize..end).unwrap_or_default();
            prop_assert_eq!(whole(&part, &source, chunk), expected);
            prop_assert_eq!(part.len(), expected.len() as u64);
            // What is rendered reads as a message with the stamp's own fields.
            let again = Message::parse(all.into());
            prop_assert_eq!(again.headers().iter().filter(|header| header.is("X-Spam-Flag")).count(), 1);
            prop_assert!(again.header("X-Spam-A").is_none());
        }
    }
}
