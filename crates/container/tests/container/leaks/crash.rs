//! A run that is killed at any point of a start leaves nothing that the next run does not remove.
//!
//! ```text
//!  test: subreaper            victim: this program, once for each kill
//!  spawn ───────────────────► timer with SIGKILL ─ start ─ created ─ runs ─ stop ─ start …
//!  reap it and its orphans ◄──────────────────────────┘ at a random point
//!  none alive ─ reclaim ─ nothing left
//! ```

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use compare_cgroup::Parent;
use compare_container::ContainerBackend;
use compare_spec::ContainerVariant;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::set_child_subreaper,
        signal::{SigEvent, SigSet, SigevNotify, Signal},
        signalfd::{SfdFlags, SignalFd},
        time::TimeSpec,
        timer::{Expiration, Timer, TimerSetTimeFlags},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    time::ClockId,
    unistd::Pid,
};

use crate::world::{World, wait_line};

/// A start is divided into so many parts; each has its kill, at a random point of it, for each kind
/// of container with and without a port: 120 kills, and every second of these where the processor
/// is emulated, where all take more than a minute.
const PARTS: u32 = 20;
/// Starts by which the time of a start is known, of each kind.
const CALIBRATIONS: usize = 3;
/// How long a victim and what it started may live.
const PATIENCE: Duration = Duration::from_secs(20);
/// More starts than a victim gets to.
const MOST_STARTS: usize = 100;

/// Tells a victim what it is: variant, whether with a port, and after how many nanoseconds it is
/// killed, 0 for never.
const VICTIM: &str = "COMPARE_TEST_VICTIM";
/// The number that decides on all points.
const SEED: &str = "COMPARE_TEST_SEED";

const NOBODY: Pid = Pid::from_raw(0);
/// How a victim must end.
const KILLED: WaitStatus = WaitStatus::Signaled(NOBODY, Signal::SIGKILL, false);
/// How it ends when it is not killed.
const ENDED: WaitStatus = WaitStatus::Exited(NOBODY, 0);

/// What a victim starts.
type Kind = (ContainerVariant, bool);

pub fn killed_at_any_point(world: &mut World) {
    if let Ok(part) = env::var(VICTIM) {
        return be_victim(world, &part);
    }
    let seed = env::var(SEED).map_or_else(|_| clock_seed(), |text| text.parse().unwrap());
    println!("seed {seed} ({SEED} repeats it)");
    let mut random = Random(seed);
    set_child_subreaper(true).unwrap();
    let mounts = mounts();
    // Only the victims' temporary files go there.
    let directory = Directory::create();
    let temporary = directory.0.as_path();
    let kinds: Vec<Kind> =
        ContainerVariant::ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)]).collect();
    let spans: Vec<u64> = kinds.iter().map(|&kind| usual_ns(world, kind, temporary)).collect();
    for (kind, span) in kinds.iter().zip(&spans) {
        println!("{}: {} us from the request to its first words", named(*kind), span / 1000);
    }
    let (mut stages, mut ends) = (BTreeMap::new(), BTreeMap::new());
    let (mut kills, mut reclaimed, mut outlived) = (0, 0, Duration::ZERO);
    let begin = Instant::now();
    let is_emulated = fs::read_to_string("/proc/cpuinfo").unwrap().contains("QEMU TCG");
    for part in 0..PARTS {
        for (index, (&kind, span)) in kinds.iter().zip(&spans).enumerate() {
            if is_emulated && (part as usize / 2 + index) % 2 == 1 {
                continue;
            }
            let point = (f64::from(part) + random.fraction()) / f64::from(PARTS);
            let after_ns = ((point * *span as f64) as u64).max(1);
            let what = format!("{} killed after {after_ns} ns (seed {seed})", named(kind));
            // The next run may begin at once, or when all that were left alone have died too.
            let at_once = random.fraction() < 0.5;
            let mut family = Family::found(kind, after_ns, temporary);
            let pid = family.victim.as_raw();
            family.bury(false);
            let left = groups_of(pid).len();
            if at_once {
                Parent::reclaim(&world.hierarchy);
                assert_eq!(groups_of(pid), Vec::<PathBuf>::new(), "{what}: reclaimed at once");
            }
            family.bury(true);
            outlived = outlived.max(family.ended.elapsed());
            Parent::reclaim(&world.hierarchy);
            let stage = stage(&family.all_said()).to_owned();
            let by = family.by.unwrap();
            assert_eq!(without_pid(by), KILLED, "{what}: {stage}");
            assert_eq!(groups_of(pid), Vec::<PathBuf>::new(), "{what}");
            for end in family.orphans.drain(..) {
                *ends.entry(format!("{:?}", without_pid(end))).or_insert(0) += 1;
            }
            drop(family);
            assert_nothing_else(world, pid, temporary, &mounts, &what);
            kills += 1;
            reclaimed += left;
            *stages.entry(stage).or_insert(0) += 1;
        }
    }
    set_child_subreaper(false).unwrap();
    fs::remove_dir(temporary).unwrap();
    println!("{kills} kills in {:.1} s, at the stages {stages:?}", begin.elapsed().as_secs_f64());
    println!("orphans ended by {ends:?}, the last {outlived:?} after its victim");
    println!("{reclaimed} cgroups were left, and removed");
    assert!(stages.len() > 1, "every kill hit the same stage");
}

