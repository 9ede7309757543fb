//! The upstream's leg of an SMTP session: opened, asked, handed a message, left politely.
//!
//! [`Accepted`] is made here and nowhere else, from a 2xx to the end of a message. Whether a command may be sent is
//! the session's affair; what its reply means for the transaction, too.

use std::{
    future::{Future, poll_fn},
    io,
    ops::Range,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    limits::Limits,
    mail::Envelope,
    net::{ConnectError, Stream, UpgradeError, Upstream},
    render::{Rendition, Segment},
    session::Original,
    wire::{
        dot::DotEncoder,
        smtp::{Extensions, Reply, ReplyDecoder, ReplyFault},
    },
};

/// Octets of the body that gather before they are written.
const WRITE_OCTETS: u64 = 64 * 1024;
/// How long a goodbye may take; nobody waits for its answer.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection to the upstream, greeted.
pub struct Leg {
    stream: Stream,
    replies: ReplyDecoder,
    reply_timeout: Duration,
    write_timeout: Duration,
    final_timeout: Duration,
}

/// Why the leg cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// No server answers.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// TLS is asked for and the upstream does not offer it, or refuses it.
    #[error("the upstream refuses STARTTLS: {0}")]
    NoTls(String),
    /// TLS did not come about.
    #[error(transparent)]
    Tls(#[from] UpgradeError),
    /// The connection broke.
    #[error("the connection to the upstream broke: {0}")]
    Broken(#[from] io::Error),
    /// The upstream closed the connection.
    #[error("the upstream closed the connection")]
    Closed,
    /// No reply in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// Something came that was not asked for: no later reply could be told from it.
    #[error("the upstream spoke without being asked")]
    OutOfStep,
    /// What came is not SMTP.
    #[error("the upstream sent {0}")]
    Fault(#[from] ReplyFault),
    /// A reply that does not belong here.
    #[error("the upstream answered {command} with {reply}")]
    Unexpected {
        /// What was asked.
        command: &'static str,
        /// What came, in one line.
        reply: String,
    },
}

/// Proof that the upstream took the message: its 2xx to the end of it.
#[derive(Debug)]
pub struct Accepted {
    reply: Reply,
}

impl Accepted {
    /// What it said.
    pub fn reply(&self) -> &Reply {
        &self.reply
    }
}

/// What the upstream said to a message.
#[derive(Debug)]
pub enum Delivery {
    /// It has it.
    Accepted(Accepted),
    /// It does not take it, in its own words, after the end of it.
    Refused(Reply),
    /// It does not even want to see it: refused at DATA. Its transaction is still open.
    NotWanted(Reply),
    /// It refused before the end was sent. The leg stands in the middle of a message and is of no more use.
    BrokenOff(Reply),
}

/// A delivery without an answer.
#[derive(Debug)]
pub struct Doubt {
    /// Whether the end of the message may have reached the upstream: then it may hold the message.
    pub may_be_held: bool,
    /// What happened.
    pub cause: LegError,
}

/// Where the octets of an original are read from while they are delivered.
pub trait Octets {
    /// The octets of `range`.
    fn read(&self, range: Range<u64>) -> impl Future<Output = io::Result<Bytes>> + Send;
}

impl Octets for Original {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        Self::read(self, range).await
    }
}

impl Leg {
    /// Connects and reads the greeting, with TLS before anything else is said where it is asked for. `hostname` is
    /// what we call ourselves, `counted` gives the stream its counters.
    pub async fn open(
        upstream: &Upstream,
        hostname: &str,
        limits: &Limits,
        counted: impl FnOnce(Stream) -> Stream,
    ) -> Result<(Self, Reply), LegError> {
        let stream = counted(upstream.connect().await?);
        let mut leg = Self {
            stream,
            replies: ReplyDecoder::default(),
            reply_timeout: limits.upstream_reply_timeout,
            write_timeout: limits.data_timeout,
            final_timeout: limits.final_reply_timeout,
        };
        let greeting = leg.reply(limits.upstream_connect_timeout).await?;
        if upstream.starttls() && greeting.is_positive() {
            leg = leg.start_tls(upstream, hostname).await?;
        }
        Ok((leg, greeting))
    }

    async fn start_tls(mut self, upstream: &Upstream, hostname: &str) -> Result<Self, LegError> {
        let hello = self.ask(format!("EHLO {hostname}\r\n").as_bytes()).await?;
        if !hello.is_positive() || Extensions::read(&hello).arguments("STARTTLS").is_none() {
            return Err(LegError::NoTls("it is not in its list of capabilities".to_owned()));
        }
        let go_ahead = self.ask(b"STARTTLS\r\n").await?;
        if go_ahead.code() != 220 {
            return Err(LegError::NoTls(go_ahead.summary()));
        }
        let stream = upstream.upgrade(self.stream).await?;
        Ok(Self { stream, replies: ReplyDecoder::default(), ..self })
    }

    /// Sends a command line and waits for its reply.
    pub async fn ask(&mut self, line: &[u8]) -> Result<Reply, LegError> {
        self.expect_silence().await?;
        self.stream.queue(line);
        self.flush().await?;
        self.reply(self.reply_timeout).await
    }

    /// Fails if the upstream said something since its last reply, or went away: mostly a 421 after a time-out. What
    /// is not read now could later be taken for the answer to something else.
    async fn expect_silence(&mut self) -> Result<(), LegError> {
        match poll_fn(|cx| Poll::Ready(self.stream.poll_fill(cx))).await {
            Poll::Pending if self.stream.input().is_empty() => Ok(()),
            Poll::Pending | Poll::Ready(Ok(1..)) => Err(LegError::OutOfStep),
            Poll::Ready(Ok(0)) => Err(LegError::Closed),
            Poll::Ready(Err(error)) => Err(LegError::Broken(error)),
        }
    }

    /// Asks for nothing, so that the upstream does not lose patience while a message is collected.
    pub async fn keep_awake(&mut self) -> Result<(), LegError> {
        self.ask_positive("NOOP", b"NOOP\r\n").await.map(drop)
    }

    /// Brings a fresh leg to where a lost one was: EHLO or HELO as the client said it, then the transaction.
    pub async fn replay(&mut self, hello: Option<&[u8]>, envelope: &Envelope) -> Result<(), LegError> {
        if let Some(hello) = hello {
            self.ask_positive("EHLO", hello).await?;
        }
        self.open_transaction(envelope).await
    }

    /// MAIL and RCPT as the envelope has them; nothing for an envelope without a sender. Each must be accepted.
    pub async fn open_transaction(&mut self, envelope: &Envelope) -> Result<(), LegError> {
        let Some(sender) = &envelope.sender else { return Ok(()) };
        let line = command_line("MAIL FROM", sender, &envelope.mail_parameters);
        self.ask_positive("MAIL", line.as_bytes()).await?;
        for recipient in &envelope.recipients {
            let line = command_line("RCPT TO", &recipient.address, &recipient.parameters);
            self.ask_positive("RCPT", line.as_bytes()).await?;
        }
        Ok(())
    }

    async fn ask_positive(&mut self, command: &'static str, line: &[u8]) -> Result<Reply, LegError> {
        let reply = self.ask(line).await?;
        if reply.is_positive() {
            Ok(reply)
        } else {
            Err(LegError::Unexpected { command, reply: reply.summary() })
        }
    }

    /// Hands over a message: DATA, the rendition dot-stuffed, the end, and the upstream's answer.
    pub async fn deliver(
        &mut self,
        rendition: &Rendition,
        original: &impl Octets,
    ) -> Result<Delivery, Doubt> {
        let before = |cause| Doubt { may_be_held: false, cause };
        let go_ahead = self.ask(b"DATA\r\n").await.map_err(before)?;
        match go_ahead.code() {
            354 => {}
            400.. => return Ok(Delivery::NotWanted(go_ahead)),
            _ => return Err(before(LegError::Unexpected { command: "DATA", reply: go_ahead.summary() })),
        }
        if let Err(cause) = self.write_body(rendition, original).await {
            // Without the final dot nothing was handed over. An upstream that breaks off early may have said why.
            return match self.last_words().await {
                Some(reply) => Ok(Delivery::BrokenOff(reply)),
                None => Err(before(cause)),
            };
        }
        let after = |cause| Doubt { may_be_held: true, cause };
        self.flush().await.map_err(after)?;
        let reply = self.reply(self.final_timeout).await.map_err(after)?;
        match reply.code() / 100 {
            2 => Ok(Delivery::Accepted(Accepted { reply })),
            4 | 5 => Ok(Delivery::Refused(reply)),
            _ => Err(after(LegError::Unexpected { command: "the message", reply: reply.summary() })),
        }
    }

    /// Writes all of the message but its last octets and the final dot, which stay queued.
    async fn write_body(&mut self, rendition: &Rendition, original: &impl Octets) -> Result<(), LegError> {
        let mut dots = DotEncoder::new();
        for piece in rendition.pieces(WRITE_OCTETS) {
            if self.stream.queued() as u64 >= WRITE_OCTETS {
                self.flush().await?;
            }
            let octets = match piece {
                Segment::Added(octets) => octets,
                Segment::Original(span) => original.read(span).await?,
            };
            dots.encode(&octets, self.stream.output());
        }
        dots.finish(self.stream.output());
        // A reply that is there before the end of the message cannot be the answer to it.
        self.expect_silence().await
    }

    /// A refusal that the upstream sent before it broke the connection.
    async fn last_words(&mut self) -> Option<Reply> {
        self.reply(GOODBYE).await.ok().filter(|reply| reply.code() >= 400)
    }

    /// Leaves with QUIT; nobody waits for the answer.
    pub async fn leave(mut self) {
        self.stream.queue(b"QUIT\r\n");
        // A peer that is gone does not mind.
        let _ = timeout(GOODBYE, self.stream.shutdown()).await;
    }

    async fn flush(&mut self) -> Result<(), LegError> {
        timeout(self.write_timeout, self.stream.flush()).await.map_err(|_| LegError::Timeout)??;
        Ok(())
    }

    async fn reply(&mut self, within: Duration) -> Result<Reply, LegError> {
        let read = async {
            loop {
                if let Some(reply) = self.replies.next(self.stream.input())? {
                    return Ok(reply);
                }
                if self.stream.fill().await? == 0 {
                    return Err(LegError::Closed);
                }
            }
        };
        timeout(within, read).await.unwrap_or(Err(LegError::Timeout))
    }
}

/// A MAIL or RCPT line.
fn command_line(command: &str, path: &str, parameters: &str) -> String {
    let blank = if parameters.is_empty() { "" } else { " " };
    format!("{command}:<{path}>{blank}{parameters}\r\n")
}
