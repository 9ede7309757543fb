//! IMAP sessions: the driver that carries octets between two streams and a [`relay::Relay`].
//!
//! Guarantees: reads and writes of both sides go on independently, so a client that sends a large APPEND while its upstream
//! sends a large FETCH moves on; a side is read only while there is room to write to the other, and that room is
//! the back-pressure; the end of one side is told to the other and what still comes the other way is delivered; a
//! session that waits holds no buffers.
//! What is said, and what is not said, is the relay's affair; here nothing is understood but the opening of an upstream that
//! wants STARTTLS.

mod opening;
pub mod relay;

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use self::relay::{Input, Output, Relay, Terms};
use super::{ClientAddr, Drain, End, Gateway, Listener, accept_tls};
use crate::{net::Stream, telemetry::Metrics};

/// Serves one client. TLS from the first octet is there already.
pub async fn serve(mut client: Stream, peer: ClientAddr, listener: &Listener, gateway: &Gateway) -> End {
    let opened = timeout(gateway.limits.login_timeout, Box::pin(opening::open(listener, gateway))).await;
    let (upstream, greeting) = match opened.unwrap_or(Err(opening::Fault::Timeout)) {
        Ok(opened) => opened,
        Err(fault) => {
            // A connection that did not come about is logged where it was tried.
            if !matches!(fault, opening::Fault::Connect(_)) {
                tracing::warn!(listener = %listener.name, upstream = %listener.upstream.name, %fault, "no upstream session");
            }
            client.queue(format!("* BYE {}\r\n", relay::UNREACHABLE).as_bytes());
            farewell(&mut client).await;
            return End::UpstreamUnavailable;
        }
    };
    let terms =
        Terms::new(&gateway.limits, listener.can_start_tls(&client), listener.may_log_in(&client, peer));
    let mut session = Session::new(client, upstream, terms, &listener.name, &gateway.metrics);
    let mut turn = session.begin(greeting);
    let end = loop {
        let next = match turn.take() {
            Some(turn) => turn,
            None => session.run(gateway.drain.clone()).await,
        };
        match next {
            Turn::Over(end) => break end,
            Turn::StartTls => {
                match Box::pin(accept_tls(session.client.io.take(), peer, listener, gateway)).await {
                    Ok(client) => turn = session.encrypted(client),
                    Err(end) => break end,
                }
            }
        }
    };
    if let Some(account) = session.relay.account() {
        tracing::debug!(listener = %listener.name, client = %peer.0, account, "account of the session");
    }
    tokio::join!(farewell(&mut session.client.io), farewell(&mut session.upstream.io));
    end
}

/// What has been said is still written, where the peer takes it in time.
async fn farewell(stream: &mut Stream) {
    let _ = timeout(FAREWELL, stream.shutdown()).await;
}

/// Two streams and the relay between them.
struct Session<'a> {
    client: Side,
    upstream: Side,
    relay: Relay,
    listener: &'a str,
    metrics: &'a Metrics,
    drained: bool,
}

/// One stream, and how far it has come to its end.
struct Side {
    io: Stream,
    /// Whether something written has not left yet. TLS keeps octets of its own.
    unflushed: bool,
    /// Whether the peer has said everything.
    ended: bool,
    /// What the peer is told of the other side's end.
    closing: Closing,
    /// Octets that were for a peer that hears no more.
    lost: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// As soon as everything is written.
    Due,
    Done,
}

/// Why the driver stops.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The client's leg is to be encrypted.
    StartTls,
    Over(End),
}

impl<'a> Session<'a> {
    fn new(client: Stream, upstream: Stream, terms: Terms, listener: &'a str, metrics: &'a Metrics) -> Self {
        Self {
            client: Side::new(client),
            upstream: Side::new(upstream),
            relay: Relay::new(terms, Instant::now()),
            listener,
            metrics,
            drained: false,
        }
    }

