//! From the checked tree to the typed configuration, and what can only be seen where two keys meet.
//!
//! Reads on whatever is missing, so that all faults come at once. What depends on the disk or on sockets is
//! noted as a [`Claim`] for later.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use super::{
    Certificate, Config, Direction, Listener, ListenerTls, Log, LogFormat, LogLevel, MailboxFiling, Metrics,
    Policy, Protocol, Rules, Server, Store, TlsMode, Trusted, Upstream, UpstreamTls,
    domain::{domain, pattern},
    ground::Claim,
    keys,
    node::{Name, Node, Place},
    shape::{Findings, Section},
    spelling,
};
use crate::{
    fault::nearest,
    limits::Limits,
    net::Verify,
    policy::{Action, Filing, PolicySet, StampStyle},
    verdict::Thresholds,
};

/// The configuration as far as it could be read, and what it claims of the world.
pub(super) fn assemble(root: &Node, file: Arc<str>, found: &mut Findings) -> (Config, Vec<Claim>) {
    let root = Section::new(&keys::FILE, root);
    let folder = std::path::Path::new(&*file).parent().map(PathBuf::from).unwrap_or_default();
    let mut reader = Reader { folder, found, claims: Vec::new(), addresses: Vec::new(), servers: Vec::new() };
    let upstreams: Vec<_> = root
        .named("upstreams", &keys::UPSTREAM)
        .into_iter()
        .map(|(n, s)| (n, reader.upstream(&n.text, s)))
        .collect();
    let policies = reader.policies(root);
    let names = Names {
        upstreams: upstreams.iter().map(|(name, upstream)| (name.text.as_str(), upstream.protocol)).collect(),
        policies: policies.iter().map(|policy| policy.set.name.clone()).collect(),
    };
    let listeners = reader.listeners(root, &names);
    // Where a listener's upstream is not known, the one that seems unused may be the one that is meant.
    let led = |listener: &Listener| upstreams.iter().any(|(_, upstream)| upstream.name == listener.upstream);
    if !listeners.is_empty() && listeners.iter().all(led) {
        reader.unused(&upstreams, &listeners);
    }
    let config = Config {
        file,
        hostname: root.value("hostname", domain),
        listeners,
        upstreams: upstreams.into_iter().map(|(_, upstream)| upstream).collect(),
        policies,
        rules: reader.rules(root.section("rules")),
        trusted: trusted(root.section("trusted")),
        store: reader.store(root.section("store")),
        metrics: root.node("metrics").and_then(|_| reader.metrics(root.section("metrics"))),
        log: log(root.section("log")),
        limits: limits(root.section("limits")),
    };
    reader.loops();
    reader.too_small(root.section("limits"), &config.limits);
    let sessions = Claim::Sessions(config.limits.sessions, root.section("limits").place("sessions"));
    reader.claims.push(sessions);
    (config, reader.claims)
}

/// What listeners may refer to.
struct Names<'a> {
    upstreams: Vec<(&'a str, Protocol)>,
    policies: Vec<String>,
}

struct Reader<'a> {
    folder: PathBuf,
    found: &'a mut Findings,
    claims: Vec<Claim>,
    /// Every address that is bound, by whom.
    addresses: Vec<(SocketAddr, Place, String)>,
    /// Every upstream's server that is written as an address.
    servers: Vec<(SocketAddr, Place)>,
}

