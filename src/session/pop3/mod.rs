//! A POP3 session: one client, its upstream, commands answered in the order they came.
//!
//! Guarantees: what the gate does not alter passes verbatim; an answer goes to the command it belongs to
//! (`pending.rs`); a message cut off on the way never looks whole to the client; nothing sent in clear is executed
//! behind TLS; passwords are relayed and never told.
//! It leaves out sizes: STAT and LIST say what the upstream says, also of messages that are shown with a stamp.

mod fault;
mod leg;
mod login;
mod message;
mod pending;
mod shown;
#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep_until, timeout, timeout_at};

use self::{
    fault::Fault,
    leg::Leg,
    pending::{Answer, Pace, Pending},
    shown::{Plan, Shown},
};
use super::{ClientAddr, End, Gateway, Listener};
use crate::{
    limits::Limits,
    mail::Envelope,
    net::Stream,
    wire::{
        dot::{DotDecoder, DotEncoder},
        pop3::{
            capability::{self, Logins, Stls},
            command::{Command, CommandFault, Kind},
            response::{Response, Status},
        },
    },
};

/// Octets of a list of capabilities that are kept at most.
const CAPABILITIES_MAX: usize = 64 * 1024;
/// Octets that gather for the client before they are written.
const WRITE_OCTETS: usize = 64 * 1024;
/// How long a goodbye may take to be written.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs a session to its end. `client` is past its TLS handshake where TLS comes first.
pub async fn serve(client: Stream, peer: ClientAddr, listener: &Listener, gateway: &Gateway) -> End {
    match listener.upstream.connect().await {
        Ok(upstream) => {
            let upstream = listener.count_upstream(upstream, &gateway.metrics);
            relay(client, upstream, peer, listener, gateway).await
        }
        // The reason is logged where it was met.
        Err(_) => refuse(client).await,
    }
}

/// Runs a session over an upstream connection that has not greeted yet.
async fn relay(
    client: Stream,
    upstream: Stream,
    peer: ClientAddr,
    listener: &Listener,
    gateway: &Gateway,
) -> End {
    let (upstream, greeting) = match greet(upstream, listener, gateway).await {
        Ok(greeted) => greeted,
        Err(fault) => {
            fault.log();
            return refuse(client).await;
        }
    };
    let mut session = Session::new(client, upstream, peer, listener, gateway);
    session.client.queue(greeting.verbatim());
    if !greeting.is_ok() {
        return session.close(End::UpstreamUnavailable).await;
    }
    let mut drain = gateway.drain.clone();
    loop {
        let turn = tokio::select! {
            turn = session.converse() => turn,
            () = drain.cut() => Err(Fault::Draining),
        };
        match turn {
            Ok(Turn::Quit) => return session.close(End::Quit).await,
            Ok(Turn::StartTls) => match session.start_tls().await {
                Ok(encrypted) => session = encrypted,
                Err(end) => return end,
            },
            Err(fault) => return session.fail(fault).await,
        }
    }
}

/// Reads the upstream's greeting, and encrypts its leg where that has to be asked for.
async fn greet(upstream: Stream, listener: &Listener, gateway: &Gateway) -> Result<(Leg, Response), Fault> {
    let patience = gateway.limits.upstream_connect_timeout;
    let limit = octets(gateway.limits.sasl_line_bytes);
    let mut upstream = Leg::new(upstream, limit);
    let greeting = upstream.response(patience).await?;
    if greeting.status() == Status::Continue {
        return Err(Fault::UpstreamBroken("its greeting is no greeting"));
    }
    if !greeting.is_ok() || !listener.upstream.starttls() {
        return Ok((upstream, greeting));
    }
    if !upstream.input().is_empty() {
        return Err(Fault::UpstreamBroken("data in clear behind its greeting"));
    }
    upstream.queue(b"STLS\r\n");
    upstream.flush(patience).await.map_err(Fault::upstream)?;
    if !upstream.response(patience).await?.is_ok() {
        return Err(Fault::UpstreamBroken("it refuses STLS"));
    }
    let stream = listener.upstream.upgrade(upstream.into_stream()).await.map_err(Fault::UpstreamTls)?;
    Ok((Leg::new(stream, limit), greeting))
}