    /// Passes on a greeting that was made up by us, because TLS had to be begun behind the upstream's own.
    fn begin(&mut self, mut greeting: BytesMut) -> Option<Turn> {
        if greeting.is_empty() { None } else { self.tell(Input::Upstream(&mut greeting)) }
    }

    fn encrypted(&mut self, client: Stream) -> Option<Turn> {
        self.client = Side::new(client);
        self.tell(Input::Encrypted)
    }

    /// Carries octets until the session is over or has to change.
    async fn run(&mut self, mut drain: Drain) -> Turn {
        let mut order = drain.clone();
        let mut drain = pin!(drain.begun());
        let mut cut = pin!(order.cut());
        let mut alarm = pin!(sleep_until(self.relay.deadline()));
        let turn = poll_fn(|cx| {
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(self.tell(Input::Cut).unwrap_or(Turn::Over(End::Drained)));
            }
            self.poll(cx, drain.as_mut(), alarm.as_mut())
        })
        .await;
        if turn == Turn::StartTls && !matches!(timeout(FAREWELL, self.client.io.flush()).await, Ok(Ok(()))) {
            return Turn::Over(End::ClientClosed);
        }
        turn
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        drain: Pin<&mut impl Future<Output = ()>>,
        mut alarm: Pin<&mut Sleep>,
    ) -> Poll<Turn> {
        if !self.drained && drain.poll(cx).is_ready() {
            self.drained = true;
            if let Some(turn) = self.tell(Input::Drain) {
                return Poll::Ready(turn);
            }
        }
        loop {
            let mut moved = false;
            for step in [Self::poll_upstream, Self::poll_client] {
                match step(self, cx) {
                    Step::Stop(turn) => return Poll::Ready(turn),
                    Step::Moved => moved = true,
                    Step::Still => {}
                }
            }
            moved |= self.poll_writes(cx);
            if self.is_over() {
                return Poll::Ready(Turn::Over(self.relay.end()));
            }
            if !moved {
                let deadline = self.relay.deadline();
                if alarm.deadline() > deadline {
                    alarm.as_mut().reset(deadline);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                // Reached, or only the one that was set before the latest activity.
                alarm.as_mut().reset(deadline);
                if let Some(turn) = self.tell(Input::Tick) {
                    return Poll::Ready(turn);
                }
            }
        }
    }

    /// Takes what the upstream says while the client has room for it.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.relay.wants_upstream() || self.client.io.queued() >= ROOM {
            return Step::Still;
        }
        let mut out = Vec::new();
        let input = self.upstream.io.input();
        let before = input.len();
        self.relay.handle(Instant::now(), Input::Upstream(input), &mut out);
        let taken = before - self.upstream.io.input().len();
        if let Some(turn) = self.perform(out) {
            return Step::Stop(turn);
        }
        if taken > 0 {
            return Step::Moved;
        }
        match self.upstream.io.poll_fill(cx) {
            Poll::Pending => Step::Still,
            Poll::Ready(Ok(1..)) => Step::Moved,
            // A connection that breaks has ended, too: what it said before is still delivered.
            Poll::Ready(Ok(0) | Err(_)) => {
                self.upstream.ended = true;
                let mut out = Vec::new();
                self.relay.handle(Instant::now(), Input::UpstreamEnd(self.upstream.io.input()), &mut out);
                self.perform(out).map_or(Step::Moved, Step::Stop)
            }
        }
    }

    /// Takes what the client says while the upstream has room for it.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.relay.wants_client() || self.upstream.io.queued() >= ROOM {
            return Step::Still;
        }
        let mut out = Vec::new();
        let input = self.client.io.input();
        let before = input.len();
        self.relay.handle(Instant::now(), Input::Client(input), &mut out);
        let taken = before - self.client.io.input().len();
        if let Some(turn) = self.perform(out) {
            return Step::Stop(turn);
        }
        if taken > 0 {
            return Step::Moved;
        }
        self.client.io.read_at_most(self.relay.reads_client_at_most());
        match self.client.io.poll_fill(cx) {
            Poll::Pending => Step::Still,
            Poll::Ready(Ok(1..)) => Step::Moved,
            Poll::Ready(Ok(0)) => {
                self.client.ended = true;
                self.tell(Input::ClientEnd).map_or(Step::Moved, Step::Stop)
            }
            Poll::Ready(Err(_)) => self.client_gone(),
        }
    }

    /// Nobody is left to deliver to.
    fn client_gone(&mut self) -> Step {
        self.tell(Input::ClientEnd);
        Step::Stop(Turn::Over(self.relay.end()))
    }

    /// Writes on both sides; whether something is different now.
    fn poll_writes(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for side in [&mut self.client, &mut self.upstream] {
            match side.poll_write(cx) {
                Poll::Pending | Poll::Ready(Ok(false)) => {}
                Poll::Ready(Ok(true)) => moved = true,
                // It hears no more, but what it has said still counts; its end shows when it is read.
                Poll::Ready(Err(_)) => {
                    side.io.output().clear();
                    side.unflushed = false;
                    side.closing = Closing::Done;
                    moved = true;
                }
            }
        }
        moved
    }

    fn is_over(&self) -> bool {
        let told = |side: &Side| side.closing == Closing::Done;
        // The answers to a client that went are heard out, so that its commands are carried out; a mailbox is not fetched
        // for nobody.
        let gone = self.client.ended && self.client.lost > LOST_OCTETS && self.upstream.io.queued() == 0;
        gone || self.client.ended && self.upstream.ended && told(&self.client) && told(&self.upstream)
    }

    fn tell(&mut self, input: Input<'_>) -> Option<Turn> {
        let mut out = Vec::new();
        self.relay.handle(Instant::now(), input, &mut out);
        self.perform(out)
    }

    /// Queues and counts; never waits.
    fn perform(&mut self, out: Vec<Output>) -> Option<Turn> {
        for output in out {
            match output {
                Output::ToClient(octets) => self.client.queue(&octets),
                Output::ToUpstream(octets) => self.upstream.queue(&octets),
                Output::EndClient => self.client.close(),
                Output::EndUpstream => self.upstream.close(),
                Output::LoginRefused => self.metrics.auth_failure(self.listener),
                Output::LimitReached(limit) => self.metrics.limit_reached(limit),
                Output::UpgradeTls => return Some(Turn::StartTls),
                Output::Close(end) => return Some(Turn::Over(end)),
            }
        }
        None
    }
}

