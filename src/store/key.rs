//! The secret that authenticates this site's own stamps.
//!
//! Made once, and never replaced: a store whose key is unreadable does not open, because every stamp given so far
//! would turn false.

use std::{fmt, fs, io::Write, path::Path};

use super::{StoreError, at, disk::Disk};

/// 32 secret octets, made once per store. `Debug` does not show them.
#[derive(Clone)]
pub struct StampKey([u8; 32]);

impl StampKey {
    /// The octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Makes the key where it is missing. Nobody else has the store open.
    pub(super) fn make(path: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(path);
        if !path.exists() {
            let part = path.with_extension("key.part");
            if part.exists() {
                disk.remove(&part).map_err(at("remove", &part))?;
            }
            let mut secret = [0; 32];
            aws_lc_rs::rand::fill(&mut secret).map_err(|_| StoreError::Damaged {
                path: path.to_owned(),
                problem: "the system gave no random octets to make it".to_owned(),
            })?;
            let mut file = disk.create_new(&part).map_err(at("create", &part))?;
            file.write_all(&secret).map_err(at("write", &part))?;
            file.sync().map_err(at("sync", &part))?;
            disk.rename(&part, path).map_err(at("rename", &part))?;
        }
        // Also where it was there: whoever made it may have ended before this.
        disk.sync_folder(folder).map_err(at("sync", folder))
    }

    /// Reads the key.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let secret = fs::read(path).map_err(at("read", path))?;
        let secret = secret.try_into().map_err(|secret: Vec<u8>| StoreError::Damaged {
            path: path.to_owned(),
            problem: format!("it has {} octets instead of 32", secret.len()),
        })?;
        Ok(Self(secret))
    }
}

impl fmt::Debug for StampKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StampKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::disk::RealDisk;

    #[test]
    fn the_key_is_made_once_and_told_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamp.key");
        fs::write(folder.path().join("stamp.key.part"), "left by a crash").unwrap();
        StampKey::make(&path, &RealDisk).unwrap();
        let key = StampKey::read(&path).unwrap();
        StampKey::make(&path, &RealDisk).unwrap();
        assert_eq!(StampKey::read(&path).unwrap().as_bytes(), key.as_bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{key:?}"), "StampKey(secret)");
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stamp.key");
        fs::write(&path, "short").unwrap();
        StampKey::make(&path, &RealDisk).unwrap();
        assert!(matches!(StampKey::read(&path), Err(StoreError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
