//! The few tokens the gate reads (RFC 9051 section 9): words, atoms, strings. Everything is borrowed from the line.

use std::borrow::Cow;

/// Splits at the first space: what stands before it, and what behind it if there is one.
pub(super) fn word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&octet| octet == b' ') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// An `astring` at the front of an argument list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AString<'a> {
    /// An atom or a quoted string, unquoted.
    Here(Cow<'a, [u8]>),
    /// A literal is announced in its place.
    Literal,
    /// None of them.
    Malformed,
}

/// Reads the `astring` at the front of `text`.
pub(super) fn astring(text: &[u8]) -> AString<'_> {
    match text.first() {
        None => AString::Malformed,
        Some(b'{') => AString::Literal,
        Some(b'~') if text.starts_with(b"~{") => AString::Literal,
        Some(b'"') => quoted(&text[1..]).map_or(AString::Malformed, AString::Here),
        Some(_) => match word(text).0 {
            [] => AString::Malformed,
            atom => AString::Here(Cow::Borrowed(atom)),
        },
    }
}

/// The inside of a quoted string whose opening quote is gone.
fn quoted(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let end = text.iter().position(|octet| b"\"\\".contains(octet))?;
    if text[end] == b'"' {
        return Some(Cow::Borrowed(&text[..end]));
    }
    let mut value = text[..end].to_vec();
    let mut octets = text[end..].iter();
    loop {
        match octets.next()? {
            b'"' => return Some(Cow::Owned(value)),
            b'\\' => value.push(*octets.next()?),
            octet => value.push(*octet),
        }
    }
}

/// Whether `tag` may be repeated in a response: RFC 9051 `tag`, and not without measure.
pub(super) fn is_tag(tag: &[u8]) -> bool {
    (1..=MAX_TAG).contains(&tag.len())
        && tag.iter().all(|octet| octet.is_ascii_graphic() && !b"(){%*\"\\+".contains(octet))
}

/// Whether `name` could be the name of a command.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(octet))
}

/// Octets of the longest tag that is taken; clients use a few.
const MAX_TAG: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn astrings() {
        for (text, expected) in [
            (&b"fred secret"[..], AString::Here(Cow::Borrowed(&b"fred"[..]))),
            (b"\"fr ed\" x", AString::Here(Cow::Borrowed(b"fr ed"))),
            (b"\"a\\\"b\\\\c\"", AString::Here(Cow::Borrowed(b"a\"b\\c"))),
            (b"\"\"", AString::Here(Cow::Borrowed(b""))),
            (b"\"open", AString::Malformed),
            (b"\"open\\", AString::Malformed),
            (b"{5}", AString::Literal),
            (b"~{5+}", AString::Literal),
            (b" x", AString::Malformed),
            (b"", AString::Malformed),
        ] {
            assert_eq!(astring(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn tags() {
        for (tag, good) in [
            ("a1", true),
            ("A.1", true),
            ("]", true),
            ("", false),
            ("+", false),
            ("*", false),
            ("a\u{e4}", false),
        ] {
            assert_eq!(is_tag(tag.as_bytes()), good, "{tag}");
        }
        assert!(is_tag(&[b'x'; 128]) && !is_tag(&[b'x'; 129]));
    }
}
