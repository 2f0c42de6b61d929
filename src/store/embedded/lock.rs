//! One homing per data directory: a lock that ends with the process, however it ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::error::EmbeddedError;

const FILE_NAME: &str = "homing.lock";

/// Held for the life of the process. The kernel lets go of it when the process ends, also
/// by kill -9; the file stays and means nothing by itself.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Creates the data directory if need be, and takes its lock.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Locked`] if another process has it.
    pub fn acquire(data_dir: &Path) -> Result<Self, EmbeddedError> {
        fs::create_dir_all(data_dir).map_err(EmbeddedError::io("create", data_dir))?;
        let path = data_dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(EmbeddedError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                return Err(EmbeddedError::Locked {
                    data_dir: data_dir.to_owned(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(EmbeddedError::io("lock", path)(error)),
        }
        // Only for the error text of the next one; a full disk is no reason to give up here.
        let _noted = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let data_dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::acquire(data_dir.path()).unwrap();

        let refused = DataDirLock::acquire(data_dir.path())
            .unwrap_err()
            .to_string();
        drop(first);

        assert!(
            refused.contains(&format!("pid {}", std::process::id())),
            "{refused}"
        );
        DataDirLock::acquire(data_dir.path()).unwrap();
    }
}
