//! Which capabilities a client may see: what the upstream offers, as far as the gate can look through it.
//!
//! An allow-list, one table with a reason for whatever is refused by name. A capability that is not in the table is
//! hidden: nobody has yet looked at what it would do to the gate. The upstream's order and spelling stay.

use std::ops::Range;

/// What the table says of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The gate sees through it.
    Clear,
    /// The client is not told of it, for this reason.
    Hidden(&'static str),
}

use Sight::{Clear, Hidden};

/// Whether a client is told of the ways to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logins {
    /// As the upstream offers them.
    Shown,
    /// Not yet: passwords wait for TLS. The upstream's own LOGINDISABLED goes, too; ours is added.
    Hidden,
}

impl Logins {
    fn hide(self, capability: &[u8]) -> bool {
        self == Self::Hidden && (matches(b"AUTH=*", capability) || matches(b"LOGINDISABLED", capability))
    }
}

const LEGS: &str = "it binds to one TLS session, and the gate has two";
const BYPASS: &str = "it tells clients of a way round the gate";
const REFERS: &str = "it makes or fetches messages out of parts that the gate does not see together";
const UNASKED: &str = "it delivers message data that no command in sight asked for";

/// The first row that matches counts. A `*` stands for anything.
const TABLE: &[(&str, Sight)] = &[
    ("IMAP4rev1", Clear),
    // Clear where there is no IMAP4rev1 to fall back on: see `shown`.
    ("IMAP4rev2", Hidden("it turns on more than the gate follows, and IMAP4rev1 is there")),
    // Framing.
    ("LITERAL+", Clear),
    ("LITERAL-", Clear),
    ("BINARY", Clear),
    ("UTF8=ACCEPT", Clear),
    ("COMPRESS=*", Hidden("the gate would see only compressed octets")),
    ("STARTTLS", Hidden("TLS ends at the gate, which offers it by itself")),
    // Logging in.
    ("AUTH=*-PLUS", Hidden(LEGS)),
    ("AUTH=EXTERNAL", Hidden("the certificate the upstream would see is the gate's")),
    ("AUTH=*", Clear),
    ("SASL-IR", Clear),
    ("LOGINDISABLED", Clear),
    ("LOGIN-REFERRALS", Hidden(BYPASS)),
    ("MAILBOX-REFERRALS", Hidden(BYPASS)),
    ("JMAPACCESS", Hidden(BYPASS)),
    ("UNAUTHENTICATE", Hidden("a second account would pass as the first")),
    // The session.
    ("ID", Clear),
    ("IDLE", Clear),
    ("ENABLE", Clear),
    ("NAMESPACE", Clear),
    ("LANGUAGE", Clear),
    ("INPROGRESS", Clear),
    ("NOTIFY", Hidden(UNASKED)),
    // Mailboxes.
    ("CHILDREN", Clear),
    ("SPECIAL-USE", Clear),
    ("CREATE-SPECIAL-USE", Clear),
    ("XLIST", Clear),
    ("LIST-EXTENDED", Clear),
    ("LIST-STATUS", Clear),
    ("LIST-MYRIGHTS", Clear),
    ("LIST-METADATA", Clear),
    ("STATUS=SIZE", Clear),
    ("QUOTA*", Clear),
    ("ACL", Clear),
    ("RIGHTS=*", Clear),
    ("METADATA", Clear),
    ("METADATA-SERVER", Clear),
    ("UNSELECT", Clear),
    // Messages.
    ("UIDPLUS", Clear),
    ("MOVE", Clear),
    ("CONDSTORE", Clear),
    ("QRESYNC", Clear),
    ("MULTIAPPEND", Clear),
    ("APPENDLIMIT*", Clear),
    ("MESSAGELIMIT*", Clear),
    ("OBJECTID", Clear),
    ("PREVIEW*", Clear),
    ("SNIPPET*", Clear),
    ("SAVEDATE", Clear),
    ("PARTIAL", Clear),
    ("X-GM-EXT-1", Clear),
    ("CATENATE", Hidden(REFERS)),
    ("URLAUTH*", Hidden(REFERS)),
    ("URL-PARTIAL", Hidden(REFERS)),
    (
        "REPLACE",
        Hidden("a message would be appended and another removed in one step the gate does not follow"),
    ),
    ("CONVERT", Hidden("messages would come in a shape that was never judged")),
    ("UIDONLY", Hidden("responses would name messages in a way the gate does not follow")),
    // Searching.
    ("SEARCH=*", Clear),
    ("SEARCHRES", Clear),
    ("ESEARCH", Clear),
    ("SORT*", Clear),
    ("ESORT", Clear),
    ("THREAD=*", Clear),
    ("WITHIN", Clear),
    ("I18NLEVEL=*", Clear),
    ("MULTISEARCH", Hidden("it answers for mailboxes that are not open")),
    ("CONTEXT=*", Hidden(UNASKED)),
    ("FILTERS", Hidden("searches kept on the server are out of the gate's sight")),
];

const UNKNOWN: &str = "the gate does not know it";

/// What the table says of `capability`, in any case of letters.
pub fn sight(capability: &[u8]) -> Sight {
    TABLE
        .iter()
        .find(|(pattern, _)| matches(pattern.as_bytes(), capability))
        .map_or(Hidden(UNKNOWN), |&(_, sight)| sight)
}

