//! Dot-stuffing, as SMTP DATA (RFC 5321 section 4.5.2) and POP3 multi-line responses (RFC 1939 section 3) use it.
//!
//! The decoder is strict: only CRLF "." CRLF ends a message, and the first octet stands at the start of a line. Bare
//! CR, bare LF and NUL are passed on and reported, never interpreted. The encoder is its exact inverse: what it emits
//! is read back by the decoder as what it was given. Neither knows which protocol it serves, and neither holds a
//! message in memory.

use bytes::{BufMut, BytesMut};

/// Removes the stuffing and finds the end of one message.
///
/// ```text
///              '.'            CR             LF
///  LineStart ───────▶ Dot ─────────▶ DotCr ──────▶ End
///   ▲     │ other       │ other        │ other
///   │     ▼             ▼              ▼
///   │ LF  Within ◀── (dot dropped)   Cr (dot dropped, its CR is content)
///   └─── Cr ◀── CR ── Within
/// ```
#[derive(Clone, Debug)]
pub struct DotDecoder {
    state: State,
    /// Octets of the decoded message so far.
    decoded: u64,
    faults: DotFaults,
}

/// Where the decoded message holds what no message may hold (RFC 5321 section 2.3.8): the octet offset of the first of
/// each kind, in the decoded message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DotFaults {
    /// The first CR that no LF follows.
    pub bare_cr: Option<u64>,
    /// The first LF that no CR precedes.
    pub bare_lf: Option<u64>,
    /// The first NUL.
    pub nul: Option<u64>,
}

/// Adds the stuffing and the end to one message.
#[derive(Clone, Debug)]
pub struct DotEncoder {
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    /// A dot at the start of a line was read and not passed on.
    Dot,
    /// So was the CR after it.
    DotCr,
    Within,
    /// A CR was passed on last.
    Cr,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    Within,
    /// Behind a CR.
    Cr,
}

impl DotDecoder {
    /// A decoder at the first octet of a message.
    pub fn new() -> Self {
        Self { state: State::LineStart, decoded: 0, faults: DotFaults::default() }
    }

    /// Appends decoded octets to `out`; returns the octets consumed and whether the end was reached. What follows the
    /// end is not consumed, and after the end nothing is.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let mut at = 0;
        // Start of the octets that are content and not yet copied. In Dot and DotCr: equal to `at`.
        let mut from = 0;
        while let Some(&octet) = input.get(at) {
            match (self.state, octet) {
                (State::End, _) => return (at, true),
                (State::LineStart, b'.') => {
                    self.take(&input[from..at], out);
                    at += 1;
                    from = at;
                    self.state = State::Dot;
                }
                (State::Dot, b'\r') => {
                    at += 1;
                    from = at;
                    self.state = State::DotCr;
                }
                (State::DotCr, b'\n') => {
                    self.state = State::End;
                    return (at + 1, true);
                }
                (State::DotCr, _) => {
                    self.take(b"\r", out);
                    self.state = State::Cr;
                }
                (State::Cr, b'\n') => {
                    at += 1;
                    self.state = State::LineStart;
                }
                (State::Cr, _) => {
                    self.faults.bare_cr.get_or_insert(self.decoded + (at - from) as u64 - 1);
                    self.state = State::Within;
                }
                (State::LineStart | State::Dot, _) => self.state = State::Within,
                (State::Within, _) => {
                    at = self.pass_within(input, at, from);
                }
            }
        }
        self.take(&input[from..at], out);
        (at, self.state == State::End)
    }

    /// What the message held that no message may hold, so far.
    pub fn faults(&self) -> DotFaults {
        self.faults
    }

    /// Octets of the decoded message so far.
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    /// Goes on to behind the next octet that matters within a line.
    fn pass_within(&mut self, input: &[u8], at: usize, from: usize) -> usize {
        let Some(run) = memchr::memchr3(b'\r', b'\n', 0, &input[at..]) else { return input.len() };
        let place = self.decoded + (at + run - from) as u64;
        match input[at + run] {
            b'\r' => self.state = State::Cr,
            b'\n' => {
                self.faults.bare_lf.get_or_insert(place);
            }
            _ => {
                self.faults.nul.get_or_insert(place);
            }
        }
        at + run + 1
    }

    fn take(&mut self, content: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(content);
        self.decoded += content.len() as u64;
    }
}

