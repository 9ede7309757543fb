//! The tree of MIME parts (RFC 2045, 2046), read without recursion and within [`super::limits`].
//!
//! A boundary counts only as a whole line: `--boundary` or `--boundary--` at its start, and nothing but white space
//! after. Of several boundaries in one header all count, for clients differ; parts after a closing boundary are read too.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    content::Content,
    defect::{DefectKind, Defects},
    encoding::Encoding,
    header::{self, Head, Header, line_end, line_len},
    limits::{DEPTH_MAX, NESTED_DECODED_MAX, PART_HEADERS_MAX, PARTS_MAX},
};

/// How a part's content is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// It holds other parts.
    Container,
    /// As text.
    Text,
    /// As HTML.
    Html,
    /// Not as text: an image, a document, an archive.
    Opaque,
}

/// One part.
#[derive(Clone, Debug)]
pub struct Part {
    parent: Option<usize>,
    depth: usize,
    headers: Vec<Header>,
    content: Bytes,
    at: usize,
    media_type: String,
    charset: Option<String>,
    encoding: Encoding,
    name: Option<String>,
    attachment: bool,
    reading: Reading,
}

impl Part {
    /// The part that holds it, as an index into the message's parts; none for the message itself.
    pub fn parent(&self) -> Option<usize> {
        self.parent
    }

    /// Levels above it; 0 for the message itself.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Its own header.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The first field of that name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.headers.iter().find(|header| header.is(name))
    }

    /// Its content, still encoded.
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// Where its content begins, in octets from the start of the message; for a part of a message that was itself
    /// encoded, where that one begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Its content, decoded.
    pub fn decoded(&self) -> Cow<'_, [u8]> {
        self.encoding.decode(&self.content).0
    }

    /// The media type, lower case, such as `text/plain`.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The declared character set.
    pub fn charset(&self) -> Option<&str> {
        self.charset.as_deref()
    }

    /// The transfer encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The file name, from Content-Disposition or else Content-Type.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it declares itself an attachment.
    pub fn is_attachment(&self) -> bool {
        self.attachment
    }

    /// How its content is read.
    pub fn reading(&self) -> Reading {
        self.reading
    }
}

/// A part to be read: its header, or the octets that begin with it.
struct Pending {
    bytes: Bytes,
    head: Option<Head>,
    at: usize,
    /// Whether places inside are places of the message; false inside content that was decoded.
    exact: bool,
    parent: Option<usize>,
    depth: usize,
    default: &'static str,
}

/// Reads the parts of a message whose header is `head`.
pub(super) fn read(bytes: &Bytes, head: Head, defects: &mut Defects) -> Vec<Part> {
    let mut tree =
        Tree { parts: Vec::new(), headers: PART_HEADERS_MAX, decoded: NESTED_DECODED_MAX, defects };
    let root = Pending {
        bytes: bytes.clone(),
        head: Some(head),
        at: 0,
        exact: true,
        parent: None,
        depth: 0,
        default: "text/plain",
    };
    let mut pending = vec![root];
    while let Some(next) = pending.pop() {
        if tree.parts.len() == PARTS_MAX {
            tree.defects.add(DefectKind::TooManyParts, next.at);
            break;
        }
        tree.take(next, &mut pending);
    }
    tree.parts
}

struct Tree<'a> {
    parts: Vec<Part>,
    headers: usize,
    decoded: usize,
    defects: &'a mut Defects,
}

