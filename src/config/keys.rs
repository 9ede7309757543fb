//! Every key of the file: its kind, its default, its sentence.
//!
//! The one place to add a key. The reader, the JSON schema and the test that holds the manual against the keys take
//! everything from here. [`LATER`] names what is known and not built yet.

use super::{domain, spelling};

/// A mapping with known keys.
pub(super) struct Table {
    /// What it describes, with its article.
    pub(super) what: &'static str,
    pub(super) keys: &'static [Key],
}

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Otherwise,
    pub(super) doc: &'static str,
}

/// What holds when the key is not there.
#[derive(Clone, Copy)]
pub(super) enum Otherwise {
    /// It must be there.
    Required,
    /// Nothing, or what the keys inside it say.
    Absent,
    /// This text, as the file would say it.
    Is(&'static str),
    /// What this phrase describes.
    Told(&'static str),
}

/// What a value may be.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Label,
    Switch,
    Size,
    Duration,
    Count,
    CountFromOne,
    Points,
    Address,
    Server,
    HostName,
    Domain,
    DomainPattern,
    Network,
    Path,
    Subject,
    RuleSeries,
    Word(&'static Words),
    List(&'static Self),
    OneOrMore(&'static Self),
    Section(&'static Table),
    /// Sections under names that the operator chooses.
    Named(&'static Table),
    /// Not looked into.
    Anything,
}

/// A closed set of words.
pub(super) struct Words {
    pub(super) words: &'static [&'static str],
    /// Words that are right elsewhere, and what to write here instead.
    pub(super) instead: &'static [(&'static str, &'static str)],
}

impl Kind {
    /// What is expected, in words, with an example.
    pub(super) const fn expected(&self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Label => "a name of letters, digits, `-`, `_` and `.`",
            Self::Switch => "`true` or `false`",
            Self::Size => "a size above zero such as `4096`, `256 KiB` or `16 MiB`",
            Self::Duration => "a time span above zero such as `5s`, `5m` or `1h`",
            Self::Count => "a whole number",
            Self::CountFromOne => "a whole number from 1 on",
            Self::Points => "a number of points such as `5.0`",
            Self::Address => "an address and a port such as `0.0.0.0:25` or `\"[::]:25\"`",
            Self::Server => "a host and a port such as `mail.example.org:25` or `\"[2001:db8::5]:25\"`",
            Self::HostName => "a domain name or an address",
            Self::Domain => "a domain name such as `mx.example.org`",
            Self::DomainPattern => "a domain such as `example.org`, or `\"*.example.org\"` for all below it",
            Self::Network => "a network such as `10.0.0.0/8`",
            Self::Path => "a path",
            Self::Subject => "`off`, or printable ASCII such as `\"[SPAM] \"`, at most 40 characters",
            Self::RuleSeries => "`all`, `off`, or a number such as `top-200`",
            Self::Word(_) => "a word",
            Self::List(_) | Self::OneOrMore(_) => "a list",
            Self::Section(_) | Self::Named(_) => "a mapping",
            Self::Anything => "anything",
        }
    }

    /// Whether a scalar of this text is one. Lists and mappings are none.
    pub(super) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Text | Self::Path => !text.is_empty(),
            Self::Label => spelling::label(text).is_some(),
            Self::Switch => spelling::switch(text).is_some(),
            Self::Size => spelling::size(text).is_some_and(|size| size > 0),
            Self::Duration => spelling::duration(text).is_some_and(|span| !span.is_zero()),
            Self::Count => spelling::count(text).is_some(),
            Self::CountFromOne => spelling::count(text).is_some_and(|count| count > 0),
            Self::Points => spelling::points(text).is_some(),
            Self::Address => spelling::address(text).is_some(),
            Self::Server => spelling::server(text).is_some(),
            Self::HostName => spelling::host_name(text).is_some(),
            Self::Domain => domain::domain(text).is_some(),
            Self::DomainPattern => domain::pattern(text).is_some(),
            Self::Network => spelling::network(text).is_some(),
            Self::Subject => spelling::subject(text).is_some(),
            Self::RuleSeries => spelling::rule_series(text).is_some(),
            Self::Word(words) => words.words.contains(&text),
            Self::Anything => true,
            Self::List(_) | Self::OneOrMore(_) | Self::Section(_) | Self::Named(_) => false,
        }
    }
}

/// Something known that this version cannot do.
pub(super) struct Later {
    /// The keys from the top, joined by dots; positions in lists and names chosen by the operator left out.
    pub(super) path: &'static str,
    /// The values that are meant; empty: the key as such.
    pub(super) words: &'static [&'static str],
    /// What to do until then.
    pub(super) remedy: &'static str,
    /// Whether it is a fault to ask for it, or only said.
    pub(super) fault: bool,
}

/// What this version knows by name and cannot do yet. A capability that is built loses its row.
pub(super) const LATER: &[Later] = &[
    later("listeners.protocol", &["lmtp"], "use `smtp`, `pop3` or `imap`"),
    later("listeners.accept_proxy_protocol", &[], "remove it"),
    later("listeners.transparent", &["redirect", "tproxy"], "remove it, or write `off`"),
    later(
        "listeners.direction",
        &["outbound"],
        "leave it out; mail of your users passes where they authenticate",
    ),
    later("listeners.recipients", &[], "remove it; the listener's `policy` holds for all recipients"),
    later(
        "listeners.mode",
        &["observe"],
        "use `enforce`, with a policy whose answers are all `deliver` or `leave`",
    ),
    later("upstreams.protocol", &["lmtp"], "use `smtp`, `pop3` or `imap`"),
    later(
        "upstreams.client_address",
        &["proxy-v1", "proxy-v2", "xclient", "xforward", "id", "source"],
        "remove it, or write `none`",
    ),
    later("rules.spamassassin", &[], "remove it, and write the rules as files under `paths`"),
    Later {
        path: "trusted.hops",
        words: &[],
        remedy: "remove it, or leave it for later: no check asks for it",
        fault: false,
    },
    later("store.kind", &["shared"], "use `embedded`"),
    later("store.redis", &[], "remove it; the store is embedded"),
    later("store.objects", &[], "remove it; the store is embedded"),
    Later {
        path: "admin",
        words: &[],
        remedy: "remove it, or leave it for later: nothing listens there",
        fault: false,
    },
];

const fn later(path: &'static str, words: &'static [&'static str], remedy: &'static str) -> Later {
    Later { path, words, remedy, fault: true }
}

const fn key(name: &'static str, kind: Kind, default: Otherwise, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

const fn words(words: &'static [&'static str]) -> Words {
    Words { words, instead: &[] }
}

use Otherwise::{Absent, Is, Required, Told};

/// The file itself.
pub(super) const FILE: Table = Table {
    what: "the configuration",
    keys: &[
        key(
            "hostname",
            Kind::Domain,
            Told("the system's own name"),
            "What Gatepost calls itself in greetings, EHLO and Received lines.",
        ),
        key(
            "listeners",
            Kind::List(&Kind::Section(&LISTENER)),
            Required,
            "The doors: where clients come in.",
        ),
        key("upstreams", Kind::Named(&UPSTREAM), Required, "The mail servers behind the gate, by name."),
        key(
            "policies",
            Kind::Named(&POLICY),
            Absent,
            "What is done with each class of message, by name. What is not written keeps its default.",
        ),
        key("rules", Kind::Section(&RULES), Absent, "Where the rules are."),
        key("trusted", Kind::Section(&TRUSTED), Absent, "Whom to believe."),
        key("store", Kind::Section(&STORE), Absent, "Where the quarantine and the journal live."),
        key("admin", Kind::Anything, Absent, "The console and its API."),
        key("metrics", Kind::Section(&METRICS), Absent, "The listener for /metrics, /live and /ready."),
        key("log", Kind::Section(&LOG), Absent, "How Gatepost speaks to the operator."),
        key("limits", Kind::Section(&LIMITS), Absent, "Every number that bounds something."),
    ],
};

const PROTOCOLS: Kind = Kind::Word(&words(&["smtp", "lmtp", "pop3", "imap"]));
const TLS_MODES: Kind = Kind::Word(&words(&["off", "starttls", "implicit"]));

pub(super) const LISTENER: Table = Table {
    what: "a listener",
    keys: &[
        key("name", Kind::Label, Required, "The label in logs and metrics; unique."),
        key("protocol", PROTOCOLS, Required, "What is spoken there."),
        key(
            "bind",
            Kind::OneOrMore(&Kind::Address),
            Required,
            "The address and port to listen on, or a list of them. IPv6 sockets take IPv6 only.",
        ),
        key("tls", Kind::Section(&LISTENER_TLS), Absent, "TLS towards clients."),
        key(
            "accept_proxy_protocol",
            Kind::Section(&PROXY_PROTOCOL),
            Absent,
            "Believe PROXY headers v1 and v2.",
        ),
        key(
            "transparent",
            Kind::Word(&words(&["off", "redirect", "tproxy"])),
            Is("off"),
            "Take connections that were meant for another address.",
        ),
        key("upstream", Kind::Label, Required, "The name of the upstream, which speaks the same protocol."),
        key(
            "direction",
            Kind::Word(&words(&["inbound", "outbound"])),
            Is("inbound"),
            "SMTP: mail for our users, or mail of our users for the world.",
        ),
        key("policy", Kind::Label, Is("default"), "The name of the policy."),
        key(
            "relay_domains",
            Kind::OneOrMore(&Kind::DomainPattern),
            Told("none; inbound SMTP must say it"),
            "Inbound SMTP: recipients of these domains pass without authentication, no others. \
             `*.example.org` is all below example.org. An empty list: authenticated senders only.",
        ),
        key("recipients", Kind::List(&Kind::Section(&RECIPIENT)), Absent, "Policies for single recipients."),
        key(
            "mode",
            Kind::Word(&words(&["enforce", "observe"])),
            Is("enforce"),
            "Act on verdicts, or only judge, count and journal.",
        ),
    ],
};

const LISTENER_TLS: Table = Table {
    what: "the TLS of a listener",
    keys: &[
        key("mode", TLS_MODES, Required, "Never, after the protocol's own command, or with the first octet."),
        key(
            "certificates",
            Kind::List(&Kind::Section(&CERTIFICATE)),
            Absent,
            "Chosen by SNI; the first is for clients that name none of them.",
        ),
    ],
};

pub(super) const CERTIFICATE: Table = Table {
    what: "a certificate",
    keys: &[
        key("cert", Kind::Path, Required, "PEM: the certificate, then its chain."),
        key("key", Kind::Path, Required, "PEM: its private key."),
    ],
};

const PROXY_PROTOCOL: Table = Table {
    what: "`accept_proxy_protocol`",
    keys: &[key("from", Kind::List(&Kind::Network), Required, "The networks that are believed.")],
};

const RECIPIENT: Table = Table {
    what: "a recipient's policy",
    keys: &[
        key("match", Kind::Text, Required, "An address, or `*@domain`."),
        key("policy", Kind::Label, Required, "The name of the policy."),
    ],
};

pub(super) const UPSTREAM: Table = Table {
    what: "an upstream",
    keys: &[
        key("protocol", PROTOCOLS, Required, "What it speaks."),
        key("servers", Kind::OneOrMore(&Kind::Server), Required, "Its servers, tried in this order."),
        key("tls", Kind::Section(&UPSTREAM_TLS), Absent, "TLS towards it."),
        key(
            "client_address",
            Kind::Word(&words(&["none", "proxy-v1", "proxy-v2", "xclient", "xforward", "id", "source"])),
            Is("none"),
            "How it learns the client's address.",
        ),
    ],
};

const UPSTREAM_TLS: Table = Table {
    what: "the TLS of an upstream",
    keys: &[
        key("mode", TLS_MODES, Required, "Never, after the protocol's own command, or with the first octet."),
        key(
            "verify",
            Kind::Word(&words(&["full", "ca", "none"])),
            Is("full"),
            "Check chain and name, the chain only, or nothing.",
        ),
        key("ca", Kind::Path, Told("the system's authorities"), "PEM: the authorities to believe."),
        key(
            "server_name",
            Kind::HostName,
            Told("the server's host"),
            "The name to send and to expect in the certificate.",
        ),
    ],
};

pub(super) const POLICY: Table = Table {
    what: "a policy",
    keys: &[
        key("thresholds", Kind::Section(&THRESHOLDS), Absent, "The scores at which the classes begin."),
        key("smtp", Kind::Section(&SMTP), Absent, "What happens at the SMTP gate."),
        key("pop3", Kind::Section(&POP3), Absent, "What POP3 clients see."),
        key("imap", Kind::Section(&IMAP), Absent, "What happens in IMAP mailboxes."),
        key("stamp", Kind::Section(&STAMP), Absent, "What the header block looks like."),
    ],
};

const THRESHOLDS: Table = Table {
    what: "`thresholds`",
    keys: &[
        key("unsure", Kind::Points, Is("3.0"), "From this score on a message is `unsure`."),
        key("spam", Kind::Points, Is("5.0"), "From this score on a message is `spam`."),
        key("certain", Kind::Points, Is("10.0"), "From this score on a message is `certain`."),
    ],
};

const ACTIONS: Kind = Kind::Word(&Words {
    words: &["deliver", "stamp", "quarantine", "reject", "defer", "discard"],
    instead: &[("leave", "deliver"), ("withhold", "quarantine"), ("move", "quarantine")],
});
const POP3_FILINGS: Kind = Kind::Word(&Words {
    words: &["leave", "stamp", "withhold"],
    instead: &[
        ("deliver", "leave"),
        ("move", "withhold"),
        ("quarantine", "withhold"),
        ("reject", "withhold"),
        ("defer", "withhold"),
        ("discard", "withhold"),
    ],
});
const IMAP_FILINGS: Kind = Kind::Word(&Words {
    words: &["leave", "stamp", "move", "withhold"],
    instead: &[
        ("deliver", "leave"),
        ("quarantine", "withhold"),
        ("reject", "withhold"),
        ("defer", "withhold"),
        ("discard", "withhold"),
    ],
});

const HAM: &str = "For ham.";
const UNSURE: &str = "For what is near the threshold.";
const SPAM: &str = "For spam.";
const CERTAIN: &str = "For what is spam beyond doubt.";
const MALWARE: &str = "For what the antivirus found.";
const UNSCANNED: &str = "For what could not be judged.";

const SMTP: Table = Table {
    what: "an SMTP policy",
    keys: &[
        key("ham", ACTIONS, Is("deliver"), HAM),
        key("unsure", ACTIONS, Is("deliver"), UNSURE),
        key("spam", ACTIONS, Is("stamp"), SPAM),
        key("certain", ACTIONS, Is("quarantine"), CERTAIN),
        key("malware", ACTIONS, Is("quarantine"), MALWARE),
        key("unscanned", ACTIONS, Is("defer"), UNSCANNED),
    ],
};

const POP3: Table = Table {
    what: "a POP3 policy",
    keys: &[
        key("ham", POP3_FILINGS, Is("leave"), HAM),
        key("unsure", POP3_FILINGS, Is("leave"), UNSURE),
        key("spam", POP3_FILINGS, Is("stamp"), SPAM),
        key("certain", POP3_FILINGS, Is("withhold"), CERTAIN),
        key("malware", POP3_FILINGS, Is("withhold"), MALWARE),
        key("unscanned", POP3_FILINGS, Is("leave"), UNSCANNED),
    ],
};

const IMAP: Table = Table {
    what: "an IMAP policy",
    keys: &[
        key("ham", IMAP_FILINGS, Is("leave"), HAM),
        key("unsure", IMAP_FILINGS, Is("leave"), UNSURE),
        key("spam", IMAP_FILINGS, Is("move"), SPAM),
        key("certain", IMAP_FILINGS, Is("move"), CERTAIN),
        key("malware", IMAP_FILINGS, Is("withhold"), MALWARE),
        key("unscanned", IMAP_FILINGS, Is("leave"), UNSCANNED),
        key(
            "junk_mailbox",
            Kind::Text,
            Is("auto"),
            "Where `move` moves to; `auto`: the mailbox with the \\Junk attribute, then known names.",
        ),
        key(
            "watch",
            Kind::OneOrMore(&Kind::Text),
            Is("INBOX"),
            "The mailboxes whose new messages are judged before they are announced.",
        ),
        key("deadline", Kind::Duration, Is("5s"), "How long an announcement may be held back for judging."),
        key(
            "first_contact",
            Kind::Count,
            Is("200"),
            "How many of the newest messages are judged in a mailbox that is seen for the first time.",
        ),
        key("create", Kind::Switch, Is("false"), "Whether a missing junk mailbox is created."),
    ],
};

const STAMP: Table = Table {
    what: "`stamp`",
    keys: &[
        key(
            "headers",
            Kind::Switch,
            Is("true"),
            "Write X-Spam-* and X-Gatepost lines, and remove foreign ones.",
        ),
        key("ham_headers", Kind::Switch, Is("true"), "Write them on ham, too."),
        key("received", Kind::Switch, Is("true"), "Write a Received line at the SMTP gate."),
        key(
            "subject",
            Kind::Subject,
            Is("off"),
            "Put before the subject of a stamped message. A changed Subject breaks DKIM for later verifiers.",
        ),
    ],
};

const RULES: Table = Table {
    what: "`rules`",
    keys: &[
        key(
            "paths",
            Kind::OneOrMore(&Kind::Path),
            Told("the built-in rules"),
            "Rule files, and folders of them.",
        ),
        key("spamassassin", Kind::OneOrMore(&Kind::Path), Absent, "SpamAssassin rule files."),
    ],
};

const TRUSTED: Table = Table {
    what: "`trusted`",
    keys: &[
        key("hops", Kind::OneOrMore(&Kind::Network), Absent, "Networks whose Received lines are believed."),
        key("authserv_id", Kind::Domain, Told("the hostname"), "Our name in Authentication-Results."),
    ],
};

const STORE: Table = Table {
    what: "`store`",
    keys: &[
        key(
            "kind",
            Kind::Word(&words(&["embedded", "shared"])),
            Is("embedded"),
            "On this disk, or shared by replicas.",
        ),
        key("path", Kind::Path, Is("/var/lib/gatepost"), "The folder; it is made if missing."),
        key("redis", Kind::Text, Absent, "The shared store's server."),
        key("objects", Kind::Text, Absent, "The shared store's bucket."),
    ],
};

const METRICS: Table = Table {
    what: "`metrics`",
    keys: &[
        key("bind", Kind::Address, Required, "Where they are served, over plain HTTP."),
        key("rules", Kind::RuleSeries, Is("top-200"), "How many rules have series of their own."),
    ],
};

const LOG: Table = Table {
    what: "`log`",
    keys: &[
        key(
            "format",
            Kind::Word(&words(&["text", "json"])),
            Is("text"),
            "Lines for people, or one object a line.",
        ),
        key(
            "level",
            Kind::Word(&words(&["error", "warn", "info", "debug", "trace"])),
            Is("info"),
            "How much is said; `info` is a line for every message and every session.",
        ),
    ],
};

pub(super) const LIMITS: Table = Table {
    what: "`limits`",
    keys: &[
        key(
            "sessions",
            Kind::CountFromOne,
            Is("9000"),
            "Sessions open at once over all listeners; further clients wait in the kernel's queue.",
        ),
        key(
            "message_bytes",
            Kind::Size,
            Is("100 MiB"),
            "Octets of one message at the SMTP gate; larger ones are refused with 552. In POP3 larger ones pass unjudged.",
        ),
        key(
            "judged_bytes",
            Kind::Size,
            Is("16 MiB"),
            "Octets of a message's beginning that are judged; the rest passes unread.",
        ),
        key(
            "spool_memory_bytes",
            Kind::Size,
            Is("256 MiB"),
            "Octets of mail that all sessions together may hold in memory; beyond it messages go to unlinked files.",
        ),
        key(
            "message_memory_bytes",
            Kind::Size,
            Is("512 KiB"),
            "Octets of one message kept in memory; larger ones go to an unlinked file.",
        ),
        key("command_line_bytes", Kind::Size, Is("4096"), "Octets of one command line before it is refused."),
        key(
            "sasl_line_bytes",
            Kind::Size,
            Is("12288"),
            "Octets of one line of a SASL exchange (RFC 4954 section 4).",
        ),
        key(
            "imap_line_bytes",
            Kind::Size,
            Is("64 KiB"),
            "Octets of one IMAP command line without its literals, after login.",
        ),
        key("imap_prelogin_bytes", Kind::Size, Is("8192"), "Octets of an IMAP line or literal before login."),
        key(
            "recipients",
            Kind::CountFromOne,
            Is("1000"),
            "Accepted recipients of one message; further ones get 452.",
        ),
        key(
            "errors_per_session",
            Kind::CountFromOne,
            Is("10"),
            "Faulty or refused commands of one session before it is closed.",
        ),
        key(
            "login_timeout",
            Kind::Duration,
            Is("2m"),
            "How long a client may take to finish its login, TLS included.",
        ),
        key(
            "command_timeout",
            Kind::Duration,
            Is("5m"),
            "How long a client may be silent between commands (RFC 5321 section 4.5.3.2.7).",
        ),
        key(
            "pop3_idle_timeout",
            Kind::Duration,
            Is("10m"),
            "How long a POP3 client may be silent after login (RFC 1939 section 3).",
        ),
        key(
            "imap_idle_timeout",
            Kind::Duration,
            Is("31m"),
            "How long an IMAP session may be silent in both directions (RFC 9051 section 5.4).",
        ),
        key("data_timeout", Kind::Duration, Is("3m"), "How long a client may pause inside a message."),
        key(
            "upstream_connect_timeout",
            Kind::Duration,
            Is("10s"),
            "How long an upstream may take to accept, to finish TLS, and to greet.",
        ),
        key(
            "upstream_reply_timeout",
            Kind::Duration,
            Is("5m"),
            "How long an upstream may take to answer a command.",
        ),
        key(
            "final_reply_timeout",
            Kind::Duration,
            Is("10m"),
            "How long an upstream may take to answer the end of a message.",
        ),
        key(
            "drain_timeout",
            Kind::Duration,
            Is("30s"),
            "How long running sessions may go on after the order to stop.",
        ),
        key(
            "judging_wait",
            Kind::Duration,
            Is("1m"),
            "How long a message may wait for its turn to be judged; then it counts as unscanned.",
        ),
        key("judging_parallel", Kind::CountFromOne, Told("the number of cores"), "Messages judged at once."),
    ],
};
