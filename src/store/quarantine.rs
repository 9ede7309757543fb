//! The held mail: put, listed, released, deleted.
//!
//! A message is held when its file stands under its final name, content and name synced; the index follows, and is
//! put right from the files at every opening. So the order of steps is: file, its sync, its name, the folder's sync,
//! index, receipt. Where a step fails the file is taken away again, as far as that is still possible, and the
//! caller told so: a sender that tries again may then leave a second copy, but no receipt is ever without its file.
//!
//! A release is at least once: its beginning is on disk before the delivery begins, so that a crash in between
//! leaves a message that is shown as unconfirmed and may be released again. A deletion is decided by one rename;
//! what is left of it is cleared away then or at the next opening.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use super::{
    Body, Entry, Held, QuarantineId, Query, State, Status, StoreError, Totals, at,
    disk::Disk,
    index::{Index, Rows},
    message_file,
};
use crate::verdict::Class;

/// The held mail of an open store.
#[derive(Debug)]
pub struct Quarantine {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    index: Index,
    /// The folders whose names this process has seen synced.
    durable_folders: Mutex<HashSet<String>>,
}

/// Proof that a message is held: on disk, under its name, and listed. Only [`Quarantine::put`] makes one.
#[derive(Debug)]
#[must_use = "without it nobody may be told that the message was taken"]
pub struct Receipt {
    id: QuarantineId,
}

impl Receipt {
    /// The id it is held under.
    pub fn id(&self) -> &QuarantineId {
        &self.id
    }
}

/// The right to deliver one held message: that it begins is on disk, and nobody else can begin or delete meanwhile.
/// Dropped without a word, or lost in a crash, it leaves the message unconfirmed.
#[derive(Debug)]
#[must_use = "how the delivery ended has to be written down"]
pub struct Release {
    entry: Entry,
    /// What it was before, and is again when the delivery fails: held, or unconfirmed since an earlier one.
    before: State,
    /// The message file, locked.
    _lock: File,
}

impl Release {
    /// What is to be delivered.
    pub fn held(&self) -> &Held {
        &self.entry.held
    }
}

impl Quarantine {
    /// Holds a message: `body` is read to its end and must have the length that `held` says.
    ///
    /// # Errors
    /// The message is not held, as far as the disk let itself be told so.
    pub fn put(&self, held: &Held, body: &mut dyn Read) -> Result<Receipt, StoreError> {
        let held = held.spellable();
        let place = self.place(&held.id);
        if place.message.exists() {
            return Err(StoreError::Exists(held.id));
        }
        self.make_folder(&place)?;
        match self.write(&place, &held, body) {
            Ok(()) => Ok(Receipt { id: held.id }),
            Err(error) => {
                self.withdraw(&place, &held.id);
                Err(error)
            }
        }
    }

