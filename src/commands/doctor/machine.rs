//! The machine: clock, open files, the data directory and its disk.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

use homing::config::MqttConfig;
use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};
use time::{Date, Month, OffsetDateTime};

use super::Check;

/// This program is younger than that; a clock that shows an earlier day is wrong.
const BUILT_AFTER: (i32, Month, u8) = (2026, Month::January, 1);
/// Files that are open besides connections: database, log, libraries.
const OTHER_FILES: u64 = 256;
const DISK_BYTES_FAIL: u64 = 256 << 20;
const DISK_BYTES_WARN: u64 = 2 << 30;

pub(super) fn clock() -> Check {
    const SUBJECT: &str = "clock";
    let now = OffsetDateTime::now_utc();
    let (year, month, day) = BUILT_AFTER;
    let is_sane = Date::from_calendar_date(year, month, day).is_ok_and(|built| now.date() >= built);
    let finding = format!("{} {:02}:{:02} UTC", now.date(), now.hour(), now.minute());
    if is_sane {
        Check::ok(SUBJECT, finding)
    } else {
        Check::fail(
            SUBJECT,
            format!("it shows {finding}"),
            "set it, or tokens are judged wrongly: timedatectl set-ntp true",
        )
    }
}

pub(super) fn open_files(mqtt: &MqttConfig) -> Check {
    const SUBJECT: &str = "open files";
    let wanted = u64::try_from(mqtt.connections_max.get()).unwrap_or(u64::MAX);
    let wanted = wanted.saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current else {
        return Check::ok(SUBJECT, "no limit");
    };
    if soft >= wanted {
        return Check::ok(
            SUBJECT,
            format!("{soft}, and mqtt.connections_max needs {wanted}"),
        );
    }
    let finding = format!("{soft} are allowed, mqtt.connections_max needs {wanted}");
    let cure = format!(
        "ulimit -n {wanted} (systemd: LimitNOFILE={wanted}), or lower mqtt.connections_max"
    );
    Check::warn(SUBJECT, finding, cure)
}

pub(super) fn data_dir(data_dir: &Path) -> Check {
    const SUBJECT: &str = "data directory";
    let existing = nearest_existing(data_dir);
    match try_writing(&existing) {
        Ok(()) if existing == data_dir => {
            Check::ok(SUBJECT, format!("{} can be written", data_dir.display()))
        }
        Ok(()) => Check::ok(SUBJECT, format!("{} can be made", data_dir.display())),
        Err(error) => Check::fail(
            SUBJECT,
            format!("{}: {error}", existing.display()),
            "give it to the user who runs homing (chown), or choose another with --data-dir",
        ),
    }
}

pub(super) fn disk(data_dir: &Path) -> Check {
    const SUBJECT: &str = "disk";
    let place = nearest_existing(data_dir);
    let numbers = match statvfs(&place) {
        Ok(numbers) => numbers,
        Err(error) => {
            return Check::warn(
                SUBJECT,
                format!("{}: {error}", place.display()),
                "look at df",
            );
        }
    };
    let free = numbers.f_bavail.saturating_mul(numbers.f_frsize);
    let finding = format!("{} MiB are free at {}", free >> 20, place.display());
    let cure = "free some, or move the data directory: nothing is accepted when it is full";
    if numbers.f_favail == 0 && numbers.f_files > 0 {
        return Check::fail(
            SUBJECT,
            format!("no inodes are free at {}", place.display()),
            cure,
        );
    }
    match free {
        ..DISK_BYTES_FAIL => Check::fail(SUBJECT, finding, cure),
        DISK_BYTES_FAIL..DISK_BYTES_WARN => Check::warn(SUBJECT, finding, cure),
        _ => Check::ok(SUBJECT, finding),
    }
}

/// The directory itself, or the one in which it would be made.
fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute
        .ancestors()
        .find(|place| place.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// Makes a file and removes it: mode bits do not tell of read-only mounts.
fn try_writing(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let trial = directory.join(OsString::from(format!(".homing-doctor-{}", process::id())));
    File::create_new(&trial)?;
    fs::remove_file(&trial)
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_data_directory_may_be_there_or_be_made() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(place.path()).verdict, Verdict::Ok);
        let deeper = data_dir(&place.path().join("a/b"));
        assert!(
            deeper.finding.ends_with("can be made"),
            "{}",
            deeper.finding
        );
        assert!(fs::read_dir(place.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_file_in_place_of_the_data_directory_fails() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("data");
        fs::write(&file, "").unwrap();
        assert_eq!(data_dir(&file).verdict, Verdict::Fail);
    }
}
