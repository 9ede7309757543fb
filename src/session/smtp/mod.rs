//! An SMTP session: commands relayed one by one, messages collected, judged and settled.
//!
//! Guarantees: 250 after end-of-data is said only with a [`Custody`]; the upstream sees no recipient that may not be
//! relayed, and no command that is not known here; `354` is ours, and the upstream's DATA opens after the verdict.
//! An upstream that goes away between commands is connected again and told everything again, as long as the client
//! has not authenticated. It leaves out what the words mean ([`transaction`]) and how the upstream is spoken to
//! ([`leg`]).

mod custody;
mod leg;
mod received;
mod release;
mod transaction;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Buf;
use jiff::Timestamp;
use tokio::{select, task::spawn_blocking, time::timeout};

pub use self::release::{ReleaseError, release};
use self::{
    custody::Custody,
    leg::{Delivery, Leg, LegError},
    received::{Trace, received},
    transaction::{Ground, Step, Transaction},
};
use super::{ClientAddr, Door, End, Fate, Gateway, Judged, Listener, Original, Spool, accept_tls};
use crate::{
    mail::Envelope,
    net::Stream,
    policy::Action,
    render::{STAMP_MAX, Source},
    verdict::Class,
    wire::{
        dot::DotDecoder,
        line::{Line, LineDecoder},
        sasl::{self, ClientLine},
        smtp::{Command, Offer, Reply},
    },
};

