//! Whole sessions over pipes: what both peers say, and what each of them is told, octet by octet.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{io::duplex, sync::watch, task::JoinHandle};

use super::*;
use crate::{
    filter::Filter,
    limits::Limits,
    net::{Certificates, ClientTls, Dial, ServerTls, Upstream, UpstreamTls, Verify},
    policy::PolicySet,
    rules::RuleSet,
    session::{self, Protocol, Stage, TlsMode},
    store::Store,
};

/// A session with both its peers.
struct Scene {
    client: Stream,
    upstream: Stream,
    session: JoinHandle<End>,
    order: watch::Sender<Stage>,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

/// What a session is made of, where it is not the default.
struct Setting {
    tls: Option<ServerTls>,
    upstream_tls: UpstreamTls,
    limits: Limits,
    reachable: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { tls: None, upstream_tls: UpstreamTls::Off, limits: Limits::default(), reachable: true }
    }
}

impl Setting {
    fn starttls() -> Self {
        Self { tls: Some(server_tls()), ..Self::default() }
    }

    fn upstream_starttls() -> Self {
        let trusting = ClientTls::new(Verify::None, None, Some("localhost".to_owned())).unwrap();
        Self { upstream_tls: UpstreamTls::StartTls(trusting), ..Self::default() }
    }

    fn begin(self) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let (order, drain) = Drain::channel();
        let gateway = Gateway::new(
            Arc::new(Filter::new(Arc::new(RuleSet::built_in()))),
            Store::open(&folder.path().join("store")).unwrap(),
            Arc::clone(&metrics),
            self.limits,
            session::Names { hostname: "gate.example.org".into(), authserv_id: None },
            folder.path().to_owned(),
            drain,
        );
        let (upstream, upstream_end) = duplex(PIPE);
        let pipe = Mutex::new(self.reachable.then_some(upstream_end));
        let upstream_of_ours = Upstream {
            dial: Dial::Pipe(Arc::new(move || {
                pipe.lock().unwrap().take().map(Stream::new).ok_or(io::ErrorKind::ConnectionRefused.into())
            })),
            name: "mailbox".into(),
            servers: vec!["mail.example.org:143".into()],
            tls: self.upstream_tls,
            connect_timeout: Duration::from_secs(1),
            metrics: Arc::clone(&metrics),
        };
        let listener = Listener {
            protocol: Protocol::Imap,
            name: "imap".into(),
            tls_mode: if self.tls.is_some() { TlsMode::StartTls } else { TlsMode::Off },
            tls: self.tls,
            upstream: Arc::new(upstream_of_ours),
            policy: Arc::new(PolicySet::new("test")),
            relay: session::Relay::default(),
        };
        let (client, client_end) = duplex(PIPE);
        let session = tokio::spawn(async move {
            let peer = ClientAddr(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000));
            serve(Stream::new(client_end), peer, &listener, &gateway).await
        });
        Scene {
            client: Stream::new(client),
            upstream: Stream::new(upstream),
            session,
            order,
            metrics,
            _folder: folder,
        }
    }
}

impl Scene {
    /// `C` and `U` say, `>C` and `>U` are told.
    async fn play(&mut self, steps: &[(&str, &str)]) {
        for (who, text) in steps {
            match *who {
                "C" => say(&mut self.client, text).await,
                "U" => say(&mut self.upstream, text).await,
                ">C" => expect(&mut self.client, text).await,
                ">U" => expect(&mut self.upstream, text).await,
                other => panic!("{other}"),
            }
        }
    }

    async fn end(self) -> End {
        drop((self.client, self.upstream));
        self.session.await.unwrap()
    }
}

async fn say(peer: &mut Stream, text: &str) {
    peer.queue(text.as_bytes());
    peer.flush().await.unwrap();
}

async fn expect(peer: &mut Stream, text: &str) {
    while peer.input().len() < text.len() {
        let before = String::from_utf8_lossy(peer.input()).into_owned();
        match timeout(Duration::from_secs(5), peer.fill()).await {
            Ok(Ok(1..)) => {}
            other => panic!("{other:?} after {before:?}, not {text:?}"),
        }
    }
    let told = peer.input().split_to(text.len());
    assert_eq!(String::from_utf8_lossy(&told), text);
}