impl Reader<'_> {
    fn upstream(&mut self, name: &str, section: Section<'_>) -> Upstream {
        let servers = section.all("servers", spelling::server);
        self.not_empty(&section, "servers", "write at least one `host:port`");
        for (server, at) in &servers {
            let address = server.host.parse().map(|host| SocketAddr::new(host, server.port));
            self.servers.extend(address.ok().map(|address| (address, *at)));
        }
        let tls = section.section("tls");
        let ca = self.path(&tls, "ca");
        self.claims.extend(ca.clone().map(|(path, at)| Claim::Authorities(path, at)));
        Upstream {
            name: name.to_owned(),
            protocol: section.value("protocol", protocol).unwrap_or(Protocol::Smtp),
            servers: servers.into_iter().map(|(server, _)| server).collect::<Vec<Server>>(),
            tls: UpstreamTls {
                mode: tls.value("mode", tls_mode).unwrap_or(TlsMode::Off),
                verify: tls.value("verify", verify).unwrap_or(Verify::Full),
                ca: ca.map(|(path, _)| path),
                server_name: tls.value("server_name", spelling::host_name),
            },
        }
    }

    /// A server at which we listen ourselves would have every message come back for ever.
    fn loops(&mut self) {
        for (server, at) in &self.servers {
            let ours = |bound: &SocketAddr| {
                let all = bound.ip().is_unspecified() && server.ip().is_loopback();
                bound.port() == server.port()
                    && bound.is_ipv4() == server.is_ipv4()
                    && (all || bound.ip() == server.ip())
            };
            if let Some((_, first, owner)) = self.addresses.iter().find(|(bound, ..)| ours(bound)) {
                let problem = format!("`{server}` leads back to {owner} in line {}", first.line);
                self.found.fault(
                    *at,
                    problem,
                    "name the mail server; if it is on this machine, move it to another port",
                );
            }
        }
    }

    fn unused(&mut self, upstreams: &[(&Name, Upstream)], listeners: &[Listener]) {
        for (name, upstream) in upstreams {
            if !listeners.iter().any(|listener| listener.upstream == upstream.name) {
                let problem = format!("no listener uses the upstream `{}`", name.text);
                self.found.warn(name.at, problem, "remove it, or lead a listener to it");
            }
        }
    }

    fn policies(&mut self, root: Section<'_>) -> Vec<Policy> {
        let named = root.named("policies", &keys::POLICY);
        let mut policies: Vec<_> =
            named.into_iter().map(|(name, section)| self.policy(&name.text, section)).collect();
        if !policies.iter().any(|policy| policy.set.name == "default") {
            policies.push(self.policy("default", Section::empty(&keys::POLICY)));
        }
        policies
    }

    fn policy(&mut self, name: &str, section: Section<'_>) -> Policy {
        let mut set = PolicySet::new(name);
        set.thresholds = self.thresholds(section.section("thresholds"));
        set.smtp = table(section.section("smtp"), set.smtp, action);
        set.pop3 = table(section.section("pop3"), set.pop3, filing);
        set.imap = table(section.section("imap"), set.imap, filing);
        set.stamp = stamp(section.section("stamp"), &set.stamp);
        Policy { set: Arc::new(set), mailbox: mailbox(section.section("imap")) }
    }

    fn thresholds(&mut self, section: Section<'_>) -> Thresholds {
        let standard = Thresholds::default();
        let read = |name, fallback| section.value(name, spelling::points).unwrap_or(fallback);
        let thresholds = Thresholds {
            unsure: read("unsure", standard.unsure),
            spam: read("spam", standard.spam),
            certain: read("certain", standard.certain),
        };
        let Thresholds { unsure, spam, certain } = thresholds;
        let ordered = [("unsure", unsure, "spam", spam), ("spam", spam, "certain", certain)];
        for (low, lower, high, higher) in ordered {
            if lower > higher {
                let key = if section.node(high).is_some() { high } else { low };
                let problem = format!("`{low}` begins at {lower:?}, above `{high}` at {higher:?}");
                self.found.fault(section.place(key), problem, "thresholds rise: unsure ≤ spam ≤ certain");
            }
        }
        thresholds
    }

    fn listeners(&mut self, root: Section<'_>, names: &Names<'_>) -> Vec<Listener> {
        let sections = root.sections("listeners", &keys::LISTENER);
        self.not_empty(&root, "listeners", "write at least one; without it nothing comes in");
        let mut seen: Vec<(String, Place)> = Vec::new();
        let mut listeners = Vec::new();
        for section in sections {
            let listener = self.listener(section, names);
            let at = section.place("name");
            match seen.iter().find(|(name, _)| *name == listener.name) {
                Some((name, first)) if !name.is_empty() => {
                    let remedy = format!("rename one; the first is in line {}", first.line);
                    self.found.fault(at, format!("two listeners are called `{name}`"), remedy);
                }
                _ => seen.push((listener.name.clone(), at)),
            }
            listeners.push(listener);
        }
        listeners
    }

    fn listener(&mut self, section: Section<'_>, names: &Names<'_>) -> Listener {
        let name = section.value("name", spelling::label).unwrap_or_default();
        let spoken = section.value("protocol", protocol);
        let bind = section.all("bind", spelling::address);
        self.not_empty(&section, "bind", "write at least one `address:port`");
        for &(address, at) in &bind {
            self.occupy(address, at, format!("the listener `{name}`"));
        }
        let upstream = self.upstream_of(&section, spoken, names);
        let policy = self.policy_of(&section, names);
        let direction = section.value("direction", direction).unwrap_or(Direction::Inbound);
        Listener {
            protocol: spoken.unwrap_or(Protocol::Smtp),
            bind: bind.into_iter().map(|(address, _)| address).collect(),
            tls: self.listener_tls(section.section("tls")),
            upstream,
            direction,
            policy,
            relay_domains: self.relay_domains(&section, &name, spoken, direction),
            name,
        }
    }

    fn upstream_of(&mut self, section: &Section<'_>, spoken: Option<Protocol>, names: &Names<'_>) -> String {
        let Some(name) = section.value("upstream", spelling::label) else { return String::new() };
        let known = names.upstreams.iter().find(|(known, _)| *known == name);
        let at = section.place("upstream");
        match (known, spoken) {
            (None, _) => {
                let all: Vec<_> = names.upstreams.iter().map(|(name, _)| *name).collect();
                self.unknown(at, "upstream", &name, &all);
            }
            (Some(&(_, behind)), Some(spoken)) if behind != spoken => {
                let (spoken, behind) = (spoken.as_str(), behind.as_str());
                let problem = format!("the listener speaks {spoken}, its upstream `{name}` speaks {behind}");
                self.found.fault(at, problem, format!("lead it to an upstream with `protocol: {spoken}`"));
            }
            _ => {}
        }
        name
    }

    fn policy_of(&mut self, section: &Section<'_>, names: &Names<'_>) -> String {
        let name = section.value("policy", spelling::label).unwrap_or_else(|| "default".into());
        if !names.policies.contains(&name) {
            let all: Vec<_> = names.policies.iter().map(String::as_str).collect();
            self.unknown(section.place("policy"), "policy", &name, &all);
        }
        name
    }

    fn unknown(&mut self, at: Place, what: &str, name: &str, all: &[&str]) {
        let remedy = match nearest(name, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if all.is_empty() => format!("there is none; describe it under `{what}s`"),
            None => {
                format!("there are {}", all.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
            }
        };
        self.found.fault(at, format!("no {what} is called `{name}`"), remedy);
    }

    fn listener_tls(&mut self, section: Section<'_>) -> ListenerTls {
        let mode = section.value("mode", tls_mode).unwrap_or(TlsMode::Off);
        let written = section.sections("certificates", &keys::CERTIFICATE);
        if written.is_empty() && mode != TlsMode::Off {
            let remedy = "add `certificates: [{ cert: mx.pem, key: mx.key }]`, or write `mode: off`";
            self.found.fault(
                section.place("mode"),
                format!("`mode: {}` without certificates", mode.as_str()),
                remedy,
            );
        }
        if !written.is_empty() && mode == TlsMode::Off && section.node("mode").is_some() {
            let remedy = "write `mode: starttls` or `mode: implicit`, or remove them";
            self.found.warn(
                section.place("certificates"),
                "certificates are not used with `mode: off`",
                remedy,
            );
        }
        let mut certificates = Vec::new();
        for pair in written {
            let (cert, key) = (self.path(&pair, "cert"), self.path(&pair, "key"));
            if let (Some(cert), Some(key)) = (cert, key) {
                certificates.push(Certificate { cert: cert.0.clone(), key: key.0.clone() });
                self.claims.push(Claim::Pair { cert, key });
            }
        }
        ListenerTls { mode, certificates }
    }

    fn relay_domains(
        &mut self,
        section: &Section<'_>,
        name: &str,
        spoken: Option<Protocol>,
        direction: Direction,
    ) -> Vec<super::DomainPattern> {
        let written = section.node("relay_domains").is_some();
        match (spoken, direction) {
            (Some(Protocol::Smtp), Direction::Inbound) if !written => {
                let remedy = "add `relay_domains: [your.domain]`, the domains the upstream takes mail for; \
                              `[]` lets in authenticated senders only";
                let problem = format!("the inbound listener `{name}` does not say its `relay_domains`");
                self.found.fault(section.at, problem, remedy);
            }
            (Some(Protocol::Smtp), Direction::Outbound) if written => {
                let problem = "`relay_domains` on an outbound listener";
                self.found.fault(
                    section.place("relay_domains"),
                    problem,
                    "remove it, or write `direction: inbound`",
                );
            }
            (Some(Protocol::Pop3 | Protocol::Imap), _) => {
                for key in
                    ["relay_domains", "direction"].into_iter().filter(|key| section.node(key).is_some())
                {
                    let problem = format!("`{key}` has a meaning for SMTP only");
                    self.found.fault(section.place(key), problem, "remove it");
                }
            }
            _ => {}
        }
        section.all("relay_domains", pattern).into_iter().map(|(domain, _)| domain).collect()
    }

    fn rules(&mut self, section: Section<'_>) -> Rules {
        let mut read = |key| {
            let paths = section.all(key, |text| Some(self.folder.join(text)));
            self.claims.extend(paths.iter().map(|(path, at)| Claim::Rules(path.clone(), *at)));
            paths.into_iter().map(|(path, _)| path).collect()
        };
        Rules { paths: read("paths"), spamassassin: read("spamassassin") }
    }

    fn store(&mut self, section: Section<'_>) -> Store {
        let path = section.value("path", |text| Some(self.folder.join(text)));
        let path = path.unwrap_or_default();
        let at = if section.node("path").is_some() { section.place("path") } else { Place::default() };
        self.claims.push(Claim::Store(path.clone(), at));
        Store { path }
    }

    fn too_small(&mut self, section: Section<'_>, limits: &Limits) {
        for (key, value, least, why) in least(limits) {
            if value < least.0 {
                let problem = format!("`{key}` is less than {}", least.1);
                self.found.warn(section.place(key), problem, why);
            }
        }
    }

    fn metrics(&mut self, section: Section<'_>) -> Option<Metrics> {
        let bind = section.value("bind", spelling::address)?;
        self.occupy(bind, section.place("bind"), "the metrics".into());
        let rules = section.value("rules", spelling::rule_series)?;
        Some(Metrics { bind, rules })
    }

    /// Notes an address as bound; a fault if something bound before takes it already.
    fn occupy(&mut self, address: SocketAddr, at: Place, by: String) {
        let taken = self.addresses.iter().find(|(other, ..)| overlap(*other, address));
        match taken {
            Some((other, first, owner)) => {
                let taken = match *other == address {
                    true => format!("`{address}` is bound by {owner} in line {}", first.line),
                    false => {
                        format!("`{address}` is within `{other}`, bound by {owner} in line {}", first.line)
                    }
                };
                self.found.fault(at, taken, "give one of them another port or another address");
            }
            None => self.claims.push(Claim::Port(address, at)),
        }
        self.addresses.push((address, at, by));
    }

    fn not_empty(&mut self, section: &Section<'_>, key: &str, remedy: &str) {
        if section.node(key).is_some_and(Node::is_empty) {
            self.found.fault(section.place(key), format!("`{key}` is an empty list"), remedy);
        }
    }

    fn path(&self, section: &Section<'_>, key: &str) -> Option<(PathBuf, Place)> {
        let path = section.value(key, |text| Some(self.folder.join(text)))?;
        Some((path, section.place(key)))
    }
}

