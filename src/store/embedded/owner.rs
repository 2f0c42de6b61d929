//! As whom postgres runs: it refuses root, so a root process lends it another user.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, lchown},
    path::Path,
};

use rustix::process::{getegid, geteuid};

use super::error::EmbeddedError;

const USERS: [&str; 2] = ["postgres", "nobody"];

/// The user and group of the postgres processes and of their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// This process is root and has to change to that user.
    pub(super) is_lent: bool,
}

impl Owner {
    /// Who owns the cluster already, otherwise this user, otherwise (as root) another.
    pub(super) fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let existing = fs::metadata(cluster).ok();
        if uid != 0 {
            if let Some(other) = existing.filter(|metadata| metadata.uid() != uid) {
                return Err(EmbeddedError::Permission {
                    path: cluster.to_owned(),
                    problem: format!(
                        "belongs to user {}, but homing runs as user {uid}: start it as the user (or root) that made it, or choose another --data-dir",
                        other.uid()
                    ),
                    output: super::error::Output::default(),
                });
            }
            return Ok(Self {
                uid,
                gid,
                is_lent: false,
            });
        }
        if let Some(metadata) = existing.filter(|metadata| metadata.uid() != 0) {
            return Ok(Self {
                uid: metadata.uid(),
                gid: metadata.gid(),
                is_lent: true,
            });
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = USERS
            .iter()
            .find_map(|name| ids_of(&passwd, name))
            .ok_or(EmbeddedError::NoUser)?;
        Ok(Self {
            uid,
            gid,
            is_lent: true,
        })
    }

    /// Hands a folder that this process made to the owner.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.is_lent {
            return Ok(());
        }
        // Never what a link points to: the folder above may be the owner's already.
        lchown(path, Some(self.uid), Some(self.gid)).map_err(EmbeddedError::io("chown", path))
    }

    /// Whether the owner can walk to this folder (its own rights included).
    pub(super) fn can_reach(&self, folder: &Path) -> bool {
        folder
            .ancestors()
            .all(|folder| fs::metadata(folder).is_ok_and(|metadata| self.may_enter(&metadata)))
    }

    fn may_enter(&self, folder: &Metadata) -> bool {
        let execute = if folder.uid() == self.uid {
            0o100
        } else if folder.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        folder.mode() & execute != 0
    }
}

/// User and group id of a user in the text of `/etc/passwd`; never root's.
fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:101:104:,,,:/var:/bin/sh\n";
        assert_eq!(ids_of(passwd, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(passwd, "root"), None);
        assert_eq!(ids_of(passwd, "nobody"), None);
    }
}
