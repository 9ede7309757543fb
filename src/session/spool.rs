//! Where a message waits while it is collected and judged: memory first, then an unlinked file.
//!
//! Guarantees: all messages together stay within the shared budget, also what gathers in memory for a file; a file has no name, so that a crash leaves
//! nothing behind; writes to it are off the reactor. It knows no protocol and no custody: what is here may be lost,
//! because nobody was told that we have it.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::Gateway;
use crate::{net::Share, render::Source};

/// Octets that gather before they are written to the file at once.
const WRITE_OCTETS: usize = 64 * 1024;

/// A message being collected.
pub struct Spool<'a> {
    gateway: &'a Gateway,
    pending: Vec<u8>,
    share: Share,
    file: Option<Arc<File>>,
    filed: u64,
}

/// Why a message could not be kept while it was collected.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file could not be made or written.
    #[error("the spool cannot be written: {0}")]
    Disk(#[from] io::Error),
}

impl<'a> Spool<'a> {
    /// An empty spool.
    pub fn new(gateway: &'a Gateway) -> Self {
        Self { gateway, pending: Vec::new(), share: gateway.budget.share(), file: None, filed: 0 }
    }

    /// Where decoded octets are appended; [`Self::settle`] must follow.
    pub fn sink(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Octets collected so far.
    pub fn len(&self) -> u64 {
        self.filed + self.pending.len() as u64
    }

    /// Whether nothing was collected yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts what was appended where it belongs: kept in memory while it is small and the budget lasts, written to
    /// the file otherwise.
    pub async fn settle(&mut self) -> Result<(), SpoolError> {
        let pending = self.pending.len();
        let is_small = match self.file {
            None => pending as u64 <= self.gateway.limits.message_memory_bytes,
            Some(_) => pending < WRITE_OCTETS,
        };
        if is_small && self.share.grow_to(self.pending.capacity() as u64) {
            return Ok(());
        }
        self.spill().await
    }

    /// Forgets everything: the message is over a limit, and only its end is still looked for.
    pub fn discard(&mut self) {
        self.pending = Vec::new();
        self.file = None;
        self.filed = 0;
        self.share.release();
    }

    /// The whole message, to be judged and handed on.
    pub async fn finish(mut self) -> Result<Original, SpoolError> {
        if self.file.is_some() {
            self.spill().await?;
        }
        let place = match self.file {
            Some(file) => Place::File { file, len: self.filed },
            None => Place::Memory(Bytes::from(self.pending)),
        };
        Ok(Original { place, _share: self.share })
    }

    /// Writes to the file what gathered, and keeps none of its memory.
    async fn spill(&mut self) -> Result<(), SpoolError> {
        let pending = std::mem::take(&mut self.pending);
        let at = self.filed;
        self.filed += pending.len() as u64;
        let known = self.file.take();
        let folder = self.gateway.spool_folder.clone();
        let work = move || -> io::Result<Arc<File>> {
            let file = match known {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(folder)?),
            };
            file.write_all_at(&pending, at)?;
            Ok(file)
        };
        self.file = Some(spawn_blocking(work).await.map_err(io::Error::other)??);
        self.share.release();
        Ok(())
    }
}

/// A collected message: the octets as they came, transparency of the protocol removed.
#[derive(Debug)]
pub struct Original {
    place: Place,
    _share: Share,
}

#[derive(Debug)]
enum Place {
    Memory(Bytes),
    File { file: Arc<File>, len: u64 },
}

impl Original {
    /// At most `limit` octets from the beginning. Blocks on the disk for a message in a file.
    pub fn head(&self, limit: u64) -> io::Result<Bytes> {
        match &self.place {
            Place::Memory(bytes) => Ok(bytes.slice(..bytes.len().min(usize_of(limit)))),
            Place::File { file, len } => read_file(file, 0..limit.min(*len)),
        }
    }

    /// The octets of `range`, which must lie inside the message. Off the reactor for a message in a file.
    pub async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        match &self.place {
            Place::Memory(bytes) => {
                let end = usize_of(range.end).min(bytes.len());
                Ok(bytes.slice(usize_of(range.start).min(end)..end))
            }
            Place::File { file, .. } => {
                let file = Arc::clone(file);
                spawn_blocking(move || read_file(&file, range)).await.map_err(io::Error::other)?
            }
        }
    }
}

impl Source for Original {
    fn len(&self) -> u64 {
        match &self.place {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::File { len, .. } => *len,
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match &self.place {
            Place::Memory(bytes) => bytes.read_at(offset, buf),
            Place::File { file, .. } => file.read_at(buf, offset),
        }
    }
}

fn read_file(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut octets = vec![0; usize_of(range.end - range.start)];
    file.read_exact_at(&mut octets, range.start)?;
    Ok(Bytes::from(octets))
}

fn usize_of(octets: u64) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX)
}
