//! A POP3 client's commands.
//!
//! The parse is strict where it matters for framing: a command whose answer may have many lines is taken only in the
//! one shape every server reads alike. Guarantees: what is called known here has exactly one reading, and a password
//! never shows in `Debug`. It leaves out what a command is allowed to do when; that is the session's.

use bytes::Bytes;

use crate::wire::{
    line::{Line, LineFault},
    sasl,
    secret::Secret,
};

/// A command and the line it came as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    kind: Kind,
    line: Secret<Bytes>,
}

/// What a command asks for. Message numbers count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `USER name`
    User(String),
    /// `PASS string`, also with spaces in it
    Pass,
    /// `APOP name digest`
    Apop(String),
    /// `AUTH mechanism [initial-response]`
    Auth(String),
    /// `AUTH` alone: which mechanisms are there?
    AuthList,
    /// `CAPA`
    Capa,
    /// `STLS`
    Stls,
    /// `STAT`
    Stat,
    /// `LIST [n]`
    List(Option<u32>),
    /// `UIDL [n]`
    Uidl(Option<u32>),
    /// `TOP n k`
    Top(u32, u64),
    /// `RETR n`
    Retr(u32),
    /// `DELE n`
    Dele(u32),
    /// `NOOP`
    Noop,
    /// `RSET`
    Rset,
    /// `QUIT`
    Quit,
    /// `UTF8`
    Utf8,
    /// `LANG [tag]`; true where a tag is given
    Lang(bool),
}

/// Why a line is no command that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// The line is not a right line.
    #[error("{} in a command", .0.as_str())]
    Line(LineFault),
    /// The word is none of the commands above: it is not passed on, since its answer's shape is not known.
    #[error("unknown command")]
    Unknown,
    /// The arguments are missing, too many, or not what they have to be.
    #[error("invalid arguments")]
    Arguments,
    /// The mechanism binds to the TLS channel, which ends here.
    #[error("channel binding cannot pass a gateway")]
    ChannelBinding,
}

impl Command {
    /// Reads a command off its line. The verb is case-insensitive; trailing spaces are let pass except where they may
    /// belong to a password.
    pub fn parse(line: Line) -> Result<Self, CommandFault> {
        if let Some(fault) = line.fault() {
            return Err(CommandFault::Line(fault));
        }
        let kind = Kind::parse(line.text())?;
        let line = match kind {
            Kind::Pass => line.into_bytes(),
            _ => without_trailing_spaces(line),
        };
        Ok(Self { kind, line: Secret::new(line) })
    }

    /// What it asks for.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The line to send on: as it came, less spaces before its end.
    pub fn line(&self) -> &[u8] {
        self.line.reveal()
    }
}

impl Kind {
    fn parse(text: &[u8]) -> Result<Self, CommandFault> {
        let (verb, rest) = split_word(text);
        let mut verb_upper = [0; 4];
        let Some(verb_slot) = verb_upper.get_mut(..verb.len()) else { return Err(CommandFault::Unknown) };
        verb_slot.copy_from_slice(verb);
        verb_slot.make_ascii_uppercase();
        let arguments = rest.map(|rest| rest.trim_ascii_end()).filter(|rest| !rest.is_empty());
        match &*verb_slot {
            b"USER" => arguments.map(|name| Self::User(text_of(name))).ok_or(CommandFault::Arguments),
            b"PASS" => rest.map(|_| Self::Pass).ok_or(CommandFault::Arguments),
            b"APOP" => apop(arguments),
            b"AUTH" => auth(arguments),
            b"CAPA" => bare(arguments, Self::Capa),
            b"STLS" => bare(arguments, Self::Stls),
            b"STAT" => bare(arguments, Self::Stat),
            b"LIST" => arguments.map(message_number).transpose().map(Self::List),
            b"UIDL" => arguments.map(message_number).transpose().map(Self::Uidl),
            b"TOP" => top(arguments),
            b"RETR" => arguments.map_or(Err(CommandFault::Arguments), message_number).map(Self::Retr),
            b"DELE" => arguments.map_or(Err(CommandFault::Arguments), message_number).map(Self::Dele),
            b"NOOP" => bare(arguments, Self::Noop),
            b"RSET" => bare(arguments, Self::Rset),
            b"QUIT" => bare(arguments, Self::Quit),
            b"UTF8" => bare(arguments, Self::Utf8),
            b"LANG" => lang(arguments),
            _ => Err(CommandFault::Unknown),
        }
    }

    /// Whether the answer has many lines when its status is `+OK`.
    pub fn is_multi_line(&self) -> bool {
        matches!(
            self,
            Self::AuthList
                | Self::Capa
                | Self::List(None)
                | Self::Uidl(None)
                | Self::Top(..)
                | Self::Retr(_)
                | Self::Lang(false)
        )
    }

