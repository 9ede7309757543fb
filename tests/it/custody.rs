//! Custody: a message the client was told 250 for is with the upstream, in the quarantine, or its discard is written
//! down, wherever a delivery is cut.
//!
//! One delivery is counted out in points: every read and write of either socket, every write point of the store,
//! every poll of the session. Then it is done again for each point and each way of failing there. The upstream is a
//! strict sink that notes a message at the instant it decides to take it. Real servers and `kill -9` are in the
//! end-to-end tests; here every point is met, one by one.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    io::{self, Read},
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use gatepost::{
    net::Stream,
    policy::Action,
    session::{self, Protocol},
    store::{
        Query, Store,
        disk::faulty::{Fault, FaultyDisk},
    },
    wire::{dot::DotDecoder, line::LineDecoder},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    time::timeout,
};

use crate::kit::{CLIENT, SelfSigned, Setting, gateway, listener};

/// Octets a pipe holds: few, so that a delivery has many points.
const PIPE_OCTETS: usize = 48;
/// A bound on what must not hang; nothing here waits for time.
const PATIENCE: Duration = Duration::from_secs(20);

const HAM: &[u8] =
    b"From: a@far.example\r\nSubject: the minutes of Tuesday\r\nMessage-ID: <m1@far.example>\r\n\r\n\
                     .a line with a dot\r\nand the end\r\n";
const GTUBE: &[u8] = b"From: a@far.example\r\nSubject: test\r\nMessage-ID: <m2@far.example>\r\n\r\n\
                       XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n";

#[test]
fn every_socket_point_of_a_delivery() {
    check_sockets(HAM, Action::Quarantine);
}

#[test]
fn every_socket_point_of_a_quarantine() {
    check_sockets(GTUBE, Action::Quarantine);
}

#[test]
fn every_socket_point_of_a_discard() {
    check_sockets(GTUBE, Action::Discard);
}

#[test]
fn every_store_point_of_a_quarantine() {
    check_store(Action::Quarantine);
}

#[test]
fn every_store_point_of_a_discard() {
    check_store(Action::Discard);
}

#[test]
fn a_session_that_ends_at_any_moment() {
    for (message, certain) in
        [(HAM, Action::Quarantine), (GTUBE, Action::Quarantine), (GTUBE, Action::Discard)]
    {
        let whole = run(message, certain, &Plan::default());
        assert!(whole.acknowledged && whole.polls > 10, "{whole:?}");
        for poll in 1..=whole.polls {
            run(message, certain, &Plan { polls: Some(poll), ..Plan::default() }).check();
        }
    }
}

fn check_sockets(message: &'static [u8], certain: Action) {
    let whole = run(message, certain, &Plan::default());
    assert!(whole.acknowledged, "{whole:?}");
    whole.check();
    for side in [Side::Client, Side::Upstream] {
        let points = if side == Side::Client { whole.client_points } else { whole.upstream_points };
        assert!(points > 10, "{side:?}: {points} points");
        for point in 1..=points {
            for cut in [Cut::Reset, Cut::Half, Cut::Ends] {
                run(message, certain, &Plan { socket: Some((side, point, cut)), ..Plan::default() }).check();
            }
        }
    }
}

fn check_store(certain: Action) {
    let whole = run(GTUBE, certain, &Plan { disk: Some((usize::MAX, Fault::Error)), ..Plan::default() });
    assert!(whole.acknowledged, "{whole:?}");
    let points = whole.disk_points;
    assert!(points > 0);
    let mut refused = 0;
    for point in 1..=points {
        for fault in Fault::ALL {
            let outcome = run(GTUBE, certain, &Plan { disk: Some((point, fault)), ..Plan::default() });
            refused += usize::from(!outcome.acknowledged);
            outcome.check();
        }
    }
    assert!(refused >= points, "faults of the disk must be seen by the client: {refused} of {points} points");
}

/// What goes wrong, and where.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    socket: Option<(Side, usize, Cut)>,
    disk: Option<(usize, Fault)>,
    polls: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// How a socket fails, from a point on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The call and all later ones report a reset.
    Reset,
    /// Half of what is written leaves, then the connection is reset.
    Half,
    /// Reads end, writes report a broken pipe.
    Ends,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    plan: Plan,
    message: &'static [u8],
    /// The client read a whole 250 after its message.
    acknowledged: bool,
    /// What the upstream took.
    mailbox: Vec<Vec<u8>>,
    /// What the quarantine holds after everything was opened anew.
    held: Vec<Vec<u8>>,
    /// What the journal has of discards after everything was opened anew.
    discarded: usize,
    client_points: usize,
    upstream_points: usize,
    disk_points: usize,
    polls: usize,
}