impl Tree<'_> {
    /// Reads one part and puts those inside it on the stack, the first on top.
    fn take(&mut self, next: Pending, pending: &mut Vec<Pending>) {
        let Pending { bytes, head, at, exact, parent, depth, default } = next;
        let head = head.unwrap_or_else(|| {
            let head = header::read(&bytes, true, at, self.headers, self.defects);
            self.headers -= head.headers.len().min(self.headers);
            head
        });
        let content = bytes.slice(head.body..);
        let content_at = if exact { at + head.body } else { at };
        let (mut part, types) = self.describe(head.headers, content, content_at, default);
        (part.parent, part.depth) = (parent, depth);
        let inside = self.inside(&mut part, &types);
        let index = self.parts.len();
        let digest = part.media_type == "multipart/digest";
        pending.extend(inside.into_iter().rev().map(|(bytes, offset, still_exact)| Pending {
            at: if exact && still_exact { part.at + offset } else { part.at },
            bytes,
            head: None,
            exact: exact && still_exact,
            parent: Some(index),
            depth: depth + 1,
            default: if digest { "message/rfc822" } else { "text/plain" },
        }));
        self.parts.push(part);
    }

    /// What a header says about its part, and all its Content-Types.
    fn describe(
        &mut self,
        headers: Vec<Header>,
        content: Bytes,
        at: usize,
        default: &str,
    ) -> (Part, Vec<Content>) {
        let contents =
            |name: &str| headers.iter().filter(|header| header.is(name)).take(TYPES_MAX).collect::<Vec<_>>();
        let types: Vec<_> =
            contents("Content-Type").iter().map(|header| Content::read(&header.unfolded())).collect();
        let disposition = contents("Content-Disposition")
            .first()
            .map(|header| Content::read(&header.unfolded()))
            .unwrap_or_default();
        let encodings = contents("Content-Transfer-Encoding");
        let encoding =
            encodings.first().map(|header| Content::read(&header.unfolded()).value).unwrap_or_default();
        if types.iter().chain([&disposition]).any(|content| content.repeated) {
            self.defects.add(DefectKind::RepeatedParameter, at);
        }
        let declared = types.first();
        let media_type = match declared.map(|content| content.value.as_str()) {
            None => default.to_owned(),
            Some(value) if is_media_type(value) => value.to_owned(),
            Some(_) => {
                self.defects.add(DefectKind::BadContentType, at);
                "text/plain".to_owned()
            }
        };
        let encoding = Encoding::named(&encoding).unwrap_or_else(|| {
            self.defects.add(DefectKind::UnknownEncoding, at);
            Encoding::Identity
        });
        let name =
            disposition.shown("filename").or_else(|| declared.and_then(|content| content.shown("name")));
        let charset = declared.and_then(|content| content.parameter("charset"));
        let part = Part {
            parent: None,
            depth: 0,
            reading: reading(&media_type),
            charset: charset.map(|charset| String::from_utf8_lossy(charset).into_owned()),
            attachment: disposition.value == "attachment",
            headers,
            content,
            at,
            media_type,
            encoding,
            name,
        };
        (part, types)
    }

    /// The octets of the parts inside, each with its offset and whether that is exact.
    fn inside(&mut self, part: &mut Part, types: &[Content]) -> Vec<(Bytes, usize, bool)> {
        if part.reading != Reading::Container {
            return Vec::new();
        }
        if part.depth >= DEPTH_MAX {
            self.defects.add(DefectKind::TooDeep, part.at);
            part.reading = Reading::Text;
            return Vec::new();
        }
        let (content, exact) = self.plain_content(part);
        if part.media_type.starts_with("message/") {
            return vec![(content, 0, exact)];
        }
        let inside = self.split(&content, part.at, types);
        if inside.is_empty() {
            part.reading = Reading::Text;
        }
        inside.into_iter().map(|(from, to)| (content.slice(from..to), from, exact)).collect()
    }

    /// The content of a container; decoded where it is encoded although it must not be, within the budget.
    fn plain_content(&mut self, part: &Part) -> (Bytes, bool) {
        if part.encoding == Encoding::Identity {
            return (part.content.clone(), true);
        }
        self.defects.add(DefectKind::EncodedComposite, part.at);
        let room = part.content.len().min(self.decoded);
        self.decoded -= room;
        let decoded = part.encoding.decode(&part.content[..room]).0.into_owned();
        // A multipart that only claims to be encoded holds its boundary in the clear.
        if part.media_type.starts_with("multipart/") && memchr::memmem::find(&part.content, b"\n--").is_some()
        {
            return (part.content.clone(), true);
        }
        (decoded.into(), false)
    }

    /// Where the parts of a multipart begin and end.
    fn split(&mut self, content: &[u8], at: usize, types: &[Content]) -> Vec<(usize, usize)> {
        let mut boundaries = boundaries(types);
        if boundaries.is_empty() {
            self.defects.add(DefectKind::NoBoundary, at);
            boundaries.extend(guess(content));
        }
        let mut parts = Vec::new();
        let (mut open, mut closed) = (None, false);
        for line in boundary_lines(content, &boundaries) {
            if let Some(start) = open {
                parts.push((start, line.start - before(content, line.start, start)));
            }
            open = (!line.closing).then_some(line.end);
            closed |= line.closing;
            if parts.len() > PARTS_MAX {
                break;
            }
        }
        if let Some(start) = open {
            parts.push((start, content.len()));
        }
        if parts.is_empty() {
            self.defects.add(DefectKind::NoParts, at);
        } else if !closed {
            self.defects.add(DefectKind::NotClosed, at);
        }
        parts
    }
}

