//! The journal: one row of history for every judged message.
//!
//! Rows are queued and written in batches by one background thread, so that no session waits for the disk; where the
//! disk cannot follow, rows are dropped and counted. A decision to discard a message is no history but custody: it
//! is on the disk before [`Journal::write_discard`] returns. Of a message's text nothing is kept but its subject and
//! the names of the rules it hit.

use std::{
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    JournalId, StoreError, at,
    database::{Database, move_aside, signed, unsigned},
    disk::Disk,
};
use crate::verdict::Class;

/// One script per schema version.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE journal (
        id         TEXT NOT NULL PRIMARY KEY,
        at         INTEGER NOT NULL,             -- microseconds since 1970
        listener   TEXT NOT NULL,
        protocol   TEXT NOT NULL,
        client     TEXT,
        helo       TEXT,
        sender     TEXT,
        recipients TEXT NOT NULL,                -- JSON list
        message_id TEXT,
        subject    TEXT,
        len        INTEGER NOT NULL,
        class      TEXT NOT NULL,
        points     REAL NOT NULL,
        rules      TEXT NOT NULL,                -- JSON list
        action     TEXT NOT NULL,
        custody    TEXT,
        reply      TEXT,
        us         INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX journal_by_time ON journal (at, id);
"];

/// So many rows wait at most; those beyond are dropped.
const QUEUE: usize = 8192;
/// So many rows are written in one transaction at most.
const BATCH: usize = 512;
/// Of each text in a row, so many characters are kept.
const TEXT_LIMIT: usize = 1000;

/// One line of history: what was judged, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The message's id. A second row of the same id replaces the first.
    pub id: JournalId,
    /// When it was judged; kept to the microsecond.
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

    /// Cuts every text to what is kept of it, so that the queue has a bound in octets too.
    fn cut(mut self) -> Self {
        self.recipients.truncate(Self::MAX_RECIPIENTS);
        let optional =
            [&mut self.helo, &mut self.sender, &mut self.message_id, &mut self.subject, &mut self.reply];
        for text in optional.into_iter().flatten().chain(&mut self.recipients) {
            if let Some((end, _)) = text.char_indices().nth(TEXT_LIMIT) {
                text.truncate(end);
                text.shrink_to_fit();
            }
        }
        if !self.points.is_finite() {
            self.points = 0.0;
        }
        self
    }
}

/// Proof that the decision to drop a message is on disk. Only [`Journal::write_discard`] makes one.
#[derive(Debug)]
#[must_use = "without it nobody may be told that the message was taken"]
pub struct Discarded {
    id: JournalId,
}

impl Discarded {
    /// The id of the discarded message.
    pub fn id(&self) -> &JournalId {
        &self.id
    }
}

/// The history of judged messages. When it is dropped, what is queued is written first.
#[derive(Debug)]
pub struct Journal {
    database: Arc<Database>,
    dropped: Arc<AtomicU64>,
    /// `None` only while it is being dropped.
    queue: Option<SyncSender<Work>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Work {
    Row(Box<Row>),
    /// Everything queued before is in the database when this is answered.
    Flush(SyncSender<()>),
}

impl Journal {
    /// Queues a row. Never waits: a row that finds the queue full is dropped and counted.
    pub fn write(&self, row: Row) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            queue.try_send(Work::Row(Box::new(row.cut())))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes a row that records a decision to discard; it is on the disk when this returns.
    ///
    /// # Errors
    /// The disk refuses: the decision is not written down, and the message must not be taken.
    pub fn write_discard(&self, row: Row) -> Result<Discarded, StoreError> {
        let row = row.cut();
        insert(&self.database, std::slice::from_ref(&row))?;
        Ok(Discarded { id: row.id })
    }

    /// Waits until everything queued so far is in the database, or counted as dropped.
    ///
    /// # Errors
    /// [`StoreError::Closed`]: the background thread has ended.
    pub fn flush(&self) -> Result<(), StoreError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(Work::Flush(answer)).map_err(|_| StoreError::Closed)?;
        answered.recv().map_err(|_| StoreError::Closed)
    }