impl Outcome {
    fn check(&self) {
        if !self.acknowledged {
            return;
        }
        let delivered = self.mailbox.iter().any(|message| message.ends_with(self.message));
        let held = self.held.iter().any(|message| message == self.message);
        assert!(
            delivered || held || self.discarded > 0,
            "told 250 and nobody has it: {:?} {self:#?}",
            self.plan
        );
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(message: &'static [u8], certain: Action, plan: &Plan) -> Outcome {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    drop(Store::open(&path).unwrap());
    let disk = FaultyDisk::new(&path).unwrap();
    let store = Store::open_on(&path, Arc::new(disk.clone())).unwrap();
    let (point, fault) = plan.disk.unwrap_or((usize::MAX, Fault::Error));
    disk.arm(point, fault);

    let mut setting = Setting::new(Protocol::Smtp);
    setting.policy.smtp.certain = certain;
    let certificate = SelfSigned::shared();
    let (gateway, _drain) = gateway(store, folder.path(), setting.limits.clone());
    let mailbox: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let client_points: Arc<AtomicUsize> = Arc::default();
    let upstream_points: Arc<AtomicUsize> = Arc::default();
    let cut_for = |side| plan.socket.filter(|&(at, ..)| at == side).map(|(_, point, cut)| (point, cut));
    let (client, door) = duplex(PIPE_OCTETS);
    let door = FaultyPipe::new(door, Arc::clone(&client_points), cut_for(Side::Client));
    let (sink_mailbox, sink_points, sink_cut) =
        (Arc::clone(&mailbox), Arc::clone(&upstream_points), cut_for(Side::Upstream));
    let listener = listener(&setting, certificate, &gateway.metrics, move || {
        let (near, far) = duplex(PIPE_OCTETS);
        tokio::spawn(sink(far, Arc::clone(&sink_mailbox)));
        Ok(Stream::new(FaultyPipe::new(near, Arc::clone(&sink_points), sink_cut)))
    });

    let mut polls = 0;
    let acknowledged = {
        let session = session::serve(Stream::new(door), CLIENT, &listener, &gateway);
        let session = async {
            let mut session = Some(Box::pin(session));
            poll_fn(|context| {
                let Some(running) = &mut session else { return Poll::Ready(()) };
                polls += 1;
                if plan.polls.is_some_and(|last| polls > last) {
                    session = None;
                    return Poll::Ready(());
                }
                running.as_mut().poll(context).map(|_| ())
            })
            .await;
        };
        let both = async { tokio::join!(session, send(client, message)).1 };
        timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("hangs: {plan:?}"))
    };
    let disk_points = disk.points().len();
    drop(listener);
    drop(gateway);
    // A write that was on its way when the session ended comes to its end on its own thread.
    tokio::task::yield_now().await;

    let (held, discarded) = tokio::task::spawn_blocking(move || reopened(&path)).await.unwrap();
    let mailbox = std::mem::take(&mut *mailbox.lock().unwrap());
    Outcome {
        plan: *plan,
        message,
        acknowledged,
        mailbox,
        held,
        discarded,
        client_points: client_points.load(Ordering::Relaxed),
        upstream_points: upstream_points.load(Ordering::Relaxed),
        disk_points,
        polls,
    }
}

/// What a gateway that starts anew finds: the held messages, and how many discards are written down.
fn reopened(path: &Path) -> (Vec<Vec<u8>>, usize) {
    let store = Store::open(path).unwrap();
    let entries = store.quarantine().list(&Query::default()).unwrap();
    let bodies = entries.iter().filter(|entry| !entry.missing).map(|entry| {
        let mut octets = Vec::new();
        store.quarantine().open_body(&entry.held.id).unwrap().read_to_end(&mut octets).unwrap();
        octets
    });
    let bodies = bodies.collect();
    let rows = store.journal().recent(10).unwrap();
    let ids: HashSet<_> = rows.iter().filter(|row| row.action == "discard").map(|row| &row.id).collect();
    (bodies, ids.len())
}

/// A client that sends one message; whether it read a whole 250 after it.
async fn send(pipe: DuplexStream, message: &[u8]) -> bool {
    let mut stream = Stream::new(pipe);
    let mut lines = LineDecoder::new(4096);
    let mut stuffed = bytes::BytesMut::new();
    let mut dots = gatepost::wire::dot::DotEncoder::new();
    dots.encode(message, &mut stuffed);
    dots.finish(&mut stuffed);
    let steps: [(&[u8], u16); 6] = [
        (b"", 220),
        (b"EHLO client.example\r\n", 250),
        (b"MAIL FROM:<a@far.example>\r\n", 250),
        (b"RCPT TO:<b@example.org>\r\n", 250),
        (b"DATA\r\n", 354),
        (&stuffed, 250),
    ];
    for (said, want) in steps {
        stream.queue(said);
        if stream.flush().await.is_err() || reply(&mut stream, &mut lines).await != Some(want) {
            return false;
        }
    }
    stream.queue(b"QUIT\r\n");
    let _ = stream.flush().await;
    true
}

/// The code of the next whole reply.
async fn reply(stream: &mut Stream, lines: &mut LineDecoder) -> Option<u16> {
    loop {
        let line = next_line(stream, lines).await?;
        if line.get(3) != Some(&b'-') {
            return std::str::from_utf8(line.get(..3)?).ok()?.parse().ok();
        }
    }
}

async fn next_line(stream: &mut Stream, lines: &mut LineDecoder) -> Option<Vec<u8>> {
    loop {
        if let Some(line) = lines.next(stream.input()).ok()? {
            return Some(line.text().to_vec());
        }
        if !matches!(stream.fill().await, Ok(1..)) {
            return None;
        }
    }
}

/// A strict SMTP server that takes everything.
async fn sink(pipe: DuplexStream, mailbox: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut stream = Stream::new(pipe);
    let mut lines = LineDecoder::new(4096);
    stream.queue(b"220 sink.example.org ESMTP\r\n");
    while stream.flush().await.is_ok() {
        let Some(line) = next_line(&mut stream, &mut lines).await else { return };
        match line.get(..4).unwrap_or_default() {
            b"EHLO" => stream.queue(b"250-sink.example.org\r\n250 8BITMIME\r\n"),
            b"DATA" => {
                stream.queue(b"354 go on\r\n");
                let Some(message) = take_message(&mut stream).await else { return };
                mailbox.lock().unwrap().push(message);
                stream.queue(b"250 2.0.0 taken\r\n");
            }
            b"QUIT" => return,
            _ => stream.queue(b"250 2.0.0 ok\r\n"),
        }
    }
}

async fn take_message(stream: &mut Stream) -> Option<Vec<u8>> {
    stream.flush().await.ok()?;
    let mut dots = DotDecoder::new();
    let mut message = Vec::new();
    loop {
        let (consumed, ended) = dots.decode(stream.input(), &mut message);
        stream.input().advance(consumed);
        if ended {
            return Some(message);
        }
        if !matches!(stream.fill().await, Ok(1..)) {
            return None;
        }
    }
}

/// A pipe that counts its reads and writes and fails from one of them on.
struct FaultyPipe {
    pipe: DuplexStream,
    points: Arc<AtomicUsize>,
    cut: Option<(usize, Cut)>,
    dead: Option<Cut>,
}

impl FaultyPipe {
    fn new(pipe: DuplexStream, points: Arc<AtomicUsize>, cut: Option<(usize, Cut)>) -> Self {
        Self { pipe, points, cut, dead: None }
    }

