//! Where the cluster, its socket, its log and its password are.
//!
//! ```text
//!   <data_dir>/homing.lock          see lock.rs
//!              postgres.password    readable by the owner of the data directory only
//!              postgres.log         what Postgres says; postgres.log.1 is the one before
//!              postgres.location    only if the home is elsewhere: its path
//!              postgres/            the home, mode 0700
//!                data/              the cluster, made under another name and renamed
//!                run/               the socket
//! ```
//!
//! The home is elsewhere (`/var/lib/homing/<hash of the data directory>`) if homing runs as
//! root and the user that postgres runs as cannot reach the data directory. The socket is
//! elsewhere if the path of the home is too long for one.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    error::{EmbeddedError, Output},
    owner::Owner,
};

/// Where homes are that a data directory cannot hold.
const HOMES_ELSEWHERE: &str = "/var/lib/homing";
/// The smallest limit of the systems we know is 104 bytes with the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 103;
const SOCKET_NAME: &str = ".s.PGSQL.5432";
pub(super) const SOCKET_LOCK_NAME: &str = ".s.PGSQL.5432.lock";

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) home: PathBuf,
    pub(super) pgdata: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log: PathBuf,
    pub(super) password: PathBuf,
    location: PathBuf,
    /// Tells the processes of this cluster from others, see [`super::process`].
    pub(super) cluster_name: String,
    pub(super) owner: Owner,
    is_elsewhere: bool,
}

impl Place {
    /// Decides where everything is; changes nothing yet. The data directory exists.
    pub(super) fn find(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir =
            fs::canonicalize(data_dir).map_err(EmbeddedError::io("resolve", data_dir))?;
        let location = data_dir.join("postgres.location");
        let (home, owner) = match fs::read_to_string(&location) {
            Ok(text) => remembered(PathBuf::from(text.trim_end()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => choose(&data_dir)?,
            Err(error) => return Err(EmbeddedError::io("read", location)(error)),
        };
        let name = stable_hash(&home);
        Ok(Self {
            pgdata: home.join("data"),
            socket_dir: socket_dir(&home, owner, &name),
            log: data_dir.join("postgres.log"),
            password: data_dir.join("postgres.password"),
            is_elsewhere: !home.starts_with(&data_dir),
            home,
            location,
            cluster_name: format!("homing-{name}"),
            owner,
        })
    }

    /// Whether initdb has finished here.
    pub(super) fn has_cluster(&self) -> Result<bool, EmbeddedError> {
        exists(&self.pgdata)
    }

    /// Makes the folders that are missing, and checks those that are there.
    pub(super) fn prepare(&self) -> Result<(), EmbeddedError> {
        if self.is_elsewhere {
            let parent = self.home.parent().unwrap_or(&self.home);
            fs::create_dir_all(parent).map_err(EmbeddedError::io("create", parent))?;
        }
        private_dir(&self.home, self.owner)?;
        if let Some(parent) = self
            .socket_dir
            .parent()
            .filter(|&parent| parent != self.home)
        {
            fs::create_dir_all(parent).map_err(EmbeddedError::io("create", parent))?;
        }
        private_dir(&self.socket_dir, self.owner)?;
        if self.owner.can_reach(&self.home) {
            return Ok(());
        }
        Err(EmbeddedError::Permission {
            path: self.home.clone(),
            problem: format!(
                "user {}, as which postgres runs, may not enter it: allow it on every folder above (chmod o+x), or choose another --data-dir",
                self.owner.uid
            ),
            output: Output::default(),
        })
    }

    /// Writes down where the home is, once it holds a cluster.
    pub(super) fn remember(&self) -> Result<(), EmbeddedError> {
        if !self.is_elsewhere || exists(&self.location)? {
            return Ok(());
        }
        tracing::info!(
            home = %self.home.display(),
            "the data directory cannot be reached by the user that postgres runs as; its cluster is elsewhere"
        );
        fs::write(&self.location, format!("{}\n", self.home.display()))
            .map_err(EmbeddedError::io("write", &self.location))
    }
}

/// The home that was written down must still be there: an empty store in its place would
/// look like a loss of everything.
fn remembered(home: PathBuf) -> Result<(PathBuf, Owner), EmbeddedError> {
    if !exists(&home.join("data"))? {
        return Err(EmbeddedError::Incomplete {
            path: home,
            cure: "restore it, or remove postgres.location from the data directory to begin with an empty store",
        });
    }
    let owner = Owner::choose(&home.join("data"))?;
    Ok((home, owner))
}

fn choose(data_dir: &Path) -> Result<(PathBuf, Owner), EmbeddedError> {
    let inside = data_dir.join("postgres");
    let owner = Owner::choose(&inside.join("data"))?;
    if !owner.is_lent || owner.can_reach(data_dir) || exists(&inside.join("data"))? {
        return Ok((inside, owner));
    }
    let elsewhere = Path::new(HOMES_ELSEWHERE).join(stable_hash(data_dir));
    let owner = Owner::choose(&elsewhere.join("data"))?;
    Ok((elsewhere, owner))
}

fn socket_dir(home: &Path, owner: Owner, name: &str) -> PathBuf {
    let inside = home.join("run");
    // The setting is a list with quoting rules; a plain path needs none of them.
    let is_plain = inside.to_str().is_some_and(|path| {
        path.chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | '@'))
    });
    if is_plain && inside.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return inside;
    }
    if owner.is_lent && Path::new("/run").is_dir() {
        return Path::new("/run/homing").join(name);
    }
    PathBuf::from(format!("/tmp/homing-{}-{name}", owner.uid))
}

