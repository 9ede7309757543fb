//! Why a session cannot go on: whose fault it is, what the client is told, and how the end is counted.

use crate::{
    net::UpgradeError,
    session::{End, SpoolError},
    wire::pop3::response::ResponseFault,
};

/// Why a session ends before QUIT.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client closed its connection.
    ClientGone,
    /// The client was silent, or did not read, for too long.
    ClientSilent,
    /// The client sent a line that does not end.
    ClientLine,
    /// The client made too many errors.
    ClientErrors,
    /// The client, or someone in its place, sent data in clear behind STLS.
    ClientInjected,
    /// The upstream closed its connection.
    UpstreamGone,
    /// The upstream said that it closes its connection, and so did we.
    UpstreamGoodbye,
    /// The upstream did not answer in time.
    UpstreamSilent,
    /// The upstream broke the protocol.
    UpstreamBroken(&'static str),
    /// TLS with the upstream did not come about.
    UpstreamTls(UpgradeError),
    /// A message could not be kept while it was collected.
    Spool(SpoolError),
    /// The gateway is ending.
    Draining,
}

/// Why one leg failed, whosever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LegFault {
    /// The connection ended.
    Gone,
    /// Nothing moved for too long.
    Silent,
    /// A line does not end.
    LineTooLong,
}

impl Fault {
    /// The fault of the client's leg.
    pub(super) fn client(fault: LegFault) -> Self {
        match fault {
            LegFault::Gone => Self::ClientGone,
            LegFault::Silent => Self::ClientSilent,
            LegFault::LineTooLong => Self::ClientLine,
        }
    }

    /// The fault of the upstream's leg.
    pub(super) fn upstream(fault: LegFault) -> Self {
        match fault {
            LegFault::Gone => Self::UpstreamGone,
            LegFault::Silent => Self::UpstreamSilent,
            LegFault::LineTooLong => Self::UpstreamBroken("a line that does not end"),
        }
    }

    /// How the session counts.
    pub(super) fn end(&self) -> End {
        match self {
            Self::ClientGone => End::ClientClosed,
            Self::ClientSilent => End::ClientTimeout,
            Self::ClientLine | Self::ClientErrors | Self::ClientInjected => End::ClientFault,
            Self::UpstreamTls(_) => End::UpstreamUnavailable,
            Self::UpstreamGone | Self::UpstreamSilent | Self::UpstreamBroken(_) => End::UpstreamLost,
            Self::Spool(_) => End::Failed,
            Self::UpstreamGoodbye => End::UpstreamClosed,
            Self::Draining => End::Drained,
        }
    }

    /// What the client is told, where it is there to listen and was not told already. A silent client is left without
    /// a word (RFC 1939 section 3).
    pub(super) fn farewell(&self) -> Option<&'static str> {
        match self {
            Self::ClientGone | Self::ClientSilent | Self::UpstreamGoodbye => None,
            Self::ClientLine => Some("-ERR line too long\r\n"),
            Self::ClientErrors => Some("-ERR too many errors\r\n"),
            Self::ClientInjected => Some("-ERR data in clear behind STLS\r\n"),
            Self::UpstreamGone | Self::UpstreamSilent | Self::UpstreamBroken(_) | Self::UpstreamTls(_) => {
                Some("-ERR [SYS/TEMP] the mail server was lost, try again later\r\n")
            }
            Self::Spool(_) => Some("-ERR [SYS/TEMP] no room for the message, try again later\r\n"),
            Self::Draining => Some("-ERR [SYS/TEMP] the gateway is shutting down, try again later\r\n"),
        }
    }

    /// Tells the operator, where it is an operator's matter.
    pub(super) fn log(&self) {
        match self {
            Self::UpstreamBroken(why) => tracing::warn!(why, "the upstream broke the protocol"),
            Self::UpstreamTls(error) => tracing::warn!(%error, "no TLS with the upstream"),
            Self::UpstreamGone => tracing::info!("the upstream closed the connection"),
            Self::UpstreamSilent => tracing::warn!("the upstream did not answer in time"),
            Self::Spool(error) => tracing::error!(%error, "a message could not be collected"),
            Self::ClientInjected => tracing::warn!("data in clear behind STLS"),
            _ => {}
        }
    }
}

impl From<ResponseFault> for Fault {
    fn from(fault: ResponseFault) -> Self {
        Self::UpstreamBroken(match fault {
            ResponseFault::Line(fault) => fault.as_str(),
            ResponseFault::Status => "not a status line",
        })
    }
}

impl From<SpoolError> for Fault {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}
