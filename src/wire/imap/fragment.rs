//! Lines and literals, before any grammar (RFC 9051 sections 2.2 and 4.3, RFC 7888, RFC 3516).
//!
//! Guarantees: the octets of all fragments, one after the other, are the input; how the input was cut into pieces
//! changes nothing but the size of the pieces a literal comes in; a literal is never collected, so a message of any
//! size streams through; a line is collected up to a limit. The scanner remembers how far it has looked, so a
//! line that comes octet by octet costs no more than one that comes at once.
//!
//! A literal is announced by `{n}`, `{n+}`, `~{n}` or `~{n+}` at the very end of a line, behind a space, an opening
//! parenthesis or the line's beginning, outside a quoted string. Two readings of that rule:
//!
//! * [`Fragmentizer::strict`], for what a client says. Only CRLF ends a line. Whatever another parser could take for an
//!   announcement although it is none by grammar (behind an open quote, behind an atom, with a count that is no
//!   number) is a [`Fault`]: Dovecot reads `"...{5}` as an unfinished string, others as a literal, and a gate that
//!   forwarded it would no longer know whether five octets of text or a command come next.
//! * [`Fragmentizer::lenient`], for what an upstream says. LF ends a line, and quotes are not counted: a server that
//!   forgot to escape a quote in an ENVELOPE still means the `BODY[] {1234}` at the end of the line, as clients read it,
//!   and the octets behind it are a stranger's mail that must not be read as responses. Lines over the limit
//!   pass in parts. Nothing is a fault.
//!
//! The generic line reader of this crate is not used here, because an announcement has to be found before the
//! line's end is known to be the command's end, and because an upstream's long lines must stream.
//! It leaves out whether an announced literal really comes: that depends on the conversation, which says so by
//! [`Fragmentizer::no_literal`].

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// Splits one direction of a connection.
#[derive(Debug)]
pub struct Fragmentizer {
    strict: bool,
    limit: usize,
    /// Octets at the front of the input that are known to hold no LF. Never more than the input.
    scanned: usize,
    /// Octets of the announced literal that are still to come.
    literal: u64,
    /// Whether the next line goes on with a command or response that has begun.
    continues: bool,
}

/// A piece of a command or response. It has no `Debug`: it may hold a password.
pub enum Fragment {
    /// The rest of a line, with its end.
    Line(Line),
    /// Part of a line over the limit, without its end. Only from an upstream.
    Part {
        /// The octets.
        octets: Bytes,
        /// Whether a response begins here.
        begins: bool,
    },
    /// Octets of a literal. The literal is complete when a line follows.
    Literal(Bytes),
}

/// A line with its end. It has no `Debug`: it may hold a password.
pub struct Line {
    /// The octets, line end included.
    pub octets: Bytes,
    /// Whether a command or response begins here; otherwise the line follows a literal or a part.
    pub begins: bool,
    /// The literal that the line announces.
    pub announces: Option<Announcement>,
    /// What is wrong with it. A line with a fault announces nothing.
    pub fault: Option<Fault>,
}

/// The announcement of a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// How many octets the literal has.
    pub octets: u64,
    /// Whether the sender waits for a go-ahead before it sends them (`{n}`, not `{n+}`).
    pub waits: bool,
    /// Whether it is a literal8 (`~{n}`), which may hold NUL.
    pub binary: bool,
}

/// What is wrong with a client's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// LF without CR before it.
    BareLf,
    /// CR without LF behind it.
    BareCr,
    /// NUL outside a literal.
    Nul,
    /// Something at the end of the line that one parser would take for a literal's announcement, another not.
    DoubtfulLiteral,
}

/// No line end within the limit. Nothing was consumed, and nothing can be made of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {limit} octets")]
pub struct TooLong {
    /// The limit, in octets.
    pub limit: usize,
}

impl Fragmentizer {
    /// For what a client says; a line has at most `limit` octets with its end.
    pub fn strict(limit: usize) -> Self {
        Self { strict: true, limit, scanned: 0, literal: 0, continues: false }
    }

