//! The container on this machine, and what happens to a run that is killed, starved or refused.
//! Needs root and a cgroup; `COMPARE_REQUIRE=container` insists.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use support::{Run, program, run, run_with, scratch};

/// Every run clears away what dead ones left. Who leaves something behind holds this alone, so that no
/// other test's run is the one to find it.
static RUNS: RwLock<()> = RwLock::new(());

/// Where containers run here, the right to run some beside other tests.
fn can_run() -> Option<RwLockReadGuard<'static, ()>> {
    able().then(|| RUNS.read().unwrap_or_else(PoisonError::into_inner))
}

fn able() -> bool {
    let required = std::env::var("COMPARE_REQUIRE")
        .is_ok_and(|what| what.split(',').any(|one| one == "container"));
    let able = run(&["doctor", "--json"]);
    let whole: serde_json::Value = serde_json::from_str(&able.stdout).unwrap();
    let failing: Vec<_> =
        whole["container"].as_array().unwrap().iter().filter(|check| check["ok"] != true).collect();
    assert!(failing.is_empty() || !required, "{failing:?}");
    if !failing.is_empty() {
        println!("SKIP: no containers here: {failing:?}");
    }
    failing.is_empty()
}

fn container(workload: &str, json: &Path, more: &[&str]) -> Run {
    let arguments =
        ["run", "-w", workload, "--backend", "container", "--host", "local", "--export-json"];
    run(&[&arguments[..], &[json.to_str().unwrap()], more].concat())
}

