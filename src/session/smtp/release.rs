//! A held message on its way to where it would have gone: its own envelope, its own octets, and the `Received`
//! field that delivery would have put before it.
//!
//! It says whether the upstream took the message, certainly did not, or may have; what is written down about that is
//! the caller's affair.

use std::{io, ops::Range};

use bytes::Bytes;

use super::leg::{Delivery, Leg, LegError, Octets};
use crate::{
    limits::Limits,
    mail::Message,
    net::Upstream,
    render::{Rendition, Stamp},
    store::{Body, Held},
    wire::smtp::Reply,
};

/// Octets of the message that are read to find where its header begins.
const HEAD_OCTETS: u64 = 64 * 1024;

/// Why a delivery did not end with a 2xx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The upstream has certainly not taken it.
    #[error("{0}")]
    Certain(String),
    /// The connection ended after the final dot and before the reply.
    #[error("{0}")]
    Doubtful(String),
}

impl From<LegError> for ReleaseError {
    fn from(error: LegError) -> Self {
        Self::Certain(error.to_string())
    }
}

/// Delivers a held message to `upstream`; what it said.
pub async fn release(
    upstream: &Upstream,
    hostname: &str,
    limits: &Limits,
    held: &Held,
    body: Body,
) -> Result<Reply, ReleaseError> {
    let body = HeldBody(body);
    let head = body.read(0..held.len.min(HEAD_OCTETS)).await;
    let head = head.map_err(|error| ReleaseError::Certain(error.to_string()))?;
    let message = Message::parse_prefix(head, held.len);
    let rendition = Rendition::stamped(&message, &Stamp::received(&held.received), None, None);
    let (mut leg, greeting) = Leg::open(upstream, hostname, limits, |stream| stream).await?;
    if !greeting.is_positive() {
        return Err(ReleaseError::Certain(greeting.summary()));
    }
    leg.replay(Some(format!("EHLO {hostname}\r\n").as_bytes()), &held.envelope).await?;
    let outcome = leg.deliver(&rendition, &body).await;
    leg.leave().await;
    match outcome {
        Ok(Delivery::Accepted(accepted)) => Ok(accepted.reply().clone()),
        Ok(Delivery::Refused(reply) | Delivery::NotWanted(reply) | Delivery::BrokenOff(reply)) => {
            Err(ReleaseError::Certain(reply.summary()))
        }
        Err(doubt) if doubt.may_be_held => Err(ReleaseError::Doubtful(doubt.cause.to_string())),
        Err(doubt) => Err(doubt.cause.into()),
    }
}

struct HeldBody(Body);

impl Octets for HeldBody {
    /// Blocks: a release has a thread of its own.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut octets = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.0.read_at(range.start + filled as u64, &mut octets[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        Ok(Bytes::from(octets))
    }
}
