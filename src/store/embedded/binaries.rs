//! Where initdb and postgres are, and of which version.

use std::{
    cmp::Reverse,
    fmt, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::error::EmbeddedError;

/// The oldest Postgres that the schema works with.
pub(super) const MAJOR_MIN: u32 = 15;

/// Folders in which distributions keep one folder per version.
const USUAL_PLACES: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
];

/// The version of a Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    /// From `postgres (PostgreSQL) 15.18 (Debian …)`; a beta such as `18beta1` has minor 0.
    fn parse(text: &str) -> Option<Self> {
        let number = text.split(") ").nth(1)?;
        let (major, rest) = leading_number(number)?;
        let minor = rest
            .strip_prefix('.')
            .and_then(leading_number)
            .map_or(0, |(minor, _)| minor);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// One installation that has both programs.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) version: Version,
}

impl Binaries {
    /// The first installation that fits: of the cluster's version if there is a cluster,
    /// otherwise any that is new enough.
    pub(super) async fn find(
        pg_bin_dir: Option<&Path>,
        cluster: Option<(&Path, u32)>,
    ) -> Result<Self, EmbeddedError> {
        // The programs are run from another folder.
        let pg_bin_dir =
            pg_bin_dir.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        let mut searched = Vec::new();
        let mut others = Vec::new();
        for candidate in candidates(pg_bin_dir.as_deref()) {
            let Some(binaries) = Self::probe(&candidate).await else {
                if pg_bin_dir.as_ref() == Some(&candidate) {
                    let searched = format!("store.pg_bin_dir ({})", candidate.display());
                    return Err(EmbeddedError::BinariesMissing { searched });
                }
                searched.push(describe(&candidate));
                continue;
            };
            let major = binaries.version.major;
            let fits = cluster.map_or(major >= MAJOR_MIN, |(_, wanted)| wanted == major);
            if fits && major >= MAJOR_MIN {
                return Ok(binaries);
            }
            searched.push(format!(
                "{} (has {})",
                describe(&candidate),
                binaries.version
            ));
            others.push(binaries.version.to_string());
        }
        match cluster {
            Some((path, wanted)) if !others.is_empty() => Err(EmbeddedError::OtherVersion {
                path: path.to_owned(),
                cluster: wanted.to_string(),
                found: others.join(", "),
            }),
            _ => Err(EmbeddedError::BinariesMissing {
                searched: searched.join(", "),
            }),
        }
    }

    /// What is installed in a folder, or in PATH if the folder is empty.
    async fn probe(folder: &Path) -> Option<Self> {
        let postgres = folder.join("postgres");
        let initdb = folder.join("initdb");
        let version = version_of(&postgres).await?;
        (version_of(&initdb).await? == version).then_some(Self {
            initdb,
            postgres,
            version,
        })
    }
}

/// Folders in the order of preference. The last is empty: a bare name is looked up in PATH
/// by the system itself.
fn candidates(pg_bin_dir: Option<&Path>) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = USUAL_PLACES
        .iter()
        .filter_map(|&(root, prefix)| Some((fs::read_dir(root).ok()?, prefix)))
        .flat_map(|(entries, prefix)| entries.flatten().map(move |entry| (entry, prefix)))
        .filter_map(|(entry, prefix)| {
            let name = entry.file_name().into_string().ok()?;
            let (major, _) = leading_number(name.strip_prefix(prefix)?)?;
            Some((major, entry.path().join("bin")))
        })
        .filter(|(_, path)| path.is_dir())
        .collect();
    versions.sort_by_key(|&(major, _)| Reverse(major));
    pg_bin_dir
        .map(Path::to_owned)
        .into_iter()
        .chain(versions.into_iter().map(|(_, path)| path))
        .chain([PathBuf::new()])
        .collect()
}

fn describe(folder: &Path) -> String {
    if folder.as_os_str().is_empty() {
        return "PATH".to_owned();
    }
    folder.display().to_string()
}

async fn version_of(program: &Path) -> Option<Version> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    Version::parse(str::from_utf8(&output.stdout).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_program_prints() {
        let version = |text| Version::parse(text).map(|version| (version.major, version.minor));
        assert_eq!(
            version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some((15, 18))
        );
        assert_eq!(version("initdb (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(version("bash: no such program"), None);
    }

    #[tokio::test]
    async fn a_setting_that_names_the_wrong_folder_is_not_passed_over() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(empty.path()), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("store.pg_bin_dir"), "{error}");
        assert!(error.contains("apt-get install postgresql"), "{error}");
    }

    #[tokio::test]
    async fn a_cluster_of_a_version_that_is_not_installed_names_both() {
        let cluster = Some((Path::new("/data/postgres"), 99));
        let error = Binaries::find(None, cluster).await.unwrap_err().to_string();
        assert!(error.contains("made by Postgres 99"), "{error}");
    }
}
