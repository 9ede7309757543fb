//! Test support: a disk that fails on demand, and forgets what was not synced when its power goes.
//!
//! It works on a real folder and keeps beside it a ledger of what would survive: the content of each file as of its
//! last sync, and the names of each folder as of that folder's last sync. At a power loss the folder is put into
//! that state, and every later call fails; the test then opens the folder with the real disk. Files whose name
//! contains `.db` are SQLite's: their content is left alone, a commit is one write point that happens or does not.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, RealDisk};

/// How a write point fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens and an error is reported.
    Error,
    /// It happens, a write by half, and an error is reported all the same.
    Late,
    /// A write takes half of the octets and says so, which is no error; other calls just happen.
    Short,
    /// The power goes before it: nothing that was not synced remains, neither content nor names.
    PowerLoss,
    /// The power goes before it: all names remain, but of the contents only what was synced.
    ContentLoss,
    /// The process ends before it: all that was written remains.
    Kill,
}

impl Fault {
    /// Every way to fail.
    pub const ALL: [Self; 6] =
        [Self::Error, Self::Late, Self::Short, Self::PowerLoss, Self::ContentLoss, Self::Kill];
}

/// The disk that fails. Clones are one disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug)]
struct Ledger {
    /// Every write point since the last arming, in words.
    points: Vec<String>,
    armed: Option<(usize, Fault)>,
    fired: bool,
    dead: bool,
    /// The content of each file as of its last sync, by a number that stays with it when its name changes.
    synced: HashMap<u64, Vec<u8>>,
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    files: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(u64),
    Database,
}

