//! Transfer encodings (RFC 2045 section 6): decoders that never fail and never drop what some client would show.

use std::borrow::Cow;

/// How a part's content is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it stands: 7bit, 8bit, binary, nothing said, or an encoding that is not known.
    Identity,
    /// Base64.
    Base64,
    /// Quoted-printable.
    QuotedPrintable,
}

impl Encoding {
    /// The encoding of that name; none if it is not known.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "" | "7bit" | "8bit" | "binary" | "7-bit" | "8-bit" => Some(Self::Identity),
            "base64" => Some(Self::Base64),
            "quoted-printable" => Some(Self::QuotedPrintable),
            _ => None,
        }
    }

    /// Decodes; says whether nothing was out of place.
    pub(super) fn decode(self, encoded: &[u8]) -> (Cow<'_, [u8]>, bool) {
        match self {
            Self::Identity => (Cow::Borrowed(encoded), true),
            Self::Base64 => {
                let (decoded, junk) = base64(encoded);
                (Cow::Owned(decoded), junk == 0)
            }
            Self::QuotedPrintable => {
                let (decoded, clean) = quoted_printable(encoded);
                (Cow::Owned(decoded), clean)
            }
        }
    }
}

const fn base64_value(octet: u8) -> Option<u8> {
    match octet {
        b'A'..=b'Z' => Some(octet - b'A'),
        b'a'..=b'z' => Some(octet - b'a' + 26),
        b'0'..=b'9' => Some(octet - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Decodes base64 and counts the octets that are no base64. Other characters are skipped, padding may be missing, and after
/// padding a new run may begin: so clients read it.
pub(super) fn base64(encoded: &[u8]) -> (Vec<u8>, usize) {
    let mut decoded = Vec::with_capacity(encoded.len() / 4 * 3 + 3);
    let (mut bits, mut held, mut junk) = (0_u32, 0_u32, 0);
    for &octet in encoded {
        match base64_value(octet) {
            Some(value) => {
                bits = bits << 6 | u32::from(value);
                held += 1;
                if held == 4 {
                    decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
                    (bits, held) = (0, 0);
                }
            }
            None if octet == b'=' => {
                flush(&mut decoded, bits, held);
                (bits, held) = (0, 0);
            }
            None if octet.is_ascii_whitespace() => {}
            None => junk += 1,
        }
    }
    flush(&mut decoded, bits, held);
    (decoded, junk)
}

/// Writes the whole octets of a quantum that ended early.
fn flush(decoded: &mut Vec<u8>, bits: u32, held: u32) {
    if held >= 2 {
        let octets = (bits << (6 * (4 - held))).to_be_bytes();
        decoded.extend_from_slice(&octets[1..held as usize]);
    }
}

fn hex(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).map(|digit| digit as u8)
}

/// Decodes quoted-printable. An escape that is none stays as text; a soft line break may be followed by blanks.
pub(super) fn quoted_printable(encoded: &[u8]) -> (Vec<u8>, bool) {
    let (mut decoded, mut clean, mut at) = (Vec::with_capacity(encoded.len()), true, 0);
    while let Some(equals) = memchr::memchr(b'=', &encoded[at..]) {
        decoded.extend_from_slice(&encoded[at..at + equals]);
        at += equals + 1;
        let rest = &encoded[at..];
        let blanks = rest.iter().take(MOST_BLANKS).take_while(|octet| matches!(octet, b' ' | b'\t')).count();
        match rest {
            _ if blanks == rest.len() => at += blanks,
            _ if rest[blanks..].starts_with(b"\r\n") => at += blanks + 2,
            _ if rest[blanks] == b'\n' => at += blanks + 1,
            [high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    at += 2;
                }
                _ => {
                    decoded.push(b'=');
                    clean = false;
                }
            },
            _ => {
                decoded.push(b'=');
                clean = false;
            }
        }
    }
    decoded.extend_from_slice(&encoded[at..]);
    (decoded, clean)
}

/// Blanks that may stand between a soft break's `=` and its line end; a bound, so that no input costs more than its length.
const MOST_BLANKS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_clients_read_it() {
        for (encoded, decoded, junk) in [
            ("aGVsbG8=", "hello", 0),
            ("aGVs\r\nbG8=\r\n", "hello", 0),
            ("aGVsbG8", "hello", 0),
            ("aGVs*bG8=", "hello", 1),
            ("aGVsbG8=d29ybGQ=", "helloworld", 0),
            ("YQ==YQ==", "aa", 0),
            ("", "", 0),
            ("A", "", 0),
            ("====", "", 0),
        ] {
            assert_eq!(base64(encoded.as_bytes()), (decoded.into(), junk), "{encoded}");
        }
    }

    #[test]
    fn quoted_printable_keeps_what_is_no_escape() {
        for (encoded, decoded, clean) in [
            ("a=3Db", "a=b", true),
            ("soft=\r\nbreak", "softbreak", true),
            ("soft=\nbreak", "softbreak", true),
            ("soft= \t\r\nbreak", "softbreak", true),
            ("lower=c3=a9", "lower\u{e9}", true),
            ("bad=XYz", "bad=XYz", false),
            ("bad=4", "bad=4", false),
            ("end=", "end", true),
            ("==41", "=A", false),
            ("", "", true),
        ] {
            assert_eq!(
                quoted_printable(encoded.as_bytes()),
                (decoded.as_bytes().to_vec(), clean),
                "{encoded}"
            );
        }
    }
}
