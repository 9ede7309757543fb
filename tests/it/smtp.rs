//! The SMTP gate where a transcript cannot show it: memory, the drain, a leg in the middle of a message, waiting.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatepost::{
    app::App, config::Config, limits::Limits, net::Stream, session::Protocol, store::Store,
    wire::line::LineDecoder,
};
use tempfile::TempDir;
use tokio::{
    io::{DuplexStream, duplex},
    time::{sleep, timeout},
};

use crate::kit::{Scene, SelfSigned, Setting, gateway, scene};

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
            upstream.queue(b"250 ok\r\n");
            if upstream.flush().await.is_err() {
                break;
            }
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
