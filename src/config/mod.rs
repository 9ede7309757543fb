//! What the operator wrote, read into plain types, with every fault of it at once.
//!
//! [`Config::read`] is pure but for `${NAME}` and `!file`: text in, configuration and faults out. What must hold
//! outside of the text (files, certificates, free ports) is noted while reading and looked at by
//! [`Reading::check_files`] and [`Reading::check_ports`]. The keys, their kinds, defaults and sentences stand in one table (`keys`), from
//! which the reader, the JSON schema and the tests of the manual are all taken.
//!
//! Nothing here knows how a listener or an upstream works, and keys of capabilities that this version lacks have
//! no field here: the table refuses them by name.

mod assemble;
mod ground;
mod holder;
mod keys;
mod node;
mod schema;
mod shape;
mod spelling;

use std::{
    env, fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use self::{
    ground::Claim,
    node::{Finding, Surroundings},
    shape::Findings,
};
use crate::{
    domain::{self, DomainPattern},
    fault::Fault,
    limits::Limits,
    net::{Verify, descriptors},
    policy::PolicySet,
};
pub use crate::{
    session::{Protocol, TlsMode},
    telemetry::{LogFormat, RuleSeries},
};

/// Where a configuration is looked for when none is named, in this order.
pub const PLACES: [&str; 2] = ["gatepost.yaml", "/etc/gatepost/gatepost.yaml"];

/// A configuration that was read, sound or not.
#[derive(Debug)]
pub struct Reading {
    /// What could be read; trust it only while there are no faults.
    pub config: Config,
    /// What must be put right, in the order of the file.
    pub faults: Vec<Fault>,
    /// What is odd and still works, in the order of the file.
    pub warnings: Vec<Fault>,
    claims: Vec<Claim>,
}

impl Reading {
    /// Looks at what the configuration says of the disk: certificates and their keys, authorities, rules, the
    /// store's folder. `now` is held against the certificates' validity. Nothing is made or changed.
    pub fn check_files(&mut self, now: SystemTime) {
        let mut found = Findings::default();
        for claim in &self.claims {
            ground::check_file(claim, now, &mut found);
        }
        self.add(found);
    }

    /// Tries whether every address can be bound, and lets go of it again.
    pub fn check_ports(&mut self) {
        let mut found = Findings::default();
        for claim in &self.claims {
            ground::check_port(claim, &mut found);
        }
        self.add(found);
    }

    /// Holds the sessions there may be against the files that may be open, for a process started as this one.
    pub fn check_open_files(&mut self) {
        // Where the system does not tell, there is nothing to hold against.
        let hard = descriptors::hard_limit().unwrap_or(u64::MAX);
        let mut found = Findings::default();
        for claim in &self.claims {
            ground::check_sessions(claim, hard, &mut found);
        }
        self.add(found);
    }

    /// The configuration with its warnings, or the faults.
    pub fn sound(self) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
        if self.faults.is_empty() { Ok((self.config, self.warnings)) } else { Err(self.faults) }
    }

    fn add(&mut self, found: Findings) {
        let file = &self.config.file;
        let fault = |(at, problem, remedy): Finding| Fault {
            file: Arc::clone(file),
            line: at.line,
            column: at.column,
            problem,
            remedy,
        };
        self.faults.extend(found.faults.into_iter().map(fault));
        self.warnings.extend(found.warnings.into_iter().map(fault));
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        self.warnings.sort_by_key(|fault| (fault.line, fault.column));
    }
}

impl Config {
    /// Reads a configuration's text with every fault that can be seen in it. `file` is its name in messages, and
    /// its folder is where relative paths begin. `${NAME}` is taken from the environment, `!file` from the disk;
    /// besides these nothing outside of the text is looked at.
    pub fn read(text: &str, file: &str) -> Reading {
        let folder = Path::new(file).parent().map(PathBuf::from).unwrap_or_default();
        let around = Surroundings {
            variable: &|name| env::var(name).ok(),
            file: &|path| fs::read_to_string(folder.join(path)),
        };
        Self::read_within(text, file, &around)
    }

    /// Reads the configuration in a file, and looks at nothing else.
    pub fn load_unseen(path: &Path) -> Result<Reading, Fault> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| unreadable(&file, &error))?;
        Ok(Self::read(&text, &file))
    }

    /// Reads the configuration in a file and looks at the files it names; for `gatepost run`.
    pub fn load(path: &Path) -> Result<Reading, Fault> {
        let mut reading = Self::load_unseen(path)?;
        reading.check_files(SystemTime::now());
        Ok(reading)
    }

    /// The configuration file to use: the one that is named, or the first of [`PLACES`] that exists.
    pub fn find(named: Option<&Path>) -> Result<PathBuf, Fault> {
        let mut places = PLACES.iter().map(PathBuf::from);
        named.map(PathBuf::from).or_else(|| places.find(|path| path.exists())).ok_or_else(|| Fault {
            file: PLACES[0].into(),
            line: 0,
            column: 0,
            problem: format!("there is no configuration: neither ./{} nor {}", PLACES[0], PLACES[1]),
            remedy: "name it with `-c FILE`; deploy/gatepost.yaml is one to begin with".into(),
        })
    }

    fn read_within(text: &str, file: &str, around: &Surroundings<'_>) -> Reading {
        let mut found = Findings::default();
        let root = node::read(text, around, &mut found.faults);
        if let Some(root) = &root {
            shape::check(&keys::FILE, root, "", &mut found);
        }
        let nothing = node::Node::empty(node::Place::default());
        // After a syntax error there is nothing to hold together.
        let mut unsaid = Findings::default();
        let heard = if root.is_some() { &mut found } else { &mut unsaid };
        let (config, mut claims) = assemble::assemble(root.as_ref().unwrap_or(&nothing), file.into(), heard);
        if root.is_none() {
            claims.clear();
        }
        let mut reading = Reading { config, faults: Vec::new(), warnings: Vec::new(), claims };
        reading.add(found);
        reading
    }

    /// The JSON Schema of the file, for editors.
    pub fn schema() -> serde_json::Value {
        schema::schema()
    }
}

fn unreadable(file: &str, error: &io::Error) -> Fault {
    let remedy = "name a file that the user Gatepost runs as may read".into();
    Fault { file: file.into(), line: 0, column: 0, problem: format!("cannot be read: {error}"), remedy }
}

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

impl fmt::Display for Server {
    /// As a connection wants it: `host:port`, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
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
    pub first_contact: u64,
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

/// How we speak to the operator.
#[derive(Clone, Debug)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
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

#[cfg(test)]
mod tests;
