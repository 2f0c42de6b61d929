//! Makes the cluster: once, completely or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, fchown},
    path::Path,
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    binaries::Binaries,
    error::{EmbeddedError, Output},
    owner::Owner,
    place::Place,
    postmaster,
};

/// The superuser of the cluster, and the database in it.
pub(super) const NAME: &str = "homing";
const UNFINISHED_PREFIX: &str = "data.new-";

/// The major version that the cluster was made by.
pub(super) fn major_of(place: &Place) -> Result<u32, EmbeddedError> {
    let path = place.pgdata.join("PG_VERSION");
    let text = fs::read_to_string(&path).map_err(EmbeddedError::io("read", &path))?;
    text.trim().parse().map_err(|_| EmbeddedError::Corrupt {
        path: place.pgdata.clone(),
        output: Output::tail_of(&format!("PG_VERSION holds {:?}", text.trim())),
    })
}

/// The password of the superuser, made before the cluster is.
pub(super) fn password(place: &Place) -> Result<String, EmbeddedError> {
    let path = &place.password;
    match fs::read_to_string(path) {
        Ok(text) => return Ok(text.trim_end().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(EmbeddedError::io("read", path)(error)),
    }
    if place.has_cluster()? {
        return Err(EmbeddedError::Incomplete {
            path: path.clone(),
            cure: "restore it from a backup, or set a new password with postgres --single and write it there",
        });
    }
    let password = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
    let unfinished = path.with_extension("password.new");
    if fs::exists(&unfinished).map_err(EmbeddedError::io("look at", &unfinished))? {
        fs::remove_file(&unfinished).map_err(EmbeddedError::io("remove", &unfinished))?;
    }
    write_secret(&unfinished, &password, None)?;
    fs::rename(&unfinished, path).map_err(EmbeddedError::io("rename", path))?;
    Ok(password)
}

/// Runs initdb under another name and renames the result, so that a cluster that is there
/// is complete, whenever the process was killed.
pub(super) async fn create(
    place: &Place,
    binaries: &Binaries,
    password: &str,
) -> Result<(), EmbeddedError> {
    let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 6]>());
    let unfinished = place.home.join(format!("{UNFINISHED_PREFIX}{nonce}"));
    let password_file = place
        .home
        .join(format!("{UNFINISHED_PREFIX}{nonce}.password"));
    write_secret(&password_file, password, Some(place.owner))?;

    let output = postmaster::command(&binaries.initdb, place)
        .arg("--pgdata")
        .arg(&unfinished)
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username", NAME, "--auth=scram-sha-256"])
        .args(["--encoding=UTF8", "--locale=C", "--data-checksums"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(EmbeddedError::io("run", &binaries.initdb))?;
    fs::remove_file(&password_file).map_err(EmbeddedError::io("remove", &password_file))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let words = Output::tail_of(&String::from_utf8_lossy(&text));
        let home = place.home.clone();
        return Err(EmbeddedError::of_program(
            "initdb",
            output.status,
            home,
            words,
        ));
    }

    fs::rename(&unfinished, &place.pgdata).map_err(EmbeddedError::io("rename", &unfinished))?;
    File::open(&place.home)
        .and_then(|home| home.sync_all())
        .map_err(EmbeddedError::io("sync", &place.home))
}

/// Removes what an earlier process, killed in the middle, left behind. As far as possible:
/// an orphaned initdb may still write there, and the next start tries again.
pub(super) fn remove_unfinished(place: &Place) {
    let Ok(entries) = fs::read_dir(&place.home) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with(UNFINISHED_PREFIX)
        {
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "half of a cluster was not removed");
        }
    }
}

/// Writes a file that only its owner can read, down to the disk. It must not exist: in a
/// folder of somebody else, root must not follow a link, nor hand over what one points to.
fn write_secret(path: &Path, secret: &str, owner: Option<Owner>) -> Result<(), EmbeddedError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        if let Some(owner) = owner.filter(|owner| owner.is_lent) {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        writeln!(file, "{secret}")?;
        file.sync_all()
    };
    write().map_err(EmbeddedError::io("write", path))
}
