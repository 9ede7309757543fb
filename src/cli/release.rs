//! How a released message gets to its upstream: by SMTP, with the configuration's own idea of where that is.

use std::sync::Arc;

use super::quarantine::{Delivery, Undelivered};
use crate::{
    app,
    config::Config,
    session::smtp::{ReleaseError, release},
    store::{Body, Held},
    telemetry::Metrics,
};

/// Delivers to the upstreams of a configuration.
pub(super) struct SmtpDelivery<'a> {
    config: &'a Config,
}

impl<'a> SmtpDelivery<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config }
    }
}

impl Delivery for SmtpDelivery<'_> {
    fn deliver(&mut self, held: &Held, body: Body) -> Result<String, Undelivered> {
        let certain = |text: String| Undelivered::Certain(text);
        let upstream = self.config.upstreams.iter().find(|upstream| upstream.name == held.upstream);
        let upstream = upstream.ok_or_else(|| {
            certain(format!("the configuration has no upstream `{}` any more", held.upstream))
        })?;
        let metrics = Arc::new(Metrics::new());
        let upstream = app::build_upstream(upstream, &self.config.limits, &metrics)
            .map_err(|error| certain(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| certain(error.to_string()))?;
        let hostname = app::hostname(self.config);
        let delivery = release(&upstream, &hostname, &self.config.limits, held, body);
        match runtime.block_on(delivery) {
            Ok(reply) => Ok(reply.summary()),
            Err(ReleaseError::Certain(text)) => Err(Undelivered::Certain(text)),
            Err(ReleaseError::Doubtful(text)) => Err(Undelivered::Doubtful(text)),
        }
    }
}
