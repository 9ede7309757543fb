//! stub
use super::{JournalId, StoreError};
use crate::verdict::Class;
use jiff::Timestamp;
use std::net::IpAddr;

/// One line of history: what was judged, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The message's id.
    pub id: JournalId,
    /// When it was judged.
    pub at: Timestamp,
    /// The listener it came by.
    pub listener: String,
    /// The protocol it came by, such as `smtp`.
    pub protocol: String,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// What the client called itself.
    pub helo: Option<String>,
    /// The reverse path; empty for the null sender.
    pub sender: Option<String>,
    /// The recipients' addresses; the first [`Row::MAX_RECIPIENTS`] are kept.
    pub recipients: Vec<String>,
    /// Its Message-ID.
    pub message_id: Option<String>,
    /// Its subject, decoded.
    pub subject: Option<String>,
    /// Its length in octets.
    pub len: u64,
    /// What it was taken for.
    pub class: Class,
    /// Its score in points.
    pub points: f64,
    /// The names of the rules that hit.
    pub rules: Vec<String>,
    /// What the policy said to do, such as `stamp`.
    pub action: String,
    /// Who holds it now: `upstream`, `quarantine`, `discarded`; `None` where nobody took it.
    pub custody: Option<String>,
    /// The reply the client was given.
    pub reply: Option<String>,
    /// How long judging took, in microseconds.
    pub us: u64,
}

impl Row {
    /// Of more recipients than this, the rest is not kept.
    pub const MAX_RECIPIENTS: usize = 100;
}

/// Proof that the decision to drop a message is on disk.
#[derive(Debug)]
pub struct Discarded {
    id: JournalId,
}

impl Discarded {
    /// The id of the discarded message.
    pub fn id(&self) -> &JournalId {
        &self.id
    }
}

/// The history of judged messages.
#[derive(Debug)]
pub struct Journal {}

#[expect(missing_docs, clippy::missing_errors_doc)]
impl Journal {
    pub fn write(&self, row: Row) {
        let _ = row;
        unimplemented!()
    }

    pub fn write_discard(&self, row: Row) -> Result<Discarded, StoreError> {
        let _ = row;
        unimplemented!()
    }

    pub fn flush(&self) -> Result<(), StoreError> {
        unimplemented!()
    }

    pub fn recent(&self, n: usize) -> Result<Vec<Row>, StoreError> {
        let _ = n;
        unimplemented!()
    }

    /// Rows that were lost because the queue was full or the database refused them.
    pub fn dropped(&self) -> u64 {
        unimplemented!()
    }
}
