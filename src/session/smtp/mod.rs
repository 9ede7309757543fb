//! An SMTP session: commands relayed one by one, messages collected, judged and settled.
//!
//! Guarantees: 250 after end-of-data is said only with a `Custody`; the upstream sees no recipient that may not be
//! relayed, and no command that is not known here; `354` is ours, and the upstream's DATA opens after the verdict.
//! An upstream that goes away between commands is connected again and told everything again, as long as the client
//! has not authenticated. It leaves out what the words mean (`transaction`) and how the upstream is spoken to
//! (`leg`).

mod custody;
mod leg;
mod message;
mod received;
mod release;
mod transaction;

use std::time::Duration;

use bytes::Buf;
use tokio::{
    select,
    time::{Instant, timeout, timeout_at},
};

pub use self::release::{ReleaseError, release};
use self::{
    leg::{Leg, LegError},
    transaction::{Ground, Step, Transaction},
};
use super::{ClientAddr, End, Gateway, Listener, accept_tls};
use crate::{
    net::Stream,
    render::STAMP_MAX,
    wire::{
        line::{Line, LineDecoder, TooLong},
        sasl::{self, ClientLine},
        smtp::{Command, Offer, Reply},
    },
};

/// Serves one client until it or the upstream ends the session.
pub async fn serve(client: Stream, peer: ClientAddr, listener: &Listener, gateway: &Gateway) -> End {
    let mut session = Session {
        client,
        lines: LineDecoder::new(longest_line(gateway)),
        leg: None,
        reconnections: 0,
        transaction: Transaction::default(),
        errors: 0,
        peer,
        listener,
        gateway,
    };
    let end = match session.run().await {
        Ok(end) | Err(end) => end,
    };
    // What was still to be said is said where the client listens.
    let _ = timeout(FAREWELL, session.client.shutdown()).await;
    if let Some(leg) = session.leg.take() {
        leg.leave().await;
    }
    end
}

/// How long goodbyes may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the upstream may take over a command of ours that the client need not wait for.
const RESET_PATIENCE: Duration = Duration::from_secs(30);
/// How often one session may lose its upstream and go on.
const RECONNECTIONS: u32 = 5;
/// Octets of replies that gather while a client pipelines.
const QUEUED_REPLIES: usize = 16 * 1024;

struct Session<'a> {
    client: Stream,
    lines: LineDecoder,
    /// Invariant: none only before the first connection and after it was lost.
    leg: Option<Leg>,
    reconnections: u32,
    transaction: Transaction,
    errors: u64,
    peer: ClientAddr,
    listener: &'a Listener,
    gateway: &'a Gateway,
}

/// What came from the client.
enum Heard {
    Line(Line),
    /// A line over the limit; it is consumed.
    LongLine,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<End, End> {
        self.greet().await?;
        loop {
            let heard = self.hear().await?;
            if let Some(end) = self.obey(&heard).await? {
                return Ok(end);
            }
        }
    }

    /// Connects to the upstream and passes its greeting on.
    async fn greet(&mut self) -> Result<(), End> {
        match self.open_leg().await {
            Ok(greeting) => {
                self.say(&greeting);
                if greeting.is_positive() { Ok(()) } else { Err(End::UpstreamUnavailable) }
            }
            Err(error) => {
                tracing::warn!(listener = %self.listener.name, %error, "no upstream for a client");
                self.say(&Reply::new(421, "4.3.2", "the mail server is not available, try again later"));
                Err(End::UpstreamUnavailable)
            }
        }
    }

    async fn open_leg(&mut self) -> Result<Reply, LegError> {
        let count = |stream| self.listener.count_upstream(stream, &self.gateway.metrics);
        let (leg, greeting) =
            Leg::open(&self.listener.upstream, &self.gateway.hostname, &self.gateway.limits, count).await?;
        self.leg = Some(leg);
        Ok(greeting)
    }

    /// The client's next line, within the time for a command. Replies go out only when the client must be waited
    /// for, so that what it pipelined is answered together, or when there are many of them.
    async fn hear(&mut self) -> Result<Heard, End> {
        let deadline = Instant::now() + self.gateway.limits.command_timeout;
        let mut skipping = false;
        loop {
            if self.client.queued() > QUEUED_REPLIES {
                self.flush().await?;
            }
            match self.lines.next(self.client.input()) {
                Ok(Some(_)) if skipping => return Ok(Heard::LongLine),
                Ok(Some(line)) => return Ok(Heard::Line(line)),
                Ok(None) => {}
                Err(TooLong { limit }) => {
                    // Its end is still to come; what is thrown away holds none.
                    skipping = true;
                    self.client.input().advance(limit);
                    continue;
                }
            }
            self.flush().await?;
            let idle = !self.transaction.is_open() && !skipping && self.client.input().is_empty();
            let (mut drain, mut cut) = (self.gateway.drain.clone(), self.gateway.drain.clone());
            let heard = select! {
                heard = timeout_at(deadline, self.client.fill()) => heard,
                () = drain.begun(), if idle => return Err(self.go_down()),
                () = cut.cut() => return Err(self.go_down()),
            };
            match heard {
                Ok(Ok(0) | Err(_)) => return Err(End::ClientClosed),
                Ok(Ok(_)) => {}
                Err(_) => {
                    self.gateway.metrics.limit_reached("command_timeout");
                    self.say(&Reply::new(421, "4.4.2", "no command for too long, closing"));
                    return Err(End::ClientTimeout);
                }
            }
        }
    }