/// Whether both cannot be bound. IPv4 and IPv6 do not meet: IPv6 sockets are v6-only.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let wide = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (wide || a.ip() == b.ip())
}

/// A policy's table: what is written over what is safe.
fn table<A: Copy>(
    section: Section<'_>,
    safe: crate::policy::Policy<A>,
    parse: fn(&str) -> Option<A>,
) -> crate::policy::Policy<A> {
    let read = |name, fallback| section.value(name, parse).unwrap_or(fallback);
    crate::policy::Policy {
        ham: read("ham", safe.ham),
        unsure: read("unsure", safe.unsure),
        spam: read("spam", safe.spam),
        certain: read("certain", safe.certain),
        malware: read("malware", safe.malware),
        unscanned: read("unscanned", safe.unscanned),
    }
}

fn stamp(section: Section<'_>, safe: &StampStyle) -> StampStyle {
    let read = |name, fallback| section.value(name, spelling::switch).unwrap_or(fallback);
    StampStyle {
        headers: read("headers", safe.headers),
        ham_headers: read("ham_headers", safe.ham_headers),
        received: read("received", safe.received),
        subject: section.value("subject", spelling::subject).flatten(),
    }
}

fn mailbox(section: Section<'_>) -> MailboxFiling {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let written: Vec<_> = section.all("watch", text).into_iter().map(|(name, _)| name).collect();
    let unwritten = section.node("watch").is_none();
    MailboxFiling {
        junk_mailbox: section.value("junk_mailbox", text).filter(|name| name != "auto"),
        watch: if unwritten { section.value("watch", text).into_iter().collect() } else { written },
        deadline: section.value("deadline", spelling::duration).unwrap_or_default(),
        first_contact: section.value("first_contact", spelling::count).unwrap_or_default(),
        create: section.value("create", spelling::switch).unwrap_or_default(),
    }
}