    /// For what an upstream says; a line over `limit` octets comes in parts. A `limit` that could not hold an
    /// announcement is raised.
    pub fn lenient(limit: usize) -> Self {
        Self { strict: false, limit: limit.max(2 * TAIL), ..Self::strict(limit) }
    }

    /// Another limit from the next line on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = if self.strict { limit } else { limit.max(2 * TAIL) };
    }

    /// The literal that the last line announced does not come: the next line begins a command or response.
    pub fn no_literal(&mut self) {
        self.literal = 0;
        self.continues = false;
    }

    /// Whether the next fragment begins a command or response.
    pub fn at_beginning(&self) -> bool {
        !self.continues
    }

    /// Takes the next fragment off the front of `input`; without one more input is needed.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Fragment>, TooLong> {
        if self.literal > 0 {
            return Ok(self.literal_octets(input));
        }
        let window = input.len().min(self.limit);
        let from = self.scanned.min(window);
        match memchr(b'\n', &input[from..window]) {
            Some(at) => Ok(Some(Fragment::Line(self.line(input.split_to(from + at + 1).freeze())))),
            None if input.len() < self.limit => {
                self.scanned = window;
                Ok(None)
            }
            None if self.strict => Err(TooLong { limit: self.limit }),
            None => Ok(Some(self.part(input))),
        }
    }

    fn literal_octets(&mut self, input: &mut BytesMut) -> Option<Fragment> {
        if input.is_empty() {
            return None;
        }
        let taken = usize::try_from(self.literal).map_or(input.len(), |left| left.min(input.len()));
        self.literal -= taken as u64;
        Some(Fragment::Literal(input.split_to(taken).freeze()))
    }

    fn line(&mut self, octets: Bytes) -> Line {
        let begins = !self.continues;
        let ending = ending(&octets);
        let (announces, fault) =
            if self.strict { strict(&octets, ending) } else { (ending.announced(), None) };
        self.scanned = 0;
        self.literal = announces.map_or(0, |announced| announced.octets);
        self.continues = announces.is_some();
        Line { octets, begins, announces, fault }
    }

    /// Leaves enough of the line behind for an announcement to be found whole at its end.
    fn part(&mut self, input: &mut BytesMut) -> Fragment {
        let octets = input.split_to(self.limit - TAIL).freeze();
        let begins = !self.continues;
        self.scanned = TAIL;
        self.continues = true;
        Fragment::Part { octets, begins }
    }
}

impl Line {
    /// The line with its announcement, if it has one, as that of a synchronising literal.
    pub fn synchronising(&self) -> Bytes {
        match self.announces {
            Some(Announcement { waits: false, .. }) => {
                let head = text(&self.octets).strip_suffix(b"+}").unwrap_or(text(&self.octets));
                [head, b"}\r\n"].concat().into()
            }
            _ => self.octets.clone(),
        }
    }

    /// The line without its announcement.
    pub fn unannounced(&self) -> Bytes {
        match ending(&self.octets) {
            Ending::Announced { at, .. } if self.announces.is_some() => {
                [&self.octets[..at], b"\r\n"].concat().into()
            }
            _ => self.octets.clone(),
        }
    }
}

