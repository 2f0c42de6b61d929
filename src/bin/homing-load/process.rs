//! What the server's processes and this one use, from `/proc`.

use std::{collections::HashSet, fs, path::Path};

use serde::Serialize;

/// `/proc` counts in hundredths of a second on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes of a server: these and all their descendants.
#[derive(Clone, Debug)]
pub(crate) struct Server(pub(crate) Vec<u32>);

/// CPU time so far, in ticks, of the server and of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTicks {
    server: u64,
    own: u64,
}

/// CPU seconds between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuSeconds {
    pub(crate) server: f64,
    pub(crate) own: f64,
}

/// Resident memory of the processes named, without their descendants.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Resident {
    pub(crate) rss_bytes: u64,
    /// Shared pages counted in parts.
    pub(crate) pss_bytes: u64,
}

/// The fields of `/proc/PID/stat` that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// Its own CPU time and that of its children that ended and were waited for.
    ticks: u64,
}

impl Server {
    pub(crate) fn cpu(&self) -> CpuTicks {
        let own = stat(std::process::id()).map_or(0, |stat| stat.ticks);
        CpuTicks {
            server: self
                .with_descendants(&all())
                .iter()
                .map(|stat| stat.ticks)
                .sum(),
            own,
        }
    }

    pub(crate) fn resident(&self) -> Option<Resident> {
        let mut sum = Resident::default();
        for pid in &self.0 {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            sum.rss_bytes += kilobytes(&rollup, "Rss:")? * 1024;
            sum.pss_bytes += kilobytes(&rollup, "Pss:")? * 1024;
        }
        (!self.0.is_empty()).then_some(sum)
    }

    /// Processes move below the roots one generation in each round.
    fn with_descendants(&self, all: &[Stat]) -> Vec<Stat> {
        let mut pids: HashSet<u32> = self.0.iter().copied().collect();
        loop {
            let before = pids.len();
            pids.extend(
                all.iter()
                    .filter(|stat| pids.contains(&stat.parent))
                    .map(|stat| stat.pid)
                    .collect::<Vec<_>>(),
            );
            if pids.len() == before {
                return all
                    .iter()
                    .filter(|stat| pids.contains(&stat.pid))
                    .copied()
                    .collect();
            }
        }
    }
}

impl CpuTicks {
    #[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
    pub(crate) fn until(self, later: Self) -> CpuSeconds {
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / TICKS_PER_SECOND;
        CpuSeconds {
            server: seconds(self.server, later.server),
            own: seconds(self.own, later.own),
        }
    }
}

/// The embedded Postgres of a Homing data directory; it is no child of a server that adopted it.
pub(crate) fn postmaster(data_dir: &Path) -> Option<u32> {
    let file = find(data_dir, "postmaster.pid", 3)?;
    fs::read_to_string(file)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

fn find(directory: &Path, name: &str, depth: usize) -> Option<std::path::PathBuf> {
    let file = directory.join(name);
    if file.is_file() {
        return Some(file);
    }
    let below = fs::read_dir(directory).ok().filter(|_| depth > 0)?;
    let mut folders = below
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders.find_map(|folder| find(&folder, name, depth - 1))
}

fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect()
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `pid (name) state parent …`; a name may hold spaces and parentheses.
fn parse_stat(line: &str) -> Option<Stat> {
    let (head, tail) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let ticks = fields.get(11..15)?; // utime, stime, cutime, cstime
    Some(Stat {
        pid: head.split(' ').next()?.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks
            .iter()
            .filter_map(|field| field.parse::<u64>().ok())
            .sum(),
    })
}

fn kilobytes(rollup: &str, key: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_wicked_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                pid: 42,
                parent: 7,
                ticks: 100
            })
        );
    }

    #[test]
    fn descendants_of_all_generations_count_and_nobody_else() {
        let stat = |pid, parent| Stat {
            pid,
            parent,
            ticks: 1,
        };
        let all = [
            stat(30, 20),
            stat(20, 10),
            stat(10, 1),
            stat(11, 1),
            stat(31, 30),
        ];
        let found = Server(vec![10]).with_descendants(&all);
        let mut pids: Vec<u32> = found.iter().map(|stat| stat.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 20, 30, 31]);
    }

    #[test]
    fn this_process_can_be_read() {
        let server = Server(vec![std::process::id()]);
        assert!(
            server
                .resident()
                .is_some_and(|resident| resident.rss_bytes > 100_000)
        );
        let own = stat(std::process::id()).unwrap().ticks;
        assert!(server.cpu().server >= own, "time does not run backwards");
    }
}
