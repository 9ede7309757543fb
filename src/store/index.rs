//! The index of the quarantine: what is held, for listing, searching and counting.
//!
//! A memory aid: whatever stands here is also in the message files and the state files, and can be rebuilt from
//! them. Nothing here touches those files.

use std::{collections::HashMap, path::Path, sync::Arc};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    Entry, Held, JournalId, Query, Status, StoreError, Totals,
    database::{Database, move_aside, signed, unsigned},
    disk::Disk,
};

/// One script per schema version.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE held (
        id         TEXT NOT NULL PRIMARY KEY,
        at         INTEGER NOT NULL,             -- microseconds since 1970
        state      TEXT NOT NULL,
        class      TEXT NOT NULL,
        recipients TEXT NOT NULL,                -- one a line, with a line end before and after each
        len        INTEGER NOT NULL,
        missing    INTEGER NOT NULL DEFAULT 0,   -- 1: the file is gone
        held       TEXT NOT NULL,                -- the facts, JSON
        status     TEXT NOT NULL                 -- JSON
    ) STRICT;
    CREATE INDEX held_by_time ON held (at, id);
    CREATE INDEX held_by_state ON held (missing, state, len, id);
    ",
    // How many were ever released, also of those that were deleted since. A rebuilt index begins with those still kept.
    "
    CREATE TABLE released (
        class TEXT NOT NULL PRIMARY KEY,
        count INTEGER NOT NULL
    ) STRICT;
    INSERT INTO released SELECT class, count(*) FROM held WHERE state = 'released' GROUP BY class;
    CREATE TRIGGER release_of_held AFTER UPDATE OF state ON held
        WHEN new.state = 'released' AND old.state <> 'released'
    BEGIN
        INSERT INTO released VALUES (new.class, 1) ON CONFLICT (class) DO UPDATE SET count = count + 1;
    END;
    CREATE TRIGGER release_of_found AFTER INSERT ON held WHEN new.state = 'released'
    BEGIN
        INSERT INTO released VALUES (new.class, 1) ON CONFLICT (class) DO UPDATE SET count = count + 1;
    END;
    ",
];

/// The open index.
#[derive(Debug)]
pub(super) struct Index {
    database: Database,
}

impl Index {
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Ok(Self { database: Database::open(path, disk, MIGRATIONS)? })
    }

    /// Moves a damaged index aside, so that opening makes a new one. Nobody else has the store open.
    pub(super) fn clear_up(path: &Path, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
        match Self::open(path, Arc::clone(disk)).and_then(|index| index.database.examine()) {
            Err(StoreError::Damaged { problem, .. }) => {
                let aside = move_aside(path, &**disk)?;
                tracing::warn!(
                    index = %path.display(), aside = %aside.display(), problem,
                    "the quarantine's index is damaged; it was moved aside and is rebuilt from the message files"
                );
                Ok(())
            }
            other => other,
        }
    }

    /// Runs `change` with nobody else changing the index, here or in another process.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.database.write(|transaction| change(&Rows { transaction, database: &self.database }))
    }

    pub(super) fn get(&self, id: &JournalId) -> Result<Option<Entry>, StoreError> {
        let raw = self.database.read(|connection| raw_entry(connection, id))?;
        raw.map(|raw| raw.parse(&self.database)).transpose()
    }

    pub(super) fn list(&self, query: &Query) -> Result<Vec<Entry>, StoreError> {
        let raw = self.database.read(|connection| raw_list(connection, query))?;
        raw.into_iter().map(|raw| raw.parse(&self.database)).collect()
    }

    /// Up to two ids that begin or end with `text`, which holds no wildcards.
    pub(super) fn find(&self, text: &str) -> Result<Vec<String>, StoreError> {
        self.database.read(|connection| {
            let mut select = connection
                .prepare("SELECT id FROM held WHERE id LIKE ?1 || '%' OR id LIKE '%' || ?1 LIMIT 2")?;
            select.query_map([text], |row| row.get(0))?.collect()
        })
    }

    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        self.database.read(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT state = 'released', count(*), sum(len) FROM held WHERE missing = 0 GROUP BY 1",
            )?;
            let mut rows = select.query([])?;
            let mut totals = Totals::default();
            while let Some(row) = rows.next()? {
                let (released, messages, bytes) = (row.get(0)?, unsigned(row.get(1)?), unsigned(row.get(2)?));
                if released {
                    (totals.released_messages, totals.released_bytes) = (messages, bytes);
                } else {
                    (totals.messages, totals.bytes) = (messages, bytes);
                }
            }
            Ok(totals)
        })
    }

    /// The words of the classes of which messages were ever released, with how many.
    pub(super) fn released(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.database.read(|connection| {
            let mut select = connection.prepare_cached("SELECT class, count FROM released")?;
            select.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?.collect()
        })
    }

    /// Every id, with what its files could contradict: whether it counts as missing, and whether it is released.
    pub(super) fn all(&self) -> Result<HashMap<String, (bool, bool)>, StoreError> {
        self.database.read(|connection| {
            let mut select = connection.prepare("SELECT id, missing, state = 'released' FROM held")?;
            select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
        })
    }
}

