//! A group that was handed to a user who is not root, as systemd does for `Delegate=yes`: this very
//! test runs again in such a group as that user. Needs root, and cgroup v2.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![allow(unsafe_code)] // clone_into, pre_exec

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use compare_cgroup::{
    Hierarchy, Limits, Parent,
    spawn::{Ended, clone_into},
};
use compare_spec::{Bytes, CgroupMode};

const ROOT: &str = "/sys/fs/cgroup";
const NOBODY: u32 = 65534;
/// Tells the test that it is the one inside, and what it is to see.
const INSIDE: &str = "COMPARE_DELEGATED";

/// A group that goes when dropped.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> Self {
        let path = Path::new(ROOT).join(format!("delegated-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// As cgroups(7) has it: the directory, and the files by which it is managed.
    fn hand_over(&self) {
        for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            chown(self.0.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// This test inside it, as nobody.
    fn run(&self, expected: &str) -> Output {
        // Opened by root: what may be moved is told by who opened the file.
        let mut procs = File::options().write(true).open(self.0.join("cgroup.procs")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "inside", "--nocapture"]).env(INSIDE, expected).uid(NOBODY);
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || procs.write_all(b"0")) };
        command.output().unwrap()
    }

    fn groups_below(&self) -> usize {
        fs::read_dir(&self.0)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

fn expect(output: &Output) {
    let text =
        [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)]
            .concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// One test, so that no two of its parts change the root's controllers at once.
#[test]
fn a_user_measures_in_a_group_that_was_delegated() {
    let hierarchy = Hierarchy::detect(Path::new(ROOT)).unwrap();
    if hierarchy.mode() != CgroupMode::V2 || !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root and cgroup v2, here is {:?}", hierarchy.mode());
        return;
    }
    let have = fs::read_to_string(Path::new(ROOT).join("cgroup.subtree_control")).unwrap();
    fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+memory +cpu +pids +cpuset")
        .unwrap();
    assert!(have.is_empty() || have.contains("memory"), "{have}");

    let group = Group::make("ours");
    group.hand_over();
    expect(&group.run("works"));
    assert_eq!(group.groups_below(), 0);
    assert_eq!(fs::read_to_string(group.0.join("cgroup.subtree_control")).unwrap().trim(), "");
    expect(&group.run("works"));

    // A run that was killed leaves an empty group, which the next one removes.
    fs::create_dir(group.0.join("compare-4194305-1-self")).unwrap();
    chown(group.0.join("compare-4194305-1-self"), Some(NOBODY), Some(NOBODY)).unwrap();
    expect(&group.run("reclaims"));
    assert_eq!(group.groups_below(), 0);

    // Somebody else lives there too.
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside", "--nocapture"])
        .env(INSIDE, "waits")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    fs::write(group.0.join("cgroup.procs"), other.id().to_string()).unwrap();
    expect(&group.run(&format!("[{}]", other.id())));
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    assert_eq!(group.groups_below(), 0);

    let group = Group::make("theirs");
    expect(&group.run("Delegate=yes"));
}

/// What runs inside.
#[test]
fn inside() {
    let Ok(expected) = std::env::var(INSIDE) else { return };
    if expected == "waits" {
        std::io::stdin().lines().for_each(drop);
        return;
    }
    let own = || fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = own();
    let hierarchy = Hierarchy::detect(Path::new(ROOT)).unwrap();
    if expected == "reclaims" {
        assert_eq!(Parent::reclaim(&hierarchy).len(), 1);
        return;
    }
    let parent = match Parent::create(&hierarchy) {
        Ok(parent) => parent,
        Err(error) => {
            assert!(error.to_string().contains(&expected), "{error}");
            assert_eq!(own(), before);
            return;
        }
    };
    assert_eq!(expected, "works");
    assert!(own().trim_end().ends_with("-self"), "{}", own());
    assert_eq!(Parent::reclaim(&hierarchy), Vec::<String>::new(), "both groups have an owner");
    let limits = Limits {
        memory: Some(Bytes::mib(16)),
        cpus: Some(0.5),
        pids: Some(4),
        cpuset: Some("0".parse().unwrap()),
        ..Limits::default()
    };
    let leaf = parent.create_leaf("leaf", &limits).unwrap();
    // SAFETY: the closure does nothing.
    let child = unsafe { clone_into(&leaf, 0, || 42) }.unwrap();
    assert_eq!(child.wait().unwrap(), Ended::Code(42));
    assert!(leaf.memory().peak.is_some());
    leaf.freeze().unwrap();
    leaf.thaw().unwrap();
    drop((leaf, parent));
    assert_eq!(own(), before);
}