/// Ends a session that never began.
async fn refuse(mut client: Stream) -> End {
    client.queue(b"-ERR [SYS/TEMP] the mail server cannot be reached, try again later\r\n");
    // The client may be gone; there is nobody to tell.
    let _ = timeout(FAREWELL, client.shutdown()).await;
    End::UpstreamUnavailable
}

/// A conversation and what was learned in it.
struct Session<'a> {
    listener: &'a Listener,
    gateway: &'a Gateway,
    peer: ClientAddr,
    client: Leg,
    upstream: Leg,
    pending: Pending,
    /// A command that has to wait until everything before it is answered.
    held: Option<Command>,
    /// Who reads: for the journal, never for judging, since the reader says nothing about the sender.
    reader: Envelope,
    /// The name USER or APOP gave last.
    account: Option<String>,
    /// Whether the upstream takes commands before it answered the ones before.
    pipelining: bool,
    /// When a client without a login has to go.
    login_deadline: Instant,
    /// When a client with a login has to have said a whole line again.
    idle_deadline: Instant,
    errors: u64,
    /// Whether the client was given a part of an answer whose end is still owed.
    torn: bool,
    shown: Shown,
}

/// Why a conversation stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// TLS has to begin on the client's leg.
    StartTls,
    /// The client said goodbye and was answered.
    Quit,
}

/// What ended a wait for the client.
enum Wake {
    Client(io::Result<usize>),
    Upstream(io::Result<usize>),
    Silence,
    Drain,
}

impl<'a> Session<'a> {
    fn new(
        client: Stream,
        upstream: Leg,
        peer: ClientAddr,
        listener: &'a Listener,
        gateway: &'a Gateway,
    ) -> Self {
        let limits = &gateway.limits;
        let tls = client.tls().map(|facts| facts.version.to_owned());
        Self {
            listener,
            gateway,
            peer,
            client: unknown_client(client, limits),
            upstream,
            pending: Pending::default(),
            held: None,
            reader: Envelope { client: Some(peer.0.ip()), tls, ..Envelope::default() },
            account: None,
            pipelining: false,
            login_deadline: Instant::now() + limits.login_timeout,
            idle_deadline: Instant::now() + limits.pop3_idle_timeout,
            errors: 0,
            torn: false,
            shown: Shown::default(),
        }
    }