/// Everything up to the end of the stream.
async fn rest(peer: &mut Stream) -> String {
    while peer.fill().await.unwrap_or(0) > 0 {}
    String::from_utf8_lossy(&peer.input().split()).into_owned()
}

/// TLS for `localhost`, by a certificate of its own.
fn server_tls() -> ServerTls {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut certificates = Certificates::default();
    certificates.add(&cert, &key).unwrap();
    ServerTls::new(certificates, Protocol::Imap.alpn()).unwrap()
}

const PIPE: usize = 4 * 1024;
const UNREACHABLE: &str = "* BYE [UNAVAILABLE] The mail server cannot be reached, try again later\r\n";
const HELLO: [(&str, &str); 2] = [
    ("U", "* OK [CAPABILITY IMAP4rev1 LITERAL+ NOTIFY] hi\r\n"),
    (">C", "* OK [CAPABILITY IMAP4rev1 LITERAL+] hi\r\n"),
];
const LOGIN: [(&str, &str); 4] = [
    ("C", "l LOGIN fred pw\r\n"),
    (">U", "l LOGIN fred pw\r\n"),
    ("U", "l OK in\r\n"),
    (">C", "l OK in\r\n"),
];

#[tokio::test(start_paused = true)]
async fn a_session_from_greeting_to_logout() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene
        .play(&[
            ("C", "x LOGIN fred no\r\n"),
            (">U", "x LOGIN fred no\r\n"),
            ("U", "x NO [AUTHENTICATIONFAILED] no\r\n"),
            (">C", "x NO [AUTHENTICATIONFAILED] no\r\n"),
        ])
        .await;
    scene.play(&LOGIN).await;
    scene
        .play(&[
            ("C", "a SELECT INBOX\r\nb FETCH 1:* FLAGS\r\nc XNEW {3+}"),
            (">U", "a SELECT INBOX\r\nb FETCH 1:* FLAGS\r\n"),
            ("U", "* 1 FETCH (FLAGS ())\r\nb OK\r\na OK\r\n* XODD \"junk\n"),
            (">C", "* 1 FETCH (FLAGS ())\r\nb OK\r\na OK\r\n* XODD \"junk\n"),
            ("C", "\r\nabc\r\nd APPEND x {5}\r\n"),
            (">U", "c XNEW {3}\r\n"),
            ("U", "c BAD what\r\n"),
            (">C", "c BAD what\r\n"),
            (">U", "d APPEND x {5}\r\n"),
            ("U", "d NO [TRYCREATE] no\r\n"),
            (">C", "d NO [TRYCREATE] no\r\n"),
            ("C", "e LOGOUT\r\n"),
            (">U", "e LOGOUT\r\n"),
            ("U", "* BYE\r\ne OK\r\n"),
            (">C", "* BYE\r\ne OK\r\n"),
        ])
        .await;
    assert!(scene.metrics.render().contains("gatepost_auth_failures_total{listener=\"imap\"} 1"));
    assert_eq!(scene.end().await, End::Quit);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_not_there() {
    let mut scene = Setting { reachable: false, ..Setting::default() }.begin();
    assert_eq!(rest(&mut scene.client).await, UNREACHABLE);
    assert_eq!(scene.end().await, End::UpstreamUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_large_append_and_a_large_fetch_pass_each_other() {
    const LARGE: usize = 3_000_000;
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene.play(&LOGIN).await;
    scene.play(&[("C", "f FETCH 1 BODY[]\r\n"), (">U", "f FETCH 1 BODY[]\r\n")]).await;
    let (announced, passed) = (format!("a APPEND x {{{LARGE}+}}\r\n"), format!("a APPEND x {{{LARGE}}}\r\n"));
    scene.play(&[("C", &announced), (">U", &passed), ("U", "+ go\r\n")]).await;
    let append = [&vec![b'\n'; LARGE], b"\r\n".as_slice()].concat();
    let fetch =
        [format!("* 1 FETCH (BODY[] {{{LARGE}}}\r\n").as_bytes(), &vec![b'\r'; LARGE], b")\r\nf OK\r\n"]
            .concat();
    // Both write all they have before they read anything: neither could finish if the gate read one side only.
    let both = async |mut peer: Stream, said: &[u8], told: &[u8]| {
        peer.queue(said);
        let mut got = 0;
        loop {
            poll_fn(|cx| {
                let wrote = peer.poll_flush(cx);
                assert!(!matches!(wrote, Poll::Ready(Err(_))));
                match peer.poll_fill(cx) {
                    Poll::Ready(octets) => {
                        assert!(octets.unwrap() > 0);
                        Poll::Ready(())
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            let piece = peer.input().split();
            assert!(told[got..].starts_with(&piece), "differs near {got}");
            got += piece.len();
            if got == told.len() && peer.queued() == 0 {
                return peer;
            }
        }
    };
    let (client, upstream) =
        tokio::join!(both(scene.client, &append, &fetch), both(scene.upstream, &fetch, &append));
    drop((client, upstream));
    scene.session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_the_upstream_back() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    let mut sent = 0;
    loop {
        scene.upstream.queue("* 1 EXISTS\r\n".repeat(100).as_bytes());
        match timeout(Duration::from_secs(1), scene.upstream.flush()).await {
            Ok(outcome) => outcome.unwrap(),
            Err(_) => break,
        }
        sent += 1_200;
        assert!(sent < 4 * ROOM, "the gate takes what it cannot get rid of");
    }
    // What it took arrives, and it takes more.
    expect(&mut scene.client, &"* 1 EXISTS\r\n".repeat(100)).await;
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_is_not_fetched_for_a_client_that_went() {
    const LARGE: usize = 64 * ROOM;
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene.play(&LOGIN).await;
    scene.play(&[("C", "f FETCH 1:* BODY[]\r\n"), (">U", "f FETCH 1:* BODY[]\r\n")]).await;
    drop(scene.client.take());
    scene.upstream.queue(format!("* 1 FETCH (BODY[] {{{LARGE}}}\r\n").as_bytes());
    scene.upstream.queue(&vec![b'x'; LARGE]);
    assert!(timeout(Duration::from_secs(60), scene.upstream.flush()).await.unwrap().is_err());
    assert!(scene.upstream.queued() > LARGE / 2);
    assert_eq!(scene.end().await, End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_everything_still_hears() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene.play(&[("C", "a NOOP\r\nb NOOP\r\n"), (">U", "a NOOP\r\nb NOOP\r\n")]).await;
    scene.client.shutdown().await.unwrap();
    scene.play(&[("U", "* 1 EXISTS\r\na OK\r\n"), (">C", "* 1 EXISTS\r\na OK\r\n")]).await;
    scene.play(&[("U", "b OK\r\n"), (">C", "b OK\r\n")]).await;
    assert_eq!(rest(&mut scene.upstream).await, "");
    scene.play(&[("U", "* unfin")]).await;
    scene.upstream.shutdown().await.unwrap();
    assert_eq!(rest(&mut scene.client).await, "* unfin");
    assert_eq!(scene.session.await.unwrap(), End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_has_said_everything_still_hears() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene.play(&[("U", "* BYE going\r\n"), (">C", "* BYE going\r\n")]).await;
    scene.upstream.shutdown().await.unwrap();
    assert_eq!(rest(&mut scene.client).await, "");
    scene.play(&[("C", "a NOOP\r\n"), (">U", "a NOOP\r\n")]).await;
    scene.client.shutdown().await.unwrap();
    assert_eq!(rest(&mut scene.upstream).await, "");
    assert_eq!(scene.session.await.unwrap(), End::UpstreamClosed);
}

#[tokio::test(start_paused = true)]
async fn idle_lasts_and_silence_ends() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene.play(&LOGIN).await;
    scene
        .play(&[("C", "i IDLE\r\n"), (">U", "i IDLE\r\n"), ("U", "+ idling\r\n"), (">C", "+ idling\r\n")])
        .await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(29 * 60)).await;
        scene.play(&[("C", "DONE\r\ni IDLE\r\n"), (">U", "DONE\r\ni IDLE\r\n")]).await;
        scene
            .play(&[
                ("U", "* 2 EXISTS\r\ni OK\r\n+ idling\r\n"),
                (">C", "* 2 EXISTS\r\ni OK\r\n+ idling\r\n"),
            ])
            .await;
    }
    assert_eq!(rest(&mut scene.client).await, "* BYE The session was silent for too long\r\n");
    assert_eq!(scene.end().await, End::ClientTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_login_has_its_time() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    assert_eq!(rest(&mut scene.client).await, "* BYE The session was silent for too long\r\n");
    assert_eq!(scene.end().await, End::ClientTimeout);
    // An upstream that does not greet is given as long.
    let mut scene = Setting::default().begin();
    assert_eq!(rest(&mut scene.client).await, "* BYE The session was silent for too long\r\n");
    assert_eq!(scene.end().await, End::ClientTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_cut_waits_for_no_answer_and_tears_no_response() {
    let bye = "* BYE The gateway is restarting\r\n";
    for (half, last_word) in [("", bye), ("* 1 FETCH (BODY[] {10}\r\nhalf", "")] {
        let mut scene = Setting::default().begin();
        scene.play(&HELLO).await;
        scene.play(&[("C", "a FETCH 1 BODY[]\r\n"), (">U", "a FETCH 1 BODY[]\r\n")]).await;
        scene.order.send(Stage::Draining).unwrap();
        scene.play(&[("U", half), (">C", half)]).await;
        scene.order.send(Stage::Cut).unwrap();
        assert_eq!(rest(&mut scene.client).await, last_word);
        assert_eq!(scene.end().await, End::Drained);
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_to_end_is_obeyed_between_commands() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    scene.play(&[("C", "a NOOP\r\n"), (">U", "a NOOP\r\n")]).await;
    scene.order.send(Stage::Draining).unwrap();
    tokio::task::yield_now().await;
    scene.play(&[("U", "a OK\r\n"), (">C", "a OK\r\n")]).await;
    assert_eq!(rest(&mut scene.client).await, "* BYE The gateway is restarting\r\n");
    assert_eq!(scene.end().await, End::Drained);
}

#[tokio::test(start_paused = true)]
async fn starttls_towards_the_client() {
    let mut scene = Setting::starttls().begin();
    scene
        .play(&[
            ("U", "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n"),
            (">C", "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n"),
            ("C", "a STARTTLS\r\n"),
            (">C", "a OK Begin TLS now\r\n"),
        ])
        .await;
    let tls = ClientTls::new(Verify::None, None, Some("localhost".to_owned())).unwrap();
    scene.client = scene.client.take().to_host("localhost").connect_tls(&tls).await.unwrap();
    scene
        .play(&[
            ("C", "b CAPABILITY\r\n"),
            (">U", "b CAPABILITY\r\n"),
            ("U", "* CAPABILITY IMAP4rev1 STARTTLS\r\nb OK\r\n"),
            (">C", "* CAPABILITY IMAP4rev1\r\nb OK\r\n"),
            ("C", "c STARTTLS\r\n"),
            (">C", "c BAD STARTTLS is not available now\r\n"),
        ])
        .await;
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_said_in_clear_behind_starttls_is_executed() {
    let mut scene = Setting::starttls().begin();
    scene.play(&HELLO[..1]).await;
    scene.play(&[(">C", "* OK [CAPABILITY IMAP4rev1 LITERAL+ STARTTLS] hi\r\n")]).await;
    scene.play(&[("C", "a STARTTLS\r\nb LOGIN mallory pw\r\n")]).await;
    assert_eq!(rest(&mut scene.client).await, "* BYE Nothing may follow STARTTLS before TLS\r\n");
    assert_eq!(rest(&mut scene.upstream).await, "");
    assert_eq!(scene.end().await, End::ClientFault);
    // Behind the go-ahead only TLS is understood.
    let mut scene = Setting::starttls().begin();
    scene.play(&HELLO[..1]).await;
    scene.play(&[(">C", "* OK [CAPABILITY IMAP4rev1 LITERAL+ STARTTLS] hi\r\n")]).await;
    scene
        .play(&[("C", "a STARTTLS\r\n"), (">C", "a OK Begin TLS now\r\n"), ("C", "b LOGIN mallory pw\r\n")])
        .await;
    assert_eq!(rest(&mut scene.upstream).await, "");
    assert_eq!(scene.end().await, End::Tls);
}

#[tokio::test(start_paused = true)]
async fn preauth_is_refused_where_tls_is_offered() {
    let mut scene = Setting::starttls().begin();
    scene.play(&[("U", "* PREAUTH hi\r\n")]).await;
    assert_eq!(rest(&mut scene.client).await, UNREACHABLE);
    assert_eq!(scene.end().await, End::UpstreamUnavailable);
}

#[tokio::test(start_paused = true)]
async fn starttls_towards_the_upstream() {
    let mut scene = Setting::upstream_starttls().begin();
    scene
        .play(&[
            ("U", "* OK [CAPABILITY IMAP4rev1 STARTTLS X] hi there\r\n"),
            (">U", "gatepost1 STARTTLS\r\n"),
            ("U", "* OK soon\r\ngatepost1 OK go\r\n"),
        ])
        .await;
    scene.upstream = scene.upstream.take().accept_tls(&server_tls()).await.unwrap();
    scene
        .play(&[
            (">U", "gatepost2 CAPABILITY\r\n"),
            ("U", "* CAPABILITY IMAP4rev1 AUTH=PLAIN NOTIFY\r\ngatepost2 OK done\r\n* 1 EXISTS\r\n"),
            (">C", "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi there\r\n* 1 EXISTS\r\n"),
        ])
        .await;
    scene.play(&LOGIN).await;
    scene.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_cannot_be_trusted_to_encrypt() {
    for said in [
        // PREAUTH would leave the leg in clear.
        vec!["* PREAUTH hi\r\n"],
        vec!["* BYE no\r\n"],
        vec!["220 smtp\r\n"],
        vec!["* OK hi\r\n", "gatepost1 NO no\r\n"],
        vec!["* OK hi\r\n", "gatepost1 BAD what\r\n"],
        // Response injection: what stands in clear behind the go-ahead.
        vec!["* OK hi\r\n", "gatepost1 OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\ngatepost2 OK\r\n"],
        vec!["* OK hi\r\n* PREAUTH\r\n", "gatepost1 OK go\r\n* 1 EXISTS\r\n"],
        vec!["* OK hi\r\n", "* 1 FETCH (BODY[] {4}\r\nabcd)\r\n"],
    ] {
        let mut scene = Setting::upstream_starttls().begin();
        for text in &said {
            scene.play(&[("U", text)]).await;
        }
        assert_eq!(rest(&mut scene.client).await, UNREACHABLE, "{said:?}");
        assert_eq!(scene.end().await, End::UpstreamUnavailable, "{said:?}");
    }
    // One that says nothing.
    let mut scene = Setting::upstream_starttls().begin();
    assert_eq!(rest(&mut scene.client).await, UNREACHABLE);
    assert_eq!(scene.end().await, End::UpstreamUnavailable);
}

#[tokio::test(start_paused = true)]
async fn either_peer_may_vanish() {
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    drop(scene.client.take());
    assert_eq!(rest(&mut scene.upstream).await, "");
    assert_eq!(scene.end().await, End::ClientClosed);
    let mut scene = Setting::default().begin();
    scene.play(&HELLO).await;
    drop(scene.upstream.take());
    assert_eq!(rest(&mut scene.client).await, "");
    assert_eq!(scene.end().await, End::UpstreamLost);
}

#[test]
fn a_session_is_small() {
    let (_order, drain) = Drain::channel();
    let (near, far) = duplex(1);
    let metrics = Metrics::new();
    let terms = Terms::new(&Limits::default(), false, true);
    let mut session = Session::new(Stream::new(near), Stream::new(far), terms, "imap", &metrics);
    let size = size_of_val(&session) + size_of_val(&session.run(drain));
    assert!(size < 2_048, "{size} octets");
}