/// The victims' directory for temporary files.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Self {
        let path = env::temp_dir().join(format!("compare-victims-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts containers one after another until it is killed; says how far it is.
fn be_victim(world: &mut World, part: &str) {
    let mut words = part.split(' ');
    let variant = ContainerVariant::of(words.next().unwrap()).unwrap();
    let has_port = words.next() == Some("port");
    let after_ns: u64 = words.next().unwrap().parse().unwrap();
    world.backend = ContainerBackend::of(variant);
    let mut workload = world.workload("sleep", &[]);
    workload.port = has_port.then_some(80);
    let tree = world.image.tree.clone();
    if variant == ContainerVariant::Userns {
        // Where this program lies: temporary files may be on a tmpfs, of which older kernels can
        // show no other ids (Linux 6.3).
        let program = env::current_exe().unwrap();
        workload.command[0] = format!("/{}", program.file_name().unwrap().to_str().unwrap());
        world.image.tree = program.parent().unwrap().to_owned();
    }
    let notify = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).unwrap();
    println!("stage before");
    if after_ns > 0 {
        let after = TimeSpec::from_duration(Duration::from_nanos(after_ns));
        timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty()).unwrap();
    }
    for _ in 0..MOST_STARTS {
        let started = Instant::now();
        println!("stage starting");
        let mut instance = world.start(&workload);
        println!("stage created");
        wait_line(&mut *instance, "asleep");
        println!("stage running");
        if after_ns == 0 {
            println!("took {}", started.elapsed().as_nanos());
        }
        instance.stop(Duration::ZERO).unwrap();
        println!("stage stopped");
        if after_ns == 0 {
            break;
        }
    }
    world.image.tree = tree;
}

/// How long the first start of a program takes, which is what is killed: the median of some.
fn usual_ns(world: &World, kind: Kind, temporary: &Path) -> u64 {
    let mut times: Vec<u64> = (0..CALIBRATIONS)
        .map(|_| {
            let mut victim = Family::found(kind, 0, temporary);
            victim.bury(true);
            let said = victim.all_said();
            assert_eq!(victim.by.map(without_pid), Some(ENDED), "{said}");
            said.lines().find_map(|line| line.strip_prefix("took ")).unwrap().parse().unwrap()
        })
        .collect();
    world.assert_clean();
    times.sort_unstable();
    times[CALIBRATIONS / 2]
}

