//! The line a response begins with (RFC 9051 section 7): what it is, as far as a gate has to know.
//!
//! Total: whatever is not one of the few kinds is [`Response::Other`] and passes as it is. It reads what a forgiving
//! client would read: any case of letters, and more than one space.

use std::ops::Range;

use super::fragment;

/// What a response line is. Ranges are octets of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// `OK`, `NO`, `BAD`, `PREAUTH` or `BYE`, with a tag or without.
    Status {
        /// The tag of the command that it ends; `None` for `*`.
        tag: Option<&'a [u8]>,
        /// Which of them.
        condition: Condition,
        /// The list in a `[CAPABILITY …]` code, from behind the word to the bracket.
        capabilities: Option<Range<usize>>,
        /// The text for people, behind any code.
        text: Range<usize>,
    },
    /// `* CAPABILITY`, with the list from behind the word to the line's end.
    Capability(Range<usize>),
    /// `+`: the client may go on.
    Continuation,
    /// Anything else.
    Other,
}

/// The condition of a status response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Done.
    Ok,
    /// Not done.
    No,
    /// Not understood.
    Bad,
    /// A greeting: logged in already.
    PreAuth,
    /// The server closes.
    Bye,
}

impl<'a> Response<'a> {
    /// Reads the line a response begins with, or the first part of a long one.
    pub fn parse(line: &'a [u8]) -> Self {
        let text = fragment::text(line);
        let mut rest = Rest { text, at: 0 };
        let tag = rest.word();
        if tag.first() == Some(&b'+') {
            return if tag.len() == 1 { Self::Continuation } else { Self::Other };
        }
        if tag.is_empty() {
            return Self::Other;
        }
        let tag = (tag != b"*").then_some(tag);
        let word = rest.word();
        if tag.is_none() && word.eq_ignore_ascii_case(b"CAPABILITY") {
            return Self::Capability(rest.at..text.len());
        }
        match Condition::parse(word) {
            Some(Condition::PreAuth | Condition::Bye) if tag.is_some() => Self::Other,
            Some(condition) => {
                let (capabilities, text) = rest.code();
                Self::Status { tag, condition, capabilities, text }
            }
            None => Self::Other,
        }
    }
}

impl Condition {
    fn parse(word: &[u8]) -> Option<Self> {
        [
            ("OK", Self::Ok),
            ("NO", Self::No),
            ("BAD", Self::Bad),
            ("PREAUTH", Self::PreAuth),
            ("BYE", Self::Bye),
        ]
        .into_iter()
        .find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word))
        .map(|(_, condition)| condition)
    }
}

/// What is left of a line. Invariant: `at` is not beyond the text.
struct Rest<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn spaces(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> &'a [u8] {
        self.spaces();
        let rest = &self.text[self.at..];
        let word = &rest[..rest.iter().position(|octet| b" \t".contains(octet)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// The capability list of a response code here, and where the text begins behind any code.
    fn code(&mut self) -> (Option<Range<usize>>, Range<usize>) {
        self.spaces();
        let len = self.text.len();
        if self.text.get(self.at) != Some(&b'[') {
            return (None, self.at..len);
        }
        // A code that is never closed goes on to the end of the line.
        let end = memchr::memchr(b']', &self.text[self.at..]).map_or(len, |at| self.at + at);
        let mut code = Rest { text: &self.text[..end], at: self.at + 1 };
        let capabilities = code.word().eq_ignore_ascii_case(b"CAPABILITY").then_some(code.at..end);
        self.at = (end + 1).min(len);
        self.spaces();
        (capabilities, self.at..len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spell(line: &str) -> String {
        match Response::parse(line.as_bytes()) {
            Response::Status { tag, condition, capabilities, text } => format!(
                "{} {condition:?}{} {:?}",
                tag.map_or("*".into(), |tag| tag.escape_ascii().to_string()),
                capabilities.map_or(String::new(), |list| format!(" [{}]", &line[list])),
                &line[text],
            ),
            Response::Capability(list) => format!("list [{}]", &line[list]),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn responses_are_told_apart() {
        for (line, expected) in [
            ("* OK ready\r\n", "* Ok \"ready\""),
            ("* ok [CAPABILITY IMAP4rev1 ID] ready\r\n", "* Ok [ IMAP4rev1 ID] \"ready\""),
            ("* PREAUTH [capability A]\r\n", "* PreAuth [ A] \"\""),
            ("* BYE\r\n", "* Bye \"\""),
            ("a1 OK [READ-WRITE] done\n", "a1 Ok \"done\""),
            ("a1  OK\t[CAPABILITY A B] done\r\n", "a1 Ok [ A B] \"done\""),
            ("a1 NO [CAPABILITY A", "a1 No [ A] \"\""),
            ("a1 OK [ CAPABILITY A] x\r\n", "a1 Ok [ A] \"x\""),
            ("a1 OK [CAPABILITY] x\r\n", "a1 Ok [] \"x\""),
            ("a1 BAD x\r\n", "a1 Bad \"x\""),
            ("a]1 OK [X]x\r\n", "a]1 Ok \"x\""),
            ("a1 BYE x\r\n", "Other"),
            ("* CAPABILITY IMAP4rev1 X\r\n", "list [ IMAP4rev1 X]"),
            ("*  capability\tX\r\n", "list [\tX]"),
            ("a CAPABILITY X\r\n", "Other"),
            ("+ go\r\n", "Continuation"),
            ("+\r\n", "Continuation"),
            ("+go\r\n", "Other"),
            ("* 1 EXISTS\r\n", "Other"),
            ("* 1 FETCH (X \"OK [CAPABILITY\")\r\n", "Other"),
            ("\r\n", "Other"),
            ("", "Other"),
            ("*", "Other"),
            ("junk", "Other"),
        ] {
            assert_eq!(spell(line), expected, "{line:?}");
        }
    }
}