    /// Counts a point that came about; the cut if it is the armed one.
    fn count(&mut self) -> Option<Cut> {
        let point = self.points.fetch_add(1, Ordering::Relaxed) + 1;
        let cut = self.cut.filter(|&(at, _)| at == point).map(|(_, cut)| cut)?;
        self.dead = Some(cut);
        Some(cut)
    }
}

impl AsyncRead for FaultyPipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.dead {
            Some(Cut::Ends) => return Poll::Ready(Ok(())),
            Some(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => {}
        }
        let before = buffer.filled().len();
        let read = pin!(&mut this.pipe).poll_read(cx, buffer);
        if read.is_ready()
            && let Some(cut) = this.count()
        {
            buffer.set_filled(before);
            return match cut {
                Cut::Ends => Poll::Ready(Ok(())),
                Cut::Reset | Cut::Half => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
        }
        read
    }
}

impl AsyncWrite for FaultyPipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.dead.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let next = this.points.load(Ordering::Relaxed) + 1;
        let armed = this.cut.filter(|&(at, _)| at == next).map(|(_, cut)| cut);
        let octets = match armed {
            Some(Cut::Half) => &octets[..octets.len().div_ceil(2)],
            Some(_) => {
                this.count();
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            None => octets,
        };
        let written = pin!(&mut this.pipe).poll_write(cx, octets);
        if written.is_ready() {
            this.count();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.get_mut().pipe).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.get_mut().pipe).poll_shutdown(cx)
    }
}
