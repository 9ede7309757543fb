//! How a released message gets to its upstream: by SMTP, with the configuration's own idea of where that is.

use std::sync::Arc;

use super::quarantine::{Delivery, Undelivered};
use crate::{
    app,
    config::{Config, Protocol},
    session::smtp::{ReleaseError, release},
    store::{Body, Held},
    telemetry::Metrics,
};

/// Delivers to the upstreams of a configuration.
pub(super) struct SmtpDelivery<'a> {
    config: &'a Config,
    /// The upstream to deliver by; none: that of each message.
    via: Option<&'a str>,
}

impl<'a> SmtpDelivery<'a> {
    pub(super) fn new(config: &'a Config, via: Option<&'a str>) -> Self {
        Self { config, via }
    }
}

impl Delivery for SmtpDelivery<'_> {
    fn deliver(&mut self, held: &Held, body: Body) -> Result<String, Undelivered> {
        let certain = |text: String| Undelivered::Certain(text);
        let name = self.via.unwrap_or(&held.upstream);
        let mut upstreams = self.config.upstreams.iter();
        let upstream = upstreams
            .find(|upstream| upstream.name == name && upstream.protocol == Protocol::Smtp)
            .ok_or_else(|| certain(format!("the configuration has no SMTP upstream `{name}`")))?;
        let metrics = Arc::new(Metrics::new());
        let upstream = app::build_upstream(upstream, &self.config.limits, &metrics)
            .map_err(|error| certain(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| certain(error.to_string()))?;
        let hostname = app::hostname(self.config);
        let delivery = release(&upstream, &hostname, &self.config.limits, held, body);
        match runtime.block_on(delivery) {
            Ok(reply) => Ok(reply.summary()),
            Err(ReleaseError::Certain(text)) if held.envelope.authenticated && self.via.is_none() => {
                let hint =
                    "its sender had logged in there, which we cannot; name another upstream with --via";
                Err(Undelivered::Certain(format!("{text} ({hint})")))
            }
            Err(ReleaseError::Certain(text)) => Err(Undelivered::Certain(text)),
            Err(ReleaseError::Doubtful(text)) => Err(Undelivered::Doubtful(text)),
        }
    }
}
