//! Connections to a real server: which address, how long to wait, TLS where it comes first.
//!
//! Servers are tried in the order of the configuration; what a protocol must say before STARTTLS is the session's
//! affair, and it ends with [`Upstream::upgrade`].

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    stream::Stream,
    tls::{ClientTls, UpgradeError},
};
use crate::telemetry::Metrics;

/// How the upstream's leg is encrypted.
#[derive(Clone)]
pub enum UpstreamTls {
    /// In clear.
    Off,
    /// Begun in the protocol by STARTTLS or STLS; without it there is no session.
    StartTls(ClientTls),
    /// From the first octet.
    Implicit(ClientTls),
}

/// How a connection to a server comes about.
#[derive(Clone, Default)]
pub enum Dial {
    /// Over TCP.
    #[default]
    Tcp,
    /// From a function: pipes, for tests without a network.
    Pipe(Arc<dyn Fn() -> io::Result<Stream> + Send + Sync>),
}

/// A real server behind us, or several that are equal.
pub struct Upstream {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Where it listens, as `host:port`, in the order they are tried.
    pub servers: Vec<String>,
    /// How its leg is encrypted.
    pub tls: UpstreamTls,
    /// How a connection to a server comes about.
    pub dial: Dial,
    /// How long one server may take to accept and to finish TLS.
    pub connect_timeout: Duration,
    /// Where the outcome is counted.
    pub metrics: Arc<Metrics>,
}

/// Why no server could be reached: what the last one tried said.
#[derive(Debug, thiserror::Error)]
#[error("upstream {upstream} ({server}): {cause}")]
pub struct ConnectError {
    upstream: Arc<str>,
    server: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("no server is configured")]
    NoServer,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] UpgradeError),
    #[error("no answer in time")]
    Timeout,
}

impl Upstream {
    /// Connects to the first server that answers, with TLS where it is implicit.
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let mut last =
            ConnectError { upstream: Arc::clone(&self.name), server: String::new(), cause: Cause::NoServer };
        for server in &self.servers {
            let begun = Instant::now();
            let outcome =
                timeout(self.connect_timeout, self.reach(server)).await.unwrap_or(Err(Cause::Timeout));
            self.metrics.upstream_up(&self.name, server, outcome.is_ok());
            match outcome {
                Ok(stream) => {
                    self.metrics.upstream_connected(&self.name, begun.elapsed());
                    return Ok(stream);
                }
                Err(cause) => {
                    tracing::warn!(upstream = %self.name, server, %cause, "upstream not reached");
                    last = ConnectError { server: server.clone(), cause, ..last };
                }
            }
        }
        Err(last)
    }

    /// Whether the session must still ask for TLS in its protocol before anything else.
    pub fn starttls(&self) -> bool {
        matches!(self.tls, UpstreamTls::StartTls(_))
    }

    /// Begins TLS after the protocol's go-ahead.
    pub async fn upgrade(&self, stream: Stream) -> Result<Stream, UpgradeError> {
        let (UpstreamTls::StartTls(tls) | UpstreamTls::Implicit(tls)) = &self.tls else { return Ok(stream) };
        match timeout(self.connect_timeout, stream.connect_tls(tls)).await {
            Ok(upgraded) => upgraded,
            Err(_) => Err(UpgradeError::Handshake(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn reach(&self, server: &str) -> Result<Stream, Cause> {
        let stream = match &self.dial {
            Dial::Tcp => {
                let socket = TcpStream::connect(server).await?;
                socket.set_nodelay(true)?;
                Stream::new(socket)
            }
            Dial::Pipe(open) => open()?,
        };
        let stream = stream.to_host(host_of(server));
        match &self.tls {
            UpstreamTls::Implicit(tls) => Ok(stream.connect_tls(tls).await?),
            UpstreamTls::Off | UpstreamTls::StartTls(_) => Ok(stream),
        }
    }
}

/// The host of `host:port`; an IPv6 address keeps its brackets.
fn host_of(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host)
}
