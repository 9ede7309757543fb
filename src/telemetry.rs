//! Every metric family in one struct, and the set-up of the log.
//!
//! Label values come from the configuration or from closed sets, never from a peer. Only `net`, `filter`,
//! `session` and `admin` count; the pure layers return facts.

use std::{
    collections::HashSet,
    io::IsTerminal,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// Seconds: what a gate may add to a verb, from a tenth of a millisecond to a slow upstream.
const SECONDS: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];
/// Octets of messages.
const OCTETS: [f64; 8] = [1e3, 4e3, 16e3, 64e3, 256e3, 1e6, 8e6, 64e6];

/// The families, as `/metrics` shows them.
pub struct Metrics {
    registry: Registry,
    sessions: IntGaugeVec,
    sessions_total: IntCounterVec,
    messages_total: IntCounterVec,
    judge_seconds: HistogramVec,
    added_seconds: HistogramVec,
    message_bytes: HistogramVec,
    rule_hits_total: IntCounterVec,
    bytes_total: IntCounterVec,
    upstream_up: IntGaugeVec,
    upstream_connect_seconds: HistogramVec,
    limit_reached_total: IntCounterVec,
    auth_failures_total: IntCounterVec,
    custody_total: IntCounterVec,
    released_total: IntCounterVec,
    certificate_expiry_seconds: IntGaugeVec,
    store_seconds: HistogramVec,
    quarantine_messages: IntGauge,
    quarantine_bytes: IntGauge,
    journal_dropped_total: IntGauge,
    rule_series: RuleSeries,
    /// The rules with series of their own. Invariant: no more than `rule_series` allows.
    rules_seen: RwLock<HashSet<String>>,
}