    /// The command's word, for logs.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::User(_) => "USER",
            Self::Pass => "PASS",
            Self::Apop(_) => "APOP",
            Self::Auth(_) | Self::AuthList => "AUTH",
            Self::Capa => "CAPA",
            Self::Stls => "STLS",
            Self::Stat => "STAT",
            Self::List(_) => "LIST",
            Self::Uidl(_) => "UIDL",
            Self::Top(..) => "TOP",
            Self::Retr(_) => "RETR",
            Self::Dele(_) => "DELE",
            Self::Noop => "NOOP",
            Self::Rset => "RSET",
            Self::Quit => "QUIT",
            Self::Utf8 => "UTF8",
            Self::Lang(_) => "LANG",
        }
    }
}

/// The text up to the first space, and what follows that space.
fn split_word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn without_trailing_spaces(line: Line) -> Bytes {
    let text = line.text().trim_ascii_end();
    if text.len() == line.text().len() {
        return line.into_bytes();
    }
    [text, b"\r\n"].concat().into()
}

fn text_of(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn bare(arguments: Option<&[u8]>, kind: Kind) -> Result<Kind, CommandFault> {
    if arguments.is_some() { Err(CommandFault::Arguments) } else { Ok(kind) }
}

/// A message number in the one way to write it: no sign, no leading zero, which some servers read as octal.
fn message_number(argument: &[u8]) -> Result<u32, CommandFault> {
    if argument.first() == Some(&b'0') {
        return Err(CommandFault::Arguments);
    }
    number(argument)
}

fn number<N: std::str::FromStr>(argument: &[u8]) -> Result<N, CommandFault> {
    let digits = argument.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(argument).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(CommandFault::Arguments)
}

fn top(arguments: Option<&[u8]>) -> Result<Kind, CommandFault> {
    let (message, lines) = split_word(arguments.ok_or(CommandFault::Arguments)?);
    let lines = lines.ok_or(CommandFault::Arguments)?;
    if lines.len() > 1 && lines.starts_with(b"0") {
        return Err(CommandFault::Arguments);
    }
    Ok(Kind::Top(message_number(message)?, number(lines)?))
}

fn apop(arguments: Option<&[u8]>) -> Result<Kind, CommandFault> {
    let (name, digest) = split_word(arguments.ok_or(CommandFault::Arguments)?);
    digest.map(|_| Kind::Apop(text_of(name))).ok_or(CommandFault::Arguments)
}

fn auth(arguments: Option<&[u8]>) -> Result<Kind, CommandFault> {
    let Some(arguments) = arguments else { return Ok(Kind::AuthList) };
    let (mechanism, initial) = split_word(arguments);
    if !sasl::can_be_relayed(mechanism) {
        return Err(CommandFault::ChannelBinding);
    }
    if !sasl::is_mechanism(mechanism) || !initial.is_none_or(sasl::is_initial_response) {
        return Err(CommandFault::Arguments);
    }
    Ok(Kind::Auth(text_of(mechanism)))
}

/// A language tag (RFC 5646), or `*`; nothing with a space in it.
fn lang(arguments: Option<&[u8]>) -> Result<Kind, CommandFault> {
    let Some(tag) = arguments else { return Ok(Kind::Lang(false)) };
    let fits = tag == b"*" || tag.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-');
    if fits { Ok(Kind::Lang(true)) } else { Err(CommandFault::Arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::line::LineDecoder;
    use bytes::BytesMut;

    fn parse(line: &[u8]) -> Result<Command, CommandFault> {
        let line = LineDecoder::new(4096).next(&mut BytesMut::from(line)).unwrap().unwrap();
        Command::parse(line)
    }

    fn check(line: &str, expected: Result<Kind, CommandFault>) {
        let parsed = parse(line.as_bytes()).map(|command| command.kind().clone());
        assert_eq!(parsed, expected, "{line:?}");
    }

    #[test]
    fn every_command_has_one_shape() {
        use Kind::*;
        for (line, kind) in [
            ("USER mrose\r\n", User("mrose".into())),
            ("user m rose\r\n", User("m rose".into())),
            ("PASS secret\r\n", Pass),
            ("PASS \r\n", Pass),
            ("APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n", Apop("mrose".into())),
            ("AUTH\r\n", AuthList),
            ("AUTH \r\n", AuthList),
            ("AUTH PLAIN\r\n", Auth("PLAIN".into())),
            ("AUTH PLAIN =\r\n", Auth("PLAIN".into())),
            ("AUTH PLAIN AHVzZXIAcGFzcw==\r\n", Auth("PLAIN".into())),
            ("CAPA\r\n", Capa),
            ("capa \r\n", Capa),
            ("STLS\r\n", Stls),
            ("STAT\r\n", Stat),
            ("LIST\r\n", List(None)),
            ("LIST  \r\n", List(None)),
            ("LIST 2\r\n", List(Some(2))),
            ("UIDL\r\n", Uidl(None)),
            ("UIDL 4294967295\r\n", Uidl(Some(u32::MAX))),
            ("TOP 1 0\r\n", Top(1, 0)),
            ("tOp 7 99999999999\r\n", Top(7, 99_999_999_999)),
            ("RETR 1\r\n", Retr(1)),
            ("DELE 1 \r\n", Dele(1)),
            ("NOOP\r\n", Noop),
            ("RSET\r\n", Rset),
            ("QUIT\r\n", Quit),
            ("UTF8\r\n", Utf8),
            ("LANG\r\n", Lang(false)),
            ("LANG de-CH\r\n", Lang(true)),
            ("LANG *\r\n", Lang(true)),
        ] {
            check(line, Ok(kind));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use CommandFault::*;
        for (line, fault) in [
            ("\r\n", Unknown),
            (" STAT\r\n", Unknown),
            ("XTND XLST\r\n", Unknown),
            ("LAST\r\n", Unknown),
            ("XCLIENT ADDR=10.0.0.1\r\n", Unknown),
            ("STAT\tx\r\n", Unknown),
            ("RETR\t1\r\n", Unknown),
            ("RETRIEVE 1\r\n", Unknown),
            ("USER\r\n", Arguments),
            ("USER \r\n", Arguments),
            ("PASS\r\n", Arguments),
            ("APOP mrose\r\n", Arguments),
            ("AUTH PLAIN user1\r\n", Arguments),
            ("AUTH PLAIN dGVzdA== x\r\n", Arguments),
            ("AUTH A.B\r\n", Arguments),
            ("AUTH SCRAM-SHA-256-PLUS\r\n", ChannelBinding),
            ("STAT 1\r\n", Arguments),
            ("RETR\r\n", Arguments),
            ("RETR 0\r\n", Arguments),
            ("RETR 01\r\n", Arguments),
            ("RETR +1\r\n", Arguments),
            ("RETR -1\r\n", Arguments),
            ("RETR 0x1\r\n", Arguments),
            ("RETR 1 2\r\n", Arguments),
            ("RETR  1\r\n", Arguments),
            ("RETR 4294967296\r\n", Arguments),
            ("LIST a\r\n", Arguments),
            ("LIST 1 2\r\n", Arguments),
            ("TOP 1\r\n", Arguments),
            ("TOP 1 00\r\n", Arguments),
            ("TOP 1 -1\r\n", Arguments),
            ("TOP 1 1 1\r\n", Arguments),
            ("QUIT now\r\n", Arguments),
            ("LANG a b\r\n", Arguments),
            ("STAT\n", Line(LineFault::BareLf)),
            ("STAT\r\r\n", Line(LineFault::BareCr)),
            ("ST\0AT\r\n", Line(LineFault::Nul)),
        ] {
            check(line, Err(fault));
        }
    }

    #[test]
    fn the_line_stays_verbatim_but_for_trailing_spaces() {
        for (line, sent) in [
            ("PASS two words  \r\n", "PASS two words  \r\n"),
            ("list 1\r\n", "list 1\r\n"),
            ("LIST \r\n", "LIST\r\n"),
            ("USER mrose \r\n", "USER mrose\r\n"),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap().line(), sent.as_bytes());
        }
    }

    #[test]
    fn a_password_never_shows() {
        for line in ["PASS hunter2\r\n", "AUTH PLAIN aHVudGVyMg==\r\n", "APOP mrose hunter2\r\n"] {
            let shown = format!("{:?}", parse(line.as_bytes()).unwrap());
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        }
    }

    #[test]
    fn answers_of_many_lines_are_known() {
        for (line, many) in [
            ("AUTH\r\n", true),
            ("AUTH PLAIN\r\n", false),
            ("CAPA\r\n", true),
            ("LIST\r\n", true),
            ("LIST 1\r\n", false),
            ("UIDL\r\n", true),
            ("UIDL 1\r\n", false),
            ("TOP 1 0\r\n", true),
            ("RETR 1\r\n", true),
            ("LANG\r\n", true),
            ("LANG de\r\n", false),
            ("STAT\r\n", false),
            ("QUIT\r\n", false),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap().kind().is_multi_line(), many, "{line:?}");
        }
    }
}
