//! How much memory this process can still have.
//!
//! Asked of Linux, in its own files: what the machine can give without harm, what the control groups of the process leave it,
//! and what its own limits do. Other systems are not asked, and then only an allocation that fails says it.
//!
//! Not the crate `sysinfo` (0.39): in a control group it counts pages of files as used, and the weights are such pages; and it
//! reads no limits of the process (`ulimit -v`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of the system that say it.
struct Sources {
    proc: PathBuf,
    cgroup: PathBuf,
}

/// Bytes that this process can still have; `None` where the system does not say.
///
/// Swap counts as memory: what it holds is slow, and not refused. Pages of files count as free, as the weights are
/// in such pages, and the system reads again what it dropped.
pub(crate) fn available_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    Sources { proc: PathBuf::from("/proc"), cgroup: PathBuf::from("/sys/fs/cgroup") }.available_bytes()
}

impl Sources {
    fn available_bytes(&self) -> Option<u64> {
        let machine = Fields::read(&self.proc.join("meminfo"));
        let swap = machine.kilobytes("SwapFree").unwrap_or(0);
        let of_machine = machine.kilobytes("MemAvailable").map(|free| free.saturating_add(swap));
        let groups = std::fs::read_to_string(self.proc.join("self/cgroup")).unwrap_or_default();
        let of_groups = groups.lines().filter_map(|line| self.of_groups(line, swap)).min();
        [of_machine, of_groups, self.of_limits()].into_iter().flatten().min()
    }

    /// What is left in the groups of a line of `/proc/self/cgroup`: the one that the process is in, and all above it. In a
    /// container only some of them can be seen, the container's own at the top.
    fn of_groups(&self, line: &str, swap: u64) -> Option<u64> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let unified = self.cgroup.join("unified");
        let (root, left): (PathBuf, Left) = match controllers {
            "" if unified.is_dir() => (unified, left_in_v2),
            "" => (self.cgroup.clone(), left_in_v2),
            _ if controllers.split(',').any(|name| name == "memory") => (self.cgroup.join("memory"), left_in_v1),
            _ => return None,
        };
        let path = path.trim_start_matches('/');
        Path::new(path).ancestors().filter_map(|path| left(&root.join(path), swap)).min()
    }

    /// What the limits of the process (`ulimit -v`, `ulimit -d`) leave it.
    fn of_limits(&self) -> Option<u64> {
        let limits = std::fs::read_to_string(self.proc.join("self/limits")).ok()?;
        let left = |limit: &str, used: &str| {
            let soft = limits.lines().find_map(|line| line.strip_prefix(limit)?.split_whitespace().next())?;
            // Most processes have no limit, and then the file is not read.
            let soft = soft.parse::<u64>().ok()?;
            Some(soft.saturating_sub(Fields::read(&self.proc.join("self/status")).kilobytes(used)?))
        };
        [left("Max address space", "VmSize"), left("Max data size", "VmData")].into_iter().flatten().min()
    }
}

/// What is left in a group, whose folder this is, on a machine with so much free swap.
type Left = fn(&Path, u64) -> Option<u64>;

/// Version 2: `memory.max` is a number or `max`.
fn left_in_v2(group: &Path, swap: u64) -> Option<u64> {
    let left = number(&group.join("memory.max"))?.saturating_sub(number(&group.join("memory.current"))?);
    let of_swap = number(&group.join("memory.swap.max")).map_or(swap, |most| {
        most.saturating_sub(number(&group.join("memory.swap.current")).unwrap_or(0)).min(swap)
    });
    let stat = Fields::read(&group.join("memory.stat"));
    let of_files = ["inactive_file", "active_file"].map(|name| stat.bytes(name).unwrap_or(0));
    Some(of_files.into_iter().fold(left.saturating_add(of_swap), u64::saturating_add))
}

/// Version 1: a group without a limit has one that no machine reaches.
fn left_in_v1(group: &Path, swap: u64) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    number(&group.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)?;
    let left =
        |limit: &str, used: &str| Some(number(&group.join(limit))?.saturating_sub(number(&group.join(used))?));
    let of_memory = left("memory.limit_in_bytes", "memory.usage_in_bytes")?.saturating_add(swap);
    let with_swap = left("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes").unwrap_or(u64::MAX);
    let stat = Fields::read(&group.join("memory.stat"));
    let of_files = ["total_inactive_file", "total_active_file"].map(|name| stat.bytes(name).unwrap_or(0));
    Some(of_files.into_iter().fold(of_memory.min(with_swap), u64::saturating_add))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A file of lines of a name and a number.
