//! Encoded words in header fields (RFC 2047), read as widely as mail clients read them: also glued to other text,
//! inside quotes, with white space within, and with a character split over two words of one set.

use memchr::memmem;

use super::{charset, encoding};

/// A character set's name in an encoded word is at most this long.
const CHARSET_MAX: usize = 60;

/// An encoded word at the front of some text.
struct Word<'a> {
    charset: &'a str,
    octets: Vec<u8>,
    len: usize,
}

/// The text as shown. What is no encoded word stays, as UTF-8 or else Windows-1252.
pub(super) fn decode(text: &[u8]) -> String {
    let mut shown = String::with_capacity(text.len());
    let (mut at, mut plain) = (0, 0);
    let mut last_word_end = None;
    // Where nothing ends a word any more, no word begins.
    let last_end = memmem::rfind(text, b"?=").unwrap_or(0);
    while let Some(found) = memmem::find(&text[at..], b"=?") {
        let start = at + found;
        if start >= last_end {
            break;
        }
        let Some(word) = word(&text[start..]) else {
            at = start + 2;
            continue;
        };
        let between = &text[plain..start];
        if last_word_end != Some(plain) || !between.iter().all(u8::is_ascii_whitespace) {
            push_plain(&mut shown, between);
        }
        let (charset, mut octets, mut end) = (word.charset, word.octets, start + word.len);
        // Words of one set that only white space parts are one text.
        while let Some(next) = following(text, end, charset) {
            octets.extend_from_slice(&next.0);
            end = next.1;
        }
        shown.push_str(&charset::decode(&octets, Some(charset)).0);
        (at, plain, last_word_end) = (end, end, Some(end));
    }
    push_plain(&mut shown, &text[plain..]);
    shown
}

fn push_plain(shown: &mut String, text: &[u8]) {
    shown.push_str(&charset::decode(text, None).0);
}

/// The octets and the end of a word of the same set that follows after nothing but white space.
fn following(text: &[u8], end: usize, charset: &str) -> Option<(Vec<u8>, usize)> {
    let rest = text.get(end..)?;
    let blanks = rest.iter().take_while(|octet| octet.is_ascii_whitespace()).count();
    let next = word(&rest[blanks..]).filter(|next| next.charset.eq_ignore_ascii_case(charset))?;
    Some((next.octets, end + blanks + next.len))
}

fn word(text: &[u8]) -> Option<Word<'_>> {
    let inner = text.strip_prefix(b"=?")?;
    let charset_len = inner.iter().take(CHARSET_MAX).position(|&octet| octet == b'?')?;
    let charset = std::str::from_utf8(&inner[..charset_len]).ok().filter(|name| !name.is_empty())?;
    let base64 = match inner.get(charset_len + 1..charset_len + 3)? {
        b"B?" | b"b?" => true,
        b"Q?" | b"q?" => false,
        _ => return None,
    };
    let encoded = &inner[charset_len + 3..];
    let len = memmem::find(encoded, b"?=")?;
    let octets = if base64 { encoding::base64(&encoded[..len]).0 } else { q(&encoded[..len]) };
    Some(Word { charset, octets, len: 2 + charset_len + 3 + len + 2 })
}

/// The Q encoding: quoted-printable with `_` for a space.
fn q(encoded: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = encoded.iter().map(|&octet| if octet == b'_' { b' ' } else { octet }).collect();
    encoding::quoted_printable(&spaced).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_clients_read_them() {
        for (text, shown) in [
            ("plain", "plain"),
            ("=?utf-8?q?caf=C3=A9_au_lait?=", "caf\u{e9} au lait"),
            ("=?UTF-8?B?Y2Fmw6k=?= bar", "caf\u{e9} bar"),
            ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
            ("=?utf-8?q?a?= =?iso-8859-1?q?=E9?=", "a\u{e9}"),
            ("=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "\u{e9}"),
            ("=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
            ("x=?utf-8?q?a?=y", "xay"),
            ("\"=?utf-8?q?a?=\"", "\"a\""),
            ("=?utf-8*en?q?a?=", "a"),
            ("=?utf-8?q?with space?=", "with space"),
            ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
            ("=?utf-8?q?open", "=?utf-8?q?open"),
            ("=??q?a?=", "=??q?a?="),
            ("=?utf-8?b?YQ?=", "a"),
            ("=?=?utf-8?q?a?=", "=?a"),
        ] {
            assert_eq!(decode(text.as_bytes()), shown, "{text}");
        }
    }
}
