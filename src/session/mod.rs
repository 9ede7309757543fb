//! How does a protocol carry a message? One session is one client connection with its upstream.
//!
//! Here stands what the three protocols share: the handles a session needs ([`Gateway`]), the door it came in by
//! ([`Listener`]), how it can end ([`End`]), and the drain. The conversations are in their own modules.

pub mod imap;
mod judge;
pub mod pop3;
pub mod smtp;
mod spool;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

pub use self::{
    judge::{Door, Facts, Fate, Judged},
    spool::{Original, Spool, SpoolError},
};
use crate::{
    domain::DomainPattern,
    filter::Filter,
    limits::Limits,
    net::{Budget, ServerTls, Stream, Upstream, UpstreamTls},
    policy::PolicySet,
    render::Key,
    store::Store,
    telemetry::{Metrics, Side},
};

/// Serves one client, whatever the listener speaks: TLS first where it is implicit, then the protocol's own
/// conversation; counted, and told in one event at its end.
pub async fn serve(client: Stream, peer: ClientAddr, listener: &Listener, gateway: &Gateway) -> End {
    let begun = Instant::now();
    let count = gateway.metrics.session(&listener.name);
    let client = client.counted(gateway.metrics.traffic(&listener.name, Side::Client));
    let end = match listener.tls_mode {
        TlsMode::Implicit => match accept_tls(client, peer, listener, gateway).await {
            Ok(client) => converse(client, peer, listener, gateway).await,
            Err(end) => end,
        },
        TlsMode::Off | TlsMode::StartTls => converse(client, peer, listener, gateway).await,
    };
    count.end(end.as_str());
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(listener = %listener.name, client = %peer.0, end = end.as_str(), ms, "session");
    end
}

async fn converse(client: Stream, peer: ClientAddr, listener: &Listener, gateway: &Gateway) -> End {
    match listener.protocol {
        Protocol::Smtp => Box::pin(smtp::serve(client, peer, listener, gateway)).await,
        Protocol::Pop3 => Box::pin(pop3::serve(client, peer, listener, gateway)).await,
        Protocol::Imap => Box::pin(imap::serve(client, peer, listener, gateway)).await,
    }
}

/// Takes the server's part of a TLS handshake with a client, within the time for logins.
async fn accept_tls(
    client: Stream,
    peer: ClientAddr,
    listener: &Listener,
    gateway: &Gateway,
) -> Result<Stream, End> {
    let Some(tls) = &listener.tls else { return Err(End::Tls) };
    match timeout(gateway.limits.login_timeout, client.accept_tls(tls)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => {
            tracing::info!(listener = %listener.name, client = %peer.0, %error, "no TLS with a client");
            Err(End::Tls)
        }
        Err(_) => {
            gateway.metrics.limit_reached("login_timeout");
            Err(End::Tls)
        }
    }
}

/// The address of the client's end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub SocketAddr);

/// The shared handles a session needs.
pub struct Gateway {
    /// What judges.
    pub filter: Arc<Filter>,
    /// What must survive a restart.
    pub store: Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How much is too much.
    pub limits: Limits,
    /// What we call ourselves.
    pub hostname: Arc<str>,
    /// Our name in `Authentication-Results`: lines from outside that claim it are removed.
    pub authserv_id: Option<Arc<str>>,
    /// What seals our stamps.
    pub stamp_key: Key,
    /// Where messages go that are too large for memory: a folder for unlinked files.
    pub spool_folder: PathBuf,
    /// The memory that messages in flight share.
    pub budget: Budget,
    /// How many messages are judged at once.
    pub judging: Arc<Semaphore>,
    /// Whether the gateway is ending.
    pub drain: Drain,
}

impl Gateway {
    /// The handles of a gateway with these limits; what seals its stamps is the store's.
    pub fn new(
        filter: Arc<Filter>,
        store: Store,
        metrics: Arc<Metrics>,
        limits: Limits,
        names: Names,
        spool_folder: PathBuf,
        drain: Drain,
    ) -> Self {
        Self {
            filter,
            stamp_key: Key::new(store.stamp_key().as_bytes()),
            store,
            metrics,
            budget: Budget::new(limits.spool_memory_bytes),
            judging: Arc::new(Semaphore::new(usize::try_from(limits.judging_parallel).unwrap_or(1).max(1))),
            limits,
            hostname: names.hostname,
            authserv_id: names.authserv_id,
            spool_folder,
            drain,
        }
    }
}