/// The rows, while nobody else changes them.
pub(super) struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    database: &'a Database,
}

impl Rows<'_> {
    pub(super) fn get(&self, id: &JournalId) -> Result<Option<Entry>, StoreError> {
        let raw = raw_entry(self.transaction, id).map_err(|source| self.database.error(source))?;
        raw.map(|raw| raw.parse(self.database)).transpose()
    }

    /// Adds a message, or says anew what is known of it.
    pub(super) fn put(&self, held: &Held, status: &Status) -> Result<(), StoreError> {
        let recipients: String = held
            .envelope
            .recipients
            .iter()
            .map(|recipient| format!("\n{}\n", recipient.address.to_ascii_lowercase()))
            .collect();
        self.execute(
            "INSERT INTO held (id, at, state, class, recipients, len, held, status)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET state = ?3, status = ?8, missing = 0",
            params![
                held.id.as_str(),
                held.at.as_microsecond(),
                status.state.as_str(),
                held.class.as_str(),
                recipients,
                signed(held.len),
                json(held)?,
                json(status)?,
            ],
        )
    }

    pub(super) fn set_status(&self, id: &JournalId, status: &Status) -> Result<(), StoreError> {
        self.execute(
            "UPDATE held SET state = ?2, status = ?3 WHERE id = ?1",
            params![id.as_str(), status.state.as_str(), json(status)?],
        )
    }

    pub(super) fn set_missing(&self, id: &JournalId) -> Result<(), StoreError> {
        self.execute("UPDATE held SET missing = 1 WHERE id = ?1", params![id.as_str()])
    }

    pub(super) fn delete(&self, id: &JournalId) -> Result<(), StoreError> {
        self.execute("DELETE FROM held WHERE id = ?1", params![id.as_str()])
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        let done = self.transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(values));
        done.map(drop).map_err(|source| self.database.error(source))
    }
}

/// An entry as it stands in the table.
struct RawEntry {
    held: String,
    status: String,
    missing: bool,
}

impl RawEntry {
    fn parse(self, database: &Database) -> Result<Entry, StoreError> {
        let parsed = || {
            Ok::<_, serde_json::Error>(Entry {
                held: serde_json::from_str(&self.held)?,
                status: serde_json::from_str(&self.status)?,
                missing: self.missing,
            })
        };
        parsed().map_err(|error| database.damaged(error))
    }
}

fn raw_entry(connection: &Connection, id: &JournalId) -> rusqlite::Result<Option<RawEntry>> {
    connection
        .prepare_cached("SELECT held, status, missing FROM held WHERE id = ?1")?
        .query_row([id.as_str()], raw)
        .optional()
}

fn raw_list(connection: &Connection, query: &Query) -> rusqlite::Result<Vec<RawEntry>> {
    let mut select = connection.prepare_cached(
        "SELECT held, status, missing FROM held
         WHERE (?1 IS NULL OR state = ?1)
           AND (?2 IS NULL OR class = ?2)
           AND (?3 IS NULL OR instr(recipients, ?3) > 0)
           AND at >= ?4
         ORDER BY at DESC, id DESC LIMIT ?5",
    )?;
    let values = params![
        query.state,
        query.class.map(|class| class.as_str()),
        query.recipient.as_ref().map(|recipient| recipient.to_ascii_lowercase()),
        query.since.map_or(i64::MIN, Timestamp::as_microsecond),
        i64::try_from(query.limit).unwrap_or(i64::MAX),
    ];
    select.query_map(values, raw)?.collect()
}

fn raw(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawEntry> {
    Ok(RawEntry { held: row.get(0)?, status: row.get(1)?, missing: row.get(2)? })
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Body(error.into()))
}