    fn go_down(&mut self) -> End {
        self.say(&Reply::new(421, "4.3.2", "going down, please try again"));
        End::Drained
    }

    /// Does what a command line asks for; an end if the session is over.
    async fn obey(&mut self, heard: &Heard) -> Result<Option<End>, End> {
        let line = match heard {
            Heard::Line(line) if !self.is_too_long(line) => line,
            Heard::Line(_) | Heard::LongLine => {
                self.gateway.metrics.limit_reached("command_line_bytes");
                self.fault(Reply::new(500, "5.5.6", "line too long"))?;
                return Ok(None);
            }
        };
        if let Some(fault) = line.fault() {
            self.fault(Reply::new(500, "5.5.2", format!("{} in a command line", fault.as_str())))?;
            return Ok(None);
        }
        let command = match Command::parse(line.text()) {
            Ok(command) => command,
            Err(fault) => {
                self.fault(Reply::new(501, "5.5.4", fault.to_string()))?;
                return Ok(None);
            }
        };
        match self.transaction.admit(&command, &self.ground()) {
            Step::Relay => self.relay(&command, line).await?,
            Step::Answer { reply, fault: true } => self.fault(reply)?,
            Step::Answer { reply, fault: false } => {
                if reply.code() == 452 {
                    self.gateway.metrics.limit_reached("recipients");
                }
                self.say(&reply);
            }
            Step::Collect => return self.take_message().await.map(|()| None),
            Step::StartTls => self.upgrade().await?,
            Step::Authenticate => self.authenticate(line, &command).await?,
            Step::Quit => return Ok(Some(self.quit(line).await)),
            Step::Drop => {
                self.say(&Reply::new(421, "4.7.0", "this is a mail server"));
                return Ok(Some(End::ClientFault));
            }
        }
        Ok(None)
    }

