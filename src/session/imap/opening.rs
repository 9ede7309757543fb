//! Opening the upstream's leg, up to where the relay takes over.
//!
//! Where TLS has to be begun in the protocol (RFC 9051 section 6.2.1), this is a short dialogue of the gate's own: greeting,
//! STARTTLS, TLS, CAPABILITY. Nothing that was said in clear survives it but the text of the greeting: a PREAUTH is refused (it
//! would leave the leg in clear), and so is whatever stands behind the go-ahead (it would be taken as said under TLS).

use std::io;

use bytes::BytesMut;

use crate::{
    net::{ConnectError, Stream, UpgradeError, Upstream},
    session::{Gateway, Listener},
    wire::imap::{
        fragment::{Fragment, Fragmentizer, Line},
        response::{Condition, Response},
    },
};

/// Why there is no session with the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("TLS did not come about: {0}")]
    Tls(#[from] UpgradeError),
    #[error("the connection was closed")]
    Closed,
    #[error("no answer in time")]
    Timeout,
    #[error("the greeting is not OK")]
    Greeting,
    #[error("the greeting is PREAUTH, which would leave the connection in clear")]
    PreAuth,
    #[error("STARTTLS was refused")]
    StartTlsRefused,
    #[error("something stands in clear behind the go-ahead for TLS")]
    Injection,
    #[error("an answer that is not understood")]
    Answer,
}

/// The upstream's stream, and the greeting for the client where the upstream's own was used up.
pub(super) async fn open(listener: &Listener, gateway: &Gateway) -> Result<(Stream, BytesMut), Fault> {
    let stream = listener.count_upstream(listener.upstream.connect().await?, &gateway.metrics);
    if listener.upstream.starttls() {
        negotiate(stream, &listener.upstream).await
    } else {
        Ok((stream, BytesMut::new()))
    }
}

async fn negotiate(stream: Stream, upstream: &Upstream) -> Result<(Stream, BytesMut), Fault> {
    let (stream, text) = ask_for_tls(stream).await?;
    let stream = upstream.upgrade(stream).await?;
    let (stream, list) = ask_for_capabilities(stream).await?;
    let mut greeting = BytesMut::from(&b"* OK "[..]);
    if let Some(list) = list {
        greeting.extend_from_slice(b"[CAPABILITY");
        greeting.extend_from_slice(&list);
        greeting.extend_from_slice(b"] ");
    }
    greeting.extend_from_slice(&text);
    greeting.extend_from_slice(b"\r\n");
    Ok((stream, greeting))
}

/// Greeting and STARTTLS in clear; gives back the greeting's text.
async fn ask_for_tls(stream: Stream) -> Result<(Stream, Vec<u8>), Fault> {
    let mut dialogue = Dialogue::new(stream);
    let greeting = dialogue.line().await?;
    let text = match Response::parse(&greeting) {
        Response::Status { tag: None, condition: Condition::Ok, text, .. } => {
            greeting.get(text).unwrap_or_default().to_vec()
        }
        Response::Status { tag: None, condition: Condition::PreAuth, .. } => return Err(Fault::PreAuth),
        _ => return Err(Fault::Greeting),
    };
    let (condition, _) = dialogue.ask(b"gatepost1", b"STARTTLS").await?;
    match condition {
        Condition::Ok if dialogue.stream.input().is_empty() => Ok((dialogue.stream, text)),
        Condition::Ok => Err(Fault::Injection),
        _ => Err(Fault::StartTlsRefused),
    }
}

/// CAPABILITY under TLS; what was offered in clear is not believed.
async fn ask_for_capabilities(stream: Stream) -> Result<(Stream, Option<Vec<u8>>), Fault> {
    let mut dialogue = Dialogue::new(stream);
    match dialogue.ask(b"gatepost2", b"CAPABILITY").await? {
        (Condition::Ok, list) => Ok((dialogue.stream, list)),
        _ => Err(Fault::Answer),
    }
}

/// Single lines with an upstream that has nothing else to do.
struct Dialogue {
    stream: Stream,
    codec: Fragmentizer,
}

impl Dialogue {
    fn new(stream: Stream) -> Self {
        Self { stream, codec: Fragmentizer::lenient(LINE) }
    }

    /// Says a command and waits for its end; the capability list, if one came on the way.
    async fn ask(&mut self, tag: &[u8], command: &[u8]) -> Result<(Condition, Option<Vec<u8>>), Fault> {
        self.stream.queue(&[tag, b" ", command, b"\r\n"].concat());
        self.stream.flush().await?;
        let mut capabilities = None;
        for _ in 0..ANSWER_LINES {
            let line = self.line().await?;
            match Response::parse(&line) {
                Response::Status { tag: Some(answered), condition, .. } if answered == tag => {
                    return Ok((condition, capabilities));
                }
                Response::Capability(list) => capabilities = line.get(list).map(<[u8]>::to_vec),
                Response::Status { tag: None, condition: Condition::Bye, .. } => return Err(Fault::Closed),
                _ => {}
            }
        }
        Err(Fault::Answer)
    }

    async fn line(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            match self.codec.next(self.stream.input()) {
                Ok(Some(Fragment::Line(Line { octets, announces: None, .. }))) => return Ok(octets.to_vec()),
                Ok(Some(_)) | Err(_) => return Err(Fault::Answer),
                Ok(None) => {}
            }
            if self.stream.fill().await? == 0 {
                return Err(Fault::Closed);
            }
        }
    }
}

/// Octets of one line of the dialogue.
const LINE: usize = 8 * 1024;
/// Lines of one answer.
const ANSWER_LINES: usize = 16;
