//! Who made a parent group: the process id and its start time, written into the group's name. The
//! start time keeps a recycled process id from being taken for the owner.

use std::{fs, path::Path};

/// What every parent group's name starts with.
const PREFIX: &str = "compare-";

/// A process, told apart from later ones with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    start: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this(proc: &Path) -> Option<Self> {
        let pid = std::process::id();
        Some(Self { pid, start: start_time(proc, pid)? })
    }

    /// The owner in a group's name, if the name is one of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (pid, start) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(pid) && digits(start))
            .then(|| Some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? }))
            .flatten()
    }

    /// The name of its parent group.
    pub(crate) fn name(self) -> String {
        format!("{PREFIX}{}-{}", self.pid, self.start)
    }

    /// Whether it still runs.
    pub(crate) fn lives(self, proc: &Path) -> bool {
        start_time(proc, self.pid) == Some(self.start)
    }
}

/// Field 22 of `/proc/PID/stat`, clock ticks since boot (proc_pid_stat(5)). Fields are counted
/// after the last `)`, since the program's name may hold spaces and parentheses. A zombie counts
/// as gone: it runs nothing any more.
fn start_time(proc: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_recycled_id_does_not() {
        let proc = Path::new("/proc");
        let this = Owner::this(proc).unwrap();
        assert!(this.lives(proc));
        assert!(!Owner { start: this.start + 1, ..this }.lives(proc));
        assert_eq!(Owner::parse(&this.name()), Some(this));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "compare",
            "compare-",
            "compare-1",
            "compare-1-",
            "compare--1",
            "compare-1-2-3",
            "xcompare-1-2",
        ] {
            assert_eq!(Owner::parse(name), None, "{name}");
        }
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let dir = std::env::temp_dir().join(format!("compare-owner-{}", std::process::id()));
        fs::create_dir_all(dir.join("7")).unwrap();
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        fs::write(dir.join("7/stat"), format!("7 (a) R 1 (b) S {}", fields.join(" "))).unwrap();
        assert_eq!(start_time(&dir, 7), Some(22));
        fs::write(dir.join("7/stat"), format!("7 (a) Z {}", fields.join(" "))).unwrap();
        assert_eq!(start_time(&dir, 7), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
