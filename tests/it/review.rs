//! Findings of a review of the SMTP gate and the network layer. Each test states what should hold.

use std::{
    io,
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatepost::{
    app::App,
    config::Config,
    limits::Limits,
    net::{Certificates, ClientTls, Dial, ServerTls, Stream, Upstream, UpstreamTls, Verify},
    session::{Protocol, Spool},
    store::Store,
    telemetry::Metrics,
    wire::line::LineDecoder,
};
use tempfile::TempDir;
use tokio::{
    io::{DuplexStream, duplex},
    time::{sleep, timeout},
};

use crate::kit::{Scene, SelfSigned, Setting, gateway, scene};

const PATIENCE: Duration = Duration::from_secs(20);

async fn line(stream: &mut Stream, lines: &mut LineDecoder) -> Option<String> {
    loop {
        if let Some(line) = lines.next(stream.input()).unwrap() {
            return Some(String::from_utf8_lossy(line.text()).into_owned());
        }
        if stream.fill().await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn say(stream: &mut Stream, text: &str) {
    stream.queue(text.as_bytes());
    stream.flush().await.unwrap();
}

async fn begin() -> (TempDir, Scene, Stream) {
    let folder = TempDir::new().unwrap();
    let mut scene = scene(&Setting::new(Protocol::Smtp), SelfSigned::shared(), &folder);
    let pipe: DuplexStream = scene.dialled.recv().await.unwrap();
    let mut upstream = Stream::new(pipe);
    say(&mut upstream, "220 mx.example.org ESMTP\r\n").await;
    (folder, scene, upstream)
}

/// A client that pipelines and does not read must be waited for, not served from memory: 64 KiB of "HELP" or "EHLO"
/// become as many replies, all held at once, per session, outside of every budget.
#[tokio::test(start_paused = true)]
async fn replies_to_a_client_that_does_not_read_are_bounded() {
    let (_folder, mut scene, mut upstream) = begin().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let reply = format!("214 {}\r\n", "h".repeat(4000));
    let served = tokio::spawn(async move {
        let mut lines = LineDecoder::new(4096);
        while line(&mut upstream, &mut lines).await.is_some() {
            counter.fetch_add(1, Ordering::Relaxed);
            say(&mut upstream, &reply).await;
        }
    });
    say(&mut scene.client, &"HELP\r\n".repeat(10_000)).await;
    sleep(Duration::from_secs(60)).await;
    let held = asked.load(Ordering::Relaxed) * 4006;
    served.abort();
    // The pipe holds 64 KiB; as much again may wait in the session.
    assert!(held < 256 * 1024, "{held} octets of replies wait for a client that does not read");
}

/// A message that went to a file keeps memory for what comes next; the shared budget must know of it.
#[tokio::test]
async fn memory_of_a_spool_with_a_file_is_in_the_budget() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let limits = Limits::default();
    let whole = limits.spool_memory_bytes;
    let (gateway, _drain) = gateway(store, folder.path(), limits);
    let mut spool = Spool::new(&gateway);
    for _ in 0..11 {
        spool.sink().extend_from_slice(&[b'x'; 64 * 1024]);
        spool.settle().await.unwrap();
    }
    let held = spool.sink().capacity() as u64;
    let counted = whole - gateway.budget.left();
    assert!(counted >= held, "{held} octets are held, {counted} are counted");
}

/// The final dot was never sent, and the upstream refused early without closing: the leg stands in the middle of a
/// message and must not be used again. Today the next command goes out as a line of the lost message.
#[tokio::test(start_paused = true)]
async fn a_leg_in_the_middle_of_a_message_is_left() {
    let (_folder, mut scene, mut upstream) = begin().await;
    let mut lines = LineDecoder::new(4096);
    let mut heard = LineDecoder::new(4096);
    assert!(line(&mut scene.client, &mut heard).await.unwrap().starts_with("220"));
    for (command, reply) in [
        ("EHLO c.example\r\n", "250 mx\r\n"),
        ("MAIL FROM:<s@far.example>\r\n", "250 ok\r\n"),
        ("RCPT TO:<a@example.org>\r\n", "250 ok\r\n"),
    ] {
        say(&mut scene.client, command).await;
        line(&mut upstream, &mut lines).await.unwrap();
        say(&mut upstream, reply).await;
        let mut last = line(&mut scene.client, &mut heard).await.unwrap();
        while last.starts_with("250-") {
            last = line(&mut scene.client, &mut heard).await.unwrap();
        }
    }
    say(&mut scene.client, "DATA\r\n").await;
    assert!(line(&mut scene.client, &mut heard).await.unwrap().starts_with("354"));
    let body = format!("Subject: large\r\n\r\n{}.\r\n", format!("{}\r\n", "x".repeat(70)).repeat(6_000));
    let mut client = scene.client.take();
    let client = tokio::spawn(async move {
        say(&mut client, &body).await;
        client
    });
    assert_eq!(line(&mut upstream, &mut lines).await.unwrap(), "DATA");
    say(&mut upstream, "354 go on\r\n552 5.3.4 too big\r\n").await;
    let mut client = client.await.unwrap();
    // The upstream reads no more; limits.data_timeout passes.
    sleep(Duration::from_secs(300)).await;
    let refused = line(&mut client, &mut heard).await.unwrap();
    assert!(refused.starts_with("552") || refused.starts_with("451"), "{refused}");
    say(&mut client, "MAIL FROM:<t@far.example>\r\n").await;
    let mut rest = Vec::new();
    while let Ok(Ok(1..)) = timeout(Duration::from_secs(5), upstream.fill()).await {
        rest.extend_from_slice(&upstream.input().split());
    }
    let rest = String::from_utf8_lossy(&rest);
    let tail: String = rest.chars().skip(rest.len().saturating_sub(60)).collect();
    assert!(!rest.contains("MAIL FROM:<t@"), "a command inside of a message: …{}", tail.escape_debug());
}

/// The second server of an upstream is checked for its own name, not for that of the first.
#[tokio::test]
async fn starttls_checks_the_name_of_the_server_that_answered() {
    let folder = TempDir::new().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["two.example.org".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let mut certificates = Certificates::default();
    certificates.add(&cert, &key).unwrap();
    let server = ServerTls::new(certificates).unwrap();
    let calls = AtomicUsize::new(0);
    let (near, far) = duplex(64 * 1024);
    let pipe = std::sync::Mutex::new(Some(near));
    let open = move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => Ok(Stream::new(pipe.lock().unwrap().take().unwrap())),
    };
    let upstream = Upstream {
        name: "real".into(),
        servers: vec!["one.example.org:25".into(), "two.example.org:25".into()],
        tls: UpstreamTls::StartTls(ClientTls::new(Verify::Full, Some(&cert), None).unwrap()),
        dial: Dial::Pipe(Arc::new(open)),
        connect_timeout: PATIENCE,
        metrics: Arc::new(Metrics::new()),
    };
    let stream = upstream.connect().await.unwrap();
    let (ours, _theirs) = tokio::join!(upstream.upgrade(stream), Stream::new(far).accept_tls(&server));
    if let Err(error) = ours {
        panic!("{error}");
    }
}

/// Sessions that ended must leave nothing behind. The accept loop takes a finished session off its set only where a
/// coin falls so, less often than it adds one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_ended_leave_no_memory_behind() {
    // Other tests in the same process would blur what is measured.
    if std::env::var_os("REVIEW_ALONE").is_none() {
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "review::sessions_that_ended_leave_no_memory_behind"])
            .env("REVIEW_ALONE", "1")
            .output()
            .unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        return;
    }
    let folder = TempDir::new().unwrap();
    let text = format!(
        "store: {{path: {}}}\n\
         upstreams: {{real: {{protocol: smtp, servers: ['127.0.0.1:1']}}}}\n\
         listeners: [{{name: mx, protocol: smtp, bind: '127.0.0.1:2525', upstream: real, relay_domains: [example.org]}}]\n",
        folder.path().join("store").display()
    );
    let (mut config, _) =
        Config::read(&text, "review.yaml").sound().unwrap_or_else(|faults| panic!("{faults:?}"));
    config.listeners[0].bind = vec!["127.0.0.1:0".parse().unwrap()];
    let app = App::build(&config).unwrap();
    let address = app.addresses()[0].1;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let app = tokio::spawn(app.run_until(async move {
        let _ = stopped.await;
    }));
    let visit = move |times: usize| {
        for _ in 0..times {
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            let mut said = String::new();
            socket.read_to_string(&mut said).unwrap();
            assert!(said.starts_with("421"), "{said}");
        }
    };
    tokio::task::spawn_blocking(move || visit(2_000)).await.unwrap();
    let before = resident();
    tokio::task::spawn_blocking(move || visit(10_000)).await.unwrap();
    let grown = resident().saturating_sub(before);
    stop.send(()).unwrap();
    app.await.unwrap();
    assert!(grown < 1024 * 1024, "10000 sessions left {grown} octets behind");
}

