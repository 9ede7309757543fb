//! A gateway in memory: a real store in a temporary folder, the built-in rules, pipes in place of sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use gatepost::{
    domain,
    filter::Filter,
    limits::Limits,
    net::{Certificates, ClientTls, Dial, ServerTls, Stream, Upstream, UpstreamTls, Verify},
    policy::PolicySet,
    rules::RuleSet,
    session::{self, ClientAddr, Drain, Gateway, Listener, Names, Protocol, Relay, Stage, TlsMode},
    store::Store,
    telemetry::Metrics,
};
use tempfile::TempDir;
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, watch},
};

/// Octets a pipe holds before a writer must wait.
const PIPE_OCTETS: usize = 64 * 1024;

/// What a scene is set up with.
pub(crate) struct Setting {
    pub(crate) protocol: Protocol,
    pub(crate) tls_mode: TlsMode,
    pub(crate) upstream_starttls: bool,
    pub(crate) relay_domains: Vec<String>,
    pub(crate) policy: PolicySet,
    pub(crate) limits: Limits,
}

impl Setting {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            tls_mode: TlsMode::Off,
            upstream_starttls: false,
            relay_domains: vec!["example.org".into()],
            policy: PolicySet::new("default"),
            limits: Limits::default(),
        }
    }
}

/// A session in the middle of its two pipes.
pub(crate) struct Scene {
    pub(crate) client: Stream,
    pub(crate) dialled: mpsc::Receiver<DuplexStream>,
    pub(crate) drain: watch::Sender<Stage>,
}

/// A certificate for `mail.example.org` that nobody vouches for, as files.
pub(crate) struct SelfSigned {
    folder: TempDir,
}

impl SelfSigned {
    /// One for all who need not have their own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<SelfSigned> = LazyLock::new(SelfSigned::new);
        &SHARED
    }

    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let signed = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), signed.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        Self { folder }
    }

    pub(crate) fn server(&self, protocol: Protocol) -> ServerTls {
        let mut certificates = Certificates::default();
        certificates.add(&self.folder.path().join("cert.pem"), &self.folder.path().join("key.pem")).unwrap();
        ServerTls::new(certificates, protocol.alpn()).unwrap()
    }

    pub(crate) fn client() -> ClientTls {
        ClientTls::new(Verify::None, None, Some("mail.example.org".into())).unwrap()
    }
}

/// The built-in rules, compiled once.
fn rules() -> Arc<RuleSet> {
    static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| Arc::new(RuleSet::built_in()));
    Arc::clone(&RULES)
}

pub(crate) fn gateway(store: Store, folder: &Path, limits: Limits) -> (Arc<Gateway>, watch::Sender<Stage>) {
    let (sender, drain) = Drain::channel();
    let names = Names { hostname: "gate.example.org".into(), authserv_id: Some("gate.example.org".into()) };
    let limits = Limits { judging_parallel: 2, ..limits };
    let filter = Arc::new(Filter::new(rules()));
    let metrics = Arc::new(Metrics::new());
    let gateway = Gateway::new(filter, store, metrics, limits, names, folder.to_owned(), drain);
    (Arc::new(gateway), sender)
}

/// A listener whose upstream connections come from `open`.
pub(crate) fn listener(
    setting: &Setting,
    certificate: &SelfSigned,
    metrics: &Arc<Metrics>,
    open: impl Fn() -> io::Result<Stream> + Send + Sync + 'static,
) -> Listener {
    let upstream = Upstream {
        name: "real".into(),
        servers: vec!["mail.example.org:25".into()],
        tls: if setting.upstream_starttls {
            UpstreamTls::StartTls(SelfSigned::client())
        } else {
            UpstreamTls::Off
        },
        dial: Dial::Pipe(Arc::new(open)),
        connect_timeout: Duration::from_secs(10),
        metrics: Arc::clone(metrics),
    };
    Listener {
        name: "door".into(),
        protocol: setting.protocol,
        tls: (setting.tls_mode != TlsMode::Off).then(|| certificate.server(setting.protocol)),
        tls_mode: setting.tls_mode,
        upstream: Arc::new(upstream),
        policy: Arc::new(setting.policy.clone()),
        relay: Relay {
            domains: setting.relay_domains.iter().map(|text| domain::pattern(text).unwrap()).collect(),
        },
    }
}

pub(crate) const CLIENT: ClientAddr =
    ClientAddr(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000));

/// Begins a session; each connection to the upstream arrives in `dialled`.
pub(crate) fn scene(setting: &Setting, certificate: &SelfSigned, folder: &TempDir) -> Scene {
    let store = Store::open(&folder.path().join("store")).unwrap();
    let (gateway, drain) = gateway(store, folder.path(), setting.limits.clone());
    let (calls, dialled) = mpsc::channel(8);
    let open = move || {
        let (near, far) = duplex(PIPE_OCTETS);
        calls.try_send(far).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Stream::new(near))
    };
    let listener = listener(setting, certificate, &gateway.metrics, open);
    let (client, door) = duplex(PIPE_OCTETS);
    let shared = Arc::clone(&gateway);
    tokio::spawn(async move { session::serve(Stream::new(door), CLIENT, &listener, &shared).await });
    Scene { client: Stream::new(client), dialled, drain }
}
