//! One SQLite file: how it is opened, brought to the newest schema, written and read.
//!
//! WAL, so that readers go on beside a writer; `synchronous=FULL`, so that a commit is on the disk when it returns.
//! Two connections, one that writes and one that reads. Other processes may have the same file open.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{StoreError, at, disk::Disk};

/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A WAL file that grew beyond this is cut back, in octets.
const WAL_LIMIT: i64 = 16 << 20;

/// An open SQLite file.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl Database {
    /// Opens the file, making it where it is missing. `migrations` holds one script per schema version, from
    /// version 1 on; those the file has not seen are run, in one transaction.
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>, migrations: &[&str]) -> Result<Self, StoreError> {
        create_file(path, &*disk)?;
        let connect = || connect(path).map_err(|source| error(path, source));
        let database = Self {
            path: path.to_owned(),
            disk,
            writer: Mutex::new(connect()?),
            reader: Mutex::new(connect()?),
        };
        database.migrate(migrations)?;
        Ok(database)
    }

    /// Runs `change` in a transaction of its own; it is on the disk when this returns. No other process or thread
    /// writes meanwhile.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.error(source))?;
        let answer = change(&transaction)?;
        self.disk.commit(&self.path).map_err(at("commit to", &self.path))?;
        transaction.commit().map_err(|source| self.error(source))?;
        Ok(answer)
    }

    /// Asks without changing anything.
    pub(super) fn read<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        question(&connection).map_err(|source| self.error(source))
    }

    /// Reads every page, and finds what is damaged.
    pub(super) fn examine(&self) -> Result<(), StoreError> {
        let answer: String =
            self.read(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if answer == "ok" { Ok(()) } else { Err(self.damaged(answer)) }
    }

    /// What SQLite said, as an error of this file.
    pub(super) fn error(&self, source: rusqlite::Error) -> StoreError {
        error(&self.path, source)
    }

    /// A row or the whole file is not what was written.
    pub(super) fn damaged(&self, problem: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), problem: problem.to_string() }
    }

    fn migrate(&self, migrations: &[&str]) -> Result<(), StoreError> {
        let known = migrations.len();
        let found = self.read(version)?;
        if found == known {
            return Ok(());
        }
        self.write(|transaction| {
            // Another process may have been faster.
            let found = version(transaction).map_err(|source| self.error(source))?;
            let Some(missing) = migrations.get(found..) else {
                return Err(StoreError::Newer { path: self.path.clone(), found, known });
            };
            for script in missing {
                transaction.execute_batch(script).map_err(|source| self.error(source))?;
            }
            transaction
                .pragma_update(None, "user_version", signed(known as u64))
                .map_err(|source| self.error(source))
        })
    }
}

/// Moves a damaged file and what SQLite keeps beside it out of the way; where to.
pub(super) fn move_aside(path: &Path, disk: &dyn Disk) -> Result<PathBuf, StoreError> {
    let aside = with_ending(path, &format!(".damaged-{}", jiff::Timestamp::now().as_microsecond()));
    for ending in ["-wal", "-shm", ""] {
        let from = with_ending(path, ending);
        if from.exists() {
            disk.rename(&from, &with_ending(&aside, ending)).map_err(at("rename", &from))?;
        }
    }
    Ok(aside)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut whole = path.as_os_str().to_owned();
    whole.push(ending);
    PathBuf::from(whole)
}

/// SQLite's integers are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// SQLite would make the file itself, but readable for everybody.
fn create_file(path: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    if path.exists() {
        return Ok(());
    }
    match disk.create_new(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", path)(error)),
    }
    let folder = path.parent().unwrap_or(path);
    disk.sync_folder(folder).map_err(at("sync", folder))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version as usize)
}

fn error(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path, problem: source.to_string() }
        }
        _ => StoreError::Database { path, source },
    }
}
