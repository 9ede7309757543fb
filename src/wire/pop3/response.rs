//! A POP3 server's status lines.
//!
//! Three kinds: `+OK`, `-ERR`, and `+` with a challenge inside an AUTH exchange. The bytes are kept verbatim; the one
//! thing that is ever re-written is a count of octets that our own additions made wrong.

use bytes::Bytes;

use crate::wire::line::{Line, LineFault};

/// A status line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: Status,
    line: Bytes,
}

/// What a status line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `+OK`
    Ok,
    /// `-ERR`
    Err,
    /// `+ challenge`: the client speaks next (RFC 5034 section 4)
    Continue,
}

/// Why a line is no status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFault {
    /// The line is not a right line.
    #[error("{} in a status line", .0.as_str())]
    Line(LineFault),
    /// It begins with neither `+OK`, `-ERR` nor `+`.
    #[error("not a status line")]
    Status,
}

impl Response {
    /// Reads a status line.
    pub fn parse(line: Line) -> Result<Self, ResponseFault> {
        if let Some(fault) = line.fault() {
            return Err(ResponseFault::Line(fault));
        }
        let status = Status::parse(line.text()).ok_or(ResponseFault::Status)?;
        Ok(Self { status, line: line.into_bytes() })
    }

    /// What it says.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// The line as it came, with its line end.
    pub fn verbatim(&self) -> &[u8] {
        &self.line
    }

    /// What follows the status word and its space, without the line end.
    pub fn text(&self) -> &[u8] {
        let text = self.line.strip_suffix(b"\r\n").unwrap_or(&self.line);
        let text = text.get(self.status.as_str().len()..).unwrap_or_default();
        text.strip_prefix(b" ").unwrap_or(text)
    }

    /// The response code without its brackets, such as `SYS/TEMP` (RFC 2449 section 8, RFC 3206).
    pub fn code(&self) -> Option<&[u8]> {
        let text = self.text().strip_prefix(b"[")?;
        text.get(..memchr::memchr(b']', text)?)
    }

    /// The line with its count of octets, where it has one, made greater by `added` octets (less when negative). A
    /// count is a number with `octets` or `bytes` behind it, or the only word there is.
    pub fn with_octets_added(&self, added: i64) -> Bytes {
        let Some((at, count)) = self.octet_count().filter(|_| added != 0) else { return self.line.clone() };
        let digits = count.to_string().len();
        let changed = count.saturating_add_signed(added).to_string();
        [&self.line[..at], changed.as_bytes(), &self.line[at + digits..]].concat().into()
    }

    /// The count of octets in the line, where it has one.
    pub fn octets(&self) -> Option<u64> {
        self.octet_count().map(|(_, count)| count)
    }

    /// The offset in the line and the value of the octet count.
    fn octet_count(&self) -> Option<(usize, u64)> {
        let text = self.text();
        let base = self.line.len() - 2 - text.len();
        let words = || text.split(|octet| matches!(octet, b' ' | b'(' | b')' | b'.' | b','));
        let mut at = 0;
        for (index, word) in words().enumerate() {
            let next = words().nth(index + 1);
            let unit = next.is_some_and(|next| UNITS.iter().any(|unit| next.eq_ignore_ascii_case(unit)));
            let alone = index == 0 && next.is_none();
            if let Some(count) = plain_number(word).filter(|_| alone || unit) {
                return Some((base + at, count));
            }
            at += word.len() + 1;
            if index >= WORDS_LOOKED_AT {
                return None;
            }
        }
        None
    }
}

impl Status {
    fn parse(text: &[u8]) -> Option<Self> {
        match text {
            [b'+', b'O', b'K', ..] => Some(Self::Ok),
            [b'-', b'E', b'R', b'R', ..] => Some(Self::Err),
            [b'+'] | [b'+', b' ', ..] => Some(Self::Continue),
            _ => None,
        }
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "+OK",
            Self::Err => "-ERR",
            Self::Continue => "+",
        }
    }
}