/// Content-Type fields that are read of one header.
const TYPES_MAX: usize = 4;

fn is_media_type(value: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|octet| octet.is_ascii_graphic() && !b"()<>@,;:\\\"[]?=/".contains(&octet))
    };
    value.split_once('/').is_some_and(|(top, sub)| token(top) && token(sub))
}

fn reading(media_type: &str) -> Reading {
    match media_type {
        "message/rfc822" | "message/global" | "message/news" => Reading::Container,
        "text/html" | "application/xhtml+xml" => Reading::Html,
        _ if media_type.starts_with("multipart/") => Reading::Container,
        _ if media_type.starts_with("text/") || media_type.starts_with("message/") => Reading::Text,
        _ => Reading::Opaque,
    }
}

fn boundaries(types: &[Content]) -> Vec<Vec<u8>> {
    let mut boundaries: Vec<Vec<u8>> = Vec::new();
    for (name, value) in types.iter().flat_map(|content| &content.parameters) {
        let value = value.trim_ascii_end();
        if name == "boundary" && !value.is_empty() && boundaries.len() < TYPES_MAX {
            boundaries.push(value.to_vec());
        }
    }
    boundaries
}

/// The boundary that the first line of two hyphens seems to show.
fn guess(content: &[u8]) -> Option<Vec<u8>> {
    let start = if content.starts_with(b"--") { 0 } else { memchr::memmem::find(content, b"\n--")? + 1 };
    let line = content[start + 2..start + line_len(&content[start..])].trim_ascii();
    (!line.is_empty() && line.len() <= 200).then(|| line.to_vec())
}

struct BoundaryLine {
    start: usize,
    end: usize,
    closing: bool,
}

fn boundary_lines<'a>(
    content: &'a [u8],
    boundaries: &'a [Vec<u8>],
) -> impl Iterator<Item = BoundaryLine> + 'a {
    memchr::memmem::find_iter(content, b"--").filter_map(move |start| {
        let at_start = start == 0 || content[start - 1] == b'\n';
        let line = if at_start { &content[start..] } else { return None };
        let text = &line[2..];
        boundaries.iter().find_map(|boundary| {
            let after = text.strip_prefix(boundary.as_slice())?;
            let after = &after[..line_len(after)];
            let closing = after.starts_with(b"--") && after[2..].trim_ascii().is_empty();
            let end = start + 2 + boundary.len() + after.len();
            (closing || after.trim_ascii().is_empty()).then_some(BoundaryLine { start, end, closing })
        })
    })
}

/// The length of the line end before `at`, which belongs to the boundary; 0 if the part that begins at `start` is empty.
fn before(content: &[u8], at: usize, start: usize) -> usize {
    match &content[start.min(at)..at] {
        [.., b'\r', b'\n'] => 2,
        [.., last] if line_end(&[*last]) != 0 => 1,
        _ => 0,
    }
}
