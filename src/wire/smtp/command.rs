//! SMTP commands: which verb, and for MAIL and RCPT exactly which path and parameters.
//!
//! A command that parses is forwarded verbatim, so the grammar here is strict where two servers could read one
//! line in two ways (paths, what may follow them) and indifferent elsewhere. Source routes are refused: RFC 5321
//! section 4.1.1.3 lets a server do so, and a gateway on a trusted address must know where mail goes.

use std::str;

/// A command line, borrowed from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO and the client's name.
    Ehlo(&'a str),
    /// HELO and the client's name.
    Helo(&'a str),
    /// MAIL FROM.
    Mail(PathCommand<'a>),
    /// RCPT TO.
    Rcpt(PathCommand<'a>),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY, EXPN or HELP: questions that pass as they are.
    Ask,
    /// STARTTLS.
    StartTls,
    /// AUTH with its mechanism and the initial response, if one came along.
    Auth {
        /// The mechanism as the client spelled it.
        mechanism: &'a str,
        /// The initial response: base64, or `=` for an empty one.
        initial: Option<&'a str>,
    },
    /// The request line of an HTTP client: a browser made to attack a mail port, never a mail client.
    Http,
    /// Anything else; it does not pass.
    Unknown,
}

/// MAIL or RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCommand<'a> {
    /// The reverse or forward path.
    pub path: Path<'a>,
    /// What follows it, verbatim and already checked to be a list of parameters; empty if nothing does.
    pub parameters: &'a str,
}

impl<'a> PathCommand<'a> {
    /// The value of a parameter, `Some("")` when it stands without one.
    pub fn parameter(&self, keyword: &str) -> Option<&'a str> {
        self.parameters.split_ascii_whitespace().find_map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.eq_ignore_ascii_case(keyword).then_some(value)
        })
    }
}

/// What stands between the angle brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// `<>`, the null sender.
    Null,
    /// A mailbox.
    Mailbox(Address<'a>),
}

impl<'a> Path<'a> {
    /// The text between the brackets.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Null => "",
            Self::Mailbox(address) => address.whole,
        }
    }
}

/// A mailbox address, taken apart (RFC 5321 section 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// All of it.
    pub whole: &'a str,
    /// Before the last `@` outside quotes; with its quotes.
    pub local: &'a str,
    /// Behind it: a domain or an address literal in brackets. None for `<postmaster>` and its like.
    pub domain: Option<&'a str>,
}

impl Address<'_> {
    /// Whether the local part could be read as a route to somewhere else (`user%other`, `other!user`, a quoted
    /// `@`, or what normalisation makes one of these): servers that still honour those would relay what a domain
    /// check let through.
    pub fn has_routing(&self) -> bool {
        self.local
            .contains(['@', '%', '!', '\u{ff20}', '\u{fe6b}', '\u{ff05}', '\u{fe6a}', '\u{ff01}', '\u{fe57}'])
    }
}

/// Why a line is not a command that can be answered as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// Control characters, or octets that are not UTF-8 (RFC 6531 section 3.3).
    #[error("control characters or invalid UTF-8 in command")]
    Characters,
    /// The verb stands without what it needs.
    #[error("syntax error in parameters or arguments")]
    Arguments,
    /// The path of MAIL or RCPT cannot be read in exactly one way.
    #[error("bad address syntax")]
    Path,
    /// A route was given before the mailbox.
    #[error("source routes are not accepted")]
    SourceRoute,
}

/// Verbs of HTTP requests, as ALPACA and cross-protocol attacks by browsers send them.
const HTTP: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

impl<'a> Command<'a> {
    /// Reads a line without its line end.
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandFault> {
        let text = str::from_utf8(line).map_err(|_| CommandFault::Characters)?;
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(CommandFault::Characters);
        }
        let (verb, rest) = split_word(text);
        let no_arguments = |command| if rest.is_empty() { Ok(command) } else { Err(CommandFault::Arguments) };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => name(rest).map(Self::Ehlo),
            "HELO" => name(rest).map(Self::Helo),
            "MAIL" => path_command(rest, "FROM:", true).map(Self::Mail),
            "RCPT" => path_command(rest, "TO:", false).map(Self::Rcpt),
            "DATA" => no_arguments(Self::Data),
            "RSET" => no_arguments(Self::Rset),
            "STARTTLS" => no_arguments(Self::StartTls),
            "QUIT" => no_arguments(Self::Quit),
            "NOOP" => Ok(Self::Noop),
            "VRFY" | "EXPN" | "HELP" => Ok(Self::Ask),
            "AUTH" => auth(rest),
            verb if HTTP.contains(&verb) => Ok(Self::Http),
            _ => Ok(Self::Unknown),
        }
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_matches([' ', '\t']))
}

