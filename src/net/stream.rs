//! A byte stream, plain or TLS, with a read and a write buffer.
//!
//! Guarantees: a read takes no more than it may ([`Stream::read_at_most`]), so that a peer nobody knows yet costs little
//! memory; reads and writes are cancel-safe (what was read stays in `input`, what was not written stays in
//! `output`); an idle stream holds no buffer memory; TLS cannot begin over input that is already buffered, which
//! ends STARTTLS injection on either leg.
//! It leaves out all framing: codecs take what they want from `input`.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls::{ClientTls, ServerTls, TlsFacts, UpgradeError};
use crate::telemetry::Traffic;

/// Octets read from a socket at once. One such buffer per worker thread, not per session.
const READ_OCTETS: usize = 64 * 1024;

/// Anything octets come from and go to: a socket, a TLS session, a pipe in a test.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// One peer's stream.
pub struct Stream {
    io: Box<dyn Transport>,
    input: BytesMut,
    output: BytesMut,
    /// Octets that one read takes at most. Invariant: at least one, and no more than there is scratch space.
    read_at_most: usize,
    tls: Option<Box<TlsFacts>>,
    traffic: Option<Box<Traffic>>,
    /// The host that was connected to; none for streams that were accepted.
    host: Option<Arc<str>>,
}

/// What TLS begins with: a transport nothing was read from ahead, and its counters.
type CleanParts = (Box<dyn Transport>, Option<Box<Traffic>>);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_OCTETS].into_boxed_slice());
}

impl Stream {
    /// A stream over `io`, in clear.
    pub fn new(io: impl Transport + 'static) -> Self {
        Self {
            io: Box::new(io),
            input: BytesMut::new(),
            output: BytesMut::new(),
            read_at_most: READ_OCTETS,
            tls: None,
            traffic: None,
            host: None,
        }
    }

    /// The same stream, counted. Counts octets of the protocol, not of TLS.
    pub fn counted(mut self, traffic: Traffic) -> Self {
        self.traffic = Some(Box::new(traffic));
        self
    }

    /// The same stream, which leads to `host`: the name its certificate must have.
    pub fn to_host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// What was read and not yet consumed.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// From now on one read takes at most `octets`, but at least one. What does not fit stays with the transport, and that is
    /// the peer's back-pressure. A stream begins without a bound of its own, also behind an upgrade.
    pub fn read_at_most(&mut self, octets: usize) {
        self.read_at_most = octets.clamp(1, READ_OCTETS);
    }

    /// Reads once, appending to [`Self::input`]; the number of octets, 0 at the end of the stream. Cancel-safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// As [`Self::fill`], for use beside other things.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..self.read_at_most]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            let octets = buffer.filled();
            self.input.extend_from_slice(octets);
            Poll::Ready(Ok(octets.len()))
        });
        match &read {
            Poll::Pending => self.forget_empty_buffers(),
            Poll::Ready(Ok(octets)) => {
                if let Some(traffic) = &self.traffic {
                    traffic.read.inc_by(*octets as u64);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        read
    }

    /// Appends to what will be written.
    pub fn queue(&mut self, octets: &[u8]) {
        self.output.extend_from_slice(octets);
    }

    /// What will be written, for encoders that append.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// How many octets wait to be written.
    pub fn queued(&self) -> usize {
        self.output.len()
    }

    /// Writes everything that is queued. Cancel-safe.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// As [`Self::flush`], for use beside other things.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
            if let Some(traffic) = &self.traffic {
                traffic.written.inc_by(written as u64);
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Tells the peer that nothing more will come from us (half-close; `close_notify` under TLS).
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// As [`Self::shutdown`], for use beside other things. What is queued is written first.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Takes the stream out, to be consumed by an upgrade; what stays is at its end and loses what is written.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(tokio::io::join(tokio::io::empty(), tokio::io::sink())))
    }

    /// The TLS session, when there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_deref()
    }

    /// Takes the server's part of a TLS handshake.
    pub async fn accept_tls(self, tls: &ServerTls) -> Result<Self, UpgradeError> {
        let (io, traffic) = self.into_clean_parts()?;
        let session = tls.acceptor().accept(io).await.map_err(UpgradeError::Handshake)?;
        let facts = TlsFacts::of(session.get_ref().1);
        Ok(Self { tls: Some(Box::new(facts)), traffic, ..Self::new(session) })
    }

    /// Takes the client's part of a TLS handshake with the host the stream leads to.
    pub async fn connect_tls(self, tls: &ClientTls) -> Result<Self, UpgradeError> {
        let name = tls.server_name(self.host.as_deref().unwrap_or_default())?;
        let (io, traffic) = self.into_clean_parts()?;
        let session = tls.connector().connect(name, io).await.map_err(UpgradeError::Handshake)?;
        let facts = TlsFacts::of(session.get_ref().1);
        Ok(Self { tls: Some(Box::new(facts)), traffic, ..Self::new(session) })
    }

    fn into_clean_parts(self) -> Result<CleanParts, UpgradeError> {
        if self.tls.is_some() {
            return Err(UpgradeError::AlreadyEncrypted);
        }
        if !self.input.is_empty() || !self.output.is_empty() {
            return Err(UpgradeError::Buffered);
        }
        Ok((self.io, self.traffic))
    }

    fn forget_empty_buffers(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > 0 {
                *buffer = BytesMut::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_queued_arrives_and_what_arrives_is_kept() {
        let (near, mut far) = duplex(8);
        let mut stream = Stream::new(near);
        stream.queue(b"a long greeting");
        let reader = async {
            let mut got = [0; 15];
            far.read_exact(&mut got).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            got
        };
        let (flushed, got) = tokio::join!(stream.flush(), reader);
        flushed.unwrap();
        assert_eq!(&got, b"a long greeting");
        assert_eq!(stream.fill().await.unwrap(), 6);
        assert_eq!(&stream.input()[..], b"answer");
    }

    #[tokio::test]
    async fn an_idle_stream_holds_no_buffers() {
        let (near, mut far) = duplex(64);
        let mut stream = Stream::new(near);
        far.write_all(b"x").await.unwrap();
        stream.fill().await.unwrap();
        stream.input().clear();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), stream.fill()).await;
        assert!(waiting.is_err());
        assert_eq!(stream.input().capacity(), 0);
    }

    #[tokio::test]
    async fn one_read_takes_what_it_may_and_the_next_goes_on() {
        let (near, mut far) = duplex(2 * READ_OCTETS);
        let mut stream = Stream::new(near);
        far.write_all(&vec![b'x'; 2 * READ_OCTETS]).await.unwrap();
        let mut left = 2 * READ_OCTETS;
        for (bound, taken) in [(10, 10), (1, 1), (0, 1), (usize::MAX, READ_OCTETS)] {
            stream.read_at_most(bound);
            assert_eq!(stream.fill().await.unwrap(), taken, "{bound}");
            left -= taken;
        }
        assert_eq!(stream.fill().await.unwrap(), left);
        assert_eq!(stream.input().len(), 2 * READ_OCTETS);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_reads_as_zero() {
        let (near, far) = duplex(8);
        drop(far);
        assert_eq!(Stream::new(near).fill().await.unwrap(), 0);
    }
}
