//! The write points of the store: every change it makes to the disk is one call here.
//!
//! [`RealDisk`] does what it is told. [`faulty::FaultyDisk`] fails at a chosen call and takes back what was not
//! synced, as a power loss would. Reading is not part of this: what can be read is whatever the writes left.

pub mod faulty;

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

/// What the store needs of a disk. Each call is one write point; none of them is durable by itself:
/// a file's content is after [`DiskFile::sync`], a name after [`Disk::sync_folder`] of the folder it stands in.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder, mode 0700.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a file, mode 0600, for writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same folder; one that has this name is replaced, all at once.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file away.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Is asked before a transaction of `database` is committed. SQLite writes and syncs by its own means, and a
    /// commit happens wholly or not at all.
    ///
    /// # Errors
    /// The transaction is to be rolled back.
    fn commit(&self, database: &Path) -> io::Result<()>;
}

/// A file that is being written, from its beginning to its end.
pub trait DiskFile: fmt::Debug + Write + Send {
    /// Replaces octets that were written before, from `offset` on.
    ///
    /// # Errors
    /// What the system says; some of the octets may have been replaced.
    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content and the length durable.
    ///
    /// # Errors
    /// What the system says. Nothing is known of the content then, and a second call would not mend it.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        belong_to_parent(&File::open(path)?, path);
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        belong_to_parent(&file, path);
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn commit(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for File {
    fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Gives what root made in another user's folder to that user: `gatepost quarantine` run by root must not leave
/// files that the gateway cannot open. Inside the store only; its own folder belongs to whoever made it.
fn belong_to_parent(made: &File, path: &Path) {
    let (Ok(made_by), Some(Ok(parent))) = (made.metadata(), path.parent().map(fs::metadata)) else { return };
    if made_by.uid() == 0 && parent.uid() != 0 {
        // Best effort: without the right to do it, the file stays as it is and opening it will say so.
        let _ = fchown(made, Some(parent.uid()), Some(parent.gid()));
    }
}
