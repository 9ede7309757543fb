//! Character sets: from octets to text, without fail.
//!
//! What is valid UTF-8 with octets over 127 is UTF-8, whatever was declared: other text hardly ever looks like it. Else the
//! declared set counts, by the names of the WHATWG list, where ISO-8859-1 means Windows-1252. The last resort is
//! Windows-1252. Left out: UTF-7 and the DOS code pages.

use encoding_rs::{Encoding, ISO_2022_JP, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Text of `octets`; false beside it when the declared set is not known.
pub(super) fn decode(octets: &[u8], declared: Option<&str>) -> (String, bool) {
    let encoding = declared.and_then(named);
    let known = declared.is_none() || encoding.is_some();
    (decode_as(octets, encoding), known)
}

fn named(label: &str) -> Option<&'static Encoding> {
    // RFC 2231 section 5: a language may follow the name in an encoded word.
    let label = label.split('*').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    let label = match label.to_ascii_lowercase().as_str() {
        "cp-1251" | "win-1251" => "windows-1251",
        "cp-1252" | "win-1252" => "windows-1252",
        "cp936" | "gb18030-2000" => "gb18030",
        "cp932" => "shift_jis",
        "cp949" => "euc-kr",
        "cp950" => "big5",
        "utf8mb4" | "utf-8mb4" | "utf" => "utf-8",
        _ => return Encoding::for_label(label.as_bytes()),
    };
    Encoding::for_label(label.as_bytes())
}

fn decode_as(octets: &[u8], encoding: Option<&'static Encoding>) -> String {
    if let Some((encoding, bom)) = Encoding::for_bom(octets) {
        return encoding.decode_without_bom_handling(&octets[bom..]).0.into_owned();
    }
    let encoding = encoding.filter(|&encoding| encoding != REPLACEMENT).unwrap_or(UTF_8);
    let wide = encoding == UTF_16BE || encoding == UTF_16LE;
    if let Ok(text) = std::str::from_utf8(octets)
        && !(wide && octets.contains(&0))
        && !(encoding == ISO_2022_JP && octets.contains(&0x1b))
    {
        return text.to_owned();
    }
    let encoding = if encoding == UTF_8 { last_resort(octets) } else { encoding };
    encoding.decode_without_bom_handling(octets).0.into_owned()
}

/// UTF-8 with a few broken places stays UTF-8; what has more of them than of whole characters is Windows-1252.
fn last_resort(octets: &[u8]) -> &'static Encoding {
    let (mut whole, mut broken) = (0_usize, 0_usize);
    for chunk in octets.utf8_chunks() {
        whole += chunk.valid().chars().filter(|character| !character.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    if whole > broken { UTF_8 } else { WINDOWS_1252 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_told_by_content_then_by_name() {
        for (octets, declared, text) in [
            (b"plain".as_slice(), None, "plain"),
            (b"caf\xc3\xa9", Some("iso-8859-1"), "caf\u{e9}"),
            (b"caf\xe9", Some("utf-8"), "caf\u{e9}"),
            (b"caf\xe9", None, "caf\u{e9}"),
            (b"\x93x\x94", Some("iso-8859-1"), "\u{201c}x\u{201d}"),
            (b"\xcf\xf0\xe8", Some("windows-1251"), "\u{41f}\u{440}\u{438}"),
            (b"\x1b$B$\"\x1b(B", Some("iso-2022-jp"), "\u{3042}"),
            (b"\xff\xfeh\0i\0", None, "hi"),
            (b"h\0i\0", Some("utf-16le"), "hi"),
            (b"hi", Some("utf-16le"), "hi"),
            (b"\xef\xbb\xbfhi", None, "hi"),
            (b"\xe9\xa9\xac\xe9\xa9\xac\xe9", None, "\u{9a6c}\u{9a6c}\u{fffd}"),
            (b"\xb0\xa1", Some("GB18030"), "\u{554a}"),
        ] {
            assert_eq!(decode(octets, declared), (text.to_owned(), true), "{octets:?} {declared:?}");
        }
        assert_eq!(decode(b"caf\xe9", Some("x-nowhere")), ("caf\u{e9}".to_owned(), false));
    }
}
