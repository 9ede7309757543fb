//! Values with parameters: Content-Type, Content-Disposition, Content-Transfer-Encoding (RFC 2045 section 5, RFC 2231).
//!
//! Read leniently: comments anywhere, unquoted values with spaces, unterminated quotes, continuations in any order.

use super::{charset, encoded_word, limits::PARAMETERS_MAX};

/// A value and its parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// The value before the first `;`, lower case, without comments and white space.
    pub(super) value: String,
    /// The parameters, names in lower case, in order, continuations put together.
    pub(super) parameters: Vec<(String, Vec<u8>)>,
    /// Whether a parameter stands twice.
    pub(super) repeated: bool,
}

impl Content {
    /// Reads an unfolded value.
    pub(super) fn read(value: &[u8]) -> Self {
        let mut pieces = pieces(value).into_iter();
        let first = pieces.next().unwrap_or_default();
        let first: Vec<u8> = first.text.into_iter().filter(|octet| !octet.is_ascii_whitespace()).collect();
        let mut content =
            Self { value: String::from_utf8_lossy(&first).to_ascii_lowercase(), ..Self::default() };
        let mut segments = Vec::new();
        for piece in pieces.take(PARAMETERS_MAX) {
            content.take(piece, &mut segments);
        }
        content.join(segments);
        content
    }

    /// The parameter of that name, the first if there are several.
    pub(super) fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// The parameter as shown: encoded words decoded, for they stand there although they must not.
    pub(super) fn shown(&self, name: &str) -> Option<String> {
        self.parameter(name).map(encoded_word::decode).filter(|shown| !shown.is_empty())
    }

    fn take(&mut self, piece: Piece, segments: &mut Vec<Segment>) {
        let Some(equals) = piece.equals else { return };
        let name = String::from_utf8_lossy(piece.text[..equals].trim_ascii()).to_ascii_lowercase();
        let quoted = piece.quoted;
        let value = piece.text.get(equals + 1..).unwrap_or_default();
        let value = if quoted { value } else { value.trim_ascii() }.to_vec();
        match name.split_once('*') {
            None => self.add(name, value),
            Some((name, rest)) => {
                let extended = rest.is_empty() || rest.ends_with('*');
                let index = rest.trim_end_matches('*').parse().unwrap_or(0);
                segments.push(Segment { name: name.to_owned(), index, extended, value });
            }
        }
    }

    fn add(&mut self, name: String, value: Vec<u8>) {
        self.repeated |= self.parameter(&name).is_some();
        self.parameters.push((name, value));
    }

    /// Puts RFC 2231 segments together. They come after a plain parameter of the same name, which stays as well.
    fn join(&mut self, mut segments: Vec<Segment>) {
        segments.sort_by(|a, b| (&a.name, a.index).cmp(&(&b.name, b.index)));
        for run in segments.chunk_by(|a, b| a.name == b.name) {
            let (Some(first), mut octets, mut set) = (run.first(), Vec::new(), None) else { continue };
            for (at, segment) in run.iter().enumerate() {
                let mut value = segment.value.as_slice();
                if at == 0 && segment.extended {
                    (set, value) = language(value);
                }
                if segment.extended { percent(value, &mut octets) } else { octets.extend_from_slice(value) }
            }
            let text = charset::decode(&octets, set.as_deref()).0;
            self.add(first.name.clone(), text.into_bytes());
        }
    }
}

struct Segment {
    name: String,
    index: u32,
    extended: bool,
    value: Vec<u8>,
}

/// Splits `charset'language'value`.
fn language(value: &[u8]) -> (Option<String>, &[u8]) {
    let mut quotes = value.iter().enumerate().filter(|&(_, &octet)| octet == b'\'').map(|(at, _)| at);
    match (quotes.next(), quotes.next()) {
        (Some(first), Some(second)) => {
            let set = String::from_utf8_lossy(&value[..first]).into_owned();
            ((!set.is_empty()).then_some(set), &value[second + 1..])
        }
        _ => (None, value),
    }
}

fn percent(value: &[u8], octets: &mut Vec<u8>) {
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        let hex = |octet: u8| char::from(octet).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                octets.push((hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0)) as u8);
                rest = after;
            }
            _ => {
                octets.push(*first);
                rest = tail;
            }
        }
    }
}

/// What stands between two `;`: comments and quotes taken off, and where its first `=` is.
#[derive(Default)]
struct Piece {
    text: Vec<u8>,
    equals: Option<usize>,
    quoted: bool,
}

fn pieces(value: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut piece = Piece::default();
    let (mut depth, mut in_quotes) = (0_usize, false);
    let mut octets = value.iter().copied();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' if depth > 0 => drop(octets.next()),
            b'\\' if in_quotes => piece.text.extend(octets.next()),
            b'"' if depth == 0 => {
                in_quotes = !in_quotes;
                if !piece.quoted && piece.equals.is_some() {
                    piece.text.truncate(piece.equals.map_or(0, |equals| equals + 1));
                }
                piece.quoted = true;
            }
            _ if in_quotes => piece.text.push(octet),
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            b';' => {
                pieces.push(std::mem::take(&mut piece));
                if pieces.len() > PARAMETERS_MAX {
                    return pieces;
                }
            }
            _ if piece.quoted && octet.is_ascii_whitespace() => {}
            _ => {
                if octet == b'=' && piece.equals.is_none() {
                    piece.equals = Some(piece.text.len());
                }
                piece.text.push(octet);
            }
        }
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, main: &str, parameters: &[(&str, &str)]) {
        let content = Content::read(value.as_bytes());
        assert_eq!(content.value, main, "{value}");
        let read: Vec<_> = content
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(read, parameters, "{value}");
    }

    #[test]
    fn values_and_parameters_in_every_spelling() {
        check("text/plain", "text/plain", &[]);
        check("TEXT / Plain ; Charset = utf-8", "text/plain", &[("charset", "utf-8")]);
        check("text/plain (really); charset=\"utf-8\"", "text/plain", &[("charset", "utf-8")]);
        check("multipart/mixed; boundary=\" a;b\\\"c \"", "multipart/mixed", &[("boundary", " a;b\"c ")]);
        check("multipart/mixed; boundary=\"open", "multipart/mixed", &[("boundary", "open")]);
        check("multipart/mixed; boundary=a=b", "multipart/mixed", &[("boundary", "a=b")]);
        check("multipart/mixed; boundary=two words", "multipart/mixed", &[("boundary", "two words")]);
        check("x; boundary*0=ab; boundary*1=cd", "x", &[("boundary", "abcd")]);
        check("x; name*1*=%C3%A9; name*0*=utf-8''caf", "x", &[("name", "caf\u{e9}")]);
        check("x; filename*=iso-8859-1'en'%E9.txt", "x", &[("filename", "\u{e9}.txt")]);
        check("; tag=1", "", &[("tag", "1")]);
        check("", "", &[]);
        check("a/b;;;c", "a/b", &[]);
    }
}
