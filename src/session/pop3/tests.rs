//! Sessions as transcripts: what the client and the upstream say, and what each of them is told, octet by octet.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::{
    filter::Filter,
    limits::Limits,
    net::{Certificates, ClientTls, Dial, ServerTls, Upstream, UpstreamTls, Verify},
    policy::{Filing, PolicySet},
    rules::RuleSet,
    session::{Drain, Protocol, Relay, Stage, TlsMode},
    store::Store,
    telemetry::Metrics,
    verdict::Thresholds,
};

/// One step of a transcript.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    /// The client says.
    C(&'a str),
    /// The upstream is told.
    ToU(&'a str),
    /// The upstream says.
    U(&'a str),
    /// The client is told.
    ToC(&'a str),
    /// The upstream closes its connection.
    CloseU,
    /// Nothing more comes to the client.
    EndC,
    /// Nothing more comes to the upstream.
    EndU,
}

use Step::{C, CloseU, EndC, EndU, ToC, ToU, U};

/// A session with both its peers.
struct Scene {
    client: DuplexStream,
    upstream: Option<DuplexStream>,
    session: JoinHandle<End>,
    gateway: Arc<Gateway>,
    /// Octets that are said at once.
    pieces: usize,
    drain: tokio::sync::watch::Sender<Stage>,
    _folder: tempfile::TempDir,
}

/// What a session is made of, where it is not the default.
struct Setting {
    tls: Option<ServerTls>,
    upstream_tls: UpstreamTls,
    limits: Limits,
    policy: PolicySet,
}

impl Default for Setting {
    fn default() -> Self {
        let limits = Limits::default();
        Self { tls: None, upstream_tls: UpstreamTls::Off, limits, policy: PolicySet::new("test") }
    }
}

impl Setting {
    /// Every message is spam, and shown with a stamp.
    fn all_spam() -> Self {
        let mut policy = PolicySet::new("test");
        policy.thresholds = Thresholds { unsure: -2.0, spam: -1.0, certain: 1000.0 };
        Self { policy, ..Self::default() }
    }

    fn begin(self) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let (order, drain) = Drain::channel();
        let gateway = Arc::new(Gateway::new(
            Arc::new(Filter::new(Arc::new(RuleSet::built_in()))),
            Store::open(&folder.path().join("store")).unwrap(),
            Arc::clone(&metrics),
            self.limits,
            crate::session::Names { hostname: "gate.example.org".into(), authserv_id: None },
            folder.path().to_owned(),
            drain,
        ));
        let upstream = Upstream {
            dial: Dial::Tcp,
            name: "mailbox".into(),
            servers: vec!["mail.example.org:110".into()],
            tls: self.upstream_tls,
            connect_timeout: Duration::from_secs(1),
            metrics,
        };
        let listener = Listener {
            protocol: Protocol::Pop3,
            name: "pop3".into(),
            tls_mode: if self.tls.is_some() { TlsMode::StartTls } else { TlsMode::Off },
            tls: self.tls,
            upstream: Arc::new(upstream),
            policy: Arc::new(self.policy),
            relay: Relay::default(),
        };
        let (client, client_end) = duplex(1024);
        let (upstream, upstream_end) = duplex(1024);
        let shared = Arc::clone(&gateway);
        let session = tokio::spawn(async move {
            relay(Stream::new(client_end), Stream::new(upstream_end), PEER, &listener, &shared).await
        });
        Scene {
            client,
            upstream: Some(upstream),
            session,
            gateway,
            pieces: usize::MAX,
            drain: order,
            _folder: folder,
        }
    }
}

impl Scene {
    async fn play(&mut self, steps: &[Step<'_>]) {
        for (index, step) in steps.iter().enumerate() {
            match step {
                C(text) => say(&mut self.client, text, self.pieces).await,
                ToC(text) => expect(&mut self.client, text, index).await,
                U(text) => say(self.upstream.as_mut().unwrap(), text, self.pieces).await,
                ToU(text) => expect(self.upstream.as_mut().unwrap(), text, index).await,
                CloseU => drop(self.upstream.take()),
                EndC => assert_eq!(rest(&mut self.client).await, "", "step {index}, client"),
                EndU => assert_eq!(rest(self.upstream.as_mut().unwrap()).await, "", "step {index}, upstream"),
            }
        }
    }

    /// What the client is told up to a dot alone on its line.
    async fn answer(&mut self) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n.\r\n") {
            text.push(self.client.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    async fn end(self) -> End {
        drop(self.client);
        self.session.await.unwrap()
    }
}

const PEER: ClientAddr = ClientAddr(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000));

/// Says `text` in pieces, each of which is read before the next comes.
async fn say(peer: &mut DuplexStream, text: &str, pieces: usize) {
    for piece in text.as_bytes().chunks(pieces) {
        peer.write_all(piece).await.unwrap();
        if pieces < text.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn expect(peer: &mut DuplexStream, text: &str, index: usize) {
    let mut got = Vec::new();
    while got.len() < text.len() {
        let octet = timeout(Duration::from_secs(5), peer.read_u8()).await;
        match octet {
            Ok(Ok(octet)) => got.push(octet),
            other => {
                panic!("step {index}: {other:?} after {:?}, not {text:?}", String::from_utf8_lossy(&got))
            }
        }
    }
    assert_eq!(String::from_utf8_lossy(&got), text, "step {index}");
}

async fn rest(peer: &mut DuplexStream) -> String {
    let mut got = Vec::new();
    timeout(Duration::from_secs(5), peer.read_to_end(&mut got)).await.unwrap().unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

/// Plays a transcript over a session; how it ended.
async fn check(setting: Setting, steps: &[Step<'_>]) -> End {
    let mut scene = setting.begin();
    scene.play(steps).await;
    scene.end().await
}

/// As [`check`], whole and octet by octet; both must end alike.
async fn check_pieces(setting: impl Fn() -> Setting, steps: &[Step<'_>]) -> End {
    let mut scene = setting().begin();
    scene.pieces = 1;
    scene.play(steps).await;
    let end = scene.end().await;
    assert_eq!(check(setting(), steps).await, end);
    end
}

const UNREACHABLE: &str = "-ERR [SYS/TEMP] the mail server cannot be reached, try again later\r\n";
const LOST: &str = "-ERR [SYS/TEMP] the mail server was lost, try again later\r\n";

const GREETING: [Step<'_>; 2] = [U("+OK ready <1.2@host>\r\n"), ToC("+OK ready <1.2@host>\r\n")];

const LOGIN: [Step<'_>; 10] = [
    U("+OK ready\r\n"),
    ToC("+OK ready\r\n"),
    C("USER mrose\r\n"),
    ToU("USER mrose\r\n"),
    U("+OK\r\n"),
    ToC("+OK\r\n"),
    C("PASS two words \r\n"),
    ToU("PASS two words \r\n"),
    U("+OK in\r\n"),
    ToC("+OK in\r\n"),
];

/// The upstream says that it takes commands together.
const PIPELINING: [Step<'_>; 4] = [
    C("CAPA\r\n"),
    ToU("CAPA\r\n"),
    U("+OK list\r\nTOP\r\nPIPELINING\r\nX-COMPRESS\r\nSTLS\r\n.\r\n"),
    ToC("+OK list\r\nTOP\r\nPIPELINING\r\n.\r\n"),
];

fn after(before: &[&[Step<'static>]], steps: &[Step<'static>]) -> Vec<Step<'static>> {
    [before.concat(), steps.to_vec()].concat()
}

fn after_login(steps: &[Step<'static>]) -> Vec<Step<'static>> {
    after(&[&LOGIN], steps)
}

const MESSAGE: &str = "Subject: hello\r\nFrom: a@example.org\r\n\r\none\r\n.two\r\n\r\nfour\r\n";
const STUFFED: &str = "Subject: hello\r\nFrom: a@example.org\r\n\r\none\r\n..two\r\n\r\nfour\r\n.\r\n";

#[tokio::test(start_paused = true)]
async fn the_greeting_is_the_upstreams() {
    let quit = [C("QUIT\r\n"), ToU("QUIT\r\n"), U("+OK bye\r\n"), ToC("+OK bye\r\n"), EndC, EndU];
    assert_eq!(check(Setting::default(), &after(&[&GREETING], &quit)).await, End::Quit);
    let refused = [U("-ERR [SYS/TEMP] full\r\n"), ToC("-ERR [SYS/TEMP] full\r\n"), EndC, EndU];
    assert_eq!(check(Setting::default(), &refused).await, End::UpstreamUnavailable);
    for nonsense in ["* OK IMAP\r\n", "+ \r\n", "+OK\n", "220 smtp\r\n"] {
        let steps = [U(nonsense), ToC(UNREACHABLE), EndC, EndU];
        assert_eq!(check(Setting::default(), &steps).await, End::UpstreamUnavailable, "{nonsense:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_pass_verbatim() {
    let steps = after_login(&[
        C("stat\r\n"),
        ToU("stat\r\n"),
        U("+OK 2 320\r\n"),
        ToC("+OK 2 320\r\n"),
        C("LIST\r\n"),
        ToU("LIST\r\n"),
        U("+OK 2 messages\r\n1 120\r\n"),
        U("2 200\r\n.\r\n"),
        ToC("+OK 2 messages\r\n1 120\r\n2 200\r\n.\r\n"),
        C("LIST 3\r\n"),
        ToU("LIST 3\r\n"),
        U("-ERR no such message\r\n"),
        ToC("-ERR no such message\r\n"),
        C("UIDL \r\n"),
        ToU("UIDL\r\n"),
        U("+OK\r\n.\r\n"),
        ToC("+OK\r\n.\r\n"),
        C("DELE 1\r\n"),
        ToU("DELE 1\r\n"),
        U("+OK\r\n"),
        ToC("+OK\r\n"),
    ]);
    assert_eq!(check_pieces(Setting::default, &steps).await, End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn unknown_and_faulty_commands_never_reach_the_upstream() {
    let steps = after_login(&[
        C("XTND XLST\r\n"),
        ToC("-ERR unknown command\r\n"),
        C("LAST\r\nXCLIENT ADDR=10.0.0.1\r\n"),
        ToC("-ERR unknown command\r\n-ERR unknown command\r\n"),
        C("STAT\n"),
        ToC("-ERR bare LF in a command\r\n"),
        C("ST\rAT\r\n"),
        ToC("-ERR bare CR in a command\r\n"),
        C("ST\0AT\r\n"),
        ToC("-ERR NUL in a command\r\n"),
        C("RETR 01\r\n"),
        ToC("-ERR invalid arguments\r\n"),
        C("AUTH SCRAM-SHA-1-PLUS\r\n"),
        ToC("-ERR channel binding cannot pass a gateway\r\n"),
        C("NOOP\r\n"),
        ToU("NOOP\r\n"),
        U("+OK\r\n"),
        ToC("+OK\r\n"),
        C("A\r\nB\r\nC\r\nD\r\n"),
        ToC("-ERR unknown command\r\n-ERR unknown command\r\n-ERR too many errors\r\n"),
        EndC,
        EndU,
    ]);
    let setting =
        Setting { limits: Limits { errors_per_session: 10, ..Limits::default() }, ..Setting::default() };
    assert_eq!(check(setting, &steps).await, End::ClientFault);
}

#[tokio::test(start_paused = true)]
async fn a_line_without_end_ends_the_session() {
    let long = "x".repeat(Limits::default().sasl_line_bytes as usize + 1);
    let mut scene = Setting::default().begin();
    scene.play(&GREETING).await;
    let (mut reader, mut writer) = tokio::io::split(scene.client);
    let (_, told) = tokio::join!(writer.write_all(long.as_bytes()), async {
        let mut told = String::new();
        reader.read_to_string(&mut told).await.unwrap();
        told
    });
    assert_eq!(told, "-ERR line too long\r\n");
    assert_eq!(scene.session.await.unwrap(), End::ClientFault);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_session_without_a_word() {
    let end = [EndC, EndU];
    for (before, patience) in [(&GREETING[..], 120), (&LOGIN[..], 600)] {
        let mut scene = Setting::default().begin();
        scene.play(before).await;
        tokio::time::sleep(Duration::from_secs(patience + 1)).await;
        scene.play(&end).await;
        assert_eq!(scene.end().await, End::ClientTimeout);
    }
}

#[tokio::test(start_paused = true)]
async fn auth_is_relayed_line_by_line() {
    let steps = after(
        &[&GREETING],
        &[
            C("AUTH\r\n"),
            ToU("AUTH\r\n"),
            U("+OK\r\nPLAIN\r\nSCRAM-SHA-1-PLUS\r\n.\r\n"),
            ToC("+OK\r\nPLAIN\r\n.\r\n"),
            C("AUTH NTLM\r\n"),
            ToU("AUTH NTLM\r\n"),
            U("+ NTLM supported\r\n"),
            ToC("+ NTLM supported\r\n"),
            C("TlRMTVNTUAAB\r\n"),
            ToU("TlRMTVNTUAAB\r\n"),
            U("+ TlRMTVNTUAAC\r\n"),
            ToC("+ TlRMTVNTUAAC\r\n"),
            C("*\r\n"),
            ToU("*\r\n"),
            U("-ERR cancelled\r\n"),
            ToC("-ERR cancelled\r\n"),
            C("AUTH LOGIN\r\n"),
            ToU("AUTH LOGIN\r\n"),
            U("+ VXNlcm5hbWU6\r\n"),
            ToC("+ VXNlcm5hbWU6\r\n"),
            C("DELE 1\r\n"),
            ToU("*\r\n"),
            U("-ERR cancelled\r\n"),
            ToC("-ERR not base64, authentication cancelled\r\n"),
            C("AUTH PLAIN AHUAcA==\r\n"),
            ToU("AUTH PLAIN AHUAcA==\r\n"),
            U("+OK in\r\n"),
            ToC("+OK in\r\n"),
            C("AUTH PLAIN not!base64\r\n"),
            ToC("-ERR invalid arguments\r\n"),
        ],
    );
    assert_eq!(check_pieces(Setting::default, &steps).await, End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_response_may_be_as_long_as_the_rfc_says_and_no_longer() {
    let fits = format!("{}\r\n", "A".repeat(12_284));
    let long = "A".repeat(12_288);
    for (line, sent) in [(fits.as_str(), fits.as_str()), (&long, "*\r\n")] {
        let mut scene = Setting::default().begin();
        scene.play(&GREETING).await;
        scene.play(&[C("AUTH GSSAPI\r\n"), ToU("AUTH GSSAPI\r\n"), U("+ \r\n"), ToC("+ \r\n")]).await;
        let mut upstream = scene.upstream.take().unwrap();
        let (_, ()) = tokio::join!(scene.client.write_all(line.as_bytes()), expect(&mut upstream, sent, 0));
        if sent == "*\r\n" {
            scene.play(&[ToC("-ERR line too long\r\n"), EndC]).await;
            assert_eq!(scene.end().await, End::ClientFault);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_one_right_line_inside_auth() {
    let lost = ToC(LOST);
    for answer in ["+ a\n", "+ a\r\n+OK in\r\n", "+ a\rb\r\n"] {
        let steps = [C("AUTH LOGIN\r\n"), ToU("AUTH LOGIN\r\n"), U(answer)];
        let mut scene = Setting::default().begin();
        scene.play(&GREETING).await;
        scene.play(&steps).await;
        // What is a right challenge may have been passed before.
        let told = rest(&mut scene.client).await;
        assert!(told.ends_with("try again later\r\n") && !told.contains("+OK"), "{told:?}");
        assert_eq!(scene.end().await, End::UpstreamLost, "{answer:?}");
    }
    let outside = after_login(&[C("STAT\r\n"), ToU("STAT\r\n"), U("+ more\r\n"), lost, EndC, EndU]);
    assert_eq!(check(Setting::default(), &outside).await, End::UpstreamLost);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_not_an_answer() {
    let lost = ToC(LOST);
    let goodbye = after_login(&[U("-ERR idle for too long\r\n"), ToC("-ERR idle for too long\r\n"), EndC]);
    assert_eq!(check(Setting::default(), &goodbye).await, End::UpstreamClosed);
    let injected = after_login(&[U("+OK 0 0\r\n"), lost, EndC, EndU]);
    assert_eq!(check(Setting::default(), &injected).await, End::UpstreamLost);
    let doubled = after_login(&[
        C("STAT\r\n"),
        ToU("STAT\r\n"),
        U("+OK 1 1\r\n+OK 0 0\r\n"),
        ToC("+OK 1 1\r\n"),
        lost,
        EndC,
        EndU,
    ]);
    assert_eq!(check(Setting::default(), &doubled).await, End::UpstreamLost);
}

#[tokio::test(start_paused = true)]
async fn commands_sent_together_go_together_and_are_answered_in_order() {
    let commands =
        "STAT\r\nLIST\r\nUIDL 1\r\nRETR 1\r\nBOGUS\r\nDELE 1\r\nNOOP\r\nRETR 9\r\nRSET\r\nQUIT\r\n";
    let sent = "STAT\r\nLIST\r\nUIDL 1\r\nRETR 1\r\nDELE 1\r\nNOOP\r\nRETR 9\r\nRSET\r\nQUIT\r\n";
    let answers = "+OK 1 60\r\n+OK\r\n1 60\r\n.\r\n+OK 1 a\r\n+OK 60 octets\r\nA: b\r\n\r\n..\r\n.\r\n\
                   +OK deleted\r\n+OK noop\r\n-ERR no such message\r\n+OK reset\r\n+OK bye\r\n";
    let told = answers.replace("+OK deleted", "-ERR unknown command\r\n+OK deleted");
    let mut scene = Setting::default().begin();
    scene.play(&LOGIN).await;
    scene.play(&PIPELINING).await;
    scene.play(&[C(commands), ToU(sent), U(answers), ToC(&told), EndC, EndU]).await;
    assert_eq!(scene.end().await, End::Quit);
}

#[tokio::test(start_paused = true)]
async fn commands_sent_together_go_one_by_one_to_a_server_that_does_not_offer_it() {
    let steps = after_login(&[
        C("STAT\r\nBOGUS\r\nNOOP\r\nQUIT\r\n"),
        ToU("STAT\r\n"),
        U("+OK 1 60\r\n"),
        ToU("NOOP\r\n"),
        U("+OK\r\n"),
        ToU("QUIT\r\n"),
        U("+OK bye\r\n"),
        ToC("+OK 1 60\r\n-ERR unknown command\r\n+OK\r\n+OK bye\r\n"),
        EndC,
    ]);
    assert_eq!(check(Setting::default(), &steps).await, End::Quit);
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_leaves_alone_passes_as_it_came() {
    for pieces in [usize::MAX, 1] {
        let mut scene = Setting::default().begin();
        scene.pieces = pieces;
        scene.play(&LOGIN).await;
        let answer = format!("+OK 120 octets\r\n{STUFFED}");
        scene.play(&[C("RETR 1\r\n"), ToU("RETR 1\r\n"), U(&answer), ToC(&answer)]).await;
        // Judged once: TOP is the upstream's own from here on.
        let top = "+OK\r\nSubject: hello\r\nFrom: a@example.org\r\n\r\none\r\n..two\r\n.\r\n";
        scene.play(&[C("TOP 1 2\r\n"), ToU("TOP 1 2\r\n"), U(top), ToC(top)]).await;
        for empty in [
            "+OK\r\n.\r\n",
            "+OK\r\n\r\n.\r\n",
            "+OK\r\n..\r\n.\r\n",
            "+OK\r\n...x\r\n.\r\n",
            "+OK\r\na\n.\n\r\n.\r\n",
        ] {
            scene.play(&[C("RETR 2\r\n"), ToU("RETR 2\r\n"), U(empty), ToC(empty)]).await;
        }
        assert_eq!(scene.end().await, End::ClientClosed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stamp_is_the_same_in_retr_and_top() {
    let mut scene = Setting::all_spam().begin();
    scene.play(&LOGIN).await;
    let whole = format!("+OK {} octets\r\n{STUFFED}", MESSAGE.len());
    // TOP first: the whole is judged, the beginning shown.
    scene.play(&[C("TOP 1 2\r\n"), ToU("TOP 1 2147483647\r\n"), U(&whole)]).await;
    let top = scene.answer().await;
    let header = top.strip_prefix("+OK\r\n").unwrap().split("Subject: hello").next().unwrap().to_owned();
    assert!(header.contains("X-Spam-Flag: YES\r\n"), "{header}");
    let beginning = "Subject: hello\r\nFrom: a@example.org\r\n\r\none\r\n..two\r\n.\r\n";
    assert_eq!(top, format!("+OK\r\n{header}{beginning}"));
    // RETR: the same stamp, and the count of octets with it.
    scene.play(&[C("RETR 1\r\n"), ToU("RETR 1\r\n"), U(&whole)]).await;
    let count = MESSAGE.len() + header.len();
    assert_eq!(scene.answer().await, format!("+OK {count} octets\r\n{header}{STUFFED}"));
    // TOP again: the client's own, with the stamp.
    let upstream = format!("+OK\r\n{beginning}");
    scene.play(&[C("TOP 1 2\r\n"), ToU("TOP 1 2\r\n"), U(&upstream)]).await;
    assert_eq!(scene.answer().await, top);
    // TOP n 0, the header alone.
    let upstream = "+OK\r\nSubject: hello\r\nFrom: a@example.org\r\n\r\n.\r\n";
    scene.play(&[C("TOP 1 0\r\n"), ToU("TOP 1 0\r\n"), U(upstream)]).await;
    assert_eq!(scene.answer().await, upstream.replacen("+OK\r\n", &format!("+OK\r\n{header}"), 1));
    scene.gateway.store.journal().flush().unwrap();
    let rows = scene.gateway.store.journal().recent(10).unwrap();
    assert_eq!(rows.len(), 1, "judged once, written down once");
    assert_eq!(rows[0].action, Filing::Stamp.as_str());
    assert_eq!(scene.end().await, End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_refused_whole_top_gives_way_to_the_clients_own() {
    let mut scene = Setting::all_spam().begin();
    scene.play(&LOGIN).await;
    let steps = [
        C("TOP 1 2\r\n"),
        ToU("TOP 1 2147483647\r\n"),
        U("-ERR too many lines\r\n"),
        ToU("TOP 1 2\r\n"),
        U("+OK\r\nA: b\r\n\r\n.\r\n"),
        ToC("+OK\r\nA: b\r\n\r\n.\r\n"),
    ];
    scene.play(&steps).await;
    assert_eq!(scene.end().await, End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_passes_unaltered() {
    for (command, sent, shown) in [
        ("RETR 1\r\n", "RETR 1\r\n", STUFFED),
        ("TOP 1 1\r\n", "TOP 1 2147483647\r\n", "Subject: hello\r\nFrom: a@example.org\r\n\r\none\r\n.\r\n"),
    ] {
        let limits = Limits { message_bytes: 10, ..Limits::default() };
        let mut scene = Setting { limits, ..Setting::all_spam() }.begin();
        scene.play(&LOGIN).await;
        let (front, back) = STUFFED.split_at(40);
        scene
            .play(&[C(command), ToU(sent), U("+OK\r\n"), U(front), U(back), ToC("+OK\r\n"), ToC(shown)])
            .await;
        scene.play(&[C("NOOP\r\n"), ToU("NOOP\r\n"), U("+OK\r\n"), ToC("+OK\r\n")]).await;
        scene.gateway.store.journal().flush().unwrap();
        let rows = scene.gateway.store.journal().recent(10).unwrap();
        assert_eq!((rows[0].class.as_str(), rows[0].len), ("unscanned", MESSAGE.len() as u64));
        assert_eq!(scene.end().await, End::ClientClosed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_those_go_on_who_are_logged_in() {
    let gone = [ToC("-ERR [SYS/TEMP] the gateway is shutting down, try again later\r\n"), EndC, EndU];
    let mut scene = Setting::default().begin();
    scene.play(&GREETING).await;
    scene.drain.send_replace(Stage::Draining);
    scene.play(&gone).await;
    assert_eq!(scene.end().await, End::Drained);
    let mut scene = Setting::default().begin();
    scene.play(&LOGIN).await;
    scene.drain.send_replace(Stage::Draining);
    scene.play(&[C("QUIT\r\n"), ToU("QUIT\r\n"), U("+OK\r\n"), ToC("+OK\r\n"), EndC, EndU]).await;
    assert_eq!(scene.end().await, End::Quit);
}

#[tokio::test(start_paused = true)]
async fn a_cut_waits_for_no_answer_and_tears_none() {
    let told = "-ERR [SYS/TEMP] the gateway is shutting down, try again later\r\n";
    for (half, last_word) in [("", told), ("+OK\r\n1 100\r\n", "")] {
        let mut scene = Setting::default().begin();
        scene.play(&LOGIN).await;
        scene.play(&[C("LIST\r\n"), ToU("LIST\r\n"), U(half), ToC(half)]).await;
        scene.drain.send_replace(Stage::Draining);
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.drain.send_replace(Stage::Cut);
        scene.play(&[ToC(last_word), EndC, EndU]).await;
        assert_eq!(scene.end().await, End::Drained);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_is_told_of() {
    let scene = Setting::default().begin();
    let (mut client, client_end) = duplex(1024);
    let nowhere = Upstream {
        dial: Dial::Tcp,
        name: "mailbox".into(),
        servers: Vec::new(),
        tls: UpstreamTls::Off,
        connect_timeout: Duration::from_secs(1),
        metrics: Arc::clone(&scene.gateway.metrics),
    };
    let listener = Listener {
        protocol: Protocol::Pop3,
        name: "pop3".into(),
        tls_mode: TlsMode::Off,
        tls: None,
        upstream: Arc::new(nowhere),
        policy: Arc::new(PolicySet::new("test")),
        relay: Relay::default(),
    };
    let end = serve(Stream::new(client_end), PEER, &listener, &scene.gateway).await;
    assert_eq!(end, End::UpstreamUnavailable);
    assert_eq!(rest(&mut client).await, UNREACHABLE);
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_off_never_looks_whole() {
    // Nothing was sent of a collected message: the client is told.
    for (command, sent) in
        [("RETR 1\r\n", "RETR 1\r\n"), ("TOP 1 0\r\n", "TOP 1 2147483647\r\n"), ("CAPA\r\n", "CAPA\r\n")]
    {
        let mut scene = Setting::all_spam().begin();
        scene.play(&LOGIN).await;
        scene.play(&[C(command), ToU(sent), U("+OK\r\nA: b\r\n\r\nx\r\n"), CloseU, ToC(LOST), EndC]).await;
        assert_eq!(scene.end().await, End::UpstreamLost);
    }
    // A part was sent: the connection ends without the dot.
    let mut scene = Setting::default().begin();
    scene.play(&LOGIN).await;
    let steps =
        [C("LIST\r\n"), ToU("LIST\r\n"), U("+OK\r\n1 120\r\n"), ToC("+OK\r\n1 120\r\n"), CloseU, EndC];
    scene.play(&steps).await;
    assert_eq!(scene.end().await, End::UpstreamLost);
    // Between commands: the client is told as well.
    let mut scene = Setting::default().begin();
    scene.play(&LOGIN).await;
    scene.play(&[CloseU, ToC(LOST), EndC]).await;
    assert_eq!(scene.end().await, End::UpstreamLost);
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
    ServerTls::new(certificates, Protocol::Pop3.alpn()).unwrap()
}

fn trusting() -> ClientTls {
    ClientTls::new(Verify::None, None, Some("localhost".to_owned())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn stls_is_ours_and_nothing_in_clear_survives_it() {
    let offer = [
        C("CAPA\r\n"),
        ToU("CAPA\r\n"),
        U("+OK\r\nUSER\r\n.\r\n"),
        ToC("+OK\r\nUSER\r\nPIPELINING\r\nSTLS\r\n.\r\n"),
    ];
    for injected in ["STLS\r\nUSER mallory\r\n", "NOOP\r\nSTLS\r\nQUIT\r\n", "STLS\r\n\x16"] {
        let mut scene = Setting { tls: Some(server_tls()), ..Setting::default() }.begin();
        scene.play(&GREETING).await;
        scene.play(&offer).await;
        scene.play(&[C(injected)]).await;
        if injected.starts_with("NOOP") {
            scene.play(&[ToU("NOOP\r\n"), U("+OK\r\n"), ToC("+OK\r\n")]).await;
        }
        scene.play(&[ToC("-ERR data in clear behind STLS\r\n"), EndC, EndU]).await;
        assert_eq!(scene.end().await, End::ClientFault, "{injected:?}");
    }
    let without = after(&[&GREETING], &[C("STLS\r\n"), ToC("-ERR STLS is not available now\r\n")]);
    assert_eq!(check(Setting::default(), &without).await, End::ClientClosed);
    let mut scene = Setting { tls: Some(server_tls()), ..Setting::default() }.begin();
    scene.play(&LOGIN).await;
    scene.play(&[C("STLS\r\n"), ToC("-ERR STLS is not available now\r\n")]).await;
    assert_eq!(scene.end().await, End::ClientClosed);
}

#[tokio::test]
async fn the_clients_leg_is_encrypted_after_stls() {
    let mut scene = Setting { tls: Some(server_tls()), ..Setting::default() }.begin();
    scene.play(&GREETING).await;
    scene.play(&[C("STLS\r\n"), ToC("+OK begin TLS\r\n")]).await;
    let mut client = Stream::new(scene.client).to_host("localhost").connect_tls(&trusting()).await.unwrap();
    let mut upstream = scene.upstream.take().unwrap();
    client.queue(b"STLS\r\nCAPA\r\n");
    client.flush().await.unwrap();
    expect(&mut upstream, "CAPA\r\n", 0).await;
    upstream.write_all(b"+OK\r\nUSER\r\nSTLS\r\n.\r\n").await.unwrap();
    let told = "-ERR STLS is not available now\r\n+OK\r\nUSER\r\nPIPELINING\r\n.\r\n";
    while client.input().len() < told.len() {
        assert_ne!(client.fill().await.unwrap(), 0);
    }
    assert_eq!(&client.input()[..], told.as_bytes());
    drop(client);
    assert_eq!(scene.session.await.unwrap(), End::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_leg_is_encrypted_or_there_is_no_session() {
    let rows: &[&[Step<'_>]] = &[
        &[U("+OK ready\r\n"), ToU("STLS\r\n"), U("-ERR no\r\n")],
        &[U("+OK ready\r\n+OK begin\r\n")],
        &[U("+OK ready\r\n"), ToU("STLS\r\n"), U("+OK\r\n+OK in\r\n")],
        &[U("+OK ready\r\n"), ToU("STLS\r\n"), U("+OK\r\n"), CloseU],
    ];
    for steps in rows {
        let upstream_tls = UpstreamTls::StartTls(trusting());
        let mut scene = Setting { upstream_tls, ..Setting::default() }.begin();
        scene.play(steps).await;
        scene.play(&[ToC(UNREACHABLE), EndC]).await;
        assert_eq!(scene.end().await, End::UpstreamUnavailable, "{steps:?}");
    }
}

#[tokio::test]
async fn the_greeting_waits_for_the_upstreams_tls() {
    let mut scene = Setting { upstream_tls: UpstreamTls::StartTls(trusting()), ..Setting::default() }.begin();
    scene.play(&[U("+OK ready <1@host>\r\n"), ToU("STLS\r\n"), U("+OK\r\n")]).await;
    let upstream = Stream::new(scene.upstream.take().unwrap());
    let mut upstream = upstream.accept_tls(&server_tls()).await.unwrap();
    scene.play(&[ToC("+OK ready <1@host>\r\n"), C("NOOP\r\n")]).await;
    upstream.fill().await.unwrap();
    assert_eq!(&upstream.input()[..], b"NOOP\r\n");
    upstream.queue(b"+OK\r\n");
    upstream.flush().await.unwrap();
    scene.play(&[ToC("+OK\r\n")]).await;
    assert_eq!(scene.end().await, End::ClientClosed);
}
