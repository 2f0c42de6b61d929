//! A key file that may be replaced while the process runs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::ProviderError;
use crate::domain::push::Route;

/// Between two looks at the file.
const LOOK_INTERVAL_MILLIS: i64 = 30_000;

type Read<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// What stands in a file, and again after the file has changed. A file that cannot be used
/// any more changes nothing.
pub(super) struct Credentials<T> {
    route: Route,
    file: PathBuf,
    read: Read<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamp: Stamp,
    looked_at: Option<i64>,
}

/// When it was written, and its length.
type Stamp = Option<(SystemTime, u64)>;

impl<T> Credentials<T> {
    /// Reads the file. `read` returns what is wrong with it.
    ///
    /// # Errors
    ///
    /// [`ProviderError::File`].
    pub(super) fn open(
        route: Route,
        file: &Path,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, ProviderError> {
        let stamp = stamp(file);
        let value = load(file, &read).map_err(|reason| ProviderError::File {
            route: route.clone(),
            file: file.to_owned(),
            reason,
        })?;
        Ok(Self {
            route,
            file: file.to_owned(),
            read: Box::new(read),
            state: Mutex::new(State {
                value: Arc::new(value),
                stamp,
                looked_at: None,
            }),
        })
    }

    /// What stands in the file, or stood there when it was last any good.
    pub(super) fn current(&self, now_unix_millis: i64) -> Arc<T> {
        let state = self.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let is_due = state
            .looked_at
            .is_none_or(|then| (now_unix_millis - then).abs() >= LOOK_INTERVAL_MILLIS);
        if is_due {
            state.looked_at = Some(now_unix_millis);
            let stamp = stamp(&self.file);
            if stamp != state.stamp {
                state.stamp = stamp;
                self.replace(&mut state);
            }
        }
        Arc::clone(&state.value)
    }

    fn replace(&self, state: &mut State<T>) {
        let (route, file) = (&self.route, self.file.display());
        match load(&self.file, &self.read) {
            Ok(value) => {
                tracing::info!(%route, %file, "a new key is used");
                state.value = Arc::new(value);
            }
            Err(reason) => tracing::error!(%route, %file, reason, "the old key is used still"),
        }
    }
}

fn load<T>(file: &Path, read: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, String> {
    let bytes =
        fs::read(file).map_err(|error| format!("{error}; check the path and who may read it"))?;
    read(&bytes)
}

fn stamp(file: &Path) -> Stamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::push::{Environment, Provider};

    fn open(file: &Path) -> Result<Credentials<i64>, ProviderError> {
        let route = Route {
            provider: Provider::Apns,
            app: "com.example".to_owned(),
            environment: Environment::Sandbox,
        };
        Credentials::open(route, file, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            text.parse().map_err(|_| "no number; write one".to_owned())
        })
    }

    #[test]
    fn a_changed_file_is_read_again_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "1").unwrap();
        let credentials = open(&file).unwrap();
        assert_eq!(*credentials.current(0), 1);

        fs::write(&file, "22").unwrap();
        assert_eq!(*credentials.current(29_999), 1);
        assert_eq!(*credentials.current(30_000), 22);

        fs::write(&file, "broken").unwrap();
        assert_eq!(*credentials.current(60_000), 22);
        fs::remove_file(&file).unwrap();
        assert_eq!(*credentials.current(90_000), 22);
        fs::write(&file, "333").unwrap();
        assert_eq!(*credentials.current(120_000), 333);
    }

    #[test]
    fn the_error_names_app_file_and_cure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let error = open(&file).err().unwrap().to_string();
        assert!(error.starts_with("apns:com.example:sandbox: "), "{error}");
        assert!(error.contains("/key: No such file"), "{error}");
        fs::write(&file, "one").unwrap();
        let error = open(&file).err().unwrap().to_string();
        assert!(error.ends_with("/key: no number; write one"), "{error}");
    }
}
