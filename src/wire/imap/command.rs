//! The first line of a command (RFC 9051 section 6): tag, name, and what the name means to a gate.
//!
//! Of the arguments it reads only an account name, a SASL mechanism and the words of ENABLE. Passwords are never taken
//! out of the line, and `Debug` shows no arguments.

use std::fmt;

use super::token::{self, AString};

/// A command as its first line tells it.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// The tag.
    pub tag: &'a [u8],
    /// The name as the client spelled it, without `UID`.
    pub name: &'a [u8],
    /// What the name means.
    pub verb: Verb,
    /// What stands behind the name and one space, to the end of the line; empty where there is nothing.
    pub arguments: &'a [u8],
}

/// What a command's name means to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A SASL exchange begins (RFC 9051 section 6.2.2).
    Authenticate,
    /// Extensions are turned on (RFC 5161).
    Enable,
    /// The client says what it is (RFC 2971).
    Id,
    /// The client waits for news until it says DONE (RFC 2177).
    Idle,
    /// An account name and a password (RFC 9051 section 6.2.3).
    Login,
    /// The client goes (RFC 9051 section 6.1.3).
    Logout,
    /// TLS for this leg (RFC 9051 section 6.2.1).
    StartTls,
    /// Takes no arguments; nothing else matters to the gate.
    Bare,
    /// Takes arguments; nothing else matters to the gate.
    Plain,
    /// Belongs to a capability that is hidden from clients.
    Hidden,
    /// Not known. An upstream may know it.
    Unknown,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed<'a> {
    /// No tag that could be repeated in an answer.
    Tag,
    /// A tag, but no name behind one space.
    Name {
        /// The tag.
        tag: &'a [u8],
    },
}

/// Names in capitals; those behind `UID` have an entry of their own.
const TABLE: &[(&str, Verb)] = &[
    ("AUTHENTICATE", Verb::Authenticate),
    ("ENABLE", Verb::Enable),
    ("IDLE", Verb::Idle),
    ("LOGIN", Verb::Login),
    ("STARTTLS", Verb::StartTls),
    ("CAPABILITY", Verb::Bare),
    ("CHECK", Verb::Bare),
    ("CLOSE", Verb::Bare),
    ("EXPUNGE", Verb::Bare),
    ("LOGOUT", Verb::Logout),
    ("NAMESPACE", Verb::Bare),
    ("NOOP", Verb::Bare),
    ("UNSELECT", Verb::Bare),
    ("APPEND", Verb::Plain),
    ("COPY", Verb::Plain),
    ("CREATE", Verb::Plain),
    ("DELETE", Verb::Plain),
    ("DELETEACL", Verb::Plain),
    ("EXAMINE", Verb::Plain),
    ("FETCH", Verb::Plain),
    ("GETACL", Verb::Plain),
    ("GETMETADATA", Verb::Plain),
    ("GETQUOTA", Verb::Plain),
    ("GETQUOTAROOT", Verb::Plain),
    ("ID", Verb::Id),
    ("LANGUAGE", Verb::Plain),
    ("LIST", Verb::Plain),
    ("LISTRIGHTS", Verb::Plain),
    ("LSUB", Verb::Plain),
    ("MOVE", Verb::Plain),
    ("MYRIGHTS", Verb::Plain),
    ("RENAME", Verb::Plain),
    ("SEARCH", Verb::Plain),
    ("SELECT", Verb::Plain),
    ("SETACL", Verb::Plain),
    ("SETMETADATA", Verb::Plain),
    ("SETQUOTA", Verb::Plain),
    ("SORT", Verb::Plain),
    ("STATUS", Verb::Plain),
    ("STORE", Verb::Plain),
    ("SUBSCRIBE", Verb::Plain),
    ("THREAD", Verb::Plain),
    ("UNSUBSCRIBE", Verb::Plain),
    ("XLIST", Verb::Plain),
    ("UID COPY", Verb::Plain),
    ("UID EXPUNGE", Verb::Plain),
    ("UID FETCH", Verb::Plain),
    ("UID MOVE", Verb::Plain),
    ("UID SEARCH", Verb::Plain),
    ("UID SORT", Verb::Plain),
    ("UID STORE", Verb::Plain),
    ("UID THREAD", Verb::Plain),
    ("CANCELUPDATE", Verb::Hidden),
    ("COMPRESS", Verb::Hidden),
    ("CONVERSIONS", Verb::Hidden),
    ("CONVERT", Verb::Hidden),
    ("ESEARCH", Verb::Hidden),
    ("GENURLAUTH", Verb::Hidden),
    ("NOTIFY", Verb::Hidden),
    ("REPLACE", Verb::Hidden),
    ("RESETKEY", Verb::Hidden),
    ("RLIST", Verb::Hidden),
    ("RLSUB", Verb::Hidden),
    ("UNAUTHENTICATE", Verb::Hidden),
    ("URLFETCH", Verb::Hidden),
    ("UID CONVERT", Verb::Hidden),
    ("UID REPLACE", Verb::Hidden),
];

impl Verb {
    /// Whether the command is complete with its name.
    pub fn takes_no_arguments(self) -> bool {
        matches!(self, Self::Bare | Self::Idle | Self::Logout | Self::StartTls)
    }
}

