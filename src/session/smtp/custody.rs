//! Who holds a message, as a proof.
//!
//! Each variant is made from a value that only the module with the right to it can make: [`Accepted`] by the
//! upstream's leg after a 2xx to the end of the message, [`Receipt`] by the quarantine after fsync, [`Discarded`]
//! by the journal after fsync. [`Custody::reply`] is the only maker of a 2xx at end-of-data.

use super::leg::Accepted;
use crate::{
    store::{Discarded, Receipt},
    wire::smtp::Reply,
};

/// Proof that somebody holds the message, or that dropping it was decided and written down.
#[derive(Debug)]
pub enum Custody {
    /// The upstream said 2xx.
    Upstream(Accepted),
    /// The quarantine has it on disk.
    Quarantine(Receipt),
    /// The decision to drop it is on disk.
    Discarded(Discarded),
}

impl Custody {
    /// What the client is told: the upstream's own words, or ours.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Upstream(accepted) => accepted.reply().clone(),
            Self::Quarantine(receipt) => Reply::new(250, "2.0.0", format!("accepted as {}", receipt.id())),
            Self::Discarded(discarded) => Reply::new(250, "2.0.0", format!("accepted as {}", discarded.id())),
        }
    }

    /// The label in metrics, journal and events.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Upstream(_) => "upstream",
            Self::Quarantine(_) => "quarantine",
            Self::Discarded(_) => "discarded",
        }
    }
}