impl Default for DotDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl DotFaults {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first fault of all and its offset.
    pub fn first(&self) -> Option<(super::line::LineFault, u64)> {
        use super::line::LineFault;
        [(LineFault::BareCr, self.bare_cr), (LineFault::BareLf, self.bare_lf), (LineFault::Nul, self.nul)]
            .into_iter()
            .filter_map(|(fault, offset)| Some((fault, offset?)))
            .min_by_key(|&(_, offset)| offset)
    }
}

impl DotEncoder {
    /// An encoder at the first octet of a message.
    pub fn new() -> Self {
        Self { place: Place::LineStart }
    }

    /// Appends `input` to `out` with a dot before every dot that starts a line. Only CRLF starts a line.
    pub fn encode(&mut self, input: &[u8], out: &mut BytesMut) {
        let Some(&last) = input.last() else { return };
        out.reserve(input.len() + 8);
        if self.place == Place::LineStart && input[0] == b'.' {
            out.put_u8(b'.');
        }
        let mut from = 0;
        for lf in memchr::memchr_iter(b'\n', input) {
            if input.get(lf + 1) == Some(&b'.') && self.ends_line(input, lf) {
                out.put_slice(&input[from..=lf]);
                out.put_u8(b'.');
                from = lf + 1;
            }
        }
        out.put_slice(&input[from..]);
        self.place = match last {
            b'\r' => Place::Cr,
            b'\n' if self.ends_line(input, input.len() - 1) => Place::LineStart,
            _ => Place::Within,
        };
    }

    /// Ends the message: adds CRLF where the last line lacks it (an empty message is just the dot), then ".\r\n".
    pub fn finish(self, out: &mut BytesMut) {
        if self.place != Place::LineStart {
            out.put_slice(b"\r\n");
        }
        out.put_slice(b".\r\n");
    }

    /// Whether the LF at `lf` has its CR, in `input` or as the last octet before it.
    fn ends_line(&self, input: &[u8], lf: usize) -> bool {
        match lf.checked_sub(1) {
            Some(before) => input[before] == b'\r',
            None => self.place == Place::Cr,
        }
    }
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::check_chunks;
    use proptest::prelude::*;

    /// Decodes in every chunking: the content, the octets consumed, whether the end was reached, the faults.
    fn decode(input: &[u8]) -> (Vec<u8>, usize, bool, DotFaults) {
        check_chunks(input, |chunks| {
            let mut decoder = DotDecoder::new();
            let mut content = Vec::new();
            let mut consumed = 0;
            let mut end = false;
            for chunk in chunks {
                let (octets, ended) = decoder.decode(chunk, &mut content);
                consumed += octets;
                end = ended;
            }
            assert_eq!(decoder.decoded(), content.len() as u64);
            (content, consumed, end, decoder.faults())
        })
    }

    fn encode(content: &[u8]) -> Vec<u8> {
        check_chunks(content, |chunks| {
            let mut encoder = DotEncoder::new();
            let mut out = BytesMut::new();
            chunks.iter().for_each(|chunk| encoder.encode(chunk, &mut out));
            encoder.finish(&mut out);
            out.to_vec()
        })
    }

    const NONE: DotFaults = DotFaults { bare_cr: None, bare_lf: None, nul: None };

    fn cr(at: u64) -> DotFaults {
        DotFaults { bare_cr: Some(at), ..NONE }
    }

    fn lf(at: u64) -> DotFaults {
        DotFaults { bare_lf: Some(at), ..NONE }
    }

