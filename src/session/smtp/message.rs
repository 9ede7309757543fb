//! A message at the SMTP gate: collected to its end, judged, and settled with whoever takes it.
//!
//! Guarantees: a message is read to its end whatever is wrong with it; a 2xx to it is made from a [`Custody`] alone;
//! the upstream's leg is kept only where both sides agree on where they stand. Which commands lead here is not known
//! here.

use std::{io, sync::Arc, time::Duration};

use bytes::Buf;
use jiff::Timestamp;
use tokio::{
    select,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use super::{
    PROTOCOL, RESET_PATIENCE, Session,
    custody::Custody,
    leg::{Delivery, Doubt, LegError},
    received::{Trace, received},
};
use crate::{
    mail::Envelope,
    policy::Action,
    render::Source,
    session::{Door, End, Fate, Judged, Original, Spool},
    verdict::Class,
    wire::{dot::DotDecoder, smtp::Reply},
};

/// How long the upstream is left alone while a message is collected: shorter than the patience of servers that are not
/// under stress, and long enough not to be counted as junk.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(60);

/// Whether the upstream still has MAIL and RCPT of a message that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamTransaction {
    Open,
    Over,
}

/// A collected message, or why there is none.
enum Collected {
    Whole(Arc<Original>),
    Refused(Reply),
}

impl Session<'_> {
    /// DATA: 354, the message, and what becomes of it.
    pub(super) async fn take_message(&mut self) -> Result<(), End> {
        self.say(&Reply::plain(354, ["End data with <CR><LF>.<CR><LF>"]));
        self.flush().await?;
        let collected = self.collect().await?;
        let (reply, upstream) = match collected {
            Collected::Whole(original) => self.settle(original).await,
            Collected::Refused(reply) => (reply, UpstreamTransaction::Open),
        };
        self.transaction.reset();
        self.say(&reply);
        if upstream == UpstreamTransaction::Open {
            // The client need not wait for this.
            self.flush().await?;
            self.reset_upstream().await;
        }
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
        let mut awake_until = Instant::now() + UPSTREAM_PATIENCE;
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
            self.read_more(&mut awake_until).await?;
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
    async fn settle(&mut self, original: Arc<Original>) -> (Reply, UpstreamTransaction) {
        let begun = Instant::now();
        let envelope = self.envelope();
        let received = self.received(&envelope);
        let door = Door::Smtp { received: received.clone() };
        let judged = self.gateway.judge(&envelope, &original, &self.listener.policy, door).await;
        let action = self.listener.policy.smtp.answer(judged.verdict.class);
        self.gateway.metrics.added(&self.listener.name, "DATA", begun.elapsed());
        let mut upstream = UpstreamTransaction::Open;
        let (custody, reply) = match action {
            Action::Deliver | Action::Stamp => {
                let (custody, reply, left) = self.deliver(&judged, &original).await;
                upstream = left;
                (custody, reply)
            }
            Action::Quarantine => self.quarantine(&judged, &original, &envelope, &received).await,
            Action::Discard => self.discard(&judged, &envelope).await,
            Action::Reject => (None, refusal(550, "5.7.1", &judged)),
            Action::Defer => (None, refusal(451, "4.7.1", &judged)),
        };
        let reply = custody.as_ref().map_or(reply, Custody::reply);
        let held_by = custody.as_ref().map(Custody::as_str);
        if let Some(kind) = held_by {
            self.gateway.metrics.custody(kind);
        }
        let summary = reply.summary();
        let fate = Fate { action: action.as_str(), custody: held_by, reply: Some(&summary) };
        self.gateway.record(self.listener, PROTOCOL, &envelope, &judged, &fate);
        (reply, upstream)
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

    /// Hands a message to the upstream. The leg is kept only where both sides agree on where they stand.
    async fn deliver(
        &mut self,
        judged: &Judged,
        original: &Arc<Original>,
    ) -> (Option<Custody>, Reply, UpstreamTransaction) {
        let mut replayed = false;
        loop {
            let outcome = match &mut self.leg {
                Some(leg) => leg.deliver(&judged.rendition, &**original).await,
                None => Err(Doubt { may_be_held: false, cause: LegError::Closed }),
            };
            let doubt = match outcome {
                Ok(Delivery::Accepted(accepted)) => {
                    let custody = Custody::Upstream(accepted);
                    let reply = custody.reply();
                    return (Some(custody), reply, UpstreamTransaction::Over);
                }
                Ok(Delivery::Refused(reply)) => return (None, reply, UpstreamTransaction::Over),
                Ok(Delivery::NotWanted(reply)) => return (None, reply, UpstreamTransaction::Open),
                Ok(Delivery::BrokenOff(reply)) => {
                    self.leg = None;
                    return (None, reply, UpstreamTransaction::Over);
                }
                Err(doubt) => doubt,
            };
            tracing::warn!(id = %judged.id, cause = %doubt.cause, "a message was not delivered");
            self.leg = None;
            let retry = !doubt.may_be_held && !replayed && self.reconnect(doubt.cause).await.is_ok();
            if !retry {
                let reply = Reply::new(451, "4.4.1", "the mail server went away, try again later");
                return (None, reply, UpstreamTransaction::Over);
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

    /// Reads once while a message is coming, and keeps the upstream awake meanwhile.
    async fn read_more(&mut self, awake_until: &mut Instant) -> Result<(), End> {
        let deadline = Instant::now() + self.gateway.limits.data_timeout;
        loop {
            if *awake_until <= Instant::now() {
                self.keep_awake().await;
                *awake_until = Instant::now() + UPSTREAM_PATIENCE;
            }
            let mut drain = self.gateway.drain.clone();
            let read = select! {
                read = timeout_at(deadline.min(*awake_until), self.client.fill()) => read,
                () = drain.cut() => return Err(self.go_down()),
            };
            match read {
                Ok(Ok(0) | Err(_)) => return Err(End::ClientClosed),
                Ok(Ok(_)) => return Ok(()),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => {
                    self.gateway.metrics.limit_reached("data_timeout");
                    self.say(&Reply::new(421, "4.4.2", "no data for too long, closing"));
                    return Err(End::ClientTimeout);
                }
            }
        }
    }

    /// An upstream that does not answer is left; the delivery connects again where it may.
    async fn keep_awake(&mut self) {
        if let Some(leg) = &mut self.leg
            && !timeout(RESET_PATIENCE, leg.keep_awake()).await.is_ok_and(|kept| kept.is_ok())
        {
            self.leg = None;
        }
    }
}

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
