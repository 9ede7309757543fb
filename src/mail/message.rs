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
    header_len: usize,
    body_at: usize,
    header_complete: bool,
    parts: Vec<Part>,
    /// Those of the structure; the views add those of the text.
    defects: Defects,
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
        let Head { len: header_len, body: body_at, complete: header_complete, .. } = head;
        let parts = mime::read(&bytes, head, &mut defects);
        Self { bytes, len, header_len, body_at, header_complete, parts, defects, views: OnceLock::new() }
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
        self.parts.first().map(Part::headers).unwrap_or_default()
    }

    /// The first field of that name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&Header> {
        self.headers().iter().find(|header| header.is(name))
    }

    /// Octets of the header without the empty line after it; 0 when the message begins with its body.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Whether the end of the header was seen. False only for a first part that was cut before it.
    pub fn header_complete(&self) -> bool {
        self.header_complete
    }

    /// Whether the message begins with an mbox `From ` line, the first entry of its header.
    pub fn begins_with_mbox_line(&self) -> bool {
        self.headers().first().is_some_and(Header::is_mbox_line)
    }

    /// Whether an empty line parts header and body.
    pub fn has_separator(&self) -> bool {
        self.body_at > self.header_len
    }

    /// What follows the header, as far as it is known.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    /// The MIME parts; the first is the message itself, and each stands after the one that holds it.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What was odd, in order of place. The first call makes the views, for some oddities show only in the text.
    pub fn defects(&self) -> &[Defect] {
        &self.views().defects
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
        self.views.get_or_init(|| Views::of(self, self.defects.clone()))
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::mail::Reading;

    fn message(text: &str) -> Message {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Checks names of fields, length of the header, body and defects, for the text and its CRLF twin.
    #[track_caller]
    fn check_header(text: &str, names: &[&str], body: &str, defects: &[DefectKind]) {
        for twin in [text.to_owned(), text.replace('\n', "\r\n")] {
            let message = message(&twin);
            let read: Vec<_> = message.headers().iter().map(Header::name).collect();
            assert_eq!(read, names, "{twin:?}");
            assert_eq!(String::from_utf8_lossy(message.body()).replace("\r\n", "\n"), body, "{twin:?}");
            let kinds: Vec<_> = message.defects().iter().map(|defect| defect.kind).collect();
            assert_eq!(kinds, defects, "{twin:?}");
            let spans: usize = message.headers().iter().map(|header| header.field().len()).sum();
            assert_eq!(spans, message.header_len(), "{twin:?}");
        }
    }

    #[test]
    fn headers_are_read_exactly() {
        use DefectKind as D;
        check_header("A: 1\nB: 2\n\nbody\n", &["A", "B"], "body\n", &[]);
        check_header("A: 1\n", &["A"], "", &[]);
        check_header("A: 1", &["A"], "", &[]);
        check_header("\nbody", &[], "body", &[]);
        check_header("", &[], "", &[]);
        check_header("A: 1\n two\n\tthree\nB:\n\n", &["A", "B"], "", &[]);
        check_header("A: 1\n  \n more\n\nbody", &["A"], "body", &[D::BlankFold]);
        check_header("A : 1\n\nbody", &["A"], "body", &[D::SpaceBeforeColon]);
        check_header("Fr om: 1\nA: 2\n\nbody", &["", "A"], "body", &[D::NotAField]);
        check_header("A: 1\nno field\nB: 2\n\nbody", &["A", "", "B"], "body", &[D::NotAField]);
        check_header(
            "A: 1\nHello there\nNote: x\n",
            &["A"],
            "Hello there\nNote: x\n",
            &[D::NotAField, D::NoSeparator],
        );
        check_header(
            "just text\nand more\n",
            &[],
            "just text\nand more\n",
            &[D::NotAField, D::NoHeader, D::NotAField],
        );
        check_header("just text\n\nand more\n", &[], "just text\n\nand more\n", &[D::NotAField, D::NoHeader]);
        check_header("  x\nA: 1\n\nbody", &["", "A"], "body", &[D::LeadingContinuation]);
        check_header("From a@b Mon\nA: 1\n\nbody", &["", "A"], "body", &[D::MboxLine]);
        check_header(": empty\nA: 1\n\nbody", &["", "A"], "body", &[D::NotAField]);
        check_header("Subject: a\nSubject: b\n\n", &["Subject", "Subject"], "", &[D::RepeatedField]);
    }

    #[track_caller]
    fn check_views(text: &str, body: &str, attachments: &[&str]) {
        for twin in [text.to_owned(), text.replace('\n', "\r\n")] {
            let message = message(&twin);
            assert_eq!(message.views().body, body, "{twin:?}");
            assert_eq!(message.views().attachments, attachments, "{twin:?}");
        }
    }

    #[test]
    fn text_is_seen_through_structure_and_encodings() {
        check_views("A: 1\n\nplain  text\nwrapped\n\nnext\n", "plain text wrapped\nnext", &[]);
        check_views("Content-Transfer-Encoding: base64\n\naGVsbG8g\nd29ybGQ=\n", "hello world", &[]);
        check_views("Content-Transfer-Encoding: Quoted-Printable\n\nhel=\nlo =XX\n", "hello =XX", &[]);
        check_views("Content-Type: text/html\n\n<p>a<b>b</b></p>c&amp;d", "ab\nc&d", &[]);
        let parts = "--b\nContent-Type: text/plain\n\none\n--b\nContent-Type: text/html\n\n<i>two</i>\n--b--\nepilogue\n";
        check_views(
            &format!("Content-Type: multipart/mixed; boundary=b\n\npreamble\n{parts}"),
            "one\ntwo",
            &[],
        );
        check_views(
            &format!("Content-Type: multipart/mixed; boundary=x; boundary=b\n\n{parts}"),
            "one\ntwo",
            &[],
        );
        check_views(&format!("Content-Type: multipart/mixed\n\n{parts}"), "one\ntwo", &[]);
        check_views(
            "Content-Type: multipart/mixed; boundary=b\n\nx --b\n\n--bb\n\nall text",
            "x --b\n--bb\nall text",
            &[],
        );
        check_views("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nopen end", "open end", &[]);
        check_views("Content-Type: multipart/mixed; boundary=b\n\n--b--\n--b\n\nlate\n", "late", &[]);
        check_views("Content-Type: message/rfc822\n\nSubject: x\n\ninner", "inner", &[]);
        check_views(
            "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKaW5uZXI=\n",
            "inner",
            &[],
        );
        check_views(
            "Content-Type: application/pdf; name=\"=?utf-8?q?a=20b.pdf?=\"\n\n%PDF",
            "",
            &["a b.pdf"],
        );
        check_views("A: 1\nshown by some\nB: 2\n\nbody", "shown by some\nbody", &[]);
        check_views("A: 1\n\nvi\u{ad}ag\u{200b}ra\u{a0}now", "viagra now", &[]);
        check_views("Content-Type: nonsense\n\ntext", "text", &[]);
    }

    #[test]
    fn links_are_gathered_from_html_and_text() {
        let html =
            message("Content-Type: text/html\n\n<a href='http://a.example/'>x</a> see HTTP://b.example/y.");
        assert_eq!(html.views().urls, ["http://a.example/", "HTTP://b.example/y"]);
    }

    #[test]
    fn parts_have_places() {
        let text = "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: 1\n\none\n--b\n\ntwo\n--b--\n";
        let message = message(text);
        let places: Vec<_> = message
            .parts()
            .iter()
            .map(|part| (part.reading(), part.parent(), &text[part.at()..part.at() + part.content().len()]))
            .collect();
        assert_eq!(places[1..], [(Reading::Text, Some(0), "one"), (Reading::Text, Some(0), "two")],);
    }

    /// Time is not measured to pass or fail by itself: a quadratic reader would need minutes here.
    #[test]
    fn floods_are_bounded() {
        let nested = "Content-Type: message/rfc822\n\n".repeat(40_000);
        let headers = "A: 1\n".repeat(1_000_000);
        let tags = format!("Content-Type: text/html\n\n{}", "<b>".repeat(300_000));
        let parts = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(100_000));
        let multiparts = "Content-Type: multipart/mixed; boundary=b\n\n--b\n".repeat(20_000);
        let words = format!("Subject: {}\n\n", "=?utf-8?q?".repeat(100_000));
        let dashes = format!("Content-Type: multipart/mixed; boundary=-\n\n{}", "-".repeat(1_000_000));
        let blanks = format!("Content-Transfer-Encoding: quoted-printable\n\n{}", "=   ".repeat(250_000));
        let comments = format!("Content-Type: {}\n\n", "(;=\"".repeat(250_000));
        for flood in [nested, headers, tags, parts, multiparts, words, dashes, blanks, comments] {
            let start = Instant::now();
            let message = message(&flood);
            let _ = (message.subject(), message.defects());
            assert!(message.parts().len() <= crate::mail::limits::PARTS_MAX);
            assert!(start.elapsed().as_secs() < 20, "{}", &flood[..60]);
        }
    }

    #[test]
    fn a_prefix_is_a_message_whose_end_is_unknown() {
        let message = Message::parse_prefix(Bytes::from_static(b"A: 1\nSubj"), 1000);
        assert!(!message.header_complete());
        assert_eq!((message.len(), message.header_len()), (1000, 9));
    }

    /// Few letters, so that structure comes about by chance.
    fn folded() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "\r\n",
            "\n",
            "\r",
            " ",
            "\t",
            ":",
            ";",
            "=",
            "\"",
            "(",
            ")",
            "--",
            "b",
            "--b\r\n",
            "--b--\r\n",
            "\0",
            "\u{e9}",
            "=?utf-8?q?",
            "?=",
            "=C3",
            "=\r\n",
            "<p",
            ">",
            "&amp;",
            "<!--",
            "<script>",
            "://",
            "From ",
            "Subject: ",
            "Content-Type: multipart/mixed; boundary=b\r\n",
            "Content-Type: message/rfc822\r\n",
            "Content-Type: text/html\r\n",
            "Content-Transfer-Encoding: base64\r\n",
            "Content-Transfer-Encoding: quoted-printable\r\n",
            "charset=utf-16",
            "name*0*=",
            "aGVsbG8",
            "http",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..80)
            .prop_map(|pieces| pieces.concat().into_bytes())
    }

    fn read_everything(bytes: Vec<u8>) {
        let message = Message::parse(bytes.clone().into());
        let header: Vec<u8> = message.headers().iter().flat_map(|header| header.field().to_vec()).collect();
        assert_eq!(header, bytes[..message.header_len()]);
        assert_eq!(message.body(), &bytes[bytes.len() - message.body().len()..]);
        for header in message.headers() {
            let _ = (header.name(), header.raw(), header.decoded());
        }
        for part in message.parts() {
            assert!(part.at() <= bytes.len());
            let _ = part.decoded();
        }
        let _ = (message.subject(), message.message_id(), message.defects());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_octets_are_a_message(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read_everything(bytes);
        }

        #[test]
        fn any_structure_is_a_message(bytes in folded()) {
            read_everything(bytes);
        }
    }
}
