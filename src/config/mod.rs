//! What the operator wrote, read into plain types, with every fault of it at once.
//!
//! [`Config::read`] is pure but for `${NAME}` and `!file`: text in, configuration and faults out. What must hold
//! outside of the text (files, certificates, free ports) is noted while reading and looked at by
//! [`Reading::check_ground`]. The keys, their kinds, defaults and sentences stand in one table (`keys`), from
//! which the reader, the JSON schema and the tests of the manual are all taken.
//!
//! Nothing here knows how a listener or an upstream works, and keys of capabilities that this version lacks have
//! no field here: the table refuses them by name.

mod domain;
mod limits;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use self::{domain::DomainPattern, limits::Limits};
use crate::policy::PolicySet;

/// A sound configuration. Names that one part uses for another (upstream, policy) are known to exist.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// What we call ourselves in greetings, `Received` lines and `EHLO`; none: the system's own name.
    pub hostname: Option<String>,
    /// The doors, in the order of the file. At least one.
    pub listeners: Vec<Listener>,
    /// The servers behind them, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// The policies, in the order of the file. `default` is always among them.
    pub policies: Vec<Policy>,
    /// Where the rules are.
    pub rules: Rules,
    /// Whom to believe.
    pub trusted: Trusted,
    /// Where the quarantine and the journal live.
    pub store: Store,
    /// The listener for `/metrics`, `/live` and `/ready`; none: it is not opened.
    pub metrics: Option<Metrics>,
    /// How we speak to the operator.
    pub log: Log,
    /// Every number that bounds something.
    pub limits: Limits,
}

/// A door: where clients come in, and where they are led.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The label in logs and metrics; unique.
    pub name: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The addresses to listen on. At least one; IPv6 sockets are to be v6-only.
    pub bind: Vec<SocketAddr>,
    /// TLS towards clients.
    pub tls: ListenerTls,
    /// The name of the upstream; of the same protocol.
    pub upstream: String,
    /// Whose mail passes here (SMTP; `Inbound` for the others).
    pub direction: Direction,
    /// The name of the policy.
    pub policy: String,
    /// Inbound SMTP: recipients of these domains pass without authentication, no others. Empty: only
    /// authenticated senders may send. Always empty elsewhere.
    pub relay_domains: Vec<DomainPattern>,
}

/// What a listener or an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 1939.
    Pop3,
    /// RFC 9051 and RFC 3501.
    Imap,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Never.
    Off,
    /// After the protocol's own command for it (STARTTLS, STLS).
    StartTls,
    /// With the first octet.
    Implicit,
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// When it begins.
    pub mode: TlsMode,
    /// At least one unless the mode is `Off`; chosen by SNI, the first is for clients that name nothing known.
    pub certificates: Vec<Certificate>,
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM: the certificate, then its chain.
    pub cert: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// Whose mail passes an SMTP listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Mail for our users.
    Inbound,
    /// Mail of our users for the world; relay domains do not apply.
    Outbound,
}

/// A mail server behind the gate.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The label in logs and metrics; unique.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Tried in this order. At least one.
    pub servers: Vec<Server>,
    /// TLS towards it.
    pub tls: UpstreamTls,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// A domain name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// TLS towards an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// When it begins.
    pub mode: TlsMode,
    /// How much of its certificate is checked.
    pub verify: Verify,
    /// PEM: the authorities to believe instead of the system's.
    pub ca: Option<PathBuf>,
    /// The name to send and to expect in the certificate; none: the server's host.
    pub server_name: Option<String>,
}

/// How much of an upstream's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// The chain and the name.
    Full,
    /// The chain only.
    Ca,
    /// Nothing: whoever answers is believed.
    None,
}

/// A named policy: the tables, and what IMAP filing needs to know besides.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Thresholds, the three tables and the style of the stamp. The name is in it.
    pub set: Arc<PolicySet>,
    /// How mailboxes are watched and filed.
    pub mailbox: MailboxFiling,
}

/// How IMAP mailboxes are watched and filed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxFiling {
    /// Where `move` moves to; none: found by the `\Junk` attribute, then by known names.
    pub junk_mailbox: Option<String>,
    /// The mailboxes whose new messages are judged before they are announced.
    pub watch: Vec<String>,
    /// How long an announcement may be held back for judging.
    pub deadline: Duration,
    /// How many of the newest messages are judged in a mailbox that is seen for the first time.
    pub first_contact: usize,
    /// Whether a missing junk mailbox is created.
    pub create: bool,
}

/// Where the rules are.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Rule files, and folders of them. Empty: the built-in rules.
    pub paths: Vec<PathBuf>,
    /// SpamAssassin rule files.
    pub spamassassin: Vec<PathBuf>,
}

/// Whom to believe.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// Networks whose `Received` lines are believed.
    pub hops: Vec<Network>,
    /// Our name in `Authentication-Results`; none: the hostname.
    pub authserv_id: Option<String>,
}

/// An address block, as in RFC 4632.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address inside it.
    pub address: std::net::IpAddr,
    /// How many leading bits count: at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

/// The embedded store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its folder, made if missing.
    pub path: PathBuf,
}

/// The listener for `/metrics`, `/live` and `/ready`.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Where it listens.
    pub bind: SocketAddr,
    /// How many rules have series of their own.
    pub rules: RuleSeries,
}

/// How many rules have metric series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSeries {
    /// The first this many to hit.
    Top(usize),
    /// All of them.
    All,
    /// None.
    Off,
}

/// How we speak to the operator.
#[derive(Clone, Debug)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs somebody.
    Error,
    /// And what may soon.
    Warn,
    /// And every session and message, one line each.
    Info,
    /// And the steps of a session.
    Debug,
    /// And every command.
    Trace,
}
