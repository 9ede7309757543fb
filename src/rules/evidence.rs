//! Evidence: the text that matched, made fit to be shown. Bounded, on one line, without control characters.

/// Characters of evidence at most.
pub(super) const EVIDENCE_MAX: usize = 80;

/// What matched, as people can see it: control characters and octets that are no text escaped, cut with `…`.
pub(super) fn printable(matched: &[u8]) -> String {
    let mut shown = String::new();
    let mut left = EVIDENCE_MAX - 1;
    for chunk in matched.utf8_chunks() {
        let text = chunk.valid().chars().map(shown_char);
        let octets = chunk.invalid().iter().map(|octet| format!("\\x{octet:02x}"));
        for piece in text.chain(octets) {
            let len = piece.chars().count();
            if len > left {
                shown.push('…');
                return shown;
            }
            left -= len;
            shown.push_str(&piece);
        }
    }
    shown
}

fn shown_char(character: char) -> String {
    let invisible = character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if invisible { character.escape_default().to_string() } else { character.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_and_printable() {
        for (matched, shown) in [
            (b"plain".as_slice(), "plain".to_owned()),
            (b"a\r\n\x1b[31mb", "a\\r\\n\\u{1b}[31mb".to_owned()),
            (b"\xff\xc3\xa9", "\\xff\u{e9}".to_owned()),
            ("x\u{202e}y".as_bytes(), "x\\u{202e}y".to_owned()),
            (&[b'a'; 200], format!("{}…", "a".repeat(79))),
        ] {
            assert_eq!(printable(matched), shown);
            assert!(printable(matched).chars().count() <= EVIDENCE_MAX);
        }
    }
}
