//! How it is put together and run: from a configuration to open doors, to the drain.
//!
//! [`App::build`] opens everything that can fail (store, rules, certificates, ports) before the first client is
//! accepted; [`App::run`] serves until it is told to stop, then lets running sessions finish within the grace.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use socket2::{Domain, Protocol as Transport, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    admin,
    config::{self, Config},
    fault::Fault,
    filter::Filter,
    net::{Certificates, ClientTls, Dial, ServerTls, Stream, Upstream, UpstreamTls, descriptors},
    policy::PolicySet,
    rules::RuleSet,
    session::{self, ClientAddr, Drain, Gateway, Listener, Names, Relay, Stage, TlsMode},
    store::Store,
    telemetry::{Metrics, RuleSeries},
};

/// Connections the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 1024;
/// How long to wait after a failed accept, which is mostly the limit of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long sessions that are cut get to say so.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// The gateway, with every door open and nobody served yet.
pub struct App {
    gateway: Arc<Gateway>,
    doors: Vec<(Arc<Listener>, TcpListener)>,
    metrics: Option<TcpListener>,
    drain: watch::Sender<Stage>,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Faults of the configuration or the rules, all of them.
    #[error("{} in configuration and rules", plural(.0.len()))]
    Faults(Vec<Fault>),
    /// Something else stands in the way.
    #[error("{what}: {cause}\n  fix: {remedy}")]
    Ground {
        /// What was tried.
        what: String,
        /// What happened.
        cause: String,
        /// What helps.
        remedy: &'static str,
    },
}

fn plural(faults: usize) -> String {
    if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") }
}

/// The rules a configuration asks for: those of its paths, or the built-in ones.
pub fn load_rules(config: &config::Rules) -> Result<RuleSet, Vec<Fault>> {
    if config.paths.is_empty() { Ok(RuleSet::built_in()) } else { RuleSet::load(&config.paths) }
}

/// Opens the store a configuration names.
pub fn open_store(config: &config::Store) -> Result<Store, StartError> {
    Store::open(&config.path).map_err(|error| StartError::Ground {
        what: format!("the store in {}", config.path.display()),
        cause: error.to_string(),
        remedy: "give the user Gatepost runs as a folder to write to, as `store.path`",
    })
}

/// The upstream of a configuration, ready to be connected to.
pub fn build_upstream(
    config: &config::Upstream,
    limits: &crate::limits::Limits,
    metrics: &Arc<Metrics>,
) -> Result<Upstream, StartError> {
    let tls = &config.tls;
    let client_tls = || {
        ClientTls::new(tls.verify, tls.ca.as_deref(), tls.server_name.clone()).map_err(|error| {
            StartError::Ground {
                what: format!("the certificate authorities for upstream `{}`", config.name),
                cause: error.to_string(),
                remedy: "name a PEM file with the authority's certificate as `tls.ca`",
            }
        })
    };
    Ok(Upstream {
        name: config.name.as_str().into(),
        servers: config.servers.iter().map(ToString::to_string).collect(),
        tls: match tls.mode {
            TlsMode::Off => UpstreamTls::Off,
            TlsMode::StartTls => UpstreamTls::StartTls(client_tls()?),
            TlsMode::Implicit => UpstreamTls::Implicit(client_tls()?),
        },
        dial: Dial::Tcp,
        connect_timeout: limits.upstream_connect_timeout,
        metrics: Arc::clone(metrics),
    })
}

/// What we call ourselves: as configured, or as the system does.
pub fn hostname(config: &Config) -> Arc<str> {
    let system = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = config.hostname.clone().unwrap_or_else(|| system().trim().to_owned());
    if name.is_empty() { "localhost".into() } else { name.into() }
}