    /// AUTH with its initial response may be longer than other commands (RFC 4954 section 4).
    fn is_too_long(&self, line: &Line) -> bool {
        let is_auth = line.text().get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"));
        !is_auth && line.verbatim().len() as u64 > self.gateway.limits.command_line_bytes
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            relay: &self.listener.relay,
            may_log_in: self.listener.may_log_in(&self.client, self.peer),
            can_start_tls: self.listener.can_start_tls(&self.client),
            size_limit: self.transaction.extensions().size_limit(&self.offer()),
            recipients: self.gateway.limits.recipients,
        }
    }

    fn offer(&self) -> Offer {
        Offer {
            starttls: self.listener.can_start_tls(&self.client) && !self.transaction.is_authenticated(),
            message_bytes: self.gateway.limits.message_bytes,
            stamp_bytes: STAMP_MAX as u64,
            auth: !self.transaction.is_authenticated() && self.listener.may_log_in(&self.client, self.peer),
        }
    }

    /// The upstream answers, in its own words but for its list of capabilities.
    async fn relay(&mut self, command: &Command<'_>, line: &Line) -> Result<(), End> {
        let reply = self.ask(line.verbatim()).await?;
        self.transaction.learn(command, line.verbatim(), &reply);
        match command {
            Command::Ehlo(_) if reply.is_positive() => {
                let reduced = self.transaction.extensions().reduced(&self.offer());
                self.say(&reduced);
            }
            _ => self.say(&reply),
        }
        if reply.code() == 421 { Err(End::UpstreamClosed) } else { Ok(()) }
    }

    /// Asks the upstream. One that went away since the last command is connected again, unless the client has
    /// authenticated: what it proved cannot be proved again by us. A 421 that answers the command is an answer.
    async fn ask(&mut self, line: &[u8]) -> Result<Reply, End> {
        let lost = match self.ask_once(line).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        let asked_again = match self.reconnect(lost).await {
            Ok(()) => self.ask_once(line).await,
            Err(error) => Err(error),
        };
        asked_again.map_err(|error| self.lose_upstream(&error))
    }

    async fn ask_once(&mut self, line: &[u8]) -> Result<Reply, LegError> {
        match &mut self.leg {
            Some(leg) => leg.ask(line).await,
            None => Err(LegError::Closed),
        }
    }

    /// Brings a new leg to where the lost one was. A leg that could not be brought there is not kept.
    async fn reconnect(&mut self, lost: LegError) -> Result<(), LegError> {
        self.leg = None;
        if self.transaction.is_authenticated() || self.reconnections >= RECONNECTIONS {
            return Err(lost);
        }
        self.reconnections += 1;
        tracing::info!(listener = %self.listener.name, cause = %lost, "upstream lost, connecting again");
        let greeting = self.open_leg().await?;
        let replayed = match &mut self.leg {
            Some(leg) if greeting.is_positive() => {
                let hello = self.transaction.hello().map(|hello| hello.line.as_slice());
                leg.replay(hello, self.transaction.envelope()).await
            }
            _ => Err(LegError::Unexpected { command: "the connection", reply: greeting.summary() }),
        };
        if replayed.is_err() {
            self.leg = None;
        }
        replayed
    }

    /// Tells the client that the upstream is gone for good.
    fn lose_upstream(&mut self, error: &LegError) -> End {
        tracing::warn!(listener = %self.listener.name, %error, "upstream lost");
        self.leg = None;
        self.say(&Reply::new(421, "4.3.2", "the mail server went away, try again later"));
        End::UpstreamLost
    }

    async fn upgrade(&mut self) -> Result<(), End> {
        if !self.client.input().is_empty() {
            // Commands sent in clear behind STARTTLS could be taken for what was sent under TLS.
            tracing::warn!(listener = %self.listener.name, client = %self.peer.0, "commands in clear behind STARTTLS");
            self.say(&Reply::new(503, "5.5.1", "no command may follow STARTTLS in clear"));
            return Err(End::ClientFault);
        }
        self.say(&Reply::new(220, "2.0.0", "ready to start TLS"));
        self.flush().await?;
        self.start_tls().await?;
        if self.transaction.is_open() {
            self.reset_upstream().await;
        }
        self.transaction.restart();
        Ok(())
    }

    async fn start_tls(&mut self) -> Result<(), End> {
        let client = self.client.take();
        self.client = accept_tls(client, self.peer, self.listener, self.gateway).await?;
        Ok(())
    }

    /// Relays a SASL exchange of any number of steps, opaque but for the form of the client's lines.
    async fn authenticate(&mut self, line: &Line, command: &Command<'_>) -> Result<(), End> {
        if let Command::Auth { initial: Some(initial), .. } = command
            && !sasl::is_initial_response(initial.as_bytes())
        {
            return self.fault(Reply::new(501, "5.5.2", "the initial response is not base64"));
        }
        let mut reply = self.ask(line.verbatim()).await?;
        while reply.code() == 334 {
            self.say(&reply);
            let refusal = match self.hear().await? {
                Heard::LongLine => Reply::new(500, "5.5.6", "line too long"),
                Heard::Line(response) if is_response(&response) => {
                    reply = self.continue_exchange(response.verbatim()).await?;
                    continue;
                }
                Heard::Line(_) => Reply::new(501, "5.5.2", "the response is not base64"),
            };
            self.continue_exchange(b"*\r\n").await?;
            return self.fault(refusal);
        }
        match reply.code() {
            235 => self.transaction.authenticate(),
            535 => {
                self.gateway.metrics.auth_failure(&self.listener.name);
                return self.fault(reply);
            }
            _ => {}
        }
        self.say(&reply);
        if reply.code() == 421 { Err(End::UpstreamClosed) } else { Ok(()) }
    }

    /// In the middle of an exchange there is nothing a new connection could go on with.
    async fn continue_exchange(&mut self, line: &[u8]) -> Result<Reply, End> {
        self.ask_once(line).await.map_err(|error| self.lose_upstream(&error))
    }

    async fn quit(&mut self, line: &Line) -> End {
        let reply = match timeout(FAREWELL, self.ask_once(line.verbatim())).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => Reply::new(221, "2.0.0", "goodbye"),
        };
        self.leg = None;
        self.say(&reply);
        End::Quit
    }

    /// Ends the upstream's transaction. An upstream that does not follow is left; the next command connects again.
    async fn reset_upstream(&mut self) {
        let reset = timeout(RESET_PATIENCE, self.ask_once(b"RSET\r\n")).await;
        if !reset.is_ok_and(|reply| reply.is_ok_and(|reply| reply.is_positive())) {
            self.leg = None;
        }
    }

    /// Answers a fault of the client; too many of them end the session.
    fn fault(&mut self, reply: Reply) -> Result<(), End> {
        self.say(&reply);
        self.errors += 1;
        if self.errors < self.gateway.limits.errors_per_session {
            return Ok(());
        }
        self.gateway.metrics.limit_reached("errors_per_session");
        self.say(&Reply::new(421, "4.7.0", "too many errors"));
        Err(End::ClientFault)
    }

    fn say(&mut self, reply: &Reply) {
        self.client.queue(reply.as_bytes());
    }

    async fn flush(&mut self) -> Result<(), End> {
        match timeout(self.gateway.limits.command_timeout, self.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::ClientClosed),
            Err(_) => Err(End::ClientTimeout),
        }
    }
}

const PROTOCOL: &str = "smtp";

/// The longest line that is read at all, in octets.
fn longest_line(gateway: &Gateway) -> usize {
    let limits = &gateway.limits;
    usize::try_from(limits.command_line_bytes.max(limits.sasl_line_bytes)).unwrap_or(usize::MAX)
}

/// Whether a line can be passed on in a SASL exchange, as a response or to give up.
fn is_response(line: &Line) -> bool {
    line.fault().is_none() && ClientLine::read(line.text()) != ClientLine::Malformed
}
