//! What each part of confinement costs: the time it takes, and how much more a process that did it
//! takes from fork(2) to waitpid(2) than one that did nothing, in a row of such processes: so that
//! what the kernel puts off when one ends is paid by the next.
//!
//! `compare lab exec --clock instructions --file …/examples/prices -- /lab/files/prices`, as root.
#![allow(unsafe_code, clippy::unwrap_used)] // fork(2) in a process of one thread; a measurement

use std::{
    fmt::Write as _,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use compare_confine::{
    Identity, Jail, Room,
    monitor::Monitor,
    seccomp::{Action, Filter, Policy},
};

const REPEATS: usize = 40;

fn main() {
    // Said at the end: a line on its way would disturb what is measured meanwhile.
    let mut said = String::new();
    let monitor = |saves| Monitor { process: std::process::id(), saves, listens: saves };
    let room = Room::make().unwrap();
    let enter = |own: bool, bounding: bool| {
        let copies = || room.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
        let room = (!own).then(|| Room::from_descriptors(copies()));
        let identity = Identity::OfProcess;
        let (empty_bounding_set, descriptors, file_bytes) = (bounding, 0, 0);
        let jail = Jail { room, identity, empty_bounding_set, descriptors, file_bytes };
        timed(|| drop(jail.enter().unwrap()))
    };
    let install = |policy: &Policy| {
        let filter = policy.compile().unwrap();
        timed(|| filter.install().unwrap())
    };
    for (name, policy) in [
        ("vcpu", monitor(false).vcpu()),
        ("devices", monitor(false).devices()),
        ("vcpu that saves and listens", monitor(true).vcpu()),
        ("devices that saves and listens", monitor(true).devices()),
        ("tree of 300", list(300)),
    ] {
        let filter = policy.compile().unwrap();
        let (calls, instructions) = (filter.system_calls().len(), filter.instructions().len());
        let _ = writeln!(said, "{name}: {calls} calls, {instructions} instructions");
    }
    let (vcpu, devices) = (monitor(false).vcpu(), monitor(false).devices());

    let mut prices = Prices { said, nothing: 0.0, shared: shared() };
    prices.nothing = prices.of("nothing", || Duration::ZERO);
    prices.of("make a room", || timed(|| drop(Room::make().unwrap())));
    prices.of("jail in a room", || enter(false, false));
    prices.of("jail in a room, bounding set too", || enter(false, true));
    prices.of("jail in namespaces of its own", || enter(true, false));
    prices.of("list and compile vcpu", || timed(|| drop(monitor(false).vcpu().compile().unwrap())));
    prices.of("the same again", || {
        drop(monitor(false).vcpu().compile().unwrap());
        timed(|| drop(monitor(false).vcpu().compile().unwrap()))
    });
    prices.of("install vcpu", || install(&vcpu));
    prices.of("install devices", || install(&devices));
    prices.of("install vcpu that saves", || install(&monitor(true).vcpu()));
    prices.of("install what allows all", || install(&Policy::new(Action::Allow)));
    prices.of("install a tree of 30 twice", || tree(30) + tree(30));
    for calls in [30, 100, 300] {
        prices.of(&format!("install a tree of {calls}"), || tree(calls));
        prices.of(&format!("install a chain of {calls}"), || chain(calls as u32));
    }
    print!("{}", prices.said);
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// What has been measured so far.
struct Prices {
    said: String,
    nothing: f64,
    shared: &'static AtomicU64,
}

impl Prices {
    /// Measures the time `act` takes in a process of its own, and such a process.
    fn of(&mut self, name: &str, act: impl Fn() -> Duration) -> f64 {
        // The first ones fill the kernel's caches.
        for _ in 0..5 {
            in_a_process(self.shared, &act);
        }
        let start = Instant::now();
        let mut times: Vec<f64> =
            (0..REPEATS).map(|_| us(in_a_process(self.shared, &act))).collect();
        let whole = us(start.elapsed()) / REPEATS as f64;
        std::thread::sleep(Duration::from_millis(300));
        times.sort_by(f64::total_cmp);
        let (least, median, beyond) = (times[0], times[REPEATS / 2], whole - self.nothing);
        let _ = writeln!(
            self.said,
            "{name:34} {median:8.1} us (least {least:8.1}); process {beyond:8.1} us"
        );
        whole
    }
}

fn us(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// Runs `act` in a process of its own, which tells its result through `shared`.
fn in_a_process(shared: &AtomicU64, act: &impl Fn() -> Duration) -> Duration {
    shared.store(u64::MAX, Ordering::Release);
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // The clock's page and the allocator's are touched before they are measured.
        drop(vec![1_u8; 8192]);
        let _ = Instant::now();
        shared.store(act().as_nanos() as u64, Ordering::Release);
        // SAFETY: a child has nothing to write that would be lost.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: a child of this process; its status is not asked for.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    match shared.load(Ordering::Acquire) {
        u64::MAX => panic!("the process died"),
        took => Duration::from_nanos(took),
    }
}

/// A number that children share with their parent.
fn shared() -> &'static AtomicU64 {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new anonymous mapping of a page, never unmapped, zero at first, big enough and
    // aligned for the number.
    unsafe {
        let page = libc::mmap(ptr::null_mut(), 4096, prot, flags | libc::MAP_ANONYMOUS, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast::<AtomicU64>()
    }
}

/// So many calls.
fn list(calls: i64) -> Policy {
    let calls: Vec<i64> = (0..calls).map(|call| call * 2).collect();
    Policy::new(Action::Log).allow(&calls)
}

/// Installs their filter, made so that the process can go on all the same.
fn tree(calls: i64) -> Duration {
    let mut program = list(calls).compile().unwrap().instructions().to_vec();
    for instruction in &mut program {
        if instruction.k == libc::SECCOMP_RET_LOG {
            instruction.k = libc::SECCOMP_RET_ALLOW;
        }
    }
    let filter = Filter::from_instructions(program);
    timed(|| filter.install().unwrap())
}

/// The same as a chain of comparisons, as compilers of such lists usually make it.
fn chain(calls: u32) -> Duration {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let ret = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in 0..calls {
        program.push(step(equal, 0, 1, call * 2));
        program.push(step(ret, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(step(ret, 0, 0, libc::SECCOMP_RET_ALLOW));
    let filter = Filter::from_instructions(program);
    timed(|| filter.install().unwrap())
}