fn trusted(section: Section<'_>) -> Trusted {
    Trusted {
        hops: section.all("hops", spelling::network).into_iter().map(|(network, _)| network).collect(),
        authserv_id: section.value("authserv_id", domain),
    }
}

fn log(section: Section<'_>) -> Log {
    Log {
        format: section.value("format", log_format).unwrap_or(LogFormat::Text),
        level: section.value("level", log_level).unwrap_or(LogLevel::Info),
    }
}

/// Every limit: the struct literal has no rest, so that a limit without a key does not compile.
macro_rules! read_limits {
    ($section:expr, $($name:ident: $parse:path,)+) => {{
        let standard = Limits::default();
        Limits { $($name: $section.value(stringify!($name), $parse).unwrap_or(standard.$name),)+ }
    }};
}

fn limits(section: Section<'_>) -> Limits {
    use spelling::{count, duration, size};
    read_limits!(
        section,
        sessions: count,
        message_bytes: size,
        judged_bytes: size,
        spool_memory_bytes: size,
        message_memory_bytes: size,
        command_line_bytes: size,
        sasl_line_bytes: size,
        imap_line_bytes: size,
        imap_prelogin_bytes: size,
        recipients: count,
        errors_per_session: count,
        login_timeout: duration,
        command_timeout: duration,
        pop3_idle_timeout: duration,
        imap_idle_timeout: duration,
        data_timeout: duration,
        upstream_connect_timeout: duration,
        upstream_reply_timeout: duration,
        final_reply_timeout: duration,
        drain_timeout: duration,
        judging_wait: duration,
        judging_parallel: count,
    )
}

