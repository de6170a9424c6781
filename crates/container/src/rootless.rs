//! Containers for an ordinary user: the whole process moves into a user namespace whose root it is
//! (user_namespaces(7)). All that containers are made of is then allowed, but for control groups,
//! which somebody must have delegated.
//!
//! With newuidmap(1) and newgidmap(1) and a range in subuid(5) and subgid(5) the namespace has many
//! ids, otherwise one: the user, as root.

use std::{
    fmt, fs,
    io::{self, Write},
    process::{Child, Command, Stdio},
};

use compare_spec::{ContainerVariant, Image};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid, getpid},
};

/// How many ids the user namespace has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids(u32);

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str(
                "one id: only workloads that stay root run; for more, install uidmap and give this \
                 user a range in /etc/subuid and /etc/subgid",
            ),
            count => write!(f, "{count} ids"),
        }
    }
}

/// Whether this process lacks what makes namespaces: CAP_SYS_ADMIN.
pub fn is_unprivileged() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    crate::instance::signal_set(&status, "CapEff:").is_some_and(|set| set & CAP_SYS_ADMIN == 0)
}

/// Moves this process, which must have one thread, into a user namespace of its own, as its root.
/// There is no way back.
///
/// # Errors
/// The kernel allows no user namespaces, or the process has other threads.
pub fn become_root_of_a_user_namespace() -> io::Result<Ids> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let range = Range::of(uid);
    // It must run outside, and cannot be started from inside.
    let mut mapper = range.and_then(|range| range.mapper(uid, gid).ok());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        let remedy = match error {
            nix::errno::Errno::EPERM => {
                "sysctl kernel.unprivileged_userns_clone=1 where there is such a thing"
            }
            nix::errno::Errno::ENOSPC => "sysctl user.max_user_namespaces",
            nix::errno::Errno::EINVAL => "the process has more than one thread",
            _ => "CONFIG_USER_NS",
        };
        io::Error::new(
            io::Error::from(error).kind(),
            format!("unshare a user namespace: {error} ({remedy})"),
        )
    })?;
    if let (Some(mapper), Some(range)) = (&mut mapper, range)
        && mapped(mapper)?
    {
        return Ok(Ids(range.count + 1));
    }
    if fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.is_empty()) {
        return Err(io::Error::other(
            "newgidmap refused (above), after newuidmap had not: see /etc/subgid",
        ));
    }
    map("setgroups", "deny")?;
    map("uid_map", &format!("0 {uid} 1"))?;
    map("gid_map", &format!("0 {gid} 1"))?;
    Ok(Ids(1))
}

/// Writes one of the files that give a user namespace its ids.
fn map(name: &str, text: &str) -> io::Result<()> {
    let path = format!("/proc/self/{name}");
    fs::write(&path, text).map_err(|error| {
        let remedy = "where there is such a thing: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an \
                      AppArmor profile that allows user namespaces";
        io::Error::new(error.kind(), format!("write `{text}` to {path}: {error} ({remedy})"))
    })
}

/// Lets the mapper go on; whether it mapped.
fn mapped(mapper: &mut Child) -> io::Result<bool> {
    if let Some(mut go) = mapper.stdin.take() {
        // If it is gone, its status says so.
        let _ = go.write_all(b"\n");
    }
    Ok(mapper.wait()?.success())
}

/// Ids that belong to a user besides the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    uids: u32,
    gids: u32,
    count: u32,
}

impl Range {
    fn of(uid: u32) -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::among(uid, &read("/etc/passwd"), &read("/etc/subuid"), &read("/etc/subgid"))
    }

    fn among(uid: u32, passwd: &str, subuid: &str, subgid: &str) -> Option<Self> {
        let number = uid.to_string();
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then_some(name)
        });
        let range = |text: &str| {
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                let who = fields.next()?;
                if who != number && Some(who) != name {
                    return None;
                }
                Some((fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
            })
        };
        let ((uids, some), (gids, others)) = (range(subuid)?, range(subgid)?);
        let count = some.min(others);
        (count > 0 && count < u32::MAX).then_some(Self { uids, gids, count })
    }

    /// A process that maps them for this one, once it is told to.
    fn mapper(self, uid: u32, gid: u32) -> io::Result<Child> {
        let Self { uids, gids, count } = self;
        let pid = getpid();
        let script = format!(
            "read go && newuidmap {pid} 0 {uid} 1 1 {uids} {count} && newgidmap {pid} 0 {gid} 1 1 {gids} {count}"
        );
        let shell = ["-c", script.as_str()];
        Command::new("sh").args(shell).stdin(Stdio::piped()).spawn()
    }
}

