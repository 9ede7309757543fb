//! One side of a session: a stream, its lines, and how long it may take.
//!
//! Reads are cancel-safe: what came in stays in the stream. Which side it is shows in how its faults are named by the
//! caller.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::time::{Duration, timeout};

use super::fault::{Fault, LegFault};
use crate::{
    net::Stream,
    wire::{
        dot::DotDecoder,
        line::{Line, LineDecoder},
        pop3::response::Response,
    },
};

/// A peer's stream, read by lines.
pub(super) struct Leg {
    stream: Stream,
    lines: LineDecoder,
}

impl Leg {
    /// A leg whose lines have up to `limit` octets.
    pub(super) fn new(stream: Stream, limit: usize) -> Self {
        Self { stream, lines: LineDecoder::new(limit) }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    pub(super) fn set_line_limit(&mut self, limit: usize) {
        self.lines.set_limit(limit);
    }

    /// From now on one read takes at most `octets`.
    pub(super) fn read_at_most(&mut self, octets: usize) {
        self.stream.read_at_most(octets);
    }

    pub(super) fn input(&mut self) -> &mut BytesMut {
        self.stream.input()
    }

    pub(super) fn output(&mut self) -> &mut BytesMut {
        self.stream.output()
    }

    pub(super) fn queue(&mut self, octets: &[u8]) {
        self.stream.queue(octets);
    }

    pub(super) fn queued(&self) -> usize {
        self.stream.queued()
    }

    /// The next line, if all of it is there.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, LegFault> {
        self.lines.next(self.stream.input()).map_err(|_| LegFault::LineTooLong)
    }

    /// The next line; the peer may pause for `patience`.
    pub(super) async fn line(&mut self, patience: Duration) -> Result<Line, LegFault> {
        loop {
            if let Some(line) = self.next_line()? {
                return Ok(line);
            }
            self.fill_within(patience).await?;
        }
    }

    /// The next line as a server's status line.
    pub(super) async fn response(&mut self, patience: Duration) -> Result<Response, Fault> {
        let line = self.line(patience).await.map_err(Fault::upstream)?;
        Ok(Response::parse(line)?)
    }

    /// Moves what is there of a multi-line answer to `content`, less its stuffing. True: that was its end.
    pub(super) fn decode(&mut self, decoder: &mut DotDecoder, content: &mut Vec<u8>) -> bool {
        let (consumed, end) = decoder.decode(self.stream.input(), content);
        self.stream.input().advance(consumed);
        end
    }

    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.stream.fill().await
    }

    /// Reads once, at least an octet.
    pub(super) async fn fill_within(&mut self, patience: Duration) -> Result<(), LegFault> {
        match timeout(patience, self.stream.fill()).await {
            Ok(Ok(octets)) if octets > 0 => Ok(()),
            Ok(_) => Err(LegFault::Gone),
            Err(_) => Err(LegFault::Silent),
        }
    }

    /// Writes everything that is queued; the peer may take `patience` for it.
    pub(super) async fn flush(&mut self, patience: Duration) -> Result<(), LegFault> {
        match timeout(patience, self.stream.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LegFault::Gone),
            Err(_) => Err(LegFault::Silent),
        }
    }

    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