/// Resident octets of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A session that the drain cuts is told so before the connection ends (`app::CUT_GRACE` says that it is).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cut_by_the_drain_is_told_421() {
    use std::io::{BufRead as _, Write as _};
    let real = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = real.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = real.accept().unwrap();
        socket.write_all(b"220 mx.example.org ESMTP\r\n").unwrap();
        for line in io::BufReader::new(socket.try_clone().unwrap()).lines() {
            if line.is_err() || socket.write_all(b"250 ok\r\n").is_err() {
                return;
            }
        }
    });
    let folder = TempDir::new().unwrap();
    let text = format!(
        "store: {{path: {}}}\n\
         limits: {{drain_timeout: 1s}}\n\
         upstreams: {{real: {{protocol: smtp, servers: ['{server}']}}}}\n\
         listeners: [{{name: mx, protocol: smtp, bind: '127.0.0.1:2525', upstream: real, relay_domains: [example.org]}}]\n",
        folder.path().join("store").display()
    );
    let (mut config, _) =
        Config::read(&text, "review.yaml").sound().unwrap_or_else(|faults| panic!("{faults:?}"));
    config.listeners[0].bind = vec!["127.0.0.1:0".parse().unwrap()];
    let app = App::build(&config).unwrap();
    let address = app.addresses()[0].1;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let app = tokio::spawn(app.run_until(async move {
        let _ = stopped.await;
    }));
    let client = tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let mut said = io::BufReader::new(socket.try_clone().unwrap()).lines();
        said.next().unwrap().unwrap();
        for command in ["HELO c.example\r\n", "MAIL FROM:<s@far.example>\r\n"] {
            socket.write_all(command.as_bytes()).unwrap();
            said.next().unwrap().unwrap();
        }
        stop.send(()).unwrap();
        said.next().and_then(Result::ok).unwrap_or_default()
    });
    let last = client.await.unwrap();
    app.await.unwrap();
    assert!(last.starts_with("421"), "the last word was {last:?}");
}