/// The user namespace this process is in.
#[derive(Debug)]
pub(crate) struct Surroundings {
    uids: IdMap,
    gids: IdMap,
    /// Nobody in it may change supplementary groups.
    pub(crate) no_setgroups: bool,
}

impl Surroundings {
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            uids: IdMap::parse(&read("/proc/self/uid_map")),
            gids: IdMap::parse(&read("/proc/self/gid_map")),
            no_setgroups: read("/proc/self/setgroups").trim() == "deny",
        }
    }

    /// Whether it is not the first one: nobody in it can make device nodes, or give out ids.
    pub(crate) fn is_nested(&self) -> bool {
        self.uids.0 != [(0, 0, u32::MAX)]
    }

    /// Why an image's user cannot be had, if so.
    pub(crate) fn lacks(&self, image: &Image, variant: ContainerVariant) -> Option<String> {
        let there = variant == ContainerVariant::Userns
            || (self.uids.outside(image.uid).is_some() && self.gids.outside(image.gid).is_some());
        if there && (image.groups.is_empty() || !self.no_setgroups) {
            return None;
        }
        Some(format!("the user namespace has {}", Ids(1)))
    }

    /// Whether it has this group.
    pub(crate) fn has_group(&self, gid: u32) -> bool {
        self.gids.outside(gid).is_some()
    }

    /// What a user and a group are called outside.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.uids.outside(uid).unwrap_or(uid), self.gids.outside(gid).unwrap_or(gid))
    }
}

/// First id inside, first id outside, how many; in lines of `/proc/PID/uid_map`.
#[derive(Debug)]
struct IdMap(Vec<(u32, u32, u32)>);

impl IdMap {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
            Some((numbers.next()??, numbers.next()??, numbers.next()??))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn outside(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|&(inside, outside, count)| {
            let offset = id.checked_sub(inside).filter(|&offset| offset < count)?;
            outside.checked_add(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";

    #[test]
    fn ranges_go_by_name_or_number() {
        let range = |uid, text| Range::among(uid, PASSWD, text, text);
        let expected = Range { uids: 100_000, gids: 100_000, count: 65_536 };
        assert_eq!(range(1000, "bob:1:2\nann:100000:65536\n"), Some(expected));
        assert_eq!(range(1000, "1000:100000:65536\n"), Some(expected));
        assert_eq!(range(1001, "ann:100000:65536\n"), None);
        for broken in ["", "ann", "ann:x:1", "ann:1:", "ann:1:0", "ann:1:4294967295"] {
            assert_eq!(range(1000, broken), None, "{broken}");
        }
        let fewer = Range::among(1000, PASSWD, "ann:5:10", "ann:7:3").unwrap();
        assert_eq!(fewer, Range { uids: 5, gids: 7, count: 3 });
    }

    #[test]
    fn maps_are_searched() {
        let map = IdMap::parse("         0       1000          1\n 1 100000 65536\n");
        let found: Vec<_> = [0, 1, 5, 65_536, 65_537].map(|id| map.outside(id)).into();
        assert_eq!(found, [Some(1000), Some(100_000), Some(100_004), Some(165_535), None]);
        assert_eq!(IdMap::parse("x\n1 2\n").outside(1), None);
        let here = Surroundings {
            uids: IdMap::parse("         0          0 4294967295\n"),
            gids: IdMap::parse("0 1000 1"),
            no_setgroups: false,
        };
        assert!(!here.is_nested() && here.has_group(0) && !here.has_group(5));
        assert_eq!(here.outside(33, 0), (33, 1000));
    }

    #[test]
    fn one_id_says_how_to_get_more() {
        assert!(Ids(1).to_string().contains("/etc/subuid"));
        assert_eq!(Ids(65_537).to_string(), "65537 ids");
    }
}