    /// The messages that `query` asks for, newest first.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn list(&self, query: &Query) -> Result<Vec<Entry>, StoreError> {
        let mut entries = self.index.list(query)?;
        entries.iter_mut().for_each(|entry| self.look(entry));
        Ok(entries)
    }

    /// One message.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the index cannot be read.
    pub fn get(&self, id: &QuarantineId) -> Result<Entry, StoreError> {
        let mut entry = self.index.get(id)?.ok_or_else(|| not_found(id))?;
        self.look(&mut entry);
        Ok(entry)
    }

    /// The one message whose id begins or ends with `text`: at least 8 of its characters. Ids made at about the
    /// same time begin alike; the end is the better half.
    ///
    /// # Errors
    /// [`StoreError::InvalidId`], [`StoreError::NotFound`], [`StoreError::Ambiguous`], or the index cannot be read.
    pub fn find(&self, text: &str) -> Result<QuarantineId, StoreError> {
        let of_an_id = |letter: char| matches!(letter, '0'..='9' | 'a'..='f' | '-');
        if !(8..=36).contains(&text.len()) || !text.chars().all(of_an_id) {
            return Err(StoreError::InvalidId(text.chars().take(64).collect()));
        }
        match self.index.find(text)?.as_slice() {
            [] => Err(StoreError::NotFound(text.to_owned())),
            [id] => id.parse(),
            _ => Err(StoreError::Ambiguous(text.to_owned())),
        }
    }

    /// The octets of a message, after they were compared with their recorded length and digest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Missing`], [`StoreError::Damaged`], or the file cannot be read.
    pub fn open_body(&self, id: &QuarantineId) -> Result<Body, StoreError> {
        message_file::open_body(&self.place(id).message).map_err(|error| self.absence(id, error))
    }

    /// Writes down that the delivery of a message begins.
    ///
    /// # Errors
    /// [`StoreError::Released`] when it was released before, [`StoreError::Busy`] when somebody is at it,
    /// [`StoreError::NotFound`], [`StoreError::Missing`], or the disk refuses. The delivery must not begin then.
    pub fn begin_release(&self, id: &QuarantineId) -> Result<Release, StoreError> {
        let lock = self.lock(id)?;
        let (entry, before) = self.index.write(|rows| {
            let mut entry = rows.get(id)?.ok_or_else(|| not_found(id))?;
            let mut status = read_status(&self.place(id).status)?;
            if let State::Released { .. } = status.state {
                return Err(StoreError::Released(id.clone()));
            }
            let begun = State::Releasing { since: Timestamp::now() };
            let before = std::mem::replace(&mut status.state, begun);
            status.attempts = status.attempts.saturating_add(1);
            self.write_status(rows, id, &status)?;
            entry.status = status;
            Ok((entry, before))
        })?;
        Ok(Release { entry, before, _lock: lock })
    }

    /// The upstream has it, and said so with `reply`.
    ///
    /// # Errors
    /// The disk refuses; the message stays unconfirmed although it was delivered.
    pub fn confirm_release(&self, release: Release, reply: &str) -> Result<(), StoreError> {
        let state = State::Released { at: Timestamp::now(), reply: reply.to_owned() };
        self.end_release(&release, state, None)
    }

    /// It was certainly not delivered this time, because of `error`: it is what it was before.
    ///
    /// # Errors
    /// The disk refuses; the message stays unconfirmed.
    pub fn fail_release(&self, release: Release, error: &str) -> Result<(), StoreError> {
        self.end_release(&release, release.before.clone(), Some(error))
    }

    /// Nobody knows whether it was delivered (the connection broke after the final dot): it stays unconfirmed.
    ///
    /// # Errors
    /// The disk refuses; the message stays unconfirmed all the same.
    pub fn doubt_release(&self, release: Release, error: &str) -> Result<(), StoreError> {
        let state = release.entry.status.state.clone();
        self.end_release(&release, state, Some(error))
    }

    /// Deletes a message for good, whatever its state, and also what is left of one whose file is missing.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while it is being released, [`StoreError::NotFound`], or the disk refuses: whether it is
    /// deleted is then settled at the next opening.
    pub fn delete(&self, id: &QuarantineId) -> Result<(), StoreError> {
        let place = self.place(id);
        let _lock = match self.lock(id) {
            Ok(lock) => {
                self.disk.rename(&place.message, &place.gone).map_err(at("rename", &place.message))?;
                Some(lock)
            }
            Err(StoreError::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        if place.gone.exists() {
            self.disk.sync_folder(&place.folder).map_err(at("sync", &place.folder))?;
        }
        self.index.write(|rows| rows.delete(id))?;
        // From here on it is deleted, and what fails is done at the next opening.
        let _ = self.sweep(&place);
        Ok(())
    }

    /// How much is held.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        self.index.totals()
    }

    /// How many messages of each class were ever released, by whichever process; only classes with any are named.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn released(&self) -> Result<Vec<(Class, u64)>, StoreError> {
        let known = |word: &str| Class::ALL.into_iter().find(|class| class.as_str() == word);
        let counts = self.index.released()?;
        Ok(counts.into_iter().filter_map(|(word, count)| Some((known(&word)?, count))).collect())
    }

    /// Opens the quarantine in the folder `root` and puts its index right from its files.
    pub(super) fn open(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let quarantine = Self {
            root: root.to_owned(),
            index: Index::open(&root.join(INDEX), Arc::clone(&disk))?,
            disk,
            durable_folders: Mutex::default(),
        };
        quarantine.reconcile()?;
        Ok(quarantine)
    }

    /// Removes what processes that are no more left half-written. Nobody else has the store open.
    pub(super) fn clear_up(root: &Path, disk: &Arc<dyn Disk>) -> Result<(), StoreError> {
        Index::clear_up(&root.join(INDEX), disk)?;
        for (id, found) in scan(root)? {
            let place = Place::new(root, &id);
            let orphan = found.status && !found.message && !found.gone;
            for (there, path) in [
                (found.message_part, &place.message_part),
                (found.status_part, &place.status_part),
                (orphan, &place.status),
            ] {
                if there {
                    disk.remove(path).map_err(at("remove", path))?;
                }
            }
        }
        Ok(())
    }

    fn place(&self, id: &QuarantineId) -> Place {
        Place::new(&self.root, id)
    }

    /// Makes the folder of a message, and its name durable. One that is there may be another process's, not synced
    /// yet; so the first use in each process syncs.
    fn make_folder(&self, place: &Place) -> Result<(), StoreError> {
        let mut durable = self.durable_folders.lock().unwrap_or_else(PoisonError::into_inner);
        let name = place.folder.file_name().unwrap_or_default().to_string_lossy();
        if durable.contains(&*name) {
            return Ok(());
        }
        match self.disk.create_folder(&place.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("create", &place.folder)(error));
            }
            _ => self.disk.sync_folder(&self.root).map_err(at("sync", &self.root))?,
        }
        durable.insert(name.into_owned());
        Ok(())
    }

    fn write(&self, place: &Place, held: &Held, body: &mut dyn Read) -> Result<(), StoreError> {
        message_file::write(&place.message_part, &*self.disk, held, body)?;
        self.disk.rename(&place.message_part, &place.message).map_err(at("rename", &place.message_part))?;
        self.disk.sync_folder(&place.folder).map_err(at("sync", &place.folder))?;
        self.index.write(|rows| rows.put(held, &Status::default()))
    }

    /// Takes back what a failed put left, so that the sender's next attempts do not fill the disk with copies.
    /// What cannot be taken back stays as a copy that the next opening lists.
    fn withdraw(&self, place: &Place, id: &QuarantineId) {
        let _ = self.disk.remove(&place.message_part);
        if self.disk.remove(&place.message).is_ok() {
            let _ = self.disk.sync_folder(&place.folder);
            let _ = self.index.write(|rows| rows.delete(id));
        }
    }

    /// Looks whether the file is there, which the index cannot promise.
    fn look(&self, entry: &mut Entry) {
        entry.missing = !self.place(&entry.held.id).message.exists();
    }

    /// Locks a message file against other releases and deletions, in this process and in others.
    fn lock(&self, id: &QuarantineId) -> Result<File, StoreError> {
        let path = self.place(id).message;
        let file = File::open(&path).map_err(at("open", &path)).map_err(|error| self.absence(id, error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy(id.clone())),
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
        }
    }

    /// What it means that a message file could not be opened.
    fn absence(&self, id: &QuarantineId, error: StoreError) -> StoreError {
        match error {
            StoreError::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                match self.index.get(id) {
                    Ok(Some(_)) => StoreError::Missing(id.clone()),
                    Ok(None) => not_found(id),
                    Err(error) => error,
                }
            }
            other => other,
        }
    }

    fn end_release(&self, release: &Release, state: State, error: Option<&str>) -> Result<(), StoreError> {
        let last_error = error.map(|error| error.chars().take(REMARK_LIMIT).collect());
        let status = Status { state, last_error, attempts: release.entry.status.attempts };
        let id = &release.entry.held.id;
        self.index.write(|rows| self.write_status(rows, id, &status))
    }

    /// Writes the state file, then the index. While `rows` lives nobody else does.
    fn write_status(&self, rows: &Rows<'_>, id: &QuarantineId, status: &Status) -> Result<(), StoreError> {
        let Place { folder, status: path, status_part: part, .. } = self.place(id);
        if part.exists() {
            self.disk.remove(&part).map_err(at("remove", &part))?;
        }
        let mut text = serde_json::to_vec(status).map_err(|error| StoreError::Body(error.into()))?;
        text.push(b'\n');
        let mut file = self.disk.create_new(&part).map_err(at("create", &part))?;
        file.write_all(&text).map_err(at("write", &part))?;
        file.sync().map_err(at("sync", &part))?;
        self.disk.rename(&part, &path).map_err(at("rename", &part))?;
        self.disk.sync_folder(&folder).map_err(at("sync", &folder))?;
        rows.set_status(id, status)
    }

    /// Puts the index right: the files are the truth.
    fn reconcile(&self) -> Result<(), StoreError> {
        let known = self.index.all()?;
        let found = scan(&self.root)?;
        let gone = known.keys().filter_map(|id| id.parse().ok()).filter(|id| !found.contains_key(id));
        let doubtful: Vec<QuarantineId> = found
            .iter()
            .filter(|(id, found)| self.differs(id, found, known.get(id.as_str())))
            .map(|(id, _)| id.clone())
            .chain(gone)
            .collect();
        for some in doubtful.chunks(RECONCILE_BATCH) {
            self.index.write(|rows| some.iter().try_for_each(|id| self.settle(rows, id)))?;
        }
        for id in doubtful {
            let place = self.place(&id);
            if place.gone.exists() {
                let _ = self.sweep(&place);
            }
        }
        Ok(())
    }

    /// Whether the files of a message say something else than the index.
    fn differs(&self, id: &QuarantineId, found: &Found, known: Option<&(bool, bool)>) -> bool {
        match known {
            _ if found.gone => true,
            None => found.message,
            Some((missing, _)) if *missing == found.message => true,
            // A state file that ends in a release is never written again.
            Some((_, true)) => false,
            Some((_, false)) if found.status => {
                let indexed = self.index.get(id).ok().flatten().map(|entry| entry.status);
                indexed != read_status(&self.place(id).status).ok()
            }
            Some(_) => false,
        }
    }

    /// Says in the index what the files of one message say now; they may have changed since they were listed.
    fn settle(&self, rows: &Rows<'_>, id: &QuarantineId) -> Result<(), StoreError> {
        let place = self.place(id);
        if place.message.exists() {
            let facts = message_file::read_facts(&place.message).and_then(|held| {
                let named = held.id == *id;
                named.then_some(held).ok_or_else(|| StoreError::Damaged {
                    path: place.message.clone(),
                    problem: "its facts name another message".to_owned(),
                })
            });
            match facts.and_then(|held| Ok((held, read_status(&place.status)?))) {
                Ok((held, status)) => rows.put(&held, &status)?,
                Err(error) => tracing::warn!(%error, "a held message cannot be listed"),
            }
        } else if place.gone.exists() {
            self.disk.sync_folder(&place.folder).map_err(at("sync", &place.folder))?;
            rows.delete(id)?;
        } else {
            rows.set_missing(id)?;
        }
        Ok(())
    }

    /// Removes the files of a deleted message; its state first, so that what is left still says it is deleted.
    fn sweep(&self, place: &Place) -> io::Result<()> {
        for path in [&place.status, &place.gone] {
            if path.exists() {
                self.disk.remove(path)?;
            }
        }
        self.disk.sync_folder(&place.folder)
    }
}