/// How many rules have metric series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSeries {
    /// The first this many to hit; hits of the others are counted together, under the name `other`.
    Top(usize),
    /// All of them.
    All,
    /// None.
    Off,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, empty, in a registry of their own, with a series for each rule.
    pub fn new() -> Self {
        Self::with_rules(RuleSeries::All)
    }

    /// The same, with series for so many rules.
    #[expect(clippy::expect_used, reason = "names are constants; a test builds them all")]
    pub fn with_rules(rule_series: RuleSeries) -> Self {
        let registry =
            Registry::new_custom(Some("gatepost".into()), None).expect("the prefix is a valid name");
        let r = &registry;
        let build = int_gauge_vec(r, "build_info", "1, labelled with the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            sessions: int_gauge_vec(r, "sessions", "Sessions open now.", &["listener"]),
            sessions_total: counter_vec(r, "sessions_total", "Sessions ended, by how.", &["listener", "end"]),
            messages_total: counter_vec(
                r,
                "messages_total",
                "Messages judged, by class and what was done.",
                &["listener", "class", "action"],
            ),
            judge_seconds: histogram_vec(
                r,
                "judge_seconds",
                "Time to judge a message.",
                &["listener"],
                &SECONDS,
            ),
            added_seconds: histogram_vec(
                r,
                "added_seconds",
                "Time the gateway added to a verb, the upstream's own time left out.",
                &["listener", "verb"],
                &SECONDS,
            ),
            message_bytes: histogram_vec(
                r,
                "message_bytes",
                "Octets of judged messages.",
                &["listener"],
                &OCTETS,
            ),
            rule_hits_total: counter_vec(
                r,
                "rule_hits_total",
                "Hits of each rule, by the class of the message.",
                &["rule", "class"],
            ),
            bytes_total: counter_vec(
                r,
                "bytes_total",
                "Octets of protocol moved; `in` is read from the peer.",
                &["listener", "side", "direction"],
            ),
            upstream_up: int_gauge_vec(
                r,
                "upstream_up",
                "Whether the last connection to the server came about.",
                &["upstream", "server"],
            ),
            upstream_connect_seconds: histogram_vec(
                r,
                "upstream_connect_seconds",
                "Time to connect to the upstream.",
                &["upstream"],
                &SECONDS,
            ),
            limit_reached_total: counter_vec(
                r,
                "limit_reached_total",
                "Limits reached, by name.",
                &["limit"],
            ),
            auth_failures_total: counter_vec(
                r,
                "auth_failures_total",
                "Logins the upstream refused.",
                &["listener"],
            ),
            custody_total: counter_vec(
                r,
                "custody_total",
                "Messages acknowledged at the SMTP gate, by who holds them.",
                &["kind"],
            ),
            released_total: counter_vec(
                r,
                "released_total",
                "Messages released from the quarantine, by the class they had.",
                &["class"],
            ),
            certificate_expiry_seconds: int_gauge_vec(
                r,
                "certificate_expiry_seconds",
                "When the listener's first certificate expires, in seconds since 1970.",
                &["listener"],
            ),
            store_seconds: histogram_vec(
                r,
                "store_seconds",
                "Time of store operations.",
                &["operation"],
                &SECONDS,
            ),
            quarantine_messages: int_gauge(r, "quarantine_messages", "Messages held in the quarantine."),
            quarantine_bytes: int_gauge(r, "quarantine_bytes", "Octets held in the quarantine."),
            journal_dropped_total: int_gauge(
                r,
                "journal_dropped_rows",
                "Journal rows dropped since the start because the disk did not keep up.",
            ),
            registry,
            rule_series,
            rules_seen: RwLock::default(),
        }
    }

    /// A listener's families appear with zeros before the first session.
    pub fn prepare(&self, listener: &str) {
        self.sessions.with_label_values(&[listener]).set(0);
        self.auth_failures_total.with_label_values(&[listener]);
    }

    /// A session began; it ends when the guard's `end` is called or it is dropped.
    pub fn session<'a>(&'a self, listener: &'a str) -> SessionCount<'a> {
        self.sessions.with_label_values(&[listener]).inc();
        SessionCount { metrics: self, listener, end: "error" }
    }

    /// The traffic counters of one side (`client` or `upstream`) of a listener's sessions.
    pub fn traffic(&self, listener: &str, side: Side) -> Traffic {
        let counter = |direction| self.bytes_total.with_label_values(&[listener, side.as_str(), direction]);
        Traffic { read: counter("in"), written: counter("out") }
    }

    /// A message was judged and `action` done to it.
    pub fn message(&self, listener: &str, class: &str, action: &str, octets: u64, judging: Duration) {
        self.messages_total.with_label_values(&[listener, class, action]).inc();
        self.message_bytes.with_label_values(&[listener]).observe(octets as f64);
        self.judge_seconds.with_label_values(&[listener]).observe(judging.as_secs_f64());
    }

    /// A rule hit a message of `class`. Rule names come from the operator's files.
    pub fn rule_hit(&self, rule: &str, class: &str) {
        let name = match self.rule_series {
            RuleSeries::Off => return,
            RuleSeries::All => rule,
            RuleSeries::Top(most) if self.has_series(rule, most) => rule,
            RuleSeries::Top(_) => "other",
        };
        self.rule_hits_total.with_label_values(&[name, class]).inc();
    }

    /// Whether a rule is among the first `most` that hit; takes note of it where there is room.
    fn has_series(&self, rule: &str, most: usize) -> bool {
        let seen = self.rules_seen.read().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(rule) || seen.len() >= most {
            return seen.contains(rule);
        }
        drop(seen);
        let mut seen = self.rules_seen.write().unwrap_or_else(PoisonError::into_inner);
        seen.contains(rule) || (seen.len() < most && seen.insert(rule.to_owned()))
    }

    /// The gateway added `time` to `verb`.
    pub fn added(&self, listener: &str, verb: &'static str, time: Duration) {
        self.added_seconds.with_label_values(&[listener, verb]).observe(time.as_secs_f64());
    }

    /// A named limit was reached.
    pub fn limit_reached(&self, limit: &'static str) {
        self.limit_reached_total.with_label_values(&[limit]).inc();
    }

    /// The upstream refused a login.
    pub fn auth_failure(&self, listener: &str) {
        self.auth_failures_total.with_label_values(&[listener]).inc();
    }

    /// A message was acknowledged; `kind` is who holds it.
    pub fn custody(&self, kind: &'static str) {
        self.custody_total.with_label_values(&[kind]).inc();
    }

    /// So many held messages of `class` were released so far, by whichever process.
    pub fn released(&self, class: &str, messages: u64) {
        let counter = self.released_total.with_label_values(&[class]);
        counter.inc_by(messages.saturating_sub(counter.get()));
    }

    /// The last attempt to reach a server succeeded or failed.
    pub fn upstream_up(&self, upstream: &str, server: &str, up: bool) {
        self.upstream_up.with_label_values(&[upstream, server]).set(i64::from(up));
    }

    /// A connection came about after `time`.
    pub fn upstream_connected(&self, upstream: &str, time: Duration) {
        self.upstream_connect_seconds.with_label_values(&[upstream]).observe(time.as_secs_f64());
    }

    /// The first of a listener's certificates expires at `seconds` since 1970.
    pub fn certificate_expiry(&self, listener: &str, seconds: i64) {
        self.certificate_expiry_seconds.with_label_values(&[listener]).set(seconds);
    }

    /// A store operation took `time`.
    pub fn store(&self, operation: &'static str, time: Duration) {
        self.store_seconds.with_label_values(&[operation]).observe(time.as_secs_f64());
    }

    /// What the quarantine holds now.
    pub fn quarantine(&self, messages: u64, octets: u64) {
        self.quarantine_messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.quarantine_bytes.set(i64::try_from(octets).unwrap_or(i64::MAX));
    }

    /// How many journal rows were dropped so far.
    pub fn journal_dropped(&self, rows: u64) {
        self.journal_dropped_total.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// The text of `/metrics` (Prometheus text format 0.0.4), the process's own figures included.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory fails for inconsistent families only; what was written before is still good.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        let mut text = String::from_utf8_lossy(&text).into_owned();
        process::append(&mut text);
        text
    }
}