    /// The newest `n` rows in the database, newest first. Rows still queued are not among them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn recent(&self, n: usize) -> Result<Vec<Row>, StoreError> {
        let raw = self.database.read(|connection| raw_recent(connection, n))?;
        raw.into_iter().map(|raw| raw.parse().map_err(|problem| self.database.damaged(problem))).collect()
    }

    /// How many rows were lost since the start, because the queue was full or the database refused them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Opens the journal and starts its writer.
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let database = Arc::new(Database::open(path, disk, MIGRATIONS)?);
        let dropped = Arc::new(AtomicU64::new(0));
        let (queue, work) = mpsc::sync_channel(QUEUE);
        let writer = thread::Builder::new()
            .name("journal".to_owned())
            .spawn({
                let (database, dropped) = (Arc::clone(&database), Arc::clone(&dropped));
                move || write_batches(&work, &database, &dropped)
            })
            .map_err(at("start the writer of", path))?;
        Ok(Self { database, dropped, queue: Some(queue), writer: Some(writer) })
    }

    /// Moves a journal aside that is no longer a database: history is lost, mail is not. Nobody else has it open.
    pub(super) fn clear_up(path: &Path, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
        let opened = Database::open(path, Arc::clone(disk), MIGRATIONS)
            .and_then(|database| database.read(|connection| raw_recent(connection, 1)));
        match opened {
            Err(StoreError::Damaged { problem, .. }) => {
                let aside = move_aside(path, &**disk)?;
                tracing::warn!(
                    journal = %path.display(), aside = %aside.display(), problem,
                    "the journal is damaged; it was moved aside and a new one is begun"
                );
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Writes what is queued, as much at a time as has gathered, until the queue is closed and empty.
fn write_batches(work: &Receiver<Work>, database: &Database, dropped: &AtomicU64) {
    let mut refused = false;
    while let Ok(first) = work.recv() {
        let (mut rows, mut flush) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(work_item) = next {
            match work_item {
                Work::Row(row) => rows.push(*row),
                Work::Flush(answer) => flush = Some(answer),
            }
            next = if flush.is_none() && rows.len() < BATCH { work.try_recv().ok() } else { None };
        }
        match if rows.is_empty() { Ok(()) } else { insert(database, &rows) } {
            Ok(()) => refused = false,
            Err(error) => {
                dropped.fetch_add(rows.len() as u64, Ordering::Relaxed);
                // Once for a row of failures, not once for each.
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(%error, "the journal cannot be written; rows are dropped");
                }
            }
        }
        if let Some(answer) = flush {
            let _ = answer.send(());
        }
    }
}

fn insert(database: &Database, rows: &[Row]) -> Result<(), StoreError> {
    database.write(|transaction| {
        let all = || {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO journal (id, at, listener, protocol, client, helo, sender, recipients,
                     message_id, subject, len, class, points, rules, action, custody, reply, us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )?;
            for row in rows {
                insert.execute(params![
                    row.id.as_str(),
                    row.at.as_microsecond(),
                    row.listener,
                    row.protocol,
                    row.client.map(|client| client.to_string()),
                    row.helo,
                    row.sender,
                    serde_json::Value::from(row.recipients.clone()).to_string(),
                    row.message_id,
                    row.subject,
                    signed(row.len),
                    row.class.as_str(),
                    row.points,
                    serde_json::Value::from(row.rules.clone()).to_string(),
                    row.action,
                    row.custody,
                    row.reply,
                    signed(row.us),
                ])?;
            }
            Ok(())
        };
        all().map_err(|source| database.error(source))
    })
}

/// A row as it stands in the table, where its texts are not yet what they mean.
struct RawRow {
    id: String,
    at: i64,
    client: Option<String>,
    recipients: String,
    class: String,
    rules: String,
    /// The rest, with empty places for the above.
    row: Row,
}

impl RawRow {
    fn parse(self) -> Result<Row, String> {
        let spelled = |error: &dyn std::fmt::Display| format!("row {}: {error}", self.id);
        let class = Class::ALL.into_iter().find(|class| class.as_str() == self.class);
        Ok(Row {
            id: self.id.parse().map_err(|error: StoreError| spelled(&error))?,
            at: Timestamp::from_microsecond(self.at).map_err(|error| spelled(&error))?,
            client: self.client.map(|client| client.parse()).transpose().map_err(|error| spelled(&error))?,
            recipients: serde_json::from_str(&self.recipients).map_err(|error| spelled(&error))?,
            class: class.ok_or_else(|| spelled(&"unknown class"))?,
            rules: serde_json::from_str(&self.rules).map_err(|error| spelled(&error))?,
            ..self.row
        })
    }
}

fn raw_recent(connection: &Connection, n: usize) -> rusqlite::Result<Vec<RawRow>> {
    let mut select = connection.prepare_cached(
        "SELECT id, at, client, recipients, class, rules, listener, protocol, helo, sender, message_id, subject,
             len, points, action, custody, reply, us
         FROM journal ORDER BY at DESC, id DESC LIMIT ?1",
    )?;
    let rows = select.query_map([i64::try_from(n).unwrap_or(i64::MAX)], |row| {
        Ok(RawRow {
            id: row.get(0)?,
            at: row.get(1)?,
            client: row.get(2)?,
            recipients: row.get(3)?,
            class: row.get(4)?,
            rules: row.get(5)?,
            row: Row {
                id: JournalId::new(),
                at: Timestamp::UNIX_EPOCH,
                listener: row.get(6)?,
                protocol: row.get(7)?,
                client: None,
                helo: row.get(8)?,
                sender: row.get(9)?,
                recipients: Vec::new(),
                message_id: row.get(10)?,
                subject: row.get(11)?,
                len: unsigned(row.get(12)?),
                class: Class::Unscanned,
                points: row.get(13)?,
                rules: Vec::new(),
                action: row.get(14)?,
                custody: row.get(15)?,
                reply: row.get(16)?,
                us: unsigned(row.get(17)?),
            },
        })
    })?;
    rows.collect()
}
