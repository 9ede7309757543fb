//! What must survive a restart: the quarantine, the journal and the key of the stamp.
//!
//! One folder, mode 0700:
//!
//! ```text
//! lock                        who has the store open
//! stamp.key                   32 secret octets
//! journal.db                  one row per judged message (SQLite)
//! quarantine/index.db         what is held, for searching (SQLite); rebuilt from the files when lost
//! quarantine/<aa>/<id>.held   the facts and the message, byte for byte
//! quarantine/<aa>/<id>.state  how far its release has come; absent while nobody tried
//! ```
//!
//! The quarantine's files are the truth, the index is a memory aid. Several processes may have the store open, the
//! gateway and the command line; each holds `lock` shared, and whoever finds itself alone at opening holds it
//! exclusively while it clears up what a crash left. Not for network file systems: SQLite's WAL and `flock` need a
//! local one.
//!
//! Every call may block on the disk; async callers use the blocking pool. Every write goes through [`disk::Disk`],
//! so that tests can fail each one. What is left out: retention, and stores shared by machines.

mod database;
pub mod disk;
mod held;
mod id;
mod index;
mod journal;
mod key;
mod message_file;
mod quarantine;
#[cfg(test)]
mod tests;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::disk::{Disk, RealDisk};
pub use self::{
    held::{Entry, Held, Query, State, Status, Totals},
    id::{JournalId, QuarantineId},
    journal::{Discarded, Journal, Row},
    key::StampKey,
    message_file::Body,
    quarantine::{Quarantine, Receipt, Release},
};

/// The open store. Cheap to clone; the last clone to go writes out what the journal still has queued.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quarantine: Quarantine,
    journal: Journal,
    stamp_key: StampKey,
    /// Invariant: locked shared while the store is open. Last, so that it outlives the databases.
    _lock: File,
}

impl Store {
    /// Opens the store at `path`, making it where it is missing, and mends what a crash or a lost index left.
    ///
    /// # Errors
    /// The folder cannot be made or written, a part is damaged beyond rebuilding, or a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_on(path, Arc::new(RealDisk))
    }

    /// Opens the store at `path` on a disk of the caller's choice.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_on(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        create_folder(path, &*disk)?;
        let lock = open_lock(path, &*disk)?;
        match lock.try_lock() {
            Ok(()) => {
                clear_up(path, &disk)?;
                // Between the two locks nothing of ours is under way.
                lock.unlock().map_err(at("unlock", path))?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(at("lock", path)(error)),
        }
        lock.lock_shared().map_err(at("lock", path))?;
        let inner = Inner {
            quarantine: Quarantine::open(&path.join(QUARANTINE), Arc::clone(&disk)).map_err(mended_alone)?,
            journal: Journal::open(&path.join(JOURNAL), disk).map_err(mended_alone)?,
            stamp_key: StampKey::read(&path.join(STAMP_KEY))?,
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The held mail.
    pub fn quarantine(&self) -> &Quarantine {
        &self.inner.quarantine
    }

    /// The history of judged messages.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// The secret that authenticates this site's stamps.
    pub fn stamp_key(&self) -> &StampKey {
        &self.inner.stamp_key
    }
}

/// Mends what a crash left. Nobody else has the store open.
fn clear_up(path: &Path, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
    StampKey::make(&path.join(STAMP_KEY), &**disk)?;
    let quarantine = path.join(QUARANTINE);
    create_folder(&quarantine, &**disk)?;
    Quarantine::clear_up(&quarantine, disk)?;
    Journal::clear_up(&path.join(JOURNAL), disk)
}

/// A damaged database is set right by whoever opens the store alone; where it is found now, somebody else has it open.
fn mended_alone(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { path, problem } => {
            let remedy = "stop the gateway and start it again: it is set right at the start";
            StoreError::Damaged { path, problem: format!("{problem}; {remedy}") }
        }
        other => other,
    }
}

fn open_lock(path: &Path, disk: &dyn Disk) -> Result<File, StoreError> {
    let lock = path.join("lock");
    match disk.create_new(&lock) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", &lock)(error)),
    }
    File::open(&lock).map_err(at("open", &lock))
}

/// Makes a folder and those above it, and their names durable. A folder that was there may be fresh from a process
/// that ended before its sync, so the folder above is synced again, unless we may not even read it.
fn create_folder(path: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let above = match path.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    let made = match disk.create_folder(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !above.exists() => {
            create_folder(above, disk)?;
            disk.create_folder(path).map_err(at("create", path))?;
            true
        }
        Err(error) => return Err(at("create", path)(error)),
    };
    match disk.sync_folder(above) {
        Err(error) if !made && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done.map_err(at("sync", above)),
    }
}

/// Turns what the system says into an error that names the deed and the path.
fn at(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Disk { act, path, source }
}

const QUARANTINE: &str = "quarantine";
const JOURNAL: &str = "journal.db";
const STAMP_KEY: &str = "stamp.key";

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {act} {}: {source}", path.display())]
    Disk {
        /// What was tried, as a verb.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("database {}: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A file is not what was once written.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it is seen.
        problem: String,
    },
    /// A newer version of Gatepost wrote this database.
    #[error("{} has schema version {found}, this program knows up to {known}", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version found.
        found: usize,
        /// The newest version this program knows.
        known: usize,
    },
    /// The message to be put could not be read to its end.
    #[error("the message could not be read: {0}")]
    Body(#[source] io::Error),
    /// The message to be put is not as long as was said.
    #[error("the message has {actual} octets where {declared} were announced")]
    Length {
        /// What [`Held::len`] says.
        declared: u64,
        /// How many octets came, as far as was read.
        actual: u64,
    },
    /// The facts about the message are longer than the store takes.
    #[error("the facts about the message take {len} octets, over the limit of {limit}")]
    FactsTooLong {
        /// Their length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// A message of this id is held already.
    #[error("{0} is in the quarantine already")]
    Exists(JournalId),
    /// Not an id, or not enough of one.
    #[error("`{}` is not a message id", .0.escape_default())]
    InvalidId(String),
    /// No message of this id is held.
    #[error("{0} is not in the quarantine")]
    NotFound(String),
    /// More than one held message has an id that begins or ends so.
    #[error("`{0}` begins or ends more than one message id; give more of it")]
    Ambiguous(String),
    /// The index knows the message, but its file is gone.
    #[error("the file of {0} is missing: there is nothing left of it but its facts")]
    Missing(JournalId),
    /// It was released before.
    #[error("{0} was released already")]
    Released(JournalId),
    /// Somebody is releasing it at this moment.
    #[error("{0} is being released right now")]
    Busy(JournalId),
    /// The journal's writer has ended.
    #[error("the journal is closed")]
    Closed,
}

/// Moments as RFC 3339 text.
mod timestamp {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