/// Limits under which sound peers suffer: key, value, least value and its spelling, and why.
fn least(limits: &Limits) -> [(&'static str, u64, (u64, &'static str), &'static str); 7] {
    [
        (
            "message_bytes",
            limits.message_bytes,
            (65_536, "64 KiB"),
            "every server takes that much (RFC 5321 section 4.5.3.1.7)",
        ),
        (
            "command_line_bytes",
            limits.command_line_bytes,
            (512, "512"),
            "every server takes that much (RFC 5321 section 4.5.3.1.4)",
        ),
        (
            "sasl_line_bytes",
            limits.sasl_line_bytes,
            (12_288, "12288"),
            "Kerberos tickets need it (RFC 4954 section 4)",
        ),
        (
            "imap_line_bytes",
            limits.imap_line_bytes,
            (8_192, "8192"),
            "clients send that much (RFC 7162 section 4)",
        ),
        (
            "recipients",
            limits.recipients,
            (100, "100"),
            "every server takes that many (RFC 5321 section 4.5.3.1.8)",
        ),
        (
            "pop3_idle_timeout",
            limits.pop3_idle_timeout.as_secs(),
            (600, "10m"),
            "clients count on it (RFC 1939 section 3)",
        ),
        (
            "imap_idle_timeout",
            limits.imap_idle_timeout.as_secs(),
            (1_800, "30m"),
            "clients count on it (RFC 9051 section 5.4)",
        ),
    ]
}

fn protocol(text: &str) -> Option<Protocol> {
    [Protocol::Smtp, Protocol::Pop3, Protocol::Imap].into_iter().find(|protocol| protocol.as_str() == text)
}

fn tls_mode(text: &str) -> Option<TlsMode> {
    [TlsMode::Off, TlsMode::StartTls, TlsMode::Implicit].into_iter().find(|mode| mode.as_str() == text)
}

fn verify(text: &str) -> Option<Verify> {
    match text {
        "full" => Some(Verify::Full),
        "ca" => Some(Verify::Ca),
        "none" => Some(Verify::None),
        _ => None,
    }
}

fn direction(text: &str) -> Option<Direction> {
    match text {
        "inbound" => Some(Direction::Inbound),
        "outbound" => Some(Direction::Outbound),
        _ => None,
    }
}

fn action(text: &str) -> Option<Action> {
    use Action::{Defer, Deliver, Discard, Quarantine, Reject, Stamp};
    [Deliver, Stamp, Quarantine, Reject, Defer, Discard].into_iter().find(|action| action.as_str() == text)
}

fn filing(text: &str) -> Option<Filing> {
    use Filing::{Leave, Move, Stamp, Withhold};
    [Leave, Stamp, Move, Withhold].into_iter().find(|filing| filing.as_str() == text)
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn log_level(text: &str) -> Option<LogLevel> {
    match text {
        "error" => Some(LogLevel::Error),
        "warn" => Some(LogLevel::Warn),
        "info" => Some(LogLevel::Info),
        "debug" => Some(LogLevel::Debug),
        "trace" => Some(LogLevel::Trace),
        _ => None,
    }
}
