//! What a workload sees and may do.

use compare_spec::{Exit, Workload};
use compare_wire::DEFAULT_CAPABILITIES;

use crate::{Case, world::World};

pub const CASES: &[Case] = &[
    ("isolation::only_stdio_is_open", only_stdio_is_open),
    ("isolation::a_descriptor_cannot_be_the_working_directory", no_descriptor_as_working_dir),
    ("isolation::a_process_of_its_own", a_process_of_its_own),
    ("isolation::capabilities_are_dockers", capabilities_are_dockers),
    ("isolation::another_user_has_none", another_user_has_none),
    ("isolation::the_image_is_not_written_to", the_image_is_not_written_to),
    ("isolation::paths_are_masked_and_read_only", paths_are_masked_and_read_only),
    ("isolation::devices_are_the_default_ones", devices_are_the_default_ones),
    ("isolation::a_linked_mount_point_is_refused", a_linked_mount_point_is_refused),
    ("isolation::namespaces_are_new", namespaces_are_new),
    ("isolation::refused_calls_are_told_by_name", refused_calls_are_told_by_name),
    ("isolation::many_refusals_are_counted", many_refusals_are_counted),
    ("isolation::limits_and_settings_of_the_workload_hold", limits_and_settings_hold),
    ("isolation::a_limit_that_cannot_be_had_is_named", a_limit_that_cannot_be_had_is_named),
];

fn only_stdio_is_open(world: &mut World) {
    let workload = world.workload("fds", &[]);
    let output = world.output(&workload);
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort();
    // The fourth is the directory being listed.
    assert_eq!(lines.len(), 4, "{output}");
    assert!(lines[0].ends_with("0 -> /dev/null"), "{output}");
    assert!(lines[1].contains("1 -> pipe:") && lines[2].contains("2 -> pipe:"), "{output}");
    assert!(lines[3].contains("3 -> /proc/1/fd"), "{output}");
}

/// CVE-2024-21626.
fn no_descriptor_as_working_dir(world: &mut World) {
    for number in 3..40 {
        let mut workload = world.workload("facts", &[]);
        workload.working_dir = format!("/proc/self/fd/{number}").into();
        let exit = world.run(&workload).exit;
        assert!(matches!(exit, compare_spec::Exit::SetupFailed { .. }), "{number}: {exit:?}");
    }
}