impl App {
    /// Opens the store, the rules, the certificates and the doors.
    pub fn build(config: &Config) -> Result<Self, StartError> {
        allow_open_files(config.limits.sessions);
        let rules = load_rules(&config.rules).map_err(StartError::Faults)?;
        let rule_series = config.metrics.as_ref().map_or(RuleSeries::Off, |metrics| metrics.rules);
        let metrics = Arc::new(Metrics::with_rules(rule_series));
        let store = open_store(&config.store)?;
        let spool_folder = config.store.path.join("spool");
        std::fs::create_dir_all(&spool_folder).map_err(|error| ground("the spool folder", &error))?;
        let (sender, drain) = Drain::channel();
        let hostname = hostname(config);
        let authserv_id =
            config.trusted.authserv_id.as_deref().map_or_else(|| Arc::clone(&hostname), Arc::from);
        let gateway = Arc::new(Gateway::new(
            Arc::new(Filter::new(Arc::new(rules))),
            store,
            Arc::clone(&metrics),
            config.limits.clone(),
            Names { hostname, authserv_id: Some(authserv_id) },
            spool_folder,
            drain,
        ));
        let mut doors = Vec::new();
        for listener in &config.listeners {
            let door = Arc::new(build_listener(config, listener, &metrics)?);
            metrics.prepare(&door.name);
            for &address in &listener.bind {
                doors.push((Arc::clone(&door), bind(address)?));
            }
        }
        let metrics = config.metrics.as_ref().map(|metrics| bind(metrics.bind)).transpose()?;
        Ok(Self { gateway, doors, metrics, drain: sender })
    }

    /// The addresses that stand open: a listener's name and where it listens; last the metrics, where they are on.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let doors = self.doors.iter().map(|(listener, socket)| (Arc::clone(&listener.name), socket));
        let metrics = self.metrics.iter().map(|socket| (Arc::from("metrics"), socket));
        doors.chain(metrics).filter_map(|(name, socket)| Some((name, socket.local_addr().ok()?))).collect()
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    pub async fn run(self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        self.run_until(stop).await;
        Ok(())
    }

    /// Serves until `stop`, then drains: no new sessions, running ones finish within the grace, the journal is
    /// written out.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        for (name, address) in self.addresses() {
            tracing::info!(listener = %name, %address, "listening");
        }
        let permits =
            Arc::new(Semaphore::new(usize::try_from(self.gateway.limits.sessions).unwrap_or(usize::MAX)));
        let metrics =
            self.metrics.map(|socket| tokio::spawn(admin::serve(socket, Arc::clone(&self.gateway))));
        let mut doors = JoinSet::new();
        for (listener, socket) in self.doors {
            doors.spawn(accept(socket, listener, Arc::clone(&self.gateway), Arc::clone(&permits)));
        }
        stop.await;
        tracing::info!("draining");
        // The receivers live in the gateway; there is always one.
        let _ = self.drain.send(Stage::Draining);
        let mut sessions = JoinSet::new();
        while let Some(running) = doors.join_next().await {
            match running {
                Ok(running) => sessions.spawn(wait_for_all(running)),
                Err(error) => {
                    tracing::error!(%error, "a listener failed");
                    continue;
                }
            };
        }
        let finished = async { while sessions.join_next().await.is_some() {} };
        if timeout(self.gateway.limits.drain_timeout, finished).await.is_err() {
            tracing::warn!("sessions are cut: the drain took longer than limits.drain_timeout");
            let _ = self.drain.send(Stage::Cut);
            let finished = async { while sessions.join_next().await.is_some() {} };
            let _ = timeout(CUT_GRACE, finished).await;
            // Those that could not be told within the grace.
            sessions.shutdown().await;
        }
        if let Some(metrics) = metrics {
            metrics.abort();
        }
        let gateway = self.gateway;
        let flushed = tokio::task::spawn_blocking(move || gateway.store.journal().flush()).await;
        match flushed {
            Ok(Ok(())) => tracing::info!("stopped"),
            outcome => tracing::error!(?outcome, "the journal could not be written out"),
        }
    }
}

/// Dropping the set, as an abort does, cuts its sessions.
async fn wait_for_all(mut running: JoinSet<()>) {
    while running.join_next().await.is_some() {}
}