fn name(rest: &str) -> Result<&str, CommandFault> {
    let (name, more) = split_word(rest);
    // Some clients write a comment behind their name; no server minds.
    let _ = more;
    if name.is_empty() { Err(CommandFault::Arguments) } else { Ok(name) }
}

fn auth(rest: &str) -> Result<Command<'_>, CommandFault> {
    let (mechanism, initial) = split_word(rest);
    let known_characters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if mechanism.is_empty() || !mechanism.chars().all(known_characters) || initial.contains([' ', '\t']) {
        return Err(CommandFault::Arguments);
    }
    Ok(Command::Auth { mechanism, initial: (!initial.is_empty()).then_some(initial) })
}

fn path_command<'a>(rest: &'a str, keyword: &str, null: bool) -> Result<PathCommand<'a>, CommandFault> {
    let head = rest.get(..keyword.len()).ok_or(CommandFault::Arguments)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(CommandFault::Arguments);
    }
    // "MAIL FROM: <a@b>" is wrong and common (RFC 5321 section 3.3); every server reads it the same way.
    let text = rest[keyword.len()..].trim_start_matches(' ');
    let (path, parameters) = match text.strip_prefix('<') {
        Some(inner) => {
            let end = path_end(inner).ok_or(CommandFault::Path)?;
            (&inner[..end], &inner[end + 1..])
        }
        None => text.split_at(text.find(' ').unwrap_or(text.len())),
    };
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(CommandFault::Path);
    }
    let parameters = parameters.trim_matches(' ');
    if !parameters.split_ascii_whitespace().all(is_parameter) {
        return Err(CommandFault::Arguments);
    }
    let path = match path {
        "" if null && text.starts_with("<>") => Path::Null,
        _ => Path::Mailbox(address(path)?),
    };
    Ok(PathCommand { path, parameters })
}

/// Where the closing bracket stands, quoted ones passed over.
fn path_end(inner: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn address(whole: &str) -> Result<Address<'_>, CommandFault> {
    if whole.starts_with('@') {
        return Err(CommandFault::SourceRoute);
    }
    let local_len = if whole.starts_with('"') { quoted_len(whole) } else { atoms_len(whole) };
    let local_len = local_len.filter(|&len| len > 0).ok_or(CommandFault::Path)?;
    let (local, rest) = whole.split_at(local_len);
    let domain = match rest.strip_prefix('@') {
        Some(domain) if is_domain(domain) => Some(domain),
        None if rest.is_empty() => None,
        _ => return Err(CommandFault::Path),
    };
    Ok(Address { whole, local, domain })
}

/// The length of the quoted string `text` begins with.
fn quoted_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, octet) in text.bytes().enumerate().skip(1) {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of the unquoted local part `text` begins with. Dots may stand anywhere: some providers gave out such
/// addresses, and the upstream decides.
fn atoms_len(text: &str) -> Option<usize> {
    let end = text.find('@').unwrap_or(text.len());
    let special =
        |c: char| matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | '\\' | ',' | ';' | ':' | '"' | ' ' | '\t');
    (!text[..end].contains(special)).then_some(end)
}

fn is_domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return !literal.is_empty()
            && literal.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-'));
    }
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || !c.is_ascii())
}