fn a_process_of_its_own(world: &mut World) {
    let mut workload = world.workload("facts", &["a b", ""]);
    workload.env.insert("KEY".to_owned(), "a value".to_owned());
    workload.working_dir = "/dev".into();
    let output = world.output(&workload);
    for expected in [
        "pid 1 ppid 0 sid 1 umask 022",
        "pdeathsig 9",
        "cwd [/dev]",
        r#"args ["/w", "workload:facts", "a b", ""]"#,
        r#"env [("KEY", "a value")]"#,
        "NoNewPrivs:\t1",
        "SigBlk:\t0000000000000000",
        "SigQ:",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    assert!(output.contains("hostname [[t"), "{output}");
    // Rust itself ignores SIGPIPE at start; nothing else may be ignored.
    assert!(output.contains("SigIgn:\t0000000000001000"), "{output}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(!host.starts_with('t') || host.len() > 5, "the host keeps its name");
}

fn capabilities_are_dockers(world: &mut World) {
    let workload = world.workload("facts", &[]);
    let output = world.output(&workload);
    let expected = format!("{DEFAULT_CAPABILITIES:016x}");
    for (set, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", expected.as_str()),
        ("CapEff", expected.as_str()),
        ("CapBnd", expected.as_str()),
        ("CapAmb", "0000000000000000"),
    ] {
        assert!(output.contains(&format!("{set}:\t{value}")), "{set} {value}: {output}");
    }
}

fn another_user_has_none(world: &mut World) {
    let workload = world.workload("facts", &[]);
    (world.image.uid, world.image.gid, world.image.groups) = (1000, 1001, vec![1002, 1003]);
    let output = world.output(&workload);
    let written = world.workload("write", &["/dev/stdout", "/root-only"]);
    let written = world.output(&written);
    (world.image.uid, world.image.gid, world.image.groups) = (0, 0, vec![]);
    for expected in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t1001\t1001\t1001\t1001",
        "Groups:\t1002 1003",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "pdeathsig 9",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    assert!(written.contains("x/dev/stdout: []"), "it may reopen its output: {written}");
    assert!(written.contains("/root-only: errno 13"), "{written}");
}

fn the_image_is_not_written_to(world: &mut World) {
    let workload = world.workload("write", &["/new", "/w.copy", "/tmp"]);
    let output = world.output(&workload);
    assert!(output.contains("/new: []") && output.contains("/w.copy: []"), "{output}");
    let names: Vec<_> = std::fs::read_dir(&world.image.tree).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let workload = world.workload("cat", &["/new"]);
    assert!(world.output(&workload).contains("errno 2"), "nor does another container see it");
}

fn paths_are_masked_and_read_only(world: &mut World) {
    let workload = world
        .workload("cat", &["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"]);
    for line in world.output(&workload).lines() {
        assert!(line.ends_with(": []") || line.ends_with("errno 2"), "{line}");
    }
    let workload = world.workload("list", &["/sys/firmware", "/proc/scsi", "/proc/acpi"]);
    for line in world.output(&workload).lines() {
        assert!(line.ends_with("errno 2"), "{line}");
    }
    let paths = [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/ksm/run",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/cgroup.procs",
    ];
    let workload = world.workload("write", &paths);
    for line in world.output(&workload).lines() {
        assert!(
            ["errno 30", "errno 13", "errno 2"].iter().any(|errno| line.ends_with(errno)),
            "{line}"
        );
    }
}

fn devices_are_the_default_ones(world: &mut World) {
    let workload = world.workload("list", &["/dev"]);
    let output = world.output(&workload);
    let mut names: Vec<_> = output
        .lines()
        .map(|line| line.split(' ').next().unwrap().trim_start_matches("/dev/"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
            "stdin", "stdout", "tty", "urandom", "zero"
        ]
    );
    let workload = world.workload("write", &["/dev/null", "/dev/zero", "/dev/full", "/dev/ptmx"]);
    let output = world.output(&workload);
    assert!(output.contains("/dev/null: []") && output.contains("/dev/zero: []"), "{output}");
    assert!(output.contains("/dev/full: errno 28"), "{output}");
    // CAP_MKNOD is there as in Docker, but no node it makes can be opened.
    for path in ["/disk", "/dev/disk", "/dev/shm/disk"] {
        let workload = world.workload("open-device", &[path]);
        let output = world.output(&workload);
        assert!(output.contains("mknod 0, open errno 13"), "{path}: {output}");
    }
}

fn a_linked_mount_point_is_refused(world: &mut World) {
    for name in ["proc", "sys", "dev"] {
        let link = world.image.tree.join(name);
        std::os::unix::fs::symlink("/etc/../elsewhere", &link).unwrap();
        let workload = world.workload("exit", &["0"]);
        let exit = world.run(&workload).exit;
        std::fs::remove_file(link).unwrap();
        let step = format!("mkdir /{name}");
        assert_eq!(exit, compare_spec::Exit::SetupFailed { step, errno: libc::ELOOP });
    }
}

fn namespaces_are_new(world: &mut World) {
    let workload = world.workload("list", &["/proc/self/ns"]);
    let output = world.output(&workload);
    for kind in ["pid", "net", "mnt", "uts", "ipc", "cgroup", "time"] {
        let host = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap();
        let line = output.lines().find(|line| line.contains(&format!("/ns/{kind} "))).unwrap();
        assert!(!line.ends_with(&host.display().to_string()), "{line}");
    }
    let workload = world.workload("facts", &[]);
    let output = world.output(&workload);
    let groups = output.split("cgroup\n").last().unwrap();
    for line in groups.lines().filter(|line| !line.is_empty()) {
        let ours = ["memory", "pids", "cpu", "0::"].iter().any(|name| line.contains(name));
        let v2 = world.hierarchy.mode() == compare_spec::CgroupMode::V2;
        if ours && (v2 || !line.starts_with("0::")) && !line.contains("cpuset") {
            assert!(line.ends_with(":/"), "its own cgroup is its root: {line}");
        }
    }
    assert!(!output.contains("compare container"), "the host's path shows: {output}");
}

fn refused_calls_are_told_by_name(world: &mut World) {
    let workload = world.workload("calls", &[]);
    let finished = world.run(&workload);
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    for (call, errno) in [
        ("mount", eperm),
        ("unshare", eperm),
        ("clone", eperm),
        ("bpf", eperm),
        ("keyctl", eperm),
        ("vsock", eperm),
        ("clone3", enosys),
        ("unknown", enosys),
    ] {
        let line = format!("{call} {errno}\n");
        assert!(finished.output.contains(&line), "{line}: {}", finished.output);
    }
    let told: Vec<_> = finished.refused.iter().map(|one| (one.call.as_str(), one.times)).collect();
    let names = ["socket", "clone", "mount", "keyctl", "unshare", "bpf"];
    assert_eq!(told, names.map(|name| (name, 1)));
}

fn many_refusals_are_counted(world: &mut World) {
    let workload = world.workload("refused", &["5000"]);
    let finished = world.run(&workload);
    let told: Vec<_> = finished.refused.iter().map(|one| (one.call.as_str(), one.times)).collect();
    assert_eq!(told, [("reboot", 5000)]);
}

pub fn limits_and_settings_hold(world: &mut World) {
    let paths = [
        "/proc/self/limits",
        "/proc/self/oom_score_adj",
        "/proc/sys/net/core/somaxconn",
        "/proc/sys/kernel/shmmni",
    ];
    let mut workload = world.workload("cat", &paths);
    let more = "oom_score_adj = 500\n[rlimits]\nnofile = [100, 200]\ncore = [0, 0]\n[sysctls]\n\
                \"net.core.somaxconn\" = \"77\"\n\"kernel.shmmni\" = \"88\"\n";
    let text = format!(
        "name = \"x\"\ncommand = [\"/w\"]\nready = {{ exit = 0 }}\n{more}[image]\nprogram = \"hello\"\n"
    );
    let limited = Workload::parse("test", &text).unwrap();
    workload.rlimits = limited.rlimits;
    workload.oom_score_adj = limited.oom_score_adj;
    workload.sysctls = limited.sysctls;
    let output = world.output(&workload);
    let words: Vec<&str> = output.split_ascii_whitespace().collect();
    let has = |row: &[&str]| words.windows(row.len()).any(|window| window == row);
    assert!(has(&["Max", "open", "files", "100", "200"]), "{output}");
    assert!(has(&["Max", "core", "file", "size", "0", "0"]), "{output}");
    for (path, value) in paths[1..].iter().zip(["500", "77", "88"]) {
        assert!(output.contains(&format!("{path}: [{value}\n]")), "{path}: {output}");
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    assert_ne!(host.trim(), "88", "the host keeps its own");
}

fn a_limit_that_cannot_be_had_is_named(world: &mut World) {
    let mut workload = world.workload("exit", &["0"]);
    workload.sysctls.insert("net.no.such".to_owned(), "1".to_owned());
    let step = "write 1 to /proc/sys/net/no/such".to_owned();
    assert_eq!(world.run(&workload).exit, Exit::SetupFailed { step, errno: libc::ENOENT });
}