/// nginx answers although something else of this machine has its port: instances have a network of
/// their own, so no port of the host is ever in use for them.
#[test]
fn nginx_answers_though_the_port_is_taken() {
    let Some(_turn) = can_run() else { return };
    let _taken = TcpListener::bind("0.0.0.0:80");
    let directory = scratch();
    let run = container("nginx", &directory.path().join("a.json"), &["--trials", "3"]);
    run.expect(0);
    let record = run.record();
    assert_eq!(record["host"]["kind"], "local");
    let trials = record["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 3);
    for trial in trials {
        assert_eq!(trial["outcome"], "ok");
        assert!(trial["evidence"].as_str().unwrap().contains("Welcome to nginx!"));
        assert_eq!(trial["kernel_release"], record["host"]["kernel"]);
        assert!(trial["memory"]["pss_bytes"].as_u64().unwrap() > 0);
    }
    // What this cgroup version cannot tell is said, not zero.
    if record["host"]["cgroup"] != "v2" {
        let reasons = record["unavailable"].as_array().unwrap();
        assert!(reasons.iter().any(|one| one["figure"] == "cgroup_slab"), "{reasons:?}");
    }
}

/// Within an instance a port can be in use: the workload's own trouble, told in its own words.
#[test]
fn a_port_taken_inside_is_told_by_the_workload() {
    let Some(_turn) = can_run() else { return };
    let directory = scratch();
    let file = directory.path().join("twice.toml");
    let text = run(&["workloads", "show", "nginx"]).stdout.replace(
        "listen 80 default_server;",
        "listen 80 default_server; } server { listen 80 default_server;",
    );
    fs::write(&file, text).unwrap();
    let run = container(
        file.to_str().unwrap(),
        &directory.path().join("a.json"),
        &["--trials", "1", "--warmup", "0"],
    );
    run.expect(1);
    let trial = &run.record()["trials"][0];
    assert_eq!(trial["outcome"], "exited", "{trial}");
    assert!(trial["output_tail"].as_str().unwrap().contains("duplicate"), "{trial}");
    assert!(run.stdout.contains("duplicate"), "the report shows why:\n{}", run.stdout);
}

/// SIGKILL in mid-trial: the kernel takes the processes, the next run the cgroup, and says so.
#[test]
fn a_killed_run_is_cleaned_up_by_the_next() {
    if !able() {
        return;
    }
    let _alone = RUNS.write().unwrap_or_else(PoisonError::into_inner);
    let directory = scratch();
    let file = directory.path().join("never.toml");
    let shown = run(&["workloads", "show", "nginx"]).stdout;
    let (before, after) = shown.split_once("[ready.http]").unwrap();
    let rest = after.split_once("\n\n").map_or("", |(_, rest)| rest);
    fs::write(&file, format!("{before}[ready.log]\ncontains = \"never\"\n\n{rest}")).unwrap();
    let mut child = Command::new(program())
        .args([
            "run",
            "-w",
            file.to_str().unwrap(),
            "--backend",
            "container",
            "--host",
            "local",
            "--timeout",
            "60s",
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let group = format!("compare-{}-", child.id());
    let begin = Instant::now();
    let inside = loop {
        let found: Vec<i32> = groups(&group).iter().flat_map(|path| processes(path)).collect();
        if !found.is_empty() {
            break found;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "no trial began");
        std::thread::yield_now();
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!groups(&group).is_empty(), "the cgroup outlives the kill");
    let next = container("hello", &directory.path().join("a.json"), &["--trials", "1"]);
    next.expect(0);
    assert!(
        next.stderr.contains("earlier run left behind") && next.stderr.contains(&group),
        "{}",
        next.stderr
    );
    assert!(groups(&group).is_empty());
    for pid in inside {
        // Whose parent does not bury it stays in the table, but it is dead and holds nothing.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(
            status.is_empty() || status.contains("State:	Z"),
            "{pid} lives on:
{status}"
        );
    }
}

/// The snapshot of a run that was killed goes with the next, wherever TMPDIR has it; the directory of
/// anything else stays.
#[test]
fn a_dead_runs_snapshot_is_removed_by_the_next() {
    let Some(_turn) = can_run() else { return };
    let temporary = scratch();
    // Process ids end at 2^22 (proc_sys_kernel(5), pid_max).
    let dead = temporary.path().join("compare-4194305-7");
    let other = temporary.path().join("compare-other");
    for directory in [&dead, &other] {
        fs::create_dir_all(directory.join("microvm")).unwrap();
        fs::write(directory.join("microvm/memory"), "pages").unwrap();
    }
    let run = run_with(
        &["run", "-w", "hello", "--backend", "container", "--host", "local", "--trials", "1"],
        &[("TMPDIR", temporary.path().to_str().unwrap())],
    );
    run.expect(0);
    assert!(
        run.stderr.contains("earlier run left behind") && run.stderr.contains("compare-4194305-7"),
        "{}",
        run.stderr
    );
    assert!(!dead.exists() && other.join("microvm/memory").exists());
}

fn groups(prefix: &str) -> Vec<std::path::PathBuf> {
    let roots =
        fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let roots = roots.chain(["/sys/fs/cgroup".into()]);
    let inside = roots.filter_map(|root| fs::read_dir(root).ok()).flatten().filter_map(Result::ok);
    inside
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

fn processes(group: &Path) -> Vec<i32> {
    let Ok(leaves) = fs::read_dir(group) else { return Vec::new() };
    let lists =
        leaves.filter_map(|leaf| fs::read_to_string(leaf.ok()?.path().join("cgroup.procs")).ok());
    lists
        .flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

#[test]
fn an_interrupt_cleans_up() {
    let Some(_turn) = can_run() else { return };
    let directory = scratch();
    let json = directory.path().join("cut.json");
    let arguments = [
        "run",
        "-w",
        "hello",
        "--backend",
        "container",
        "--host",
        "local",
        "-n",
        "100000",
        "--export-json",
    ];
    let run =
        support::interrupt_after(&[&arguments[..], &[json.to_str().unwrap()]].concat(), "trial 5:");
    run.expect(130);
    assert_eq!(run.record()["interrupted"], true);
    assert!(run.record()["trials"].as_array().unwrap().len() >= 5);
}

/// Carries out a shell command in a mount namespace of its own, then the program if it has arguments.
fn after(setup: &str, arguments: Option<&str>) -> Option<Run> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: not root");
        return None;
    }
    let run = arguments.map(|arguments| format!(" && exec {} {arguments}", program().display()));
    let script = format!("{setup}{}", run.unwrap_or_default());
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    Some(Run::of(&script, output))
}

#[test]
fn without_a_cgroup_the_verdict_is_clear() {
    let hidden = "mount -t tmpfs none /sys/fs/cgroup";
    let Some(run) = after(hidden, Some("run -w hello --backend container --host local")) else {
        return;
    };
    run.expect(3);
    assert!(run.stderr.contains("cgroup"), "{}", run.stderr);
    let doctor = after(hidden, Some("doctor")).unwrap();
    assert!(doctor.stdout.contains("remedy"), "{}", doctor.stdout);
}

#[test]
fn without_kvm_the_verdict_is_clear() {
    let hidden = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3";
    let Some(run) = after(hidden, Some("run -w hello --host local")) else { return };
    run.expect(3);
    assert!(run.stderr.contains("/dev/kvm"), "{}", run.stderr);
    let closed = "mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/null c 1 3 && \
                  mknod -m 600 /dev/kvm c 10 232";
    let directory = scratch();
    let nobody = format!(
        "{closed} && exec setpriv --reuid=65534 --regid=65534 --clear-groups {} doctor",
        readable_copy(&directory)
    );
    let refused = after(&nobody, None).unwrap();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused.stdout.contains("Permission denied") && refused.stdout.contains("group kvm"),
        "{}",
        refused.stdout
    );
}

/// The program where every user can execute it.
fn readable_copy(directory: &tempfile::TempDir) -> String {
    let copy = directory.path().join("compare");
    fs::copy(program(), &copy).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    copy.display().to_string()
}

#[test]
fn an_ordinary_user_gets_a_verdict() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: not root");
        return;
    }
    let directory = scratch();
    let copy = readable_copy(&directory);
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(arguments);
        Run::of("setpriv", command.output().unwrap())
    };
    let doctor = nobody(&["doctor"]);
    assert_eq!(doctor.code, Some(3), "{doctor:?}");
    assert!(doctor.stdout.contains("remedy"), "{}", doctor.stdout);
    let refused = nobody(&["run", "-w", "hello", "--host", "local"]);
    refused.expect(3);
    assert!(refused.stderr.contains("cannot run"), "{}", refused.stderr);
}

