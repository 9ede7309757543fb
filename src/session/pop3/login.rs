//! The login: PASS, APOP, and AUTH as an opaque exchange of lines (RFC 5034).
//!
//! The gate never learns what is proved; it holds the client's lines to their form, so that no command can travel as a
//! response, and sees only whether the upstream said yes.

use tokio::time::timeout_at;

use super::{
    Session,
    fault::{Fault, LegFault},
    octets,
};
use crate::wire::{line::Line, pop3::response::Status, sasl::ClientLine};

impl Session<'_> {
    /// The answer to PASS or APOP.
    pub(super) async fn finish_login(&mut self) -> Result<(), Fault> {
        let status = self.relay_line().await?.status();
        self.learn_login(status);
        Ok(())
    }

    /// An AUTH exchange, from the upstream's first answer on.
    pub(super) async fn exchange(&mut self) -> Result<(), Fault> {
        loop {
            let response = self.upstream.response(self.gateway.limits.upstream_reply_timeout).await?;
            self.client.queue(response.verbatim());
            if response.status() != Status::Continue {
                self.account = None;
                self.learn_login(response.status());
                return Ok(());
            }
            if !self.upstream.input().is_empty() {
                return Err(Fault::UpstreamBroken("it speaks on behind a challenge"));
            }
            self.flush_client().await?;
            let line = self.client_response().await?;
            if line.fault().is_some() || ClientLine::read(line.text()) == ClientLine::Malformed {
                return self.cancel_exchange().await;
            }
            self.upstream.queue(line.verbatim());
            self.flush_upstream().await?;
        }
    }

    /// The client's line in an exchange. One that is too long cancels the exchange together with the session: where
    /// the next begins is not known. The time for it is that for the login, however the octets of the line come.
    async fn client_response(&mut self) -> Result<Line, Fault> {
        let line = timeout_at(self.login_deadline, self.client.line(self.gateway.limits.login_timeout)).await;
        let line = line.unwrap_or(Err(LegFault::Silent));
        if line == Err(LegFault::LineTooLong) {
            self.gateway.metrics.limit_reached("sasl_line_bytes");
            self.upstream.queue(b"*\r\n");
            self.flush_upstream().await?;
        }
        line.map_err(Fault::client)
    }

    /// Cancels the exchange upstream in the place of a client whose response is none.
    async fn cancel_exchange(&mut self) -> Result<(), Fault> {
        self.upstream.queue(b"*\r\n");
        self.flush_upstream().await?;
        if self.response().await?.is_ok() {
            return Err(Fault::UpstreamBroken("it accepts a cancelled login"));
        }
        self.errors += 1;
        self.client.queue(b"-ERR not base64, authentication cancelled\r\n");
        Ok(())
    }

    fn learn_login(&mut self, status: Status) {
        if status == Status::Ok {
            self.reader.authenticated = true;
            self.reader.account = self.account.take();
            self.client.set_line_limit(octets(self.gateway.limits.command_line_bytes));
            self.client.read_at_most(usize::MAX);
        } else {
            self.errors += 1;
            self.gateway.metrics.auth_failure(&self.listener.name);
        }
    }
}