/// Whether a client is shown `capability` from a `list` of them separated by spaces.
pub fn shown(capability: &[u8], list: &[u8]) -> bool {
    match sight(capability) {
        Clear => true,
        Hidden(_) => {
            capability.eq_ignore_ascii_case(b"IMAP4rev2")
                && !words(list).any(|w| w.eq_ignore_ascii_case(b"IMAP4rev1"))
        }
    }
}

/// The capabilities of a list.
pub fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|octet| SPACES.contains(octet)).filter(|word| !word.is_empty())
}

/// `line` with its capability list, the octets `list` of it, cut down to what is [`shown`] under `logins`, and `added`
/// at the list's end. Every other octet stays.
pub fn reduce(line: &[u8], list: Range<usize>, logins: Logins, added: &[&str]) -> Vec<u8> {
    let (head, tail) = line.split_at(list.end.min(line.len()));
    let (head, list) = head.split_at(list.start.min(head.len()));
    let mut reduced = Vec::with_capacity(line.len() + 16);
    reduced.extend_from_slice(head);
    let mut rest = list;
    loop {
        // A word goes with the space before it.
        let word_at = rest.iter().position(|octet| !SPACES.contains(octet)).unwrap_or(rest.len());
        let word = &rest[word_at..];
        let word = &word[..word.iter().position(|octet| SPACES.contains(octet)).unwrap_or(word.len())];
        if word.is_empty() {
            break;
        }
        let (whole, behind) = rest.split_at(word_at + word.len());
        if shown(word, list) && !logins.hide(word) {
            reduced.extend_from_slice(whole);
        }
        rest = behind;
    }
    for capability in added {
        reduced.push(b' ');
        reduced.extend_from_slice(capability.as_bytes());
    }
    reduced.extend_from_slice(rest);
    reduced.extend_from_slice(tail);
    reduced
}

/// What separates words; a server that used a tab would be understood by some clients.
const SPACES: &[u8] = b" \t";

fn matches(pattern: &[u8], word: &[u8]) -> bool {
    match pattern.iter().position(|&octet| octet == b'*') {
        None => pattern.eq_ignore_ascii_case(word),
        Some(star) => {
            let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
            word.len() >= head.len() + tail.len()
                && word[..head.len()].eq_ignore_ascii_case(head)
                && word[word.len() - tail.len()..].eq_ignore_ascii_case(tail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_looked_up() {
        for (capability, visible) in [
            ("IMAP4rev1", true),
            ("imap4REV1", true),
            ("AUTH=PLAIN", true),
            ("AUTH=SCRAM-SHA-256", true),
            ("auth=scram-sha-256-plus", false),
            ("AUTH=EXTERNAL", false),
            ("COMPRESS=DEFLATE", false),
            ("QUOTA", true),
            ("QUOTA=RES-STORAGE", true),
            ("QUOTASET", true),
            ("SORT=DISPLAY", true),
            ("THREAD=REFERENCES", true),
            ("THREAD", false),
            ("CONTEXT=SEARCH", false),
            ("SEARCH=FUZZY", true),
            ("APPENDLIMIT=35651584", true),
            ("STARTTLS", false),
            ("XAPPLEPUSHSERVICE", false),
            ("IMAP4", false),
            ("", false),
        ] {
            assert_eq!(sight(capability.as_bytes()) == Clear, visible, "{capability}");
        }
    }

    #[test]
    fn lists_are_reduced_and_nothing_else() {
        let check = |line: &str, added: &[&str], expected: &str| {
            let begin = line.find("CAPABILITY").unwrap() + "CAPABILITY".len();
            let end = line.find(['\r', ']']).unwrap();
            let reduced = reduce(line.as_bytes(), begin..end, Logins::Shown, added);
            assert_eq!(String::from_utf8(reduced).unwrap(), expected);
        };
        check("* CAPABILITY IMAP4rev1 idle\r\n", &[], "* CAPABILITY IMAP4rev1 idle\r\n");
        check(
            "* CAPABILITY IMAP4rev1 COMPRESS=DEFLATE Idle NOTIFY\r\n",
            &[],
            "* CAPABILITY IMAP4rev1 Idle\r\n",
        );
        check("* CAPABILITY IMAP4rev1 STARTTLS \r\n", &["STARTTLS"], "* CAPABILITY IMAP4rev1 STARTTLS \r\n");
        check(
            "* OK [CAPABILITY XNEW IMAP4rev1  ID] XNEW ready\r\n",
            &["STARTTLS"],
            "* OK [CAPABILITY IMAP4rev1  ID STARTTLS] XNEW ready\r\n",
        );
        check("* CAPABILITY IMAP4rev2 IMAP4rev1\r\n", &[], "* CAPABILITY IMAP4rev1\r\n");
        check("* CAPABILITY IMAP4rev2 ID\r\n", &[], "* CAPABILITY IMAP4rev2 ID\r\n");
        check("* CAPABILITY IMAP4rev1\tNOTIFY\tID\r\n", &[], "* CAPABILITY IMAP4rev1\tID\r\n");
        check("* CAPABILITY\r\n", &[], "* CAPABILITY\r\n");
    }

    #[test]
    fn logins_are_hidden_until_they_are_safe() {
        let line = b"* CAPABILITY IMAP4rev1 auth=PLAIN SASL-IR LoginDisabled AUTH=LOGIN\r\n";
        let reduced = reduce(line, 12..line.len() - 2, Logins::Hidden, &["STARTTLS", "LOGINDISABLED"]);
        assert_eq!(
            reduced.escape_ascii().to_string(),
            "* CAPABILITY IMAP4rev1 SASL-IR STARTTLS LOGINDISABLED\\r\\n"
        );
    }
}