/// Serves one client until it or the upstream ends the session.
pub async fn serve(client: Stream, peer: ClientAddr, listener: &Listener, gateway: &Gateway) -> End {
    let mut session = Session {
        client,
        lines: LineDecoder::new(gateway.limits.command_line_bytes as usize),
        leg: None,
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

/// How long the last reply may take to leave.
const FAREWELL: Duration = Duration::from_secs(5);

struct Session<'a> {
    client: Stream,
    lines: LineDecoder,
    /// Invariant: none only before the first connection and after it was lost.
    leg: Option<Leg>,
    transaction: Transaction,
    errors: u64,
    peer: ClientAddr,
    listener: &'a Listener,
    gateway: &'a Gateway,
}

/// A collected message, or why there is none.
enum Collected {
    Whole(Arc<Original>),
    Refused(Reply),
}

impl Session<'_> {
    async fn run(&mut self) -> Result<End, End> {
        self.greet().await?;
        loop {
            let line = self.hear().await?;
            if let Some(end) = self.obey(&line).await? {
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

    /// The client's next line. Replies go out only when the client must be waited for, so that what it pipelined
    /// is answered together.
    async fn hear(&mut self) -> Result<Line, End> {
        loop {
            match self.lines.next(self.client.input()) {
                Ok(Some(line)) => return Ok(line),
                Ok(None) => {}
                Err(_) => {
                    self.skip_long_line().await?;
                    continue;
                }
            }
            self.flush().await?;
            let idle = !self.transaction.is_open() && self.client.input().is_empty();
            let mut drain = self.gateway.drain.clone();
            let wait = timeout(self.gateway.limits.command_timeout, self.client.fill());
            let heard = select! {
                heard = wait => heard,
                () = drain.begun(), if idle => {
                    self.say(&Reply::new(421, "4.3.2", "going down, please try again"));
                    return Err(End::Drained);
                }
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

    /// Answers a line over the limit, once its end has come.
    async fn skip_long_line(&mut self) -> Result<(), End> {
        self.gateway.metrics.limit_reached("command_line_bytes");
        loop {
            let input = self.client.input();
            if let Some(end) = memchr::memchr(b'\n', input) {
                input.advance(end + 1);
                return self.fault(Reply::new(500, "5.5.6", "line too long"));
            }
            input.clear();
            self.read_more().await?;
        }
    }

    /// Reads once while a line or a message is coming.
    async fn read_more(&mut self) -> Result<(), End> {
        match timeout(self.gateway.limits.data_timeout, self.client.fill()).await {
            Ok(Ok(0) | Err(_)) => Err(End::ClientClosed),
            Ok(Ok(_)) => Ok(()),
            Err(_) => {
                self.gateway.metrics.limit_reached("data_timeout");
                self.say(&Reply::new(421, "4.4.2", "no data for too long, closing"));
                Err(End::ClientTimeout)
            }
        }
    }

    /// Does what a command line asks for; an end if the session is over.
    async fn obey(&mut self, line: &Line) -> Result<Option<End>, End> {
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

    fn ground(&self) -> Ground<'_> {
        Ground {
            relay: &self.listener.relay,
            client: self.peer.0.ip(),
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
            auth: !self.transaction.is_authenticated(),
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
    /// authenticated: what it proved cannot be proved again by us.
    async fn ask(&mut self, line: &[u8]) -> Result<Reply, End> {
        let lost = match self.ask_once(line).await {
            Ok(reply) if reply.code() != 421 || self.transaction.is_authenticated() => return Ok(reply),
            Ok(reply) => LegError::Unexpected { command: "a command", reply: reply.summary() },
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

    /// Brings a new leg to where the lost one was.
    async fn reconnect(&mut self, lost: LegError) -> Result<(), LegError> {
        self.leg = None;
        if self.transaction.is_authenticated() {
            return Err(lost);
        }
        tracing::info!(listener = %self.listener.name, cause = %lost, "upstream lost, connecting again");
        let greeting = self.open_leg().await?;
        if !greeting.is_positive() {
            return Err(LegError::Unexpected { command: "the connection", reply: greeting.summary() });
        }
        match &mut self.leg {
            Some(leg) => {
                let hello = self.transaction.hello().map(|hello| hello.line.as_slice());
                leg.replay(hello, self.transaction.envelope()).await
            }
            None => Err(LegError::Closed),
        }
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
        self.lines.set_limit(self.gateway.limits.sasl_line_bytes as usize);
        while reply.code() == 334 {
            self.say(&reply);
            let response = self.hear().await?;
            let well_formed =
                response.fault().is_none() && ClientLine::read(response.text()) != ClientLine::Malformed;
            let sent = if well_formed { response.verbatim() } else { b"*\r\n" };
            // In the middle of an exchange there is nothing a new connection could go on with.
            reply = match self.ask_once(sent).await {
                Ok(reply) => reply,
                Err(error) => return Err(self.lose_upstream(&error)),
            };
            if !well_formed {
                self.lines.set_limit(self.gateway.limits.command_line_bytes as usize);
                return self.fault(Reply::new(501, "5.5.2", "the response is not base64"));
            }
        }
        self.lines.set_limit(self.gateway.limits.command_line_bytes as usize);
        if reply.code() == 235 {
            self.transaction.authenticate();
        } else if reply.code() == 535 {
            self.gateway.metrics.auth_failure(&self.listener.name);
        }
        self.say(&reply);
        if reply.code() == 421 { Err(End::UpstreamClosed) } else { Ok(()) }
    }

    async fn quit(&mut self, line: &Line) -> End {
        let reply = match self.ask_once(line.verbatim()).await {
            Ok(reply) => reply,
            Err(_) => Reply::new(221, "2.0.0", "goodbye"),
        };
        self.leg = None;
        self.say(&reply);
        End::Quit
    }

    /// DATA: 354, the message, and what becomes of it.
    async fn take_message(&mut self) -> Result<(), End> {
        self.say(&Reply::plain(354, ["End data with <CR><LF>.<CR><LF>"]));
        self.flush().await?;
        let collected = self.collect().await?;
        let reply = match collected {
            Collected::Whole(original) => self.settle(original).await?,
            Collected::Refused(reply) => {
                self.reset_upstream().await;
                reply
            }
        };
        self.transaction.reset();
        self.say(&reply);
        if reply.code() == 421 {
            return Err(End::UpstreamClosed);
        }
        Ok(())
    }

    /// Reads up to CRLF.CRLF, whatever is wrong with what comes: a refusal is only heard after it.
    async fn collect(&mut self) -> Result<Collected, End> {
        let mut spool = Spool::new(self.gateway);
        let mut dots = DotDecoder::new();
        let mut refusal = None;
        loop {
            let (consumed, ended) = dots.decode(self.client.input(), spool.sink());
            self.client.input().advance(consumed);
            if spool.len() > self.gateway.limits.message_bytes && refusal.is_none() {
                self.gateway.metrics.limit_reached("message_bytes");
                refusal = Some(Reply::new(552, "5.3.4", "the message is too large"));
            }
            if refusal.is_some() {
                spool.discard();
            } else if let Err(error) = spool.settle().await {
                tracing::error!(%error, "a message could not be collected");
                refusal = Some(Reply::new(452, "4.3.1", "no room for the message now, try again later"));
            }
            if ended {
                break;
            }
            self.read_more().await?;
        }
        if let Some(reply) = refusal {
            return Ok(Collected::Refused(reply));
        }
        if let Some((what, at)) = first_fault(&dots) {
            let text = format!(
                "{what} at octet {at} of the message: lines must end in CRLF (RFC 5321 section 2.3.8)"
            );
            return Ok(Collected::Refused(Reply::new(550, "5.5.2", text)));
        }
        match spool.finish().await {
            Ok(original) => Ok(Collected::Whole(Arc::new(original))),
            Err(error) => {
                tracing::error!(%error, "a message could not be collected");
                Ok(Collected::Refused(Reply::new(
                    452,
                    "4.3.1",
                    "no room for the message now, try again later",
                )))
            }
        }
    }

    /// Judges a message and does what the policy says; the reply to its end.
    async fn settle(&mut self, original: Arc<Original>) -> Result<Reply, End> {
        let begun = Instant::now();
        let envelope = self.envelope();
        let received = self.received(&envelope);
        let door = Door::Smtp { received: received.clone() };
        let judged = self.gateway.judge(&envelope, &original, &self.listener.policy, door).await;
        let action = self.listener.policy.smtp.answer(judged.verdict.class);
        self.gateway.metrics.added(&self.listener.name, "DATA", begun.elapsed());
        let (custody, reply) = match action {
            Action::Deliver | Action::Stamp => self.deliver(&judged, &original).await?,
            Action::Quarantine => self.quarantine(&judged, &original, &envelope, &received).await,
            Action::Discard => self.discard(&judged, &envelope).await,
            Action::Reject => (None, refusal(550, "5.7.1", &judged)),
            Action::Defer => (None, refusal(451, "4.7.1", &judged)),
        };
        if !matches!(action, Action::Deliver | Action::Stamp) {
            self.reset_upstream().await;
        }
        let reply = custody.as_ref().map_or(reply, Custody::reply);
        let held_by = custody.as_ref().map(Custody::as_str);
        if let Some(kind) = held_by {
            self.gateway.metrics.custody(kind);
        }
        let summary = reply.summary();
        let fate = Fate { action: action.as_str(), custody: held_by, reply: Some(&summary) };
        self.gateway.record(self.listener, PROTOCOL, &envelope, &judged, &fate);
        Ok(reply)
    }

    /// The envelope with what the connection tells.
    fn envelope(&self) -> Envelope {
        let transaction = &self.transaction;
        Envelope {
            client: Some(self.peer.0.ip()),
            helo: transaction.hello().map(|hello| hello.name.clone()),
            authenticated: transaction.is_authenticated(),
            tls: self.client.tls().map(|tls| tls.version.to_owned()),
            ..transaction.envelope().clone()
        }
    }

    fn received(&self, envelope: &Envelope) -> String {
        let trace = Trace {
            hostname: &self.gateway.hostname,
            extended: self.transaction.hello().is_some_and(|hello| hello.extended),
            cipher: self.client.tls().map(|tls| tls.cipher.as_str()),
            at: Timestamp::now(),
        };
        received(envelope, &trace)
    }

    async fn deliver(
        &mut self,
        judged: &Judged,
        original: &Arc<Original>,
    ) -> Result<(Option<Custody>, Reply), End> {
        let mut replayed = false;
        loop {
            let outcome = match &mut self.leg {
                Some(leg) => leg.deliver(&judged.rendition, &**original).await,
                None => Err(leg::Doubt { may_be_held: false, cause: LegError::Closed }),
            };
            let doubt = match outcome {
                Ok(Delivery::Accepted(accepted)) => {
                    let custody = Custody::Upstream(accepted);
                    let reply = custody.reply();
                    return Ok((Some(custody), reply));
                }
                Ok(Delivery::Refused(reply)) if reply.code() != 421 || replayed => return Ok((None, reply)),
                Ok(Delivery::Refused(reply)) => leg::Doubt {
                    may_be_held: false,
                    cause: LegError::Unexpected { command: "DATA", reply: reply.summary() },
                },
                Err(doubt) => doubt,
            };
            tracing::warn!(id = %judged.id, cause = %doubt.cause, "a message was not delivered");
            self.leg = None;
            let retry = !doubt.may_be_held && !replayed && self.reconnect(doubt.cause).await.is_ok();
            if !retry {
                return Ok((None, Reply::new(451, "4.4.1", "the mail server went away, try again later")));
            }
            replayed = true;
        }
    }

    async fn quarantine(
        &mut self,
        judged: &Judged,
        original: &Arc<Original>,
        envelope: &Envelope,
        received: &str,
    ) -> (Option<Custody>, Reply) {
        let held = judged.held(self.listener, envelope, received);
        let store = self.gateway.store.clone();
        let source = Arc::clone(original);
        let begun = Instant::now();
        let put =
            spawn_blocking(move || store.quarantine().put(&held, &mut Reader { source: &source, at: 0 }));
        let outcome = put.await;
        self.gateway.metrics.store("quarantine_put", begun.elapsed());
        match outcome {
            Ok(Ok(receipt)) => {
                let custody = Custody::Quarantine(receipt);
                let reply = custody.reply();
                (Some(custody), reply)
            }
            Ok(Err(error)) => {
                tracing::error!(id = %judged.id, %error, "the quarantine could not take a message");
                (None, Reply::new(451, "4.3.0", "the message could not be stored, try again later"))
            }
            Err(error) => {
                tracing::error!(id = %judged.id, %error, "the quarantine failed");
                (None, Reply::new(451, "4.3.0", "the message could not be stored, try again later"))
            }
        }
    }

    async fn discard(&mut self, judged: &Judged, envelope: &Envelope) -> (Option<Custody>, Reply) {
        let fate = Fate { action: Action::Discard.as_str(), custody: Some("discarded"), reply: None };
        let row = self.gateway.row(self.listener, PROTOCOL, envelope, judged, &fate);
        let store = self.gateway.store.clone();
        match spawn_blocking(move || store.journal().write_discard(row)).await {
            Ok(Ok(discarded)) => {
                let custody = Custody::Discarded(discarded);
                let reply = custody.reply();
                (Some(custody), reply)
            }
            outcome => {
                tracing::error!(id = %judged.id, ?outcome, "the journal could not take a decision to discard");
                (None, Reply::new(451, "4.3.0", "the message could not be taken, try again later"))
            }
        }
    }

    /// Ends the upstream's transaction. An upstream that does not follow is left; the next command connects again.
    async fn reset_upstream(&mut self) {
        let reset = self.ask_once(b"RSET\r\n").await;
        if !reset.is_ok_and(|reply| reply.is_positive()) {
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

/// The first thing in a collected message that no message may hold.
fn first_fault(dots: &DotDecoder) -> Option<(&'static str, u64)> {
    let faults = dots.faults();
    [("bare LF", faults.bare_lf), ("bare CR", faults.bare_cr), ("NUL", faults.nul)]
        .into_iter()
        .filter_map(|(what, at)| Some((what, at?)))
        .min_by_key(|&(_, at)| at)
}

fn refusal(code: u16, enhanced: &str, judged: &Judged) -> Reply {
    let why = match judged.verdict.class {
        Class::Unscanned => "the message could not be judged",
        Class::Malware => "the message carries malware",
        _ => "the message looks like spam",
    };
    Reply::new(code, enhanced, format!("{why}; ask your postmaster about {}", judged.id))
}

/// A source read from its beginning to its end.
struct Reader<'a> {
    source: &'a Original,
    at: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let octets = self.source.read_at(self.at, buf)?;
        self.at += octets as u64;
        Ok(octets)
    }
}
