//! The log that Postgres writes: a file, so that it outlives us; of limited size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use super::error::{EmbeddedError, Output};

const BYTES_MAX: u64 = 16 * 1024 * 1024;
const TAIL_BYTES_MAX: u64 = 16 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Log {
    path: PathBuf,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file twice, for standard output and standard error.
    pub(super) fn open(&self) -> Result<(File, File), EmbeddedError> {
        let open = || {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            Ok((file.try_clone()?, file))
        };
        open().map_err(EmbeddedError::io("open", &self.path))
    }

    /// Where the log ends now.
    pub(super) fn end(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// The last lines written after `start`.
    pub(super) fn tail(&self, start: u64) -> Output {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(
                start.max(end.saturating_sub(TAIL_BYTES_MAX)).min(end),
            ))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Output::tail_of(&read().unwrap_or_default())
    }

    /// Moves a large log aside. Postgres keeps its file open in append mode, so the file is
    /// copied and emptied, not renamed; a line written in between may be lost.
    pub(super) fn trim(&self) {
        if self.end() <= BYTES_MAX {
            return;
        }
        let trim = || {
            fs::copy(&self.path, self.path.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(&self.path)?.set_len(0)
        };
        if let Err(error) = trim() {
            tracing::warn!(%error, path = %self.path.display(), "the log of postgres is too large");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_where_asked_and_a_large_log_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        let log = Log::new(path.clone());
        fs::write(&path, "before\n").unwrap();
        let start = log.end();
        fs::write(&path, "before\nafter\n").unwrap();
        assert!(log.tail(start).to_string().ends_with("| after"));
        assert!(!log.tail(start).to_string().contains("before"));

        log.trim();
        assert_eq!(log.end(), 13);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(BYTES_MAX + 1)
            .unwrap();
        log.trim();
        assert_eq!(log.end(), 0);
        assert_eq!(
            fs::metadata(folder.path().join("postgres.log.1"))
                .unwrap()
                .len(),
            BYTES_MAX + 1
        );
    }
}