/// What a gateway calls itself.
#[derive(Clone, Debug)]
pub struct Names {
    /// In greetings, `Received` and EHLO.
    pub hostname: Arc<str>,
    /// In `Authentication-Results`: lines from outside that claim it are removed.
    pub authserv_id: Option<Arc<str>>,
}

/// A door, as its sessions see it.
pub struct Listener {
    /// The label in logs and metrics.
    pub name: Arc<str>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// TLS towards clients.
    pub tls: Option<ServerTls>,
    /// When it begins.
    pub tls_mode: TlsMode,
    /// Where to go.
    pub upstream: Arc<Upstream>,
    /// What to do about verdicts.
    pub policy: Arc<PolicySet>,
    /// Which recipients pass without authentication (SMTP).
    pub relay: Relay,
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

impl Protocol {
    /// The word used in configuration, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Imap => "imap",
        }
    }

    /// What clients may ask for by ALPN (RFC 7301). IANA knows `pop3` and `imap`, and no name for SMTP; these are what
    /// mail servers use for it.
    pub const fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Smtp => &["smtp", "esmtp"],
            Self::Pop3 => &["pop3"],
            Self::Imap => &["imap"],
        }
    }
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Never.
    Off,
    /// After the protocol's own command for it.
    StartTls,
    /// With the first octet.
    Implicit,
}

impl TlsMode {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
        }
    }
}

/// Which recipients pass without authentication: those of these domains, mail for our users.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    /// Empty: only authenticated clients may send.
    pub domains: Vec<DomainPattern>,
}

impl Listener {
    /// Whether STARTTLS can be had from us on this stream.
    pub fn can_start_tls(&self, client: &Stream) -> bool {
        self.tls_mode == TlsMode::StartTls && self.tls.is_some() && client.tls().is_none()
    }

    /// Whether a client may be asked for passwords on this stream. On a leg in clear the upstream decides, as long as
    /// it sees that: where its own leg is encrypted it believes passwords safe, so here they wait for STARTTLS.
    /// Clients on this machine are let off.
    pub fn may_log_in(&self, client: &Stream, peer: ClientAddr) -> bool {
        let upstream_sees = matches!(self.upstream.tls, UpstreamTls::Off);
        upstream_sees || !self.can_start_tls(client) || peer.0.ip().to_canonical().is_loopback()
    }

    /// The upstream's stream, counted for this listener.
    pub fn count_upstream(&self, stream: Stream, metrics: &Metrics) -> Stream {
        stream.counted(metrics.traffic(&self.name, Side::Upstream))
    }
}

/// How a session ended: a closed set, and a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client said goodbye.
    Quit,
    /// The client went without a word.
    ClientClosed,
    /// The client was silent for too long.
    ClientTimeout,
    /// The client broke the protocol, or reached the limit of errors.
    ClientFault,
    /// TLS with the client did not come about.
    Tls,
    /// The upstream could not be reached, or refused us.
    UpstreamUnavailable,
    /// The upstream went in the middle, or broke its protocol.
    UpstreamLost,
    /// The upstream ended the session in its own words.
    UpstreamClosed,
    /// The gateway is ending.
    Drained,
    /// We could not go on: the disk, or a fault of ours.
    Failed,
}

impl End {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::ClientClosed => "client_closed",
            Self::ClientTimeout => "client_timeout",
            Self::ClientFault => "client_fault",
            Self::Tls => "tls",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::UpstreamLost => "upstream_lost",
            Self::UpstreamClosed => "upstream_closed",
            Self::Drained => "drained",
            Self::Failed => "failed",
        }
    }
}

/// How far the gateway is on its way to the end. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It serves.
    Serving,
    /// No new sessions; those that run come to their end by themselves.
    Draining,
    /// The time for that is over: a session says goodbye and ends, whatever it is in the middle of.
    Cut,
}

/// The order to end. Cheap to clone; whoever holds the [`watch::Sender`] gives it.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Stage>);

impl Drain {
    /// The order's two ends.
    pub fn channel() -> (watch::Sender<Stage>, Self) {
        let (sender, receiver) = watch::channel(Stage::Serving);
        (sender, Self(receiver))
    }

    /// Whether the order was given.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() >= Stage::Draining
    }

    /// Waits for the order. Cancel-safe. A gateway that lost its sender never drains.
    pub async fn begun(&mut self) {
        self.reached(Stage::Draining).await;
    }

    /// Waits until sessions are cut: the grace is over, and what is still said must be said at once. Cancel-safe.
    pub async fn cut(&mut self) {
        self.reached(Stage::Cut).await;
    }

    async fn reached(&mut self, stage: Stage) {
        if self.0.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