/// The files of one message.
struct Place {
    folder: PathBuf,
    message: PathBuf,
    message_part: PathBuf,
    /// What a message file is renamed to when it is deleted.
    gone: PathBuf,
    status: PathBuf,
    status_part: PathBuf,
}

impl Place {
    fn new(root: &Path, id: &QuarantineId) -> Self {
        let folder = root.join(id.folder());
        let named = |ending: &str| folder.join(format!("{id}.{ending}"));
        Self {
            message: named(MESSAGE),
            message_part: named(MESSAGE_PART),
            gone: named(GONE),
            status: named(STATUS),
            status_part: named(STATUS_PART),
            folder,
        }
    }
}

/// Which files of one message are there.
#[derive(Debug, Default)]
struct Found {
    message: bool,
    message_part: bool,
    gone: bool,
    status: bool,
    status_part: bool,
}

/// Lists the files of all messages. What has another name is not ours and stays.
fn scan(root: &Path) -> Result<HashMap<QuarantineId, Found>, StoreError> {
    let mut all: HashMap<QuarantineId, Found> = HashMap::new();
    for folder in fs::read_dir(root).map_err(at("list", root))? {
        let folder = folder.map_err(at("list", root))?;
        if !folder.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        for file in fs::read_dir(folder.path()).map_err(at("list", &folder.path()))? {
            let name = file.map_err(at("list", &folder.path()))?.file_name();
            let Some((id, ending)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let Ok(id) = id.parse::<QuarantineId>() else { continue };
            if folder.file_name() != id.folder() {
                continue;
            }
            let found = all.entry(id).or_default();
            match ending {
                MESSAGE => found.message = true,
                MESSAGE_PART => found.message_part = true,
                GONE => found.gone = true,
                STATUS => found.status = true,
                STATUS_PART => found.status_part = true,
                _ => {}
            }
        }
    }
    Ok(all)
}

/// Reads a state file. None means that nobody ever tried to release the message; from one that is unreadable nothing
/// better can be concluded than that it may have been delivered.
fn read_status(path: &Path) -> Result<Status, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Status::default()),
        Err(error) => return Err(at("read", path)(error)),
    };
    Ok(serde_json::from_slice(&text).unwrap_or_else(|error| Status {
        state: State::Releasing { since: written_at(path) },
        attempts: 1,
        last_error: Some(format!("its state file is damaged: {error}")),
    }))
}

/// When a file was last written, as far as that can be said.
fn written_at(path: &Path) -> Timestamp {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn not_found(id: &QuarantineId) -> StoreError {
    StoreError::NotFound(id.to_string())
}

const INDEX: &str = "index.db";
const MESSAGE: &str = "held";
const MESSAGE_PART: &str = "held.part";
const GONE: &str = "gone";
const STATUS: &str = "state";
const STATUS_PART: &str = "state.part";
/// Of what is noted about a failed delivery, so many characters are kept.
const REMARK_LIMIT: usize = 1000;
/// So many messages are put right in one transaction.
const RECONCILE_BATCH: usize = 500;