/// What came of trying to move octets.
enum Step {
    Stop(Turn),
    Moved,
    Still,
}

impl Side {
    fn new(io: Stream) -> Self {
        Self { io, unflushed: false, ended: false, closing: Closing::No, lost: 0 }
    }

    fn queue(&mut self, octets: &[u8]) {
        // A peer that was told of the end, or hears no more, is told nothing.
        if self.closing == Closing::No {
            self.io.queue(octets);
            self.unflushed = true;
        } else {
            self.lost += octets.len();
        }
    }

    fn close(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Due;
        }
    }

    /// Ready with whether something is different now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut moved = false;
        if self.unflushed {
            let before = self.io.queued();
            if self.io.poll_flush(cx)?.is_pending() {
                // Part of it may have left, which is room again.
                return Poll::Ready(Ok(before >= ROOM && self.io.queued() < ROOM));
            }
            self.unflushed = false;
            moved = true;
        }
        if self.closing == Closing::Due && self.io.poll_shutdown(cx)?.is_ready() {
            self.closing = Closing::Done;
            moved = true;
        }
        Poll::Ready(Ok(moved))
    }
}

/// Octets that may wait to be written before the other side is read no further.
const ROOM: usize = 64 * 1024;
/// Octets of answers that are heard out for a client that went.
const LOST_OCTETS: usize = 256 * 1024;
/// How long the last words may take to leave.
const FAREWELL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