/// Believes everything, and understands RSA alone where it is told so: an old client.
#[derive(Debug)]
struct Gullible {
    schemes: Vec<rustls::SignatureScheme>,
}

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.schemes.clone()
    }
}

/// Whether a client with these signature schemes and these ALPN names gets its TLS.
async fn shakes_hands(server: &ServerTls, schemes: &[rustls::SignatureScheme], alpn: &[&[u8]]) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible { schemes: schemes.to_vec() }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let (near, far) = duplex(64 * 1024);
    let name = rustls_pki_types::ServerName::try_from("mail.example.org").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (client, server) = tokio::join!(connector.connect(name, near), Stream::new(far).accept_tls(server));
    client.is_ok() && server.is_ok()
}

/// ALPACA (CVE-2021-3618): a browser that asks for HTTP is refused in the handshake; a client without ALPN is not.
#[tokio::test]
async fn a_client_that_asks_for_http_gets_no_tls() {
    let server = SelfSigned::shared().server();
    let any = [rustls::SignatureScheme::ECDSA_NISTP256_SHA256];
    assert!(shakes_hands(&server, &any, &[]).await);
    assert!(!shakes_hands(&server, &any, &[b"h2", b"http/1.1"]).await, "ALPN http/1.1 was let in");
}

/// Two certificates for one name, ECDSA and RSA, as every guide for mail servers has it: each client gets one it can use.
#[tokio::test]
async fn the_certificate_fits_what_the_client_can_verify() {
    let folder = TempDir::new().unwrap();
    let mut certificates = Certificates::default();
    for (file, algorithm) in [("ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256), ("rsa", &rcgen::PKCS_RSA_SHA256)] {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["mail.example.org".to_owned()]).unwrap();
        let (cert, key) =
            (folder.path().join(format!("{file}.pem")), folder.path().join(format!("{file}.key")));
        std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        certificates.add(&cert, &key).unwrap();
    }
    let server = ServerTls::new(certificates).unwrap();
    assert!(shakes_hands(&server, &[rustls::SignatureScheme::ECDSA_NISTP256_SHA256], &[]).await);
    let rsa = [rustls::SignatureScheme::RSA_PSS_SHA256, rustls::SignatureScheme::RSA_PKCS1_SHA256];
    assert!(shakes_hands(&server, &rsa, &[]).await, "a client that knows RSA alone gets no TLS");
}

/// A client waits 10 minutes for the reply to its dot (RFC 5321 section 4.5.3.2.6), then goes and tries again. A message
/// whose turn to be judged comes later than that must be deferred, not delivered: delivering it doubles it for certain.
#[tokio::test(start_paused = true)]
async fn a_message_that_waited_longer_than_its_client_is_not_delivered() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let (gateway, _drain) = gateway(store, folder.path(), Limits::default());
    let (near, far) = duplex(64 * 1024);
    let pipe = std::sync::Mutex::new(Some(near));
    let open = move || Ok(Stream::new(pipe.lock().unwrap().take().ok_or(io::ErrorKind::ConnectionRefused)?));
    let listener =
        crate::kit::listener(&Setting::new(Protocol::Smtp), SelfSigned::shared(), &gateway.metrics, open);
    let (client, door) = duplex(64 * 1024);
    let busy = gateway.judging.clone().acquire_many_owned(2).await.unwrap();
    let shared = Arc::clone(&gateway);
    tokio::spawn(async move {
        gatepost::session::serve(Stream::new(door), crate::kit::CLIENT, &listener, &shared).await
    });
    let asked_for_data = tokio::spawn(async move {
        let mut upstream = Stream::new(far);
        let mut lines = LineDecoder::new(4096);
        say(&mut upstream, "220 mx\r\n").await;
        while let Some(command) = line(&mut upstream, &mut lines).await {
            if command == "DATA" {
                return true;
            }
            say(&mut upstream, "250 ok\r\n").await;
        }
        false
    });
    let mut client = Stream::new(client);
    say(&mut client, "HELO c\r\nMAIL FROM:<s@far.example>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n").await;
    sleep(Duration::from_secs(1)).await;
    say(&mut client, "Subject: late\r\n\r\ntext\r\n.\r\n").await;
    sleep(Duration::from_secs(11 * 60)).await;
    drop(client);
    drop(busy);
    assert!(!asked_for_data.await.unwrap(), "delivered after the client gave up");
}