/// A folder that only the owner may enter. In `/tmp` others could have made it before us,
/// or put a link in its place, so what is there is believed only if it is right.
fn private_dir(path: &Path, owner: Owner) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return owner.give(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(EmbeddedError::io("create", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(EmbeddedError::io("look at", path))?;
    if found.is_dir() && owner.is_lent && found.uid() == 0 {
        // A root process was stopped between making it and giving it away.
        return owner.give(path);
    }
    let rights = found.mode() & 0o777;
    if found.is_dir() && found.uid() == owner.uid && rights == 0o700 {
        return Ok(());
    }
    Err(EmbeddedError::Permission {
        path: path.to_owned(),
        problem: format!(
            "must be a folder of user {} with mode 0700, and no link",
            owner.uid
        ),
        output: Output::default(),
    })
}

/// Unlike `Path::exists`, missing rights are not taken for a missing file.
fn exists(path: &Path) -> Result<bool, EmbeddedError> {
    fs::exists(path).map_err(EmbeddedError::io("look at", path))
}

/// FNV-1a: the same in every version of the program, unlike the hashes of `std`.
fn stable_hash(path: &Path) -> String {
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn myself() -> Owner {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Owner {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            is_lent: false,
        }
    }

    #[test]
    fn the_hash_of_a_path_never_changes() {
        assert_eq!(stable_hash(Path::new("")), "cbf29ce484222325");
        assert_eq!(stable_hash(Path::new("a")), "af63dc4c8601ec8c");
    }

    #[test]
    fn a_socket_stays_in_the_home_unless_its_path_is_too_long_or_odd() {
        let owner = myself();
        let inside = socket_dir(Path::new("/srv/homing/postgres"), owner, "x");
        assert_eq!(inside, Path::new("/srv/homing/postgres/run"));
        for home in [format!("/{}", "long/".repeat(30)), "/srv/a,b c".to_owned()] {
            let outside = socket_dir(Path::new(&home), owner, "x");
            assert_eq!(
                outside,
                PathBuf::from(format!("/tmp/homing-{}-x", owner.uid))
            );
        }
    }

    #[test]
    fn a_private_folder_of_somebody_else_or_open_to_others_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let fresh = base.path().join("fresh");
        private_dir(&fresh, myself()).unwrap();
        assert_eq!(fs::metadata(&fresh).unwrap().mode() & 0o777, 0o700);
        private_dir(&fresh, myself()).unwrap();

        symlink(&fresh, base.path().join("link")).unwrap();
        private_dir(&base.path().join("link"), myself()).unwrap_err();
        let stranger = Owner {
            uid: myself().uid + 1,
            ..myself()
        };
        private_dir(&fresh, stranger).unwrap_err();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&fresh, myself()).unwrap_err();
    }

    #[test]
    fn a_remembered_home_that_is_gone_is_not_replaced_by_an_empty_one() {
        let data_dir = tempfile::tempdir().unwrap();
        fs::write(
            data_dir.path().join("postgres.location"),
            "/nowhere/homing\n",
        )
        .unwrap();
        let error = Place::find(data_dir.path()).unwrap_err().to_string();
        assert!(error.contains("/nowhere/homing is missing"), "{error}");
    }
}