    /// Input; content; what follows the end, or None when the end is not reached; faults.
    type Row = (&'static [u8], &'static [u8], Option<&'static [u8]>, DotFaults);

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        let rows: &[Row] = &[
            (b".\r\n", b"", Some(b""), NONE),
            (b".\r\nQUIT\r\n", b"", Some(b"QUIT\r\n"), NONE),
            (b"..\r\n.\r\n", b".\r\n", Some(b""), NONE),
            (b"..x\r\n.\r\n", b".x\r\n", Some(b""), NONE),
            (b".x\r\n.\r\n", b"x\r\n", Some(b""), NONE),
            (b"a\n.\nb", b"a\n.\nb", None, lf(1)),
            (b"a\r.\rb", b"a\r.\rb", None, cr(1)),
            (b"a\r\n.\nb", b"a\r\n\nb", None, lf(3)),
            (b"a\n.\r\nb", b"a\n.\r\nb", None, lf(1)),
            (b"a\r.\r\nb", b"a\r.\r\nb", None, cr(1)),
            (b"a\r\n\0.\r\nb", b"a\r\n\0.\r\nb", None, DotFaults { nul: Some(3), ..NONE }),
            (b"a\r\n.\r\r\nb", b"a\r\n\r\r\nb", None, cr(3)),
            (b"a\r\r\n.\r\r\nb", b"a\r\r\n\r\r\nb", None, cr(1)),
            (b"a\n.\rb", b"a\n.\rb", None, DotFaults { bare_cr: Some(3), bare_lf: Some(1), ..NONE }),
            (b"a\r.\nb", b"a\r.\nb", None, DotFaults { bare_cr: Some(1), bare_lf: Some(3), ..NONE }),
            (b"a\r\n.\rb", b"a\r\n\rb", None, cr(3)),
            (b"a\r\n.\0\r\nb", b"a\r\n\0\r\nb", None, DotFaults { nul: Some(3), ..NONE }),
            (b"a\r\n. \r\nb", b"a\r\n \r\nb", None, NONE),
            (b".\nx\r\n.\r\n", b"\nx\r\n", Some(b""), lf(0)),
            (b".\rx\r\n.\r\n", b"\rx\r\n", Some(b""), cr(0)),
            (b"\r\n.\r\n", b"\r\n", Some(b""), NONE),
            (b"a\r\n.\r\nb\r\n.\r\n", b"a\r\n", Some(b"b\r\n.\r\n"), NONE),
            (b"a\r\r\n.\r\n", b"a\r\r\n", Some(b""), cr(1)),
            (b"a\r\n....\r\n.\r\n", b"a\r\n...\r\n", Some(b""), NONE),
            (b"a.\r\n.\r\n", b"a.\r\n", Some(b""), NONE),
            (b"a\r\n\r\n.\r\n", b"a\r\n\r\n", Some(b""), NONE),
            (b"a\r\n.", b"a\r\n", None, NONE),
            (b"a\r\n.\r", b"a\r\n", None, NONE),
            (b"", b"", None, NONE),
        ];
        for (input, content, rest, faults) in rows {
            let consumed = input.len() - rest.map_or(0, <[u8]>::len);
            let expected = (content.to_vec(), consumed, rest.is_some(), *faults);
            assert_eq!(decode(input), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn after_the_end_nothing_is_consumed() {
        let mut decoder = DotDecoder::new();
        let mut out = Vec::new();
        assert_eq!(decoder.decode(b".\r\n", &mut out), (3, true));
        assert_eq!(decoder.decode(b"x\r\n.\r\n", &mut out), (0, true));
        assert!(out.is_empty());
    }

    #[test]
    fn the_first_fault_of_all_is_named() {
        use crate::wire::line::LineFault;
        assert_eq!(decode(b"a\0b\rc\nd").3.first(), Some((LineFault::Nul, 1)));
        assert_eq!(decode(b"a\nb\rc\0d").3.first(), Some((LineFault::BareLf, 1)));
        assert_eq!(decode(b"a\r\n").3.first(), None);
    }

    #[test]
    fn only_crlf_starts_a_line_that_is_stuffed() {
        let rows: &[(&[u8], &[u8])] = &[
            (b"", b".\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..x\r\n", b"...x\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r", b"a\r\r\n.\r\n"),
            (b"a\n", b"a\n\r\n.\r\n"),
            (b"a\r\n.b\r\n..\r\n", b"a\r\n..b\r\n...\r\n.\r\n"),
            (b"a\n.b\r\n", b"a\n.b\r\n.\r\n"),
            (b"a\r.b\r\n", b"a\r.b\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"),
        ];
        for (content, expected) in rows {
            assert_eq!(encode(content).escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(content in octets_of_interest()) {
            let (decoded, consumed, end, _) = decode(&encode(&content));
            let mut expected = content.clone();
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(decoded, expected);
            prop_assert!(end);
            prop_assert_eq!(consumed, encode(&content).len());
        }

        #[test]
        fn what_is_decoded_encodes_back_where_it_was_well_formed(content in octets_of_interest()) {
            let (decoded, consumed, end, _) = decode(&content);
            if end {
                let again = encode(&decoded);
                let (twice, _, _, _) = decode(&again);
                prop_assert_eq!(twice, decoded);
                // Only stuffing that was not needed may be lost.
                prop_assert!(again.len() <= consumed);
            }
        }
    }

    /// Random octets folded into the alphabet that matters.
    fn octets_of_interest() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"\r\n.\0ab".as_slice()), 0..24)
    }
}