/// Counters for one side of a session.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Octets read from the peer.
    pub read: IntCounter,
    /// Octets written to the peer.
    pub written: IntCounter,
}

/// A side of a session, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards who connected to us.
    Client,
    /// Towards the real server.
    Upstream,
}

impl Side {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }
}

/// An open session in the counters; dropping it counts its end.
pub struct SessionCount<'a> {
    metrics: &'a Metrics,
    listener: &'a str,
    end: &'static str,
}

impl SessionCount<'_> {
    /// How the session ended; without it a drop counts as `error`.
    pub fn end(mut self, end: &'static str) {
        self.end = end;
    }
}

impl Drop for SessionCount<'_> {
    fn drop(&mut self) {
        self.metrics.sessions.with_label_values(&[self.listener]).dec();
        self.metrics.sessions_total.with_label_values(&[self.listener, self.end]).inc();
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log to standard error from here on. `level` is a `tracing` filter such as `info` or
/// `gatepost=debug`; one that cannot be read counts as `info`.
pub fn log_to_stderr(format: LogFormat, level: &str) {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call (in tests) keeps the first subscriber.
    let outcome = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(outcome);
}

#[expect(clippy::expect_used, reason = "names are constants; a test builds them all")]
fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("names are valid and used once");
    collector
}

#[expect(clippy::expect_used, reason = "names are constants; a test builds them all")]
fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels).expect("a valid family"))
}

#[expect(clippy::expect_used, reason = "names are constants; a test builds them all")]
fn int_gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid family"))
}

#[expect(clippy::expect_used, reason = "names are constants; a test builds them all")]
fn int_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::with_opts(Opts::new(name, help)).expect("a valid family"))
}

#[expect(clippy::expect_used, reason = "names are constants; a test builds them all")]
fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(opts, labels).expect("a valid family"))
}

/// The process's own figures from `/proc/self`, under the names every Prometheus client library uses.
mod process {
    use std::{fmt::Write, fs};

    /// Clock ticks a second in `/proc/self/stat`: fixed at 100 for user space on Linux.
    const TICKS: f64 = 100.0;
    const PAGE_OCTETS: f64 = 4096.0;

    pub(super) fn append(text: &mut String) {
        if let Some(stat) = stat() {
            family(text, "process_cpu_seconds_total", "counter", "User and system time.", stat.cpu);
            family(text, "process_resident_memory_bytes", "gauge", "Resident memory.", stat.resident);
            family(text, "process_virtual_memory_bytes", "gauge", "Virtual memory.", stat.virtual_);
            family(text, "process_threads", "gauge", "Threads.", stat.threads);
            if let Some(start) = boot_seconds().map(|boot| boot + stat.started) {
                family(text, "process_start_time_seconds", "gauge", "Start, in seconds since 1970.", start);
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            family(text, "process_open_fds", "gauge", "Open file descriptors.", open.count() as f64);
        }
        if let Some(max) = max_fds() {
            family(text, "process_max_fds", "gauge", "Limit of open file descriptors.", max);
        }
    }

    struct Stat {
        cpu: f64,
        threads: f64,
        started: f64,
        virtual_: f64,
        resident: f64,
    }

    /// Fields of proc(5) `/proc/pid/stat`, counted behind the command's closing parenthesis.
    fn stat() -> Option<Stat> {
        let line = fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Stat {
            cpu: (field(11)? + field(12)?) / TICKS,
            threads: field(17)?,
            started: field(19)? / TICKS,
            virtual_: field(20)?,
            resident: field(21)? * PAGE_OCTETS,
        })
    }

    fn boot_seconds() -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    fn max_fds() -> Option<f64> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_ascii_whitespace().nth(3)?.parse().ok()
    }

    fn family(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_rules_have_series() {
        let metrics = Metrics::with_rules(RuleSeries::Top(2));
        for rule in ["A", "B", "C", "A", "D"] {
            metrics.rule_hit(rule, "spam");
        }
        let text = metrics.render();
        for (rule, hits) in [("A", 2), ("B", 1), ("other", 2)] {
            let line = format!("gatepost_rule_hits_total{{class=\"spam\",rule=\"{rule}\"}} {hits}");
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("rule=\"C\""));
    }

    #[test]
    fn every_family_is_built_and_shown() {
        let metrics = Metrics::new();
        metrics.prepare("mx");
        metrics.session("mx").end("quit");
        metrics.traffic("mx", Side::Client).read.inc_by(7);
        let text = metrics.render();
        for line in [
            "gatepost_sessions{listener=\"mx\"} 0",
            "gatepost_sessions_total{end=\"quit\",listener=\"mx\"} 1",
            "gatepost_bytes_total{direction=\"in\",listener=\"mx\",side=\"client\"} 7",
            "gatepost_quarantine_messages 0",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