/// Accepts clients until the drain; the sessions that still run then.
///
/// A client is accepted first and then waits for its turn, so that a door nobody knocks at keeps no session from the
/// others. At most one client of each address waits so, those behind it in the kernel's queue; turns are given in the
/// order they were asked for, whatever the door.
async fn accept(
    socket: TcpListener,
    listener: Arc<Listener>,
    gateway: Arc<Gateway>,
    permits: Arc<Semaphore>,
) -> JoinSet<()> {
    let mut drain = gateway.drain.clone();
    let mut sessions = JoinSet::new();
    loop {
        // On every turn: while clients come faster than sessions are waited for, these would pile up.
        while let Some(ended) = sessions.try_join_next() {
            tell_of_failure(ended);
        }
        let accepted = select! {
            () = drain.begun() => return sessions,
            Some(ended) = sessions.join_next() => {
                tell_of_failure(ended);
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        let (client, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "a client could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let turn = select! {
            () = drain.begun() => return sessions,
            turn = take_turn(&permits, &gateway.metrics) => turn,
        };
        let Some(permit) = turn else { return sessions };
        let (listener, gateway) = (Arc::clone(&listener), Arc::clone(&gateway));
        sessions.spawn(async move {
            serve(client, peer, &listener, &gateway).await;
            drop(permit);
        });
    }
}

/// Waits while `limits.sessions` are open. The semaphore is never closed, so there is always a permit in the end.
async fn take_turn(permits: &Arc<Semaphore>, metrics: &Metrics) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    metrics.limit_reached("sessions");
    Arc::clone(permits).acquire_owned().await.ok()
}

/// A session never fails by itself: it panicked, which is a fault of ours.
fn tell_of_failure(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a session failed");
    }
}

async fn serve(client: TcpStream, peer: SocketAddr, listener: &Listener, gateway: &Gateway) {
    // Without it small replies wait for the peer's acknowledgement; a socket that refuses is slow, not wrong.
    let _ = client.set_nodelay(true);
    session::serve(Stream::new(client), ClientAddr(peer), listener, gateway).await;
}

/// Makes room for the sockets of `sessions`. Too little room is told and no reason not to start: accepting pauses when
/// files run out.
fn allow_open_files(sessions: u64) {
    let needed = descriptors::needed(sessions);
    match descriptors::raise() {
        Ok(allowed) if allowed < needed => {
            tracing::warn!(allowed, needed, "limits.sessions needs more open files than the system allows");
        }
        Ok(allowed) => tracing::info!(allowed, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

fn build_listener(
    config: &Config,
    listener: &config::Listener,
    metrics: &Arc<Metrics>,
) -> Result<Listener, StartError> {
    let upstream = config.upstreams.iter().find(|upstream| upstream.name == listener.upstream);
    // The configuration was found sound: names that are used exist.
    let Some(upstream) = upstream else {
        return Err(StartError::Ground {
            what: format!("listener `{}`", listener.name),
            cause: format!("there is no upstream `{}`", listener.upstream),
            remedy: "name one of `upstreams`",
        });
    };
    let policy = config.policies.iter().find(|policy| policy.set.name == listener.policy);
    let policy = policy.map_or_else(|| Arc::new(PolicySet::new("default")), |policy| Arc::clone(&policy.set));
    Ok(Listener {
        name: listener.name.as_str().into(),
        protocol: listener.protocol,
        tls: server_tls(listener, metrics)?,
        tls_mode: listener.tls.mode,
        upstream: Arc::new(build_upstream(upstream, &config.limits, metrics)?),
        policy,
        relay: Relay { domains: listener.relay_domains.clone() },
    })
}

fn server_tls(listener: &config::Listener, metrics: &Metrics) -> Result<Option<ServerTls>, StartError> {
    if listener.tls.mode == TlsMode::Off {
        return Ok(None);
    }
    let wrong = |cause: String| StartError::Ground {
        what: format!("TLS of listener `{}`", listener.name),
        cause,
        remedy: "run `gatepost check`; it names the file and what is wrong with it",
    };
    let mut certificates = Certificates::default();
    for files in &listener.tls.certificates {
        certificates
            .add(&files.cert, &files.key)
            .map_err(|error| wrong(format!("{}: {error}", display(&files.cert))))?;
    }
    if let Some(end) = certificates.earliest_end() {
        metrics.certificate_expiry(&listener.name, end);
    }
    ServerTls::new(certificates, listener.protocol.alpn()).map(Some).map_err(|error| wrong(error.to_string()))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// Binds one address; an IPv6 socket is for IPv6 only, so that it can stand beside one for IPv4.
fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Transport::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| StartError::Ground {
        what: format!("cannot listen on {address}"),
        cause: error.to_string(),
        remedy: match error.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or give the listener another port",
            io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "give the listener an address of this machine",
        },
    })
}

fn ground(what: &str, error: &io::Error) -> StartError {
    StartError::Ground {
        what: what.to_owned(),
        cause: error.to_string(),
        remedy: "give the user Gatepost runs as a folder to write to, as `store.path`",
    }
}
