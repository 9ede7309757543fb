//! The beginning of a message, as TOP shows it: the header, the blank line, and so many lines of the body
//! (RFC 1939 section 7).
//!
//! Works on decoded octets in any chunking. A line ends at LF, with or without CR, so that never more is shown than a
//! client would count. It knows nothing of the header's meaning.

/// Cuts a message off behind a number of body lines.
#[derive(Clone, Debug)]
pub struct Top {
    /// Body lines still to be shown.
    lines: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the header, at the start of a line.
    LineStart,
    /// In the header, behind a CR that started a line.
    Cr,
    /// In the header, within a line.
    Within,
    Body,
}

impl Top {
    /// A cut behind `lines` lines of the body.
    pub fn new(lines: u64) -> Self {
        Self { lines, place: Place::LineStart }
    }

    /// How many octets of `input`, which follows what was given before, still belong to what is shown.
    pub fn take(&mut self, input: &[u8]) -> usize {
        let body = self.skip_header(input);
        if self.place != Place::Body {
            return input.len();
        }
        if self.lines == 0 {
            return body;
        }
        for lf in memchr::memchr_iter(b'\n', &input[body..]) {
            self.lines -= 1;
            if self.lines == 0 {
                return body + lf + 1;
            }
        }
        input.len()
    }

    /// Whether nothing more is shown.
    pub fn is_done(&self) -> bool {
        self.place == Place::Body && self.lines == 0
    }

    /// Goes on to the body, if `input` reaches it, and returns where it begins.
    fn skip_header(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while self.place != Place::Body {
            let Some(&octet) = input.get(at) else { break };
            match (self.place, octet) {
                (Place::LineStart | Place::Cr, b'\n') => self.place = Place::Body,
                (Place::LineStart, b'\r') => self.place = Place::Cr,
                _ => match memchr::memchr(b'\n', &input[at..]) {
                    Some(lf) => {
                        at += lf;
                        self.place = Place::LineStart;
                    }
                    None => {
                        self.place = Place::Within;
                        return input.len();
                    }
                },
            }
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::check_chunks;

    fn check(message: &str, lines: u64, shown: &str) {
        let taken = check_chunks(message.as_bytes(), |chunks| {
            let mut top = Top::new(lines);
            let mut out = Vec::new();
            for chunk in chunks {
                let octets = top.take(chunk);
                out.extend_from_slice(&chunk[..octets]);
            }
            (String::from_utf8(out).unwrap(), top.is_done())
        });
        assert_eq!(taken.0, shown, "{message:?} {lines}");
    }

    #[test]
    fn the_header_the_blank_line_and_so_many_lines() {
        let message = "A: 1\r\nB: 2\r\n\r\none\r\n\r\nthree\r\n";
        check(message, 0, "A: 1\r\nB: 2\r\n\r\n");
        check(message, 1, "A: 1\r\nB: 2\r\n\r\none\r\n");
        check(message, 2, "A: 1\r\nB: 2\r\n\r\none\r\n\r\n");
        check(message, 3, message);
        check(message, u64::MAX, message);
        check("", 5, "");
        check("A: 1\r\n", 5, "A: 1\r\n");
        check("\r\nbody\r\nmore\r\n", 1, "\r\nbody\r\n");
        check("A: 1\n\nbody\nmore\n", 1, "A: 1\n\nbody\n");
        check("A\r: 1\r\n\rB: 2\r\n\r\nbody\r\nmore\r\n", 1, "A\r: 1\r\n\rB: 2\r\n\r\nbody\r\n");
        check("A: 1\r\n\r\nno line end", 1, "A: 1\r\n\r\nno line end");
    }
}