/// `esmtp-keyword ["=" esmtp-value]` of RFC 5321 section 4.1.2; values may hold UTF-8 (RFC 6533).
fn is_parameter(text: &str) -> bool {
    let keyword = text.split_once('=').map_or(text, |(keyword, _)| keyword);
    keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rcpt(line: &str) -> Result<String, CommandFault> {
        match Command::parse(line.as_bytes())? {
            Command::Rcpt(command) | Command::Mail(command) => Ok(format!(
                "{}|{}",
                match command.path {
                    Path::Null => "null".to_owned(),
                    Path::Mailbox(a) => format!("{}|{}", a.local, a.domain.unwrap_or("-")),
                },
                command.parameters
            )),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_read_in_one_way_or_not_at_all() {
        use CommandFault::{Arguments, Path, SourceRoute};
        for (line, want) in [
            ("RCPT TO:<a@example.org>", Ok("a|example.org|")),
            ("rcpt to:<a@example.org>", Ok("a|example.org|")),
            ("RCPT TO: <a@example.org>", Ok("a|example.org|")),
            ("RCPT TO:a@example.org", Ok("a|example.org|")),
            ("RCPT TO:a@example.org NOTIFY=NEVER", Ok("a|example.org|NOTIFY=NEVER")),
            (
                "RCPT TO:<a@example.org> ORCPT=rfc822;a@x NOTIFY=NEVER",
                Ok("a|example.org|ORCPT=rfc822;a@x NOTIFY=NEVER"),
            ),
            ("RCPT TO:<\"a b\"@example.org>", Ok("\"a b\"|example.org|")),
            ("RCPT TO:<\"a>b\"@example.org>", Ok("\"a>b\"|example.org|")),
            ("RCPT TO:<\"a\\\"@evil.example\"@example.org>", Ok("\"a\\\"@evil.example\"|example.org|")),
            ("RCPT TO:<postmaster>", Ok("postmaster|-|")),
            ("RCPT TO:<a@[192.0.2.1]>", Ok("a|[192.0.2.1]|")),
            ("RCPT TO:<a@[IPv6:2001:db8::1]>", Ok("a|[IPv6:2001:db8::1]|")),
            ("RCPT TO:<用户@例え.example>", Ok("用户|例え.example|")),
            ("MAIL FROM:<>", Ok("null|")),
            ("MAIL FROM:<> SIZE=10", Ok("null|SIZE=10")),
            ("MAIL FROM:<a@b> BODY=8BITMIME AUTH=<>", Ok("a|b|BODY=8BITMIME AUTH=<>")),
            ("RCPT TO:<>", Err(Path)),
            ("RCPT TO:<@a.example:b@example.org>", Err(SourceRoute)),
            ("RCPT TO:<@a.example,@c.example:b@example.org>", Err(SourceRoute)),
            ("RCPT TO:<a@example.org", Err(Path)),
            ("RCPT TO:<a@example.org>x", Err(Path)),
            ("RCPT TO:<a@example.org> <b@evil.example>", Err(Arguments)),
            ("RCPT TO:<a@example.org@evil.example>", Err(Path)),
            ("RCPT TO:<a@>", Err(Path)),
            ("RCPT TO:<a b@example.org>", Err(Path)),
            ("RCPT TO:<a,b@example.org>", Err(Path)),
            ("RCPT TO:<\"a@example.org>", Err(Path)),
            ("RCPT TO:", Err(Path)),
            ("RCPT <a@example.org>", Err(Arguments)),
            ("RCPT", Err(Arguments)),
            ("MAIL FROM:", Err(Path)),
        ] {
            assert_eq!(rcpt(line), want.map(str::to_owned), "{line}");
        }
    }

    #[test]
    fn verbs() {
        use Command::*;
        for (line, want) in [
            ("EHLO client.example", Ok(Ehlo("client.example"))),
            ("ehlo [192.0.2.1] and more", Ok(Ehlo("[192.0.2.1]"))),
            ("EHLO", Err(CommandFault::Arguments)),
            ("HELO x", Ok(Helo("x"))),
            ("DATA", Ok(Data)),
            ("DATA ", Ok(Data)),
            ("DATA now", Err(CommandFault::Arguments)),
            ("NOOP anything", Ok(Noop)),
            ("VRFY root", Ok(Ask)),
            ("AUTH PLAIN", Ok(Auth { mechanism: "PLAIN", initial: None })),
            ("auth plain AGEAYg==", Ok(Auth { mechanism: "plain", initial: Some("AGEAYg==") })),
            ("AUTH PLAIN a b", Err(CommandFault::Arguments)),
            ("AUTH", Err(CommandFault::Arguments)),
            ("GET / HTTP/1.1", Ok(Http)),
            ("XCLIENT ADDR=127.0.0.1", Ok(Unknown)),
            ("BDAT 5 LAST", Ok(Unknown)),
            ("", Ok(Unknown)),
            ("NOOP \u{1}", Err(CommandFault::Characters)),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), want, "{line}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(CommandFault::Characters));
    }

    #[test]
    fn routing_in_local_parts_is_seen() {
        for (line, routing) in [
            ("RCPT TO:<a@example.org>", false),
            ("RCPT TO:<a%evil.example@example.org>", true),
            ("RCPT TO:<evil.example!a@example.org>", true),
            ("RCPT TO:<\"a@evil.example\"@example.org>", true),
            ("RCPT TO:<a＠evil.example@example.org>", true),
        ] {
            let Ok(Command::Rcpt(PathCommand { path: Path::Mailbox(address), .. })) =
                Command::parse(line.as_bytes())
            else {
                panic!("{line}")
            };
            assert_eq!(address.has_routing(), routing, "{line}");
        }
    }
}