/// A full disk while artefacts are made: told as such, and nothing half-made is taken for whole.
#[test]
fn a_full_disk_is_told() {
    let directory = scratch();
    let place = directory.path().display();
    let look = format!("find {place} -mindepth 3 -type f | sed 's/^/left: /'");
    let script = format!(
        "mount -t tmpfs -o size=64k none {place} && export XDG_CACHE_HOME={place} && \
         ({} setup --workload hello; code=$?; {look}; exit $code)",
        program().display()
    );
    let Some(run) = after(&script, None) else { return };
    run.expect(1);
    let told = run.stderr.contains("no space left") && run.stderr.contains("XDG_CACHE_HOME");
    assert!(told, "{}", run.stderr);
    let left: Vec<&str> = run.stdout.lines().filter(|line| !line.contains("lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// An ordinary user runs containers where somebody gave control groups to that user, and is told what
/// is missing where nobody did.
#[test]
fn an_ordinary_user_needs_control_groups_and_no_more() {
    let Some(_turn) = can_run() else { return };
    let directory = scratch();
    let home = directory.path();
    // Programs and cache, where that user can read and write them.
    for name in ["compare", "compare-hello", "compare-init", "compare-vmm"] {
        fs::copy(program().with_file_name(name), home.join(name)).unwrap();
    }
    let json = home.join("a.json");
    let groups = Delegated::new();
    let script = |joins: &str| {
        let quoted = home.display();
        format!(
            "chown -R {NOBODY} '{quoted}' && chmod 755 '{quoted}' && {joins} exec setpriv --reuid {NOBODY} --regid \
             {NOBODY} --clear-groups env HOME='{quoted}' TMPDIR='{quoted}' '{quoted}/compare' run -w hello --backend \
             container --host local --trials 2 --export-json '{}'",
            json.display()
        )
    };
    let run = |joins: &str| Command::new("sh").args(["-c", &script(joins)]).output().unwrap();

    let refused = run("");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(matches!(refused.status.code(), Some(3 | 4)), "{text}");
    assert!(text.contains("cgroup memory") && !text.contains("privileges"), "{text}");

    let went = run(&groups.joins());
    let text = String::from_utf8_lossy(&went.stderr);
    assert_eq!(went.status.code(), Some(0), "{text}");
    assert!(text.contains("rootless: root of a user namespace"), "{text}");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let confinement = &record["trials"][0]["confinement"];
    assert_eq!(confinement["uid"], NOBODY, "who it is outside");
    assert!(confinement["namespaces"].as_array().unwrap().contains(&"user".into()));
    assert!(groups.are_empty(), "its groups are gone");
}

/// Has no range in subuid(5).
const NOBODY: u32 = 65534;

/// A control group in every hierarchy that NOBODY may make others below. Removed when dropped.
struct Delegated(Vec<std::path::PathBuf>);

impl Delegated {
    fn new() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("test-delegated-{}", std::process::id());
        let bases = match root.join("cgroup.controllers").exists() {
            true => vec![root.to_owned()],
            false => ["memory", "cpu", "cpuacct", "pids"].map(|name| root.join(name)).into(),
        };
        let groups: Vec<_> = bases.into_iter().map(|base| base.join(&name)).collect();
        for group in &groups {
            let _ = fs::create_dir(group);
            for path in
                [group.clone(), group.join("cgroup.procs"), group.join("cgroup.subtree_control")]
            {
                let _ = std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY));
            }
        }
        Self(groups)
    }

    /// Has a shell join them.
    fn joins(&self) -> String {
        self.0
            .iter()
            .map(|group| format!("echo $$ > '{}/cgroup.procs' &&", group.display()))
            .collect()
    }

    fn are_empty(&self) -> bool {
        let is_group = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        self.0.iter().all(|group| !fs::read_dir(group).unwrap().flatten().any(is_group))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for group in &self.0 {
            let _ = fs::remove_dir(group);
        }
    }
}
