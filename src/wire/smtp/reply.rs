//! SMTP replies (RFC 5321 section 4.2): read from an upstream, made by us, written to a client.
//!
//! A reply that was read is written again line for line; only its line ends become CRLF.

use bytes::{Bytes, BytesMut};

/// Octets of one reply line. RFC 5321 section 4.5.3.1.5 says 512; real servers write more.
const LINE_OCTETS: usize = 4_096;
/// Octets of a whole reply: a long EHLO list or a verbose refusal, never a flood.
const REPLY_OCTETS: usize = 64 * 1024;

/// Characters of a reply of ours, which may quote the client.
const TEXT_CHARS: usize = 400;

/// A whole reply, one line or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    text: Bytes,
}

impl Reply {
    /// A reply of ours: `code`, the enhanced status code of RFC 3463, and a text of one line.
    pub fn new(code: u16, enhanced: &str, text: impl AsRef<str>) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.as_ref().chars().take(TEXT_CHARS).map(printable).collect();
        Self { code, text: Bytes::from(format!("{code} {enhanced} {text}\r\n")) }
    }

    /// A reply without an enhanced status code, of one or more lines; for 220, 334, 354 and EHLO lists.
    pub fn plain<'a>(code: u16, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let lines: Vec<&str> = lines.into_iter().collect();
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            let separator = if index + 1 == lines.len() { ' ' } else { '-' };
            text.push_str(&format!("{code}{separator}{line}\r\n"));
        }
        Self { code, text: Bytes::from(text) }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// What goes over the wire: all lines with their codes and CRLF.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The text of each line behind the code.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text
            .split(|&octet| octet == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line).get(4..).unwrap_or_default())
    }

    /// All of it in one printable line, for logs and the journal.
    pub fn summary(&self) -> String {
        let lines: Vec<_> = self.lines().map(String::from_utf8_lossy).collect();
        let text = lines.join(" ");
        let printable: String = text.chars().filter(|c| !c.is_control()).take(400).collect();
        format!("{} {printable}", self.code)
    }
}

/// What is wrong with an upstream's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// Not three digits from 200 to 599 and a blank or hyphen.
    #[error("a line that is no SMTP reply")]
    NotAReply,
    /// A bare CR or a NUL in a line.
    #[error("control characters in a reply")]
    Characters,
    /// A line or the whole reply is over the limit.
    #[error("an overlong reply")]
    TooLong,
}

/// Takes replies off a stream of octets.
#[derive(Debug, Default)]
pub struct ReplyDecoder {
    partial: BytesMut,
}

impl ReplyDecoder {
    /// The next whole reply; `None` while more input is needed.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyFault> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let line = input.split_to(end + 1);
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            let (code, last) = read_code(line)?;
            if line.len() > LINE_OCTETS || self.partial.len() + line.len() > REPLY_OCTETS {
                return Err(ReplyFault::TooLong);
            }
            if line.iter().any(|octet| matches!(octet, b'\r' | 0)) {
                return Err(ReplyFault::Characters);
            }
            self.partial.extend_from_slice(line);
            self.partial.extend_from_slice(b"\r\n");
            if last {
                return Ok(Some(Reply { code, text: self.partial.split().freeze() }));
            }
        }
        if input.len() > LINE_OCTETS { Err(ReplyFault::TooLong) } else { Ok(None) }
    }
}

fn read_code(line: &[u8]) -> Result<(u16, bool), ReplyFault> {
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let digits = digits.ok_or(ReplyFault::NotAReply)?;
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let last = match line.get(3) {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return Err(ReplyFault::NotAReply),
    };
    if (200..600).contains(&code) { Ok((code, last)) } else { Err(ReplyFault::NotAReply) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<Vec<(u16, String)>, ReplyFault>;

    fn decode(chunks: &[&[u8]]) -> Outcome {
        let mut decoder = ReplyDecoder::default();
        let mut input = BytesMut::new();
        let mut replies = Vec::new();
        for chunk in chunks {
            input.extend_from_slice(chunk);
            while let Some(reply) = decoder.next(&mut input)? {
                replies.push((reply.code(), String::from_utf8_lossy(reply.as_bytes()).into_owned()));
            }
        }
        Ok(replies)
    }

    fn check(input: &[u8], want: Outcome) {
        assert_eq!(decode(&[input]), want, "whole {input:?}");
        let octets: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(decode(&octets), want, "by octets {input:?}");
        for at in 0..=input.len() {
            assert_eq!(decode(&[&input[..at], &input[at..]]), want, "split at {at} {input:?}");
        }
    }

    #[test]
    fn replies_are_taken_whole_however_they_arrive() {
        let one = |code, text: &str| Ok(vec![(code, text.to_owned())]);
        check(b"250 ok\r\n", one(250, "250 ok\r\n"));
        check(b"250\r\n", one(250, "250\r\n"));
        check(b"250 ok\n", one(250, "250 ok\r\n"));
        check(b"250-a\r\n250-b\r\n250 c\r\n", one(250, "250-a\r\n250-b\r\n250 c\r\n"));
        check(b"334 NTLM supported\r\n", one(334, "334 NTLM supported\r\n"));
        check(b"250 a\r\n354 b\r\n", Ok(vec![(250, "250 a\r\n".into()), (354, "354 b\r\n".into())]));
        check(b"25", Ok(vec![]));
        check(b"\r\n", Err(ReplyFault::NotAReply));
        check(b"* OK imap\r\n", Err(ReplyFault::NotAReply));
        check(b"2500 x\r\n", Err(ReplyFault::NotAReply));
        check(b"150 x\r\n", Err(ReplyFault::NotAReply));
        check(b"250 a\rb\r\n", Err(ReplyFault::Characters));
    }

    #[test]
    fn overlong_replies_end() {
        let line = [b"250-".as_slice(), &[b'x'; 5000], b"\r\n"].concat();
        assert_eq!(decode(&[&line]), Err(ReplyFault::TooLong));
        assert_eq!(decode(&[&line[..4500]]), Err(ReplyFault::TooLong));
        let many = b"250-x\r\n".repeat(20_000);
        assert_eq!(decode(&[&many]), Err(ReplyFault::TooLong));
    }

    #[test]
    fn our_own_replies_are_one_line_whatever_they_quote() {
        let reply = Reply::new(550, "5.7.1", "a\r\n250 b");
        assert_eq!(reply.as_bytes(), b"550 5.7.1 a  250 b\r\n");
        assert_eq!(Reply::plain(250, ["a", "b"]).as_bytes(), b"250-a\r\n250 b\r\n");
        assert_eq!(Reply::plain(250, ["a", "b"]).lines().collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