impl<'a> Command<'a> {
    /// Reads a command's first line, given without its line end.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed<'a>> {
        let (tag, rest) = token::word(text);
        if !token::is_tag(tag) {
            return Err(Malformed::Tag);
        }
        let (name, rest) = token::word(rest.unwrap_or_default());
        let (prefix, name, rest) = match rest {
            Some(rest) if name.eq_ignore_ascii_case(b"UID") => {
                let (name, rest) = token::word(rest);
                ("UID ", name, rest)
            }
            _ => ("", name, rest),
        };
        if !token::is_name(name) {
            return Err(Malformed::Name { tag });
        }
        Ok(Self { tag, name, verb: verb(prefix, name), arguments: rest.unwrap_or_default() })
    }

    /// The account of a LOGIN, as far as this line has it.
    pub fn account(&self) -> Account {
        match token::astring(self.arguments) {
            AString::Here(name) => Account::Named(String::from_utf8_lossy(&name).into_owned()),
            AString::Literal => Account::InLiteral,
            AString::Malformed => Account::Nowhere,
        }
    }

    /// Whether an ID may speak for somebody else: `x-originating-ip` and its like are believed by upstreams that trust
    /// the gate's address. What an escape could hide counts.
    pub fn claims_origin(&self) -> bool {
        let begins_word = |at: usize| at == 0 || b"\"( ".contains(&self.arguments[at - 1]);
        self.arguments.contains(&b'\\')
            || self
                .arguments
                .windows(2)
                .enumerate()
                .any(|(at, two)| two.eq_ignore_ascii_case(b"x-") && begins_word(at))
    }

    /// The SASL mechanism of an AUTHENTICATE, and the initial response if there is one (RFC 4959).
    pub fn mechanism(&self) -> (&'a [u8], Option<&'a [u8]>) {
        token::word(self.arguments)
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("tag", &String::from_utf8_lossy(self.tag))
            .field("verb", &self.verb)
            .finish_non_exhaustive()
    }
}

/// Where a LOGIN says its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// On the line.
    Named(String),
    /// In the literal that follows.
    InLiteral,
    /// The line is malformed.
    Nowhere,
}

/// Whether a connection that begins with `text` speaks HTTP: a browser that was made to say IMAP commands in a request.
pub fn is_http(text: &[u8]) -> bool {
    let (method, rest) = token::word(text);
    let methods = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI"];
    rest.is_some() && methods.iter().any(|known| known.as_bytes() == method)
}

fn verb(prefix: &str, name: &[u8]) -> Verb {
    let is = |entry: &str| match entry.strip_prefix("UID ") {
        Some(entry) => !prefix.is_empty() && entry.as_bytes().eq_ignore_ascii_case(name),
        None => prefix.is_empty() && entry.as_bytes().eq_ignore_ascii_case(name),
    };
    TABLE.iter().find(|(entry, _)| is(entry)).map_or(Verb::Unknown, |&(_, verb)| verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_named() {
        for (text, expected) in [
            ("a NOOP", "a NOOP Bare []"),
            ("a noop", "a noop Bare []"),
            ("a NOOP x", "a NOOP Bare [x]"),
            ("a LOGIN fred x y", "a LOGIN Login [fred x y]"),
            ("a uid fetch 1:* FLAGS", "a fetch Plain [1:* FLAGS]"),
            ("a UID REPLACE 1 x", "a REPLACE Hidden [1 x]"),
            ("a UID NOOP", "a NOOP Unknown []"),
            ("a UID", "a UID Unknown []"),
            ("a compress DEFLATE", "a compress Hidden [DEFLATE]"),
            ("a XNEW-THING", "a XNEW-THING Unknown []"),
            ("a FETCH  1 x", "a FETCH Plain [ 1 x]"),
        ] {
            let command = Command::parse(text.as_bytes()).unwrap();
            let spelled = format!(
                "{} {} {:?} [{}]",
                command.tag.escape_ascii(),
                command.name.escape_ascii(),
                command.verb,
                command.arguments.escape_ascii()
            );
            assert_eq!(spelled, expected);
        }
    }

    #[test]
    fn what_is_no_command() {
        for text in ["", " a NOOP", "* OK", "+ x", "a\tNOOP", "\u{e4} NOOP"] {
            assert_eq!(Command::parse(text.as_bytes()).unwrap_err(), Malformed::Tag, "{text:?}");
        }
        for text in ["a", "a ", "a  NOOP", "a COMPRESS\tDEFLATE", "a {5}", "a \"NOOP\"", "DONE"] {
            assert!(matches!(Command::parse(text.as_bytes()), Err(Malformed::Name { .. })), "{text:?}");
        }
    }

    #[test]
    fn accounts_are_learned_and_passwords_are_not() {
        for (arguments, expected) in [
            ("fred hunter2", Account::Named("fred".into())),
            ("\"fr\\\"ed\" hunter2", Account::Named("fr\"ed".into())),
            ("{4}", Account::InLiteral),
            ("", Account::Nowhere),
            ("\"fred", Account::Nowhere),
        ] {
            let line = format!("a LOGIN {arguments}");
            let command = Command::parse(line.as_bytes()).unwrap();
            assert_eq!(command.account(), expected, "{arguments}");
            assert!(!format!("{command:?}").contains("hunter2"));
        }
    }
}