    /// Relays until something has to be done that needs the whole session.
    async fn converse(&mut self) -> Result<Turn, Fault> {
        loop {
            if !self.upstream.input().is_empty() {
                return Err(self.unsolicited());
            }
            let turn = self.take_commands()?;
            if self.pending.is_empty() && turn.is_none() {
                self.wait().await?;
                continue;
            }
            self.flush_upstream().await?;
            while let Some(answer) = self.pending.pop() {
                if self.answer(answer).await? {
                    return Ok(Turn::Quit);
                }
            }
            // Only a whole line is activity: one that comes octet by octet keeps no session open.
            self.idle_deadline = Instant::now() + self.gateway.limits.pop3_idle_timeout;
            if self.errors >= self.gateway.limits.errors_per_session {
                self.gateway.metrics.limit_reached("errors_per_session");
                return Err(Fault::ClientErrors);
            }
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
    }

    /// Sends on what the client asks for, as far as it may be asked at once.
    fn take_commands(&mut self) -> Result<Option<Turn>, Fault> {
        while let Some(command) = self.next_command()? {
            let pace = self.pace(command.kind());
            if !self.pending.admits(pace, self.pipelining) {
                self.held = Some(command);
                return Ok(None);
            }
            if let Some(turn) = self.issue(command) {
                return Ok(Some(turn));
            }
            if pace != Pace::Free {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The next command that may pass; those that may not are answered in their turn.
    fn next_command(&mut self) -> Result<Option<Command>, Fault> {
        if let Some(command) = self.held.take() {
            return Ok(Some(command));
        }
        while !self.pending.is_full() && self.errors < self.gateway.limits.errors_per_session {
            let Some(line) = self.client.next_line().map_err(Fault::client)? else { return Ok(None) };
            let len = line.verbatim().len();
            match Command::parse(line) {
                Ok(command) if self.fits(command.kind(), len) => return Ok(Some(command)),
                Ok(_) => self.decline("line too long"),
                Err(CommandFault::Unknown) => self.decline("unknown command"),
                Err(fault) => self.decline(&fault.to_string()),
            }
        }
        Ok(None)
    }

    /// Only an initial response may be as long as a line of the exchange.
    fn fits(&self, kind: &Kind, len: usize) -> bool {
        matches!(kind, Kind::Auth(_)) || len <= octets(self.gateway.limits.command_line_bytes)
    }

    fn decline(&mut self, why: &str) {
        self.errors += 1;
        self.pending.push(Answer::Own(format!("-ERR {why}\r\n")));
    }

    fn pace(&self, kind: &Kind) -> Pace {
        match kind {
            Kind::Top(message, _) if self.shown.plan(*message) == Plan::Unknown => Pace::Last,
            kind => Pace::of(kind),
        }
    }

    /// Puts one command into its turn: upstream, or answered here.
    fn issue(&mut self, command: Command) -> Option<Turn> {
        let answer = match command.kind() {
            Kind::Stls if !self.can_start_tls() => {
                self.decline("STLS is not available now");
                return None;
            }
            Kind::Stls => return Some(Turn::StartTls),
            Kind::User(_) | Kind::Pass | Kind::Auth(_) | Kind::AuthList if self.logins() == Logins::Hide => {
                self.decline("[SYS/PERM] no password in clear, STLS first");
                return None;
            }
            Kind::Top(message, lines) => {
                self.issue_top(*message, *lines, &command);
                return None;
            }
            Kind::User(name) => {
                self.account = Some(name.clone());
                Answer::Line
            }
            Kind::Apop(name) => {
                self.account = Some(name.clone());
                Answer::Login
            }
            kind => Answer::to(kind),
        };
        self.upstream.queue(command.line());
        self.pending.push(answer);
        None
    }

    /// TOP shows the same stamp as RETR, so the whole message has to be judged first: it is asked for in the place of
    /// its beginning, unless that was done before.
    fn issue_top(&mut self, message: u32, lines: u64, command: &Command) {
        let answer = match self.shown.plan(message) {
            Plan::AsItIs => Answer::List,
            Plan::Stamped => Answer::Top(message),
            Plan::Unknown => {
                self.upstream.queue(format!("TOP {message} {WHOLE}\r\n").as_bytes());
                let line = Bytes::copy_from_slice(command.line());
                self.pending.push(Answer::WholeTop { message, lines, line });
                return;
            }
        };
        self.upstream.queue(command.line());
        self.pending.push(answer);
    }

    /// Gives one answer. True: it was the last.
    async fn answer(&mut self, answer: Answer) -> Result<bool, Fault> {
        match answer {
            Answer::Own(text) => self.client.queue(text.as_bytes()),
            Answer::Line => self.relay_line().await.map(drop)?,
            Answer::Login => self.finish_login().await?,
            Answer::Exchange => self.exchange().await?,
            Answer::List => self.relay_list().await?,
            Answer::Capabilities => self.show_capabilities().await?,
            Answer::Mechanisms => self.show_mechanisms().await?,
            Answer::Message(message) => self.show_message(message).await?,
            Answer::Top(message) => self.show_top(message).await?,
            Answer::WholeTop { message, lines, line } => self.judge_for_top(message, lines, &line).await?,
            Answer::Quit => {
                self.relay_line().await?;
                return Ok(true);
            }
        }
        self.relieve_client().await?;
        Ok(false)
    }

    /// Passes a status line.
    async fn relay_line(&mut self) -> Result<Response, Fault> {
        let response = self.response().await?;
        self.client.queue(response.verbatim());
        Ok(response)
    }

    /// The status line `+OK` of a multi-line answer; any other is passed on, and that was the answer.
    async fn relay_refusal(&mut self) -> Result<Option<Response>, Fault> {
        let response = self.response().await?;
        if response.is_ok() {
            return Ok(Some(response));
        }
        self.client.queue(response.verbatim());
        Ok(None)
    }

    /// Passes a status line and, behind `+OK`, the lines up to the dot, as they come.
    async fn relay_list(&mut self) -> Result<(), Fault> {
        if self.relay_line().await?.is_ok() {
            self.torn = true;
            self.relay_content(DotDecoder::new(), DotEncoder::new()).await?;
        }
        Ok(())
    }

    /// Passes what is left of a multi-line answer, as it comes.
    async fn relay_content(&mut self, mut decoder: DotDecoder, mut encoder: DotEncoder) -> Result<(), Fault> {
        let mut content = Vec::new();
        while !self.upstream.decode(&mut decoder, &mut content) {
            encoder.encode(&content, self.client.output());
            content.clear();
            self.flush_client().await?;
            self.fill_upstream().await?;
        }
        encoder.encode(&content, self.client.output());
        encoder.finish(self.client.output());
        self.torn = false;
        Ok(())
    }

    /// The upstream's list, reduced. One that has none is no reason to keep STLS from the client: then the list is ours, with
    /// the login that a client without a list would try.
    async fn show_capabilities(&mut self) -> Result<(), Fault> {
        let response = self.response().await?;
        let stls = if self.can_start_tls() { Stls::Offer } else { Stls::Hide };
        let list = if response.is_ok() {
            let list = self.collect_list().await?;
            self.pipelining = capability::offers(&list, "PIPELINING");
            self.client.queue(response.verbatim());
            list
        } else if stls == Stls::Offer {
            self.client.queue(b"+OK\r\n");
            b"USER\r\n".to_vec()
        } else {
            self.client.queue(response.verbatim());
            return Ok(());
        };
        let mut reduced = Vec::new();
        capability::reduce(&list, stls, self.logins(), &mut reduced);
        self.queue_list(&reduced);
        Ok(())
    }

    async fn show_mechanisms(&mut self) -> Result<(), Fault> {
        let Some(response) = self.relay_refusal().await? else { return Ok(()) };
        let list = self.collect_list().await?;
        let mut reduced = Vec::new();
        capability::reduce_mechanisms(&list, &mut reduced);
        self.client.queue(response.verbatim());
        self.queue_list(&reduced);
        Ok(())
    }

    /// The short list behind a `+OK`.
    async fn collect_list(&mut self) -> Result<Vec<u8>, Fault> {
        let mut list = Vec::new();
        let mut decoder = DotDecoder::new();
        while !self.upstream.decode(&mut decoder, &mut list) {
            if list.len() > CAPABILITIES_MAX {
                return Err(Fault::UpstreamBroken("its list of capabilities has no end"));
            }
            self.fill_upstream().await?;
        }
        Ok(list)
    }

    fn queue_list(&mut self, list: &[u8]) {
        let mut encoder = DotEncoder::new();
        encoder.encode(list, self.client.output());
        encoder.finish(self.client.output());
    }

    fn logins(&self) -> Logins {
        if self.listener.may_log_in(self.client.stream(), self.peer) { Logins::Offer } else { Logins::Hide }
    }

    fn can_start_tls(&self) -> bool {
        !self.reader.authenticated && self.listener.can_start_tls(self.client.stream())
    }

    /// Encrypts the client's leg. What was sent in clear behind STLS is refused together with the session.
    async fn start_tls(mut self) -> Result<Self, End> {
        if self.held.is_some() || !self.client.input().is_empty() {
            return Err(self.fail(Fault::ClientInjected).await);
        }
        self.client.queue(b"+OK begin TLS\r\n");
        if let Err(fault) = self.flush_client().await {
            return Err(self.fail(fault).await);
        }
        let Some(tls) = &self.listener.tls else { return Err(End::Tls) };
        let limits = &self.gateway.limits;
        let handshake = timeout_at(self.login_deadline, self.client.into_stream().accept_tls(tls));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(listener = %self.listener.name, %error, "TLS with the client failed");
                return Err(End::Tls);
            }
            Err(_) => return Err(End::Tls),
        };
        self.reader.tls = stream.tls().map(|facts| facts.version.to_owned());
        // What was said in clear is forgotten (RFC 2595 section 4).
        self.account = None;
        Ok(Self { client: unknown_client(stream, limits), ..self })
    }

    /// Waits until the client has said more.
    async fn wait(&mut self) -> Result<(), Fault> {
        self.flush_client().await?;
        let until = if self.reader.authenticated { self.idle_deadline } else { self.login_deadline };
        let mut drain = self.gateway.drain.clone();
        let wake = tokio::select! {
            read = self.client.fill() => Wake::Client(read),
            read = self.upstream.fill() => Wake::Upstream(read),
            () = sleep_until(until) => Wake::Silence,
            // Behind a login there may be deletions that only QUIT makes good.
            () = drain.begun(), if !self.reader.authenticated => Wake::Drain,
        };
        match wake {
            Wake::Client(Ok(octets)) if octets > 0 => Ok(()),
            Wake::Client(_) => Err(Fault::ClientGone),
            Wake::Upstream(Ok(octets)) if octets > 0 => Err(self.unsolicited()),
            Wake::Upstream(_) => Err(Fault::UpstreamGone),
            Wake::Silence => Err(Fault::ClientSilent),
            Wake::Drain => Err(Fault::Draining),
        }
    }

    /// What the upstream says without being asked: a goodbye is passed on; anything else would answer the wrong
    /// command.
    fn unsolicited(&mut self) -> Fault {
        let line = self.upstream.next_line().ok().flatten();
        match line.map(Response::parse) {
            Some(Ok(response)) if response.status() == Status::Err => {
                self.client.queue(response.verbatim());
                Fault::UpstreamGoodbye
            }
            _ => Fault::UpstreamBroken("it speaks without being asked"),
        }
    }

    /// The next status line, which must not ask for more.
    async fn response(&mut self) -> Result<Response, Fault> {
        let response = self.upstream.response(self.gateway.limits.upstream_reply_timeout).await?;
        match response.status() {
            Status::Continue => Err(Fault::UpstreamBroken("a challenge outside AUTH")),
            Status::Ok | Status::Err => Ok(response),
        }
    }

    async fn fill_upstream(&mut self) -> Result<(), Fault> {
        self.upstream.fill_within(self.gateway.limits.data_timeout).await.map_err(Fault::upstream)
    }

    async fn flush_upstream(&mut self) -> Result<(), Fault> {
        self.upstream.flush(self.gateway.limits.upstream_reply_timeout).await.map_err(Fault::upstream)
    }

    async fn flush_client(&mut self) -> Result<(), Fault> {
        self.client.flush(self.gateway.limits.data_timeout).await.map_err(Fault::client)
    }

    /// Writes to the client once enough has gathered.
    async fn relieve_client(&mut self) -> Result<(), Fault> {
        if self.client.queued() < WRITE_OCTETS { Ok(()) } else { self.flush_client().await }
    }

    /// Ends the session with everything said.
    async fn close(mut self, end: End) -> End {
        // Whether the peers still listen changes nothing any more.
        let _ = timeout(FAREWELL, self.client.shutdown()).await;
        let _ = timeout(FAREWELL, self.upstream.shutdown()).await;
        end
    }

    /// Ends the session with a word to the client, unless it is in the middle of an answer: then the connection just
    /// ends, so that what was cut off is seen to be.
    async fn fail(mut self, fault: Fault) -> End {
        fault.log();
        if self.torn {
            return fault.end();
        }
        self.client.queue(fault.farewell().unwrap_or_default().as_bytes());
        self.close(fault.end()).await
    }
}

/// The leg of a client that has not logged in: no more than a line is read ahead of it.
fn unknown_client(stream: Stream, limits: &Limits) -> Leg {
    let limit = octets(limits.sasl_line_bytes);
    let mut leg = Leg::new(stream, limit);
    leg.read_at_most(limit);
    leg
}

/// A limit in octets, where memory is counted.
fn octets(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Body lines that are more than any message has, and that every server reads as a number.
const WHOLE: u32 = i32::MAX as u32;