/// A line without its end.
pub fn text(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What stands at the end of a line.
#[derive(Clone, Copy)]
enum Ending {
    /// No braces.
    Plain,
    /// An announcement by grammar, its opening brace (or the tilde) at `at`.
    Announced { announcement: Announcement, at: usize },
    /// Braces that are no announcement.
    Doubtful,
}

impl Ending {
    fn announced(self) -> Option<Announcement> {
        match self {
            Self::Announced { announcement, .. } => Some(announcement),
            Self::Plain | Self::Doubtful => None,
        }
    }
}

fn ending(line: &[u8]) -> Ending {
    let Some(inner) = text(line).strip_suffix(b"}") else { return Ending::Plain };
    let Some(brace) = memchr::memrchr(b'{', inner) else { return Ending::Plain };
    let (count, waits) = match inner[brace + 1..].strip_suffix(b"+") {
        Some(count) => (count, false),
        None => (&inner[brace + 1..], true),
    };
    let binary = inner[..brace].ends_with(b"~");
    let at = brace - usize::from(binary);
    let apart = matches!(inner[..at].last(), None | Some(b' ' | b'('));
    match number(count) {
        Some(octets) if apart => {
            Ending::Announced { announcement: Announcement { octets, waits, binary }, at }
        }
        _ => Ending::Doubtful,
    }
}

/// A count as RFC 9051 `number64` spells it; at most 20 digits, so that it fits the tail of a long line.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

fn strict(line: &[u8], ending: Ending) -> (Option<Announcement>, Option<Fault>) {
    let text = text(line);
    // What would be an announcement if the line's end were right still leaves the framing in doubt.
    let doubtful = match ending {
        Ending::Plain => false,
        Ending::Announced { at, .. } => in_quotes(&text[..at]) || !line.ends_with(b"\r\n"),
        Ending::Doubtful => true,
    };
    if doubtful {
        (None, Some(Fault::DoubtfulLiteral))
    } else if let Some(fault) = octet_fault(line) {
        // An announcement behind a NUL or a bare CR is not believed either.
        let fault = if ending.announced().is_some() { Fault::DoubtfulLiteral } else { fault };
        (None, Some(fault))
    } else {
        (ending.announced(), None)
    }
}

fn octet_fault(line: &[u8]) -> Option<Fault> {
    let Some(text) = line.strip_suffix(b"\r\n") else { return Some(Fault::BareLf) };
    if memchr(b'\r', text).is_some() {
        return Some(Fault::BareCr);
    }
    memchr(0, text).map(|_| Fault::Nul)
}

/// Whether a quoted string is still open at the end of `text`. A line never begins inside one.
fn in_quotes(text: &[u8]) -> bool {
    let mut open = false;
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        match octet {
            b'"' => open = !open,
            b'\\' if open => {
                octets.next();
            }
            _ => {}
        }
    }
    open
}