impl FaultyDisk {
    /// A disk over what is in the folder `root` now, all of it taken as durable. Nothing fails yet.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut ledger = Ledger {
            points: Vec::new(),
            armed: None,
            fired: false,
            dead: false,
            synced: HashMap::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            files: 0,
        };
        ledger.note(root)?;
        ledger.durable = ledger.live.clone();
        Ok(Self { ledger: Arc::new(Mutex::new(ledger)) })
    }

    /// Starts counting write points from 1 again and lets the one numbered `point` fail.
    pub fn arm(&self, point: usize, fault: Fault) {
        let mut ledger = self.lock();
        ledger.points.clear();
        ledger.armed = Some((point, fault));
    }

    /// Lets the power go now, or the process end: what was promised before has to be there afterwards.
    pub fn fail_now(&self, fault: Fault) {
        let mut ledger = self.lock();
        ledger.armed = Some((ledger.points.len() + 1, fault));
        drop(ledger);
        let _ = self.commit(Path::new("after everything"));
    }

    /// The write points met since the last arming, in words.
    pub fn points(&self) -> Vec<String> {
        self.lock().points.clone()
    }

    /// Whether the armed write point was met.
    pub fn fired(&self) -> bool {
        self.lock().fired
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write point. `act` makes the change and is told whether a write is to be cut short.
    fn point<T>(&self, words: String, act: impl FnOnce(&mut Ledger, bool) -> io::Result<T>) -> io::Result<T> {
        let mut ledger = self.lock();
        match ledger.enter(words)? {
            None => act(&mut ledger, false),
            Some(Fault::Short) => act(&mut ledger, true),
            Some(_) => {
                act(&mut ledger, true)?;
                Err(io::Error::other("injected: done, but reported as failed"))
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.point(format!("create folder {}", name(path)), |ledger, _| {
            RealDisk.create_folder(path)?;
            ledger.live.insert(path.to_owned(), Node::Folder);
            Ok(())
        })
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.point(format!("create {}", name(path)), |ledger, _| {
            let file = RealDisk.create_new(path)?;
            let number = ledger.insert_file(path, Vec::new());
            let made = FaultyFile { disk: self.clone(), file, reader: File::open(path)?, number };
            Ok(Box::new(made) as Box<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.point(format!("rename to {}", name(to)), |ledger, _| {
            RealDisk.rename(from, to)?;
            if let Some(node) = ledger.live.remove(from) {
                ledger.live.insert(to.to_owned(), node);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.point(format!("remove {}", name(path)), |ledger, _| {
            RealDisk.remove(path)?;
            ledger.live.remove(path);
            Ok(())
        })
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.point(format!("sync folder {}", name(path)), |ledger, _| {
            RealDisk.sync_folder(path)?;
            let within = |entry: &PathBuf| entry.parent() == Some(path);
            ledger.durable.retain(|entry, _| !within(entry));
            let names = ledger.live.iter().filter(|(entry, _)| within(entry));
            ledger.durable.extend(names.map(|(entry, node)| (entry.clone(), *node)));
            Ok(())
        })
    }

    fn commit(&self, database: &Path) -> io::Result<()> {
        self.point(format!("commit {}", name(database)), |_, _| Ok(()))
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    file: Box<dyn DiskFile>,
    reader: File,
    number: u64,
}

impl Write for FaultyFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let file = &mut self.file;
        self.disk.point(format!("write {} octets", buf.len()), |_, cut| {
            let len = if cut { buf.len().div_ceil(2) } else { buf.len() };
            file.write_all(&buf[..len])?;
            Ok(len)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = &mut self.file;
        self.disk.point("overwrite".to_owned(), |_, _| file.overwrite(offset, bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        let Self { disk, file, reader, number } = self;
        disk.point("sync file".to_owned(), |ledger, _| {
            file.sync()?;
            let mut content = Vec::new();
            reader.rewind()?;
            reader.read_to_end(&mut content)?;
            ledger.synced.insert(*number, content);
            Ok(())
        })
    }
}

impl Ledger {
    /// Counts a write point; the fault that the caller has to act out, if any.
    fn enter(&mut self, words: String) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(io::Error::other("injected: the power is gone"));
        }
        self.points.push(words);
        let Some((point, fault)) = self.armed else { return Ok(None) };
        if point != self.points.len() {
            return Ok(None);
        }
        self.fired = true;
        match fault {
            Fault::Late | Fault::Short => return Ok(Some(fault)),
            Fault::Error => return Err(io::Error::other("injected: an error")),
            Fault::PowerLoss => self.lose_names_and_contents()?,
            Fault::ContentLoss => self.lose_contents()?,
            Fault::Kill => {}
        }
        self.dead = true;
        Err(io::Error::other("injected: the power goes"))
    }

    fn lose_names_and_contents(&mut self) -> io::Result<()> {
        let durable = std::mem::take(&mut self.durable);
        let reachable = |path: &PathBuf| {
            let inner = path.ancestors().skip(1).filter(|folder| self.live.contains_key(*folder));
            durable.contains_key(path) && inner.into_iter().all(|folder| durable.contains_key(folder))
        };
        for (path, node) in self.live.iter().rev().filter(|(path, _)| !reachable(path)) {
            match node {
                Node::Folder => fs::remove_dir_all(path)?,
                Node::File(_) => absent_is_fine(fs::remove_file(path))?,
                Node::Database => remove_database(path)?,
            }
        }
        for (path, node) in durable.iter().filter(|(path, _)| reachable(path)) {
            match node {
                Node::Folder if !path.exists() => fs::create_dir(path)?,
                Node::File(number) => fs::write(path, &self.synced[number])?,
                Node::Folder | Node::Database => {}
            }
        }
        Ok(())
    }

    fn lose_contents(&self) -> io::Result<()> {
        for (path, node) in &self.live {
            if let Node::File(number) = node {
                fs::write(path, &self.synced[number])?;
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            self.live.insert(path.to_owned(), Node::Folder);
            for entry in fs::read_dir(path)? {
                self.note(&entry?.path())?;
            }
        } else {
            let content = fs::read(path)?;
            self.insert_file(path, content);
        }
        Ok(())
    }

    fn insert_file(&mut self, path: &Path, content: Vec<u8>) -> u64 {
        self.files += 1;
        let node = if name(path).contains(".db") { Node::Database } else { Node::File(self.files) };
        self.live.insert(path.to_owned(), node);
        self.synced.insert(self.files, content);
        self.files
    }
}

fn remove_database(path: &Path) -> io::Result<()> {
    for ending in ["", "-wal", "-shm"] {
        let mut whole = path.as_os_str().to_owned();
        whole.push(ending);
        absent_is_fine(fs::remove_file(PathBuf::from(whole)))?;
    }
    Ok(())
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes one file as the store does, with the steps named in `leave_out` left out; what is there after the power went.
    fn survives(fault: Fault, leave_out: &[&str]) -> Option<Vec<u8>> {
        let root = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(root.path()).unwrap();
        let folder = root.path().join("aa");
        let (part, whole) = (folder.join("m.part"), folder.join("m"));
        let does = |step| !leave_out.contains(&step);
        disk.create_folder(&folder).unwrap();
        if does("sync parent") {
            disk.sync_folder(root.path()).unwrap();
        }
        let mut file = disk.create_new(&part).unwrap();
        file.write_all(b"bytes").unwrap();
        if does("sync file") {
            file.sync().unwrap();
        }
        disk.rename(&part, &whole).unwrap();
        if does("sync folder") {
            disk.sync_folder(&folder).unwrap();
        }
        disk.arm(1, fault);
        assert!(disk.commit(Path::new("index.db")).is_err());
        assert!(disk.sync_folder(&folder).is_err(), "dead for good");
        assert!(disk.fired());
        fs::read(whole).ok()
    }

    #[test]
    fn what_was_not_synced_is_lost() {
        for (fault, leave_out, left) in [
            (Fault::PowerLoss, &[][..], Some(&b"bytes"[..])),
            (Fault::PowerLoss, &["sync file"], Some(b"")),
            (Fault::PowerLoss, &["sync folder"], None),
            (Fault::PowerLoss, &["sync parent"], None),
            (Fault::ContentLoss, &[], Some(b"bytes")),
            (Fault::ContentLoss, &["sync file", "sync folder", "sync parent"], Some(b"")),
            (Fault::Kill, &["sync file", "sync folder", "sync parent"], Some(b"bytes")),
        ] {
            assert_eq!(survives(fault, leave_out).as_deref(), left, "{fault:?} {leave_out:?}");
        }
    }

    #[test]
    fn a_removal_or_a_replacement_that_was_not_synced_is_undone() {
        let root = tempfile::tempdir().unwrap();
        let (kept, replaced, new) =
            (root.path().join("kept"), root.path().join("state"), root.path().join("new"));
        fs::write(&kept, "old").unwrap();
        fs::write(&replaced, "old").unwrap();
        let disk = FaultyDisk::new(root.path()).unwrap();
        disk.remove(&kept).unwrap();
        let mut file = disk.create_new(&new).unwrap();
        file.write_all(b"new").unwrap();
        file.sync().unwrap();
        disk.rename(&new, &replaced).unwrap();
        disk.arm(1, Fault::PowerLoss);
        assert!(disk.sync_folder(root.path()).is_err());
        assert_eq!(fs::read_to_string(kept).unwrap(), "old");
        assert_eq!(fs::read_to_string(replaced).unwrap(), "old");
        assert!(!new.exists());
    }

    #[test]
    fn short_and_late_writes_take_half() {
        let root = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(root.path()).unwrap();
        let mut file = disk.create_new(&root.path().join("m")).unwrap();
        disk.arm(1, Fault::Short);
        assert_eq!(file.write(b"12345").unwrap(), 3);
        disk.arm(1, Fault::Late);
        assert!(file.write(b"6789").is_err());
        assert_eq!(fs::read(root.path().join("m")).unwrap(), b"12367");
    }
}
