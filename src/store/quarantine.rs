//! stub
use super::{Entry, Held, JournalId, QuarantineId, Query, StoreError, Totals};
use std::io::{self, Read};

/// The held mail.
#[derive(Debug)]
pub struct Quarantine {}

/// Proof that a message is held.
#[derive(Debug)]
pub struct Receipt {
    id: JournalId,
}

impl Receipt {
    /// The id it is held under.
    pub fn id(&self) -> &JournalId {
        &self.id
    }
}

/// The right to deliver one held message: its intent is on disk.
#[derive(Debug)]
pub struct Release {
    entry: Entry,
}

impl Release {
    /// What is to be delivered.
    pub fn held(&self) -> &Held {
        &self.entry.held
    }
}

/// The bytes of a held message.
#[derive(Debug)]
pub struct Body {}

impl Body {
    /// Its length in octets.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        unimplemented!()
    }

    /// Reads from `offset`; 0 octets mean the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let _ = (offset, buf);
        unimplemented!()
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_at(0, buf)
    }
}

#[expect(missing_docs, clippy::missing_errors_doc)]
impl Quarantine {
    pub fn put(&self, held: &Held, body: &mut dyn Read) -> Result<Receipt, StoreError> {
        let _ = (held, body);
        unimplemented!()
    }

    pub fn list(&self, query: &Query) -> Result<Vec<Entry>, StoreError> {
        let _ = query;
        unimplemented!()
    }

    /// The id of the one message whose id is, begins with or ends with `text` (at least 8 characters).
    pub fn find(&self, text: &str) -> Result<QuarantineId, StoreError> {
        let _ = text;
        unimplemented!()
    }

    pub fn get(&self, id: &QuarantineId) -> Result<Entry, StoreError> {
        let _ = id;
        unimplemented!()
    }

    pub fn open_body(&self, id: &QuarantineId) -> Result<Body, StoreError> {
        let _ = id;
        unimplemented!()
    }

    /// Writes down that a delivery begins. Refused when released already, or when somebody else is at it.
    pub fn begin_release(&self, id: &QuarantineId) -> Result<Release, StoreError> {
        let _ = id;
        unimplemented!()
    }

    /// The upstream said 2xx.
    pub fn confirm_release(&self, release: Release, reply: &str) -> Result<(), StoreError> {
        let _ = (release, reply);
        unimplemented!()
    }

    /// It was certainly not delivered: back to held.
    pub fn fail_release(&self, release: Release, error: &str) -> Result<(), StoreError> {
        let _ = (release, error);
        unimplemented!()
    }

    /// Nobody knows whether it was delivered (the connection broke after the final dot): it stays unconfirmed.
    pub fn doubt_release(&self, release: Release, error: &str) -> Result<(), StoreError> {
        let _ = (release, error);
        unimplemented!()
    }

    pub fn delete(&self, id: &QuarantineId) -> Result<(), StoreError> {
        let _ = id;
        unimplemented!()
    }

    pub fn totals(&self) -> Result<Totals, StoreError> {
        unimplemented!()
    }
}