/// A number written as `to_string` would write it.
fn plain_number(word: &[u8]) -> Option<u64> {
    let digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let count: u64 = std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()?;
    (count.to_string().len() == word.len()).then_some(count)
}

/// What a count of octets is told by.
const UNITS: [&[u8]; 2] = [b"octets", b"bytes"];
/// A status line says its count early; a long one is not searched to its end.
const WORDS_LOOKED_AT: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::line::LineDecoder;
    use bytes::BytesMut;

    fn parse(line: &str) -> Result<Response, ResponseFault> {
        Response::parse(LineDecoder::new(512).next(&mut BytesMut::from(line)).unwrap().unwrap())
    }

    #[test]
    fn status_lines_are_told_apart() {
        for (line, status, text, code) in [
            ("+OK\r\n", Status::Ok, "", None),
            (
                "+OK ready <1896.697170952@dbc.mtview.ca.us>\r\n",
                Status::Ok,
                "ready <1896.697170952@dbc.mtview.ca.us>",
                None,
            ),
            ("-ERR\r\n", Status::Err, "", None),
            ("-ERR [SYS/TEMP] later\r\n", Status::Err, "[SYS/TEMP] later", Some("SYS/TEMP")),
            ("-ERR [oops\r\n", Status::Err, "[oops", None),
            ("+ \r\n", Status::Continue, "", None),
            ("+\r\n", Status::Continue, "", None),
            ("+ NTLM supported\r\n", Status::Continue, "NTLM supported", None),
        ] {
            let response = parse(line).unwrap();
            assert_eq!(response.status(), status, "{line:?}");
            assert_eq!(response.text(), text.as_bytes(), "{line:?}");
            assert_eq!(response.code(), code.map(str::as_bytes), "{line:?}");
            assert_eq!(response.verbatim(), line.as_bytes());
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for (line, fault) in [
            ("\r\n", ResponseFault::Status),
            ("OK\r\n", ResponseFault::Status),
            ("-\r\n", ResponseFault::Status),
            ("+PONG\r\n", ResponseFault::Status),
            ("* OK IMAP\r\n", ResponseFault::Status),
            ("+OK\n", ResponseFault::Line(LineFault::BareLf)),
            ("+OK\r-ERR\r\n", ResponseFault::Line(LineFault::BareCr)),
        ] {
            assert_eq!(parse(line), Err(fault), "{line:?}");
        }
    }

    #[test]
    fn an_octet_count_follows_what_is_added() {
        for (line, added, expected) in [
            ("+OK 120 octets\r\n", 500, "+OK 620 octets\r\n"),
            ("+OK 120 octets\r\n", 0, "+OK 120 octets\r\n"),
            ("+OK 120 octets\r\n", -20, "+OK 100 octets\r\n"),
            ("+OK 120\r\n", 5, "+OK 125\r\n"),
            ("+OK 99 octets follow.\r\n", 5, "+OK 104 octets follow.\r\n"),
            ("+OK message 1 (120 octets)\r\n", 5, "+OK message 1 (125 octets)\r\n"),
            ("+OK Message 1 follows, 120 bytes.\r\n", 5, "+OK Message 1 follows, 125 bytes.\r\n"),
            ("+OK message follows: 120 bytes\r\n", 5, "+OK message follows: 125 bytes\r\n"),
            ("+OK Message 7 follows\r\n", 5, "+OK Message 7 follows\r\n"),
            ("+OK 7 follows\r\n", 5, "+OK 7 follows\r\n"),
            ("+OK 7 octets: 120 octets\r\n", 5, "+OK 7 octets: 125 octets\r\n"),
            ("+OK\r\n", 5, "+OK\r\n"),
            ("+OK 0120 octets\r\n", 5, "+OK 0120 octets\r\n"),
            ("+OK 99999999999999999999 octets\r\n", 5, "+OK 99999999999999999999 octets\r\n"),
        ] {
            let changed = parse(line).unwrap().with_octets_added(added);
            assert_eq!(changed.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string());
        }
    }
}