/// Octets of the longest announcement with the octet before it and the line's end, generously.
const TAIL: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One fragment in a word: `L` line, `C` continuing line, `P` part, `T` literal text; faults and announcements behind it.
    fn spell(fragment: &Fragment) -> String {
        match fragment {
            Fragment::Line(line) => {
                let kind = if line.begins { 'L' } else { 'C' };
                let rest = match (line.announces, line.fault) {
                    (Some(a), _) => format!(
                        "{}{}{}",
                        ["", "~"][usize::from(a.binary)],
                        a.octets,
                        ["+", ""][usize::from(a.waits)]
                    ),
                    (None, Some(fault)) => format!("{fault:?}"),
                    (None, None) => String::new(),
                };
                format!("{kind}{rest}")
            }
            Fragment::Part { begins, .. } => ["p", "P"][usize::from(*begins)].into(),
            Fragment::Literal(_) => "T".into(),
        }
    }

    /// Feeds the pieces, checks that the fragments are the input, and spells them, neighbouring literal chunks as one.
    fn run(mut codec: Fragmentizer, pieces: &[&[u8]]) -> String {
        let mut input = BytesMut::new();
        let (mut seen, mut spelled) = (Vec::new(), Vec::<String>::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match codec.next(&mut input) {
                    Ok(Some(fragment)) => {
                        let (Fragment::Line(Line { octets, .. })
                        | Fragment::Part { octets, .. }
                        | Fragment::Literal(octets)) = &fragment;
                        seen.extend_from_slice(octets);
                        let word = spell(&fragment);
                        if word != "T" || spelled.last().is_none_or(|last| last != "T") {
                            spelled.push(word);
                        }
                    }
                    Ok(None) => break,
                    Err(TooLong { .. }) => {
                        spelled.push("TooLong".into());
                        return spelled.join(" ");
                    }
                }
            }
        }
        let whole = pieces.concat();
        assert_eq!(seen, whole[..seen.len()]);
        assert_eq!(input, whole[seen.len()..]);
        if !input.is_empty() {
            spelled.push(format!("+{}", input.len()));
        }
        spelled.join(" ")
    }

    fn check(codec: impl Fn() -> Fragmentizer, input: &[u8], expected: &str) {
        let shown = String::from_utf8_lossy(input).into_owned();
        assert_eq!(run(codec(), &[input]), expected, "{shown:?} whole");
        let octets: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(run(codec(), &octets), expected, "{shown:?} octet by octet");
        for at in 0..=input.len() {
            let (head, tail) = input.split_at(at);
            assert_eq!(run(codec(), &[head, tail]), expected, "{shown:?} split at {at}");
        }
    }

    #[test]
    fn a_client_is_read_strictly() {
        for (input, expected) in [
            (&b"a NOOP\r\nb NOOP\r\n"[..], "L L"),
            (b"a NOOP\r", "+7"),
            (b"a LOGIN {5}\r\nfreed {0}\r\n\r\nb NOOP\r\n", "L5 T C0 C L"),
            (b"a APPEND x {3+}\r\n\0\r\n\r\nb\r\n", "L3+ T C L"),
            (b"a APPEND x ~{3}\r\nabc\r\n", "L~3 T C"),
            (b"a APPEND x (~{3+}\r\nabc)\r\n", "L~3+ T C"),
            (b"a SEARCH HEADER ({2}\r\nab)\r\n", "L2 T C"),
            (b"a X {0000000000000000003}\r\nabc\r\n", "L3 T C"),
            (b"a X {5} \r\n", "L"),
            (b"a X {5}x\r\n", "L"),
            (b"a X \"{5}\"\r\n", "L"),
            (b"a X \"\\\"{5}\" {2}\r\nab\r\n", "L2 T C"),
            // What one parser reads as a literal and another does not.
            (b"a X \"{5}\r\nb NOOP\r\n", "LDoubtfulLiteral L"),
            (b"a X \"foo {5}\r\n", "LDoubtfulLiteral"),
            (b"a X \"foo\\\" {5+}\r\n", "LDoubtfulLiteral"),
            (b"a X foo{5}\r\n", "LDoubtfulLiteral"),
            (b"a X \"foo\"{5}\r\n", "LDoubtfulLiteral"),
            (b"a X {}\r\n", "LDoubtfulLiteral"),
            (b"a X {5-}\r\n", "LDoubtfulLiteral"),
            (b"a X { 5}\r\n", "LDoubtfulLiteral"),
            (b"a X {99999999999999999999}\r\n", "LDoubtfulLiteral"),
            (b"a X {5}\n", "LDoubtfulLiteral"),
            (b"a X {5}\r\r\n", "LBareCr"),
            (b"a X\0 {5}\r\n", "LDoubtfulLiteral"),
            // Line ends.
            (b"a NOOP\n", "LBareLf"),
            (b"\n", "LBareLf"),
            (b"a NO\rOP\r\n", "LBareCr"),
            (b"a NO\0OP\r\n", "LNul"),
            (b"\r\n", "L"),
        ] {
            check(|| Fragmentizer::strict(64), input, expected);
        }
    }

    #[test]
    fn an_upstream_is_read_leniently() {
        for (input, expected) in [
            (&b"* OK hi\n* 1 EXISTS\r\n"[..], "L L"),
            (b"* 1 FETCH (BODY[] {3}\r\nabc FLAGS ())\r\n", "L3 T C"),
            (b"* 1 FETCH (BODY[] {3}\nabc)\n", "L3 T C"),
            (b"* 1 FETCH (BINARY[] ~{3}\r\na\0c)\r\n", "L~3 T C"),
            // An unescaped quote before it does not hide the literal.
            (b"* 1 FETCH (X \"a\"b\" BODY[] {3}\r\nabc)\r\n", "L3 T C"),
            (b"* LIST () \"/\" foo{3}\r\n", "L"),
            (b"junk \0 \r junk\r\n\r\n", "L L"),
        ] {
            check(|| Fragmentizer::lenient(64), input, expected);
        }
    }

    #[test]
    fn a_clients_line_has_a_limit() {
        let line = |len: usize| [vec![b'x'; len - 2], b"\r\n".to_vec()].concat();
        check(|| Fragmentizer::strict(16), &line(16), "L");
        check(|| Fragmentizer::strict(16), &line(17), "TooLong");
        check(|| Fragmentizer::strict(16), b"a X {20}\r\n01234567890123456789\r\n", "L20 T C");
    }

    #[test]
    fn an_upstreams_long_line_passes_in_parts() {
        let line = |x: usize, end: &[u8]| [vec![b'x'; x], end.to_vec()].concat();
        check(|| Fragmentizer::lenient(64), &line(62, b"\r\n"), "L");
        check(|| Fragmentizer::lenient(64), &line(63, b"\r\n"), "P C");
        for x in 40..140 {
            let input = line(x, b" ~{00000000000000000003+}\r\nabc)\r\n* OK\r\n");
            let spelled = run(Fragmentizer::lenient(64), &[&input]);
            assert!(spelled.ends_with("~3+ T C L"), "{x}: {spelled}");
            check(|| Fragmentizer::lenient(64), &input, &spelled);
        }
    }

    #[test]
    fn a_refused_literal_leaves_a_line_to_begin() {
        let mut codec = Fragmentizer::strict(64);
        let mut input = BytesMut::from(&b"a APPEND x {100}\r\nb NOOP\r\n"[..]);
        assert_eq!(spell(&codec.next(&mut input).unwrap().unwrap()), "L100");
        assert!(!codec.at_beginning());
        codec.no_literal();
        assert_eq!(spell(&codec.next(&mut input).unwrap().unwrap()), "L");
        assert!(codec.at_beginning());
    }

    #[test]
    fn an_announcement_is_changed_and_nothing_else() {
        for (line, synchronising, unannounced) in [
            ("a NOOP\r\n", "a NOOP\r\n", "a NOOP\r\n"),
            ("a X+} {3}\r\n", "a X+} {3}\r\n", "a X+} \r\n"),
            ("a X {3+}\r\n", "a X {3}\r\n", "a X \r\n"),
            ("a X (~{3+}\r\n", "a X (~{3}\r\n", "a X (\r\n"),
            ("{0+}\r\n", "{0}\r\n", "\r\n"),
            ("a X \"{3+}\r\n", "a X \"{3+}\r\n", "a X \"{3+}\r\n"),
        ] {
            match Fragmentizer::strict(64).next(&mut BytesMut::from(line)) {
                Ok(Some(Fragment::Line(read))) => {
                    assert_eq!(read.synchronising(), synchronising, "{line:?}");
                    assert_eq!(read.unannounced(), unannounced, "{line:?}");
                }
                _ => panic!("{line:?}"),
            }
        }
    }

    #[test]
    fn a_literal_streams() {
        let mut codec = Fragmentizer::strict(64);
        let mut input = BytesMut::from(&b"a APPEND x {1000000000000+}\r\n"[..]);
        codec.next(&mut input).unwrap();
        for _ in 0..100 {
            input.extend_from_slice(&[b'\n'; 1000]);
            assert!(
                matches!(codec.next(&mut input), Ok(Some(Fragment::Literal(octets))) if octets.len() == 1000)
            );
            assert!(input.is_empty());
        }
    }

    proptest! {
        #[test]
        fn fragments_are_the_input_however_it_is_cut(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "a ", "\r\n", "\n", "\r", "\0", "{3}", "{3}\r\n", "{3+}\r\n", "~{7}\r\n", "\"", "\\", " ", "(", "* OK ", "xxxxxxxxxxxxxxxxxxxx",
                ]),
                0..40,
            ),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let input: Vec<u8> = words.concat().into_bytes();
            let mut pieces = Vec::new();
            let (mut rest, mut cut) = (&input[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                pieces.push(piece);
                rest = tail;
            }
            for codec in [|| Fragmentizer::strict(100), || Fragmentizer::lenient(64)] {
                prop_assert_eq!(run(codec(), &pieces), run(codec(), &[&input]));
            }
        }
    }
}
