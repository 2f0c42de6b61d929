//! The secret of the data directory, for those who bring no keys of their own.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::IdentityError;

const FILE_NAME: &str = "token.secret";
/// RFC 7518 §3.2: a key for HS256 has at least as many bits as the hash.
const BYTES_MIN: usize = 32;

/// What signs and verifies HS256 tokens: the text of the file, without white space around it.
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

impl Secret {
    /// Reads the secret of a data directory; makes it first if there is none.
    ///
    /// Two processes that start together agree: the file appears complete or not at all.
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(FILE_NAME);
        if !path.exists() {
            create(data_dir, &path).map_err(|source| IdentityError::Unwritable {
                path: path.clone(),
                source,
            })?;
        }
        Self::read(&path)
    }

    fn read(path: &Path) -> Result<Self, IdentityError> {
        let unreadable = |source| IdentityError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(IdentityError::ExposedSecret {
                path: path.to_owned(),
            });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let text = text.trim();
        if text.len() < BYTES_MIN {
            let bytes_min = BYTES_MIN;
            return Err(IdentityError::WeakSecret {
                path: path.to_owned(),
                bytes_min,
            });
        }
        Ok(Self(text.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

/// Writes a file beside the place and links it there, which fails if one came first.
fn create(data_dir: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    let mut bytes = [0; BYTES_MIN];
    rand::rng().fill_bytes(&mut bytes);
    let draft = data_dir.join(format!(
        "{FILE_NAME}.{}",
        URL_SAFE_NO_PAD.encode(&bytes[..8])
    ));
    rand::rng().fill_bytes(&mut bytes[..8]); // what the name of the draft showed
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(bytes))?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::File::open(data_dir)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_made_once_and_for_its_owner_alone() {
        let data_dir = tempfile::tempdir().unwrap();
        let nested = data_dir.path().join("data");
        let first = Secret::open(&nested).unwrap();
        let second = Secret::open(&nested).unwrap();

        assert_eq!(first.as_bytes(), second.as_bytes());
        assert!(first.as_bytes().len() >= BYTES_MIN);
        let mode = fs::metadata(nested.join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(nested).unwrap().count(),
            1,
            "no draft is left behind"
        );
    }

    #[test]
    fn processes_that_start_together_agree() {
        let data_dir = tempfile::tempdir().unwrap();
        let secrets: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let open = || Secret::open(data_dir.path()).unwrap().as_bytes().to_vec();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(secrets.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_weak_or_exposed_secret_is_refused() {
        let data_dir = tempfile::tempdir().unwrap();
        let path = data_dir.path().join(FILE_NAME);
        fs::write(&path, "short\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Secret::open(data_dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::WeakSecret { .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Secret::open(data_dir.path()).unwrap_err();
        assert!(
            matches!(error, IdentityError::ExposedSecret { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_secret_is_never_printed() {
        let data_dir = tempfile::tempdir().unwrap();
        let secret = Secret::open(data_dir.path()).unwrap();
        let text = std::str::from_utf8(secret.as_bytes()).unwrap();
        assert!(!format!("{secret:?}").contains(text));
    }
}