struct Fields(BTreeMap<String, u64>);

impl Fields {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let field = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.trim_end_matches(':').to_owned(), words.next()?.parse().ok()?))
        };
        Self(text.lines().filter_map(field).collect())
    }

    fn bytes(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    fn kilobytes(&self, name: &str) -> Option<u64> {
        self.bytes(name).map(|number| number.saturating_mul(1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    /// A system of these files, in a folder that is gone with the first value.
    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources = Sources { proc: folder.path().join("proc"), cgroup: folder.path().join("cgroup") };
        (folder, sources)
    }

    const MACHINE: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       24684084 kB\nMemFree:          100000 kB\nMemAvailable:     8192000 kB\nSwapFree:         1024000 kB\n",
    );

    #[test]
    fn a_machine_gives_what_it_says_and_its_swap() {
        let (_folder, sources) = system(&[MACHINE]);
        assert_eq!(sources.available_bytes(), Some((8000 + 1000) * MB));
        assert_eq!(system(&[]).1.available_bytes(), None);
    }

    #[test]
    fn the_tightest_group_above_the_process_counts() {
        let groups = [
            MACHINE,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("cgroup/outer/memory.max", "1073741824\n"),
            ("cgroup/outer/memory.current", "629145600\n"),
            ("cgroup/outer/memory.swap.max", "0\n"),
            ("cgroup/outer/memory.stat", "anon 300\ninactive_file 104857600\nactive_file 1048576\nslab 7\n"),
            ("cgroup/outer/inner/memory.max", "max\n"),
            ("cgroup/outer/inner/memory.current", "629145600\n"),
        ];
        let (_folder, sources) = system(&groups);
        // 1024 less 600, and 101 of files.
        assert_eq!(sources.available_bytes(), Some((1024 - 600 + 101) * MB));
        let (_folder, sources) = system(&groups[..5]);
        // Without the line about swap, the group may use the machine's; without the one about files, they are not known.
        assert_eq!(sources.available_bytes(), Some((1024 - 600) * MB));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        let (_folder, sources) = system(&[
            MACHINE,
            ("proc/self/cgroup", "0::/../../somewhere/else\n"),
            ("cgroup/memory.max", "2147483648\n"),
            ("cgroup/memory.current", "1073741824\n"),
            ("cgroup/memory.swap.max", "max\n"),
        ]);
        assert_eq!(sources.available_bytes(), Some((1024 + 1000) * MB));
    }

    #[test]
    fn groups_of_the_first_version_count_too() {
        let (_folder, sources) = system(&[
            MACHINE,
            ("proc/self/cgroup", "5:cpu:/a\n4:memory:/a/b\n0::/\n"),
            ("cgroup/unified/cgroup.procs", "1\n"),
            ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cgroup/memory/memory.usage_in_bytes", "629145600\n"),
            ("cgroup/memory/a/b/memory.limit_in_bytes", "1073741824\n"),
            ("cgroup/memory/a/b/memory.usage_in_bytes", "524288000\n"),
            ("cgroup/memory/a/b/memory.memsw.limit_in_bytes", "1073741824\n"),
            ("cgroup/memory/a/b/memory.memsw.usage_in_bytes", "524288000\n"),
            ("cgroup/memory/a/b/memory.stat", "inactive_file 1\ntotal_inactive_file 1048576\n"),
        ]);
        assert_eq!(sources.available_bytes(), Some((1024 - 500 + 1) * MB));
    }

    #[test]
    fn the_limits_of_the_process_count() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             unlimited            unlimited            bytes     \n\
                      Max address space         1073741824           unlimited            bytes     \n";
        let (_folder, sources) = system(&[
            MACHINE,
            ("proc/self/limits", limits),
            ("proc/self/status", "Name:\tpython\nVmSize:\t  524288 kB\nVmData:\t  1 kB\n"),
        ]);
        assert_eq!(sources.available_bytes(), Some(512 * MB));
    }

    #[test]
    fn what_the_system_says_in_other_words_is_not_believed() {
        let (_folder, sources) = system(&[
            ("proc/meminfo", "MemAvailable: many kB\n\u{fffd}\n:\nSwapFree:\n"),
            ("proc/self/cgroup", "::\n0\nnothing\n4:memory\n0::/x\n"),
            ("proc/self/limits", "Max address space\n"),
            ("cgroup/x/memory.max", "-1\n"),
        ]);
        assert_eq!(sources.available_bytes(), None);
    }
}
