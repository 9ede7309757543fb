//! Lines, as SMTP, POP3 and IMAP all use them.
//!
//! A line ends at LF, so that a wrong line end can never hide a second command; only CRLF is right, and everything
//! else is a named [`LineFault`] for the session to refuse. The bytes are kept verbatim. It gives lines no meaning.

use bytes::{Bytes, BytesMut};

/// Takes lines off the front of a read buffer. Between two calls the buffer may only grow: what was scanned in vain is
/// not scanned again.
#[derive(Debug)]
pub struct LineDecoder {
    limit: usize,
    /// Octets at the front of the input known to hold no LF. Invariant: less than `limit` when `next` returned None.
    scanned: usize,
}

/// There is no LF within the limit. Nothing was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the line is longer than {limit} octets")]
pub struct TooLong {
    /// The limit that was reached, in octets with the line end.
    pub limit: usize,
}

/// One line with its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    bytes: Bytes,
    fault: Option<LineFault>,
}

/// What is wrong with a line: the first fault in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineFault {
    /// It ends in LF without CR.
    BareLf,
    /// It holds a CR that no LF follows.
    BareCr,
    /// It holds a NUL.
    Nul,
}

impl LineDecoder {
    /// A decoder for lines of up to `limit` octets, counted with the line end.
    pub fn new(limit: usize) -> Self {
        Self { limit, scanned: 0 }
    }

    /// Changes the limit, from the next line on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes the next line off the front of `input`. `Ok(None)`: more input is needed. `Err`: no LF within the limit,
    /// and nothing is consumed.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Line>, TooLong> {
        let window = &input[..input.len().min(self.limit)];
        let scanned = self.scanned.min(window.len());
        if let Some(offset) = memchr::memchr(b'\n', &window[scanned..]) {
            self.scanned = 0;
            return Ok(Some(Line::new(input.split_to(scanned + offset + 1).freeze())));
        }
        if window.len() == self.limit {
            self.scanned = 0;
            return Err(TooLong { limit: self.limit });
        }
        self.scanned = window.len();
        Ok(None)
    }
}

impl Line {
    /// `bytes` hold one LF, as the last octet.
    fn new(bytes: Bytes) -> Self {
        let fault = find_fault(&bytes);
        Self { bytes, fault }
    }

    /// Every octet as it came, with the line end.
    pub fn verbatim(&self) -> &[u8] {
        &self.bytes
    }

    /// The octets as they came, shared rather than copied.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The line without its line end, be that CRLF or a bare LF.
    pub fn text(&self) -> &[u8] {
        let text = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    /// The first fault of the line, if it has one.
    pub fn fault(&self) -> Option<LineFault> {
        self.fault
    }
}

impl LineFault {
    /// One phrase for replies and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareLf => "bare LF",
            Self::BareCr => "bare CR",
            Self::Nul => "NUL",
        }
    }
}

fn find_fault(line: &[u8]) -> Option<LineFault> {
    let at = memchr::memchr3(b'\r', b'\n', 0, line)?;
    match line[at] {
        0 => Some(LineFault::Nul),
        b'\n' => Some(LineFault::BareLf),
        _ if line.get(at + 1) == Some(&b'\n') => None,
        _ => Some(LineFault::BareCr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::check_chunks;

    /// What is expected of a line: its verbatim octets and its fault.
    type Seen = (&'static [u8], Option<LineFault>);

    /// Feeds `input` in every chunking; the lines, what is left, and whether the limit was reached.
    fn check(limit: usize, input: &[u8], lines: &[Seen], rest: &[u8], too_long: bool) {
        let (seen, left, error) = check_chunks(input, |chunks| {
            let mut decoder = LineDecoder::new(limit);
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            let mut error = false;
            for chunk in chunks {
                buffer.extend_from_slice(chunk);
                while !error {
                    match decoder.next(&mut buffer) {
                        Ok(Some(line)) => seen.push((line.verbatim().to_vec(), line.fault())),
                        Ok(None) => break,
                        Err(TooLong { .. }) => error = true,
                    }
                }
            }
            (seen, buffer.to_vec(), error)
        });
        let expected: Vec<_> = lines.iter().map(|(bytes, fault)| (bytes.to_vec(), *fault)).collect();
        assert_eq!((seen, left.as_slice(), error), (expected, rest, too_long), "{}", input.escape_ascii());
    }

    #[test]
    fn lines_end_at_lf_and_faults_are_named() {
        use LineFault::*;
        let rows: &[(&[u8], &[Seen], &[u8])] = &[
            (b"", &[], b""),
            (b"\r\n", &[(b"\r\n", None)], b""),
            (b"\n", &[(b"\n", Some(BareLf))], b""),
            (b"NOOP\r\n", &[(b"NOOP\r\n", None)], b""),
            (b"NOOP\r\nQUIT\r\n", &[(b"NOOP\r\n", None), (b"QUIT\r\n", None)], b""),
            (b"NOOP\nQUIT\r\n", &[(b"NOOP\n", Some(BareLf)), (b"QUIT\r\n", None)], b""),
            (b"NOOP\r", &[], b"NOOP\r"),
            (b"NO\rOP\r\n", &[(b"NO\rOP\r\n", Some(BareCr))], b""),
            (b"NOOP\r\r\n", &[(b"NOOP\r\r\n", Some(BareCr))], b""),
            (b"\rNOOP\n", &[(b"\rNOOP\n", Some(BareCr))], b""),
            (b"NO\0OP\r\n", &[(b"NO\0OP\r\n", Some(Nul))], b""),
            (b"NO\0OP\n", &[(b"NO\0OP\n", Some(Nul))], b""),
            (b"a\r\0\n", &[(b"a\r\0\n", Some(BareCr))], b""),
            (b"\xff\xfe\r\nrest", &[(b"\xff\xfe\r\n", None)], b"rest"),
        ];
        for (input, lines, rest) in rows {
            check(64, input, lines, rest, false);
        }
    }

    #[test]
    fn the_limit_counts_the_line_end_and_nothing_over_it_is_consumed() {
        check(6, b"NOOP\r\n", &[(b"NOOP\r\n", None)], b"", false);
        check(5, b"NOOP\r\n", &[], b"NOOP\r\n", true);
        check(6, b"QUIT\r\nNOOP?\r\n", &[(b"QUIT\r\n", None)], b"NOOP?\r\n", true);
        check(6, b"12345", &[], b"12345", false);
        check(6, b"123456", &[], b"123456", true);
    }

    #[test]
    fn the_text_lacks_the_line_end_only() {
        for (input, text) in
            [("\r\n", ""), ("\n", ""), ("a \r\n", "a "), ("a\n", "a"), ("a\r\r\n", "a\r"), ("\0\r\n", "\0")]
        {
            let line = LineDecoder::new(64).next(&mut BytesMut::from(input)).unwrap().unwrap();
            assert_eq!(line.text(), text.as_bytes());
            assert_eq!(line.verbatim(), input.as_bytes());
        }
    }

    #[test]
    fn a_raised_limit_holds_for_the_line_that_was_too_long() {
        let mut buffer = BytesMut::from("123456789\r\n");
        let mut decoder = LineDecoder::new(4);
        assert_eq!(decoder.next(&mut buffer), Err(TooLong { limit: 4 }));
        decoder.set_limit(64);
        assert_eq!(decoder.next(&mut buffer).unwrap().unwrap().text(), b"123456789");
    }
}
