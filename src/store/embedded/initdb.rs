//! Makes the cluster: once, completely or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    binaries::Binaries,
    error::{EmbeddedError, Output},
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
    write_secret(&unfinished, &password)?;
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
    remove_unfinished(&place.home)?;
    let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 6]>());
    let unfinished = place.home.join(format!("{UNFINISHED_PREFIX}{nonce}"));
    let password_file = place
        .home
        .join(format!("{UNFINISHED_PREFIX}{nonce}.password"));
    write_secret(&password_file, password)?;
    place.owner.give(&password_file)?;

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

    fs::remove_file(&password_file).map_err(EmbeddedError::io("remove", &password_file))?;
    fs::rename(&unfinished, &place.pgdata).map_err(EmbeddedError::io("rename", &unfinished))?;
    File::open(&place.home)
        .and_then(|home| home.sync_all())
        .map_err(EmbeddedError::io("sync", &place.home))
}

/// What an earlier process, killed in the middle, left behind.
fn remove_unfinished(home: &Path) -> Result<(), EmbeddedError> {
    let entries = fs::read_dir(home).map_err(EmbeddedError::io("list", home))?;
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|n| n.starts_with(UNFINISHED_PREFIX));
        if !is_ours {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(EmbeddedError::io("remove", path))?;
    }
    Ok(())
}

/// Writes a file that only its owner can read, down to the disk.
fn write_secret(path: &Path, secret: &str) -> Result<(), EmbeddedError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            writeln!(file, "{secret}")?;
            file.sync_all()
        })
        .map_err(EmbeddedError::io("write", path))
}