fn spawn((variant, has_port): Kind, after_ns: u64, temporary: &Path) -> Child {
    let port = if has_port { "port" } else { "none" };
    Command::new("/proc/self/exe")
        .arg("leaks::killed_at_any_point")
        .env(VICTIM, format!("{} {port} {after_ns}", variant.name()))
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// This process's children: the victim, and whoever loses its parent by the victim's end.
struct Family {
    signals: SigSet,
    ends: SignalFd,
    victim: Pid,
    said: ChildStdout,
    begin: Instant,
    by: Option<WaitStatus>,
    ended: Instant,
    orphans: Vec<WaitStatus>,
}

impl Family {
    /// Has the victim begin.
    #[expect(clippy::zombie_processes, reason = "bury() waits for it, among all others")]
    fn found(kind: Kind, after_ns: u64, temporary: &Path) -> Self {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        signals.thread_block().unwrap();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let ends = SignalFd::with_flags(&signals, flags).unwrap();
        let mut child = spawn(kind, after_ns, temporary);
        let (victim, begin) = (Pid::from_raw(child.id() as i32), Instant::now());
        let said = child.stdout.take().unwrap();
        Self { signals, ends, victim, said, begin, by: None, ended: begin, orphans: vec![] }
    }

    /// Waits until the victim is dead, or until all are.
    fn bury(&mut self, all: bool) {
        while all || self.by.is_none() {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) => {
                    let left = PATIENCE.saturating_sub(self.begin.elapsed());
                    assert!(!left.is_zero(), "still alive: {}", children_of_this());
                    let timeout = PollTimeout::try_from(left).unwrap();
                    poll(&mut [PollFd::new(self.ends.as_fd(), PollFlags::POLLIN)], timeout)
                        .unwrap();
                    while self.ends.read_signal().unwrap().is_some() {}
                }
                Ok(end) if end.pid() == Some(self.victim) => {
                    (self.by, self.ended) = (Some(end), Instant::now());
                }
                Ok(end) => self.orphans.push(end),
                Err(error) => panic!("wait for children: {error}"),
            }
        }
    }

    /// What the victim has written, once all are dead.
    fn all_said(&mut self) -> String {
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        said
    }
}

/// The last a victim said, which is how far its start was.
fn stage(said: &str) -> &str {
    let mut stages = said.lines().filter_map(|line| line.strip_prefix("stage "));
    stages.next_back().unwrap_or("none")
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = self.signals.thread_unblock();
    }
}

/// Of the victim there is nothing but its image, which is the test's: as it was made, below its
/// directory for temporary files. That goes too.
fn assert_nothing_else(world: &World, victim: i32, temporary: &Path, before: &str, what: &str) {
    let own = temporary.join(format!("compare container,test:{victim}"));
    assert_eq!(files(temporary), [own.clone(), own.join("tree"), own.join("tree/w")], "{what}");
    fs::remove_dir_all(&own).unwrap();
    assert_eq!(mounts(), before, "{what}: mounts");
    world.assert_clean();
}

/// The groups that say this process made them, wherever they are.
fn groups_of(pid: i32) -> Vec<PathBuf> {
    let owner = format!("compare-{pid}-");
    let is_its = |path: &PathBuf| {
        path.components().any(|name| name.as_os_str().to_string_lossy().starts_with(&owner))
    };
    directories(Path::new("/sys/fs/cgroup")).into_iter().filter(is_its).collect()
}

/// All directories below one. What goes meanwhile is not missed: others use control groups too.
fn directories(path: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    let found = below.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = |one: fs::DirEntry| {
        let path = one.path();
        let deeper = directories(&path);
        std::iter::once(path).chain(deeper)
    };
    found.flat_map(below).collect()
}

/// Everything below a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}

/// The mounts this process sees.
fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}

fn children_of_this() -> String {
    fs::read_to_string("/proc/thread-self/children").unwrap_or_default()
}

/// How one ended, whoever it was.
fn without_pid(end: WaitStatus) -> WaitStatus {
    match end {
        WaitStatus::Exited(_, code) => WaitStatus::Exited(NOBODY, code),
        WaitStatus::Signaled(_, signal, dumped) => WaitStatus::Signaled(NOBODY, signal, dumped),
        other => other,
    }
}

fn named((variant, has_port): Kind) -> String {
    format!("{}{}", variant.name(), if has_port { " with a port" } else { "" })
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    /// The next one, from 0 to below 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
