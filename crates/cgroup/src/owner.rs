//! Who made a parent group: the process id and its start time, written into the group's name. The
//! start time keeps a recycled process id from being taken for the owner.

use std::{fs, path::Path};

/// What every parent group's name starts with.
const PREFIX: &str = "compare-";
/// What the name of the group for the owner itself ends with.
const OWN_SUFFIX: &str = "-self";

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

    /// The owner in the name of either of its groups, if the name is one of ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_suffix(OWN_SUFFIX).unwrap_or(name);
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

    /// The name of the group it steps aside to (see [`crate::aside`]).
    pub(crate) fn own_name(self) -> String {
        self.name() + OWN_SUFFIX
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
    let stat = stat(proc, pid)?;
    let mut fields = stat.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// `/proc/PID/stat` from its third field on.
fn stat(proc: &Path, pid: u32) -> Option<String> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    Some(stat[stat.rfind(')')? + 1..].to_owned())
}

/// Whether a process is `ancestor` or was started by it or by what it started (field 4, the parent).
pub(crate) fn descends(proc: &Path, pid: i32, ancestor: i32) -> bool {
    let mut pid = pid;
    // Its line of descent is shorter than there are processes (PID_MAX_LIMIT); ids that are reused while
    // it is read could make it a circle.
    for _ in 0..1 << 22 {
        if pid == ancestor {
            return true;
        }
        let parent = u32::try_from(pid).ok().and_then(|pid| stat(proc, pid));
        match parent.and_then(|stat| stat.split_ascii_whitespace().nth(1)?.parse().ok()) {
            Some(parent) if parent > 0 => pid = parent,
            _ => return false,
        }
    }
    false
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
        assert_eq!(Owner::parse(&this.own_name()), Some(this));
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
            "compare-1-2-self-self",
            "compare-self",
            "xcompare-1-2",
        ] {
            assert_eq!(Owner::parse(name), None, "{name}");
        }
    }

    #[test]
    fn descendants_are_told_from_strangers() {
        let (proc, this) = (Path::new("/proc"), std::process::id() as i32);
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(descends(proc, child.id() as i32, this) && descends(proc, this, this));
        assert!(!descends(proc, this, child.id() as i32) && !descends(proc, 0, this));
        drop(child.stdin.take());
        child.wait().unwrap();
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
