//! Guests that mean harm (`guest/hostile`): each must end recorded, by a deadline, and a microVM
//! beside it must go on answering.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use compare_backend::Instance;
use compare_microvm::MicrovmConfig;
use compare_spec::{Bytes, Exit, Workload};

use crate::{
    fixture::{Fixture, Outcome, pump_until},
    scenarios::{Scenario, answers, crashed, monitor_failed, serving},
};

/// All of them.
pub const ALL: &[(&str, Scenario)] = &[
    ("hostile_cpus_crash_alone", cpus),
    ("hostile_cpu_that_spins_is_stopped", spin),
    ("hostile_halt_is_told_while_packets_come", halt_while_asked),
    ("hostile_memory_is_had_or_told", memory),
    ("hostile_sweeps_find_nothing", sweeps),
    ("hostile_console_flood_is_held_back", flood),
    ("hostile_flood_of_100_megabytes_leaves_its_end", great_flood),
    ("hostile_frames_are_refused", frames),
    ("hostile_frame_floods_are_survived", frame_floods),
    ("hostile_end_that_is_none", ended),
    ("hostile_queues_break_the_device_only", queues),
    ("hostile_resets_are_survived", resets),
];

/// What a guest gets that ends by itself.
const DEADLINE: Duration = Duration::from_secs(60);

/// Asks the neighbour whenever the guest gives us a moment.
struct Neighbour(Box<dyn Instance>);

impl Neighbour {
    fn beside(fixture: &Fixture) -> Self {
        let neighbour = Self(serving(fixture));
        neighbour.assert_answers();
        neighbour
    }

    fn assert_answers(&self) {
        answers(self.0.as_ref());
    }

    fn leave(mut self) {
        self.assert_answers();
        self.0.stop(Duration::from_secs(5)).expect("stop the neighbour");
        assert_eq!(self.0.exit().map(|(exit, _)| exit), Some(&Exit::Signal { signal: 15 }));
    }
}

fn config(fixture: &Fixture, misdeed: &str, amount: u64) -> MicrovmConfig {
    MicrovmConfig {
        kernel: fixture.hostile.clone(),
        append: format!("misdeed={misdeed} amount={amount}"),
        ..fixture.config.clone()
    }
}

/// With a network, so that both kinds of device are there.
fn workload(fixture: &Fixture) -> Workload {
    Workload { port: Some(80), ..fixture.workload(&[]) }
}

fn start(fixture: &Fixture, misdeed: &str, amount: u64) -> Box<dyn Instance> {
    fixture.start_from(&config(fixture, misdeed, amount), &fixture.image, &workload(fixture))
}

/// Runs a guest to its end beside a neighbour, which is asked meanwhile and, at last, after.
fn run(fixture: &Fixture, neighbour: &Neighbour, misdeed: &str, amount: u64) -> Outcome {
    let begin = Instant::now();
    let mut instance = start(fixture, misdeed, amount);
    neighbour.assert_answers();
    pump_until(instance.as_mut(), DEADLINE, |instance| instance.exit().is_some());
    instance.stop(Duration::from_secs(1)).expect("release");
    println!("     {misdeed}: {} ms", begin.elapsed().as_millis());
    let exit = instance.exit().expect("it ended").0.clone();
    Outcome { exit, output: instance.output().tail() }
}

/// Runs guests that must find their machine whole after what they did.
fn survive(fixture: &Fixture, misdeeds: &[(&str, u64)]) {
    let neighbour = Neighbour::beside(fixture);
    survive_beside(fixture, &neighbour, misdeeds);
    neighbour.leave();
}

fn survive_beside(fixture: &Fixture, neighbour: &Neighbour, misdeeds: &[(&str, u64)]) {
    for &(misdeed, amount) in misdeeds {
        let outcome = run(fixture, neighbour, misdeed, amount);
        assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{misdeed}: {}", outcome.output);
        assert!(outcome.output.ends_with("survived\n"), "{misdeed}: {}", outcome.output);
    }
}

/// Runs guests that must crash, each with these words.
fn crash(fixture: &Fixture, misdeeds: &[(&str, u64, &str)]) {
    let neighbour = Neighbour::beside(fixture);
    for &(misdeed, amount, words) in misdeeds {
        let outcome = run(fixture, &neighbour, misdeed, amount);
        let reason = crashed(outcome.exit);
        assert!(reason.contains(words), "{misdeed}: {reason}: {}", outcome.output);
    }
    neighbour.leave();
}

fn cpus(fixture: &Fixture) {
    let emulate = "KVM could not emulate the instruction at ";
    crash(
        fixture,
        &[
            ("triple-fault", 0, "triple fault"),
            ("halt", 0, "every CPU halted with interrupts off"),
            ("reset", 0, "reset by the keyboard controller"),
            ("run-nowhere", 0, "KVM could not emulate the instruction at 0xe0000000"),
            ("init-itself", 0, emulate),
            ("smi-itself", 0, emulate),
        ],
    );
}

/// Packets that nobody takes must not pass for a sign of life: a probe sends them all the time.
fn halt_while_asked(fixture: &Fixture) {
    let mut instance = start(fixture, "halt", 0);
    let address = SocketAddr::from((instance.address().expect("an address"), 80));
    let begin = Instant::now();
    pump_until(instance.as_mut(), Duration::from_secs(20), |instance| {
        let _ = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        instance.exit().is_some()
    });
    println!("     told after {} ms", begin.elapsed().as_millis());
    instance.stop(Duration::from_secs(1)).expect("release");
    let exit = instance.exit().expect("it ended").0.clone();
    assert_eq!(crashed(exit), "every CPU halted with interrupts off");
}

/// Nothing tells such a guest from one that works hard: it is stopped by force, at once.
fn spin(fixture: &Fixture) {
    let neighbour = Neighbour::beside(fixture);
    let mut instance = start(fixture, "spin", 0);
    let until = Instant::now() + Duration::from_secs(3);
    pump_until(instance.as_mut(), DEADLINE, |_| Instant::now() > until);
    assert_eq!(instance.exit(), None);
    neighbour.assert_answers();
    let asked = Instant::now();
    instance.stop(Duration::from_millis(200)).expect("stop");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Signal { signal: 9 }));
    neighbour.leave();
}

/// The instance's own limit always has room for its RAM; one from outside may not.
fn memory(fixture: &Fixture) {
    let neighbour = Neighbour::beside(fixture);
    survive_beside(fixture, &neighbour, &[("nothing", 0), ("touch", 0)]);
    let workload = Workload { memory: Bytes::mib(256), ..workload(fixture) };
    let mut instance = fixture.start_from(&config(fixture, "touch", 0), &fixture.image, &workload);
    std::fs::write(instance.leaf().path().join("memory.max"), "64M").expect("set a limit");
    pump_until(instance.as_mut(), DEADLINE, |instance| instance.exit().is_some());
    instance.stop(Duration::from_secs(1)).expect("release");
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Oom));
    neighbour.leave();
}

/// As much as is kept, and more: while nobody reads, the guest waits and its monitor stays small.
fn flood(fixture: &Fixture) {
    let neighbour = Neighbour::beside(fixture);
    let mut instance = start(fixture, "flood", 96 << 10);
    std::thread::sleep(Duration::from_secs(2));
    for pid in instance.leaf().procs().expect("list processes") {
        let kib = status_kib(&pid.to_string(), "VmRSS");
        assert!(kib < 16 << 10, "a monitor of {kib} KiB");
    }
    neighbour.assert_answers();
    pump_until(instance.as_mut(), DEADLINE, |instance| instance.exit().is_some());
    instance.stop(Duration::from_secs(1)).expect("release");
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Code { code: 0 }));
    let output = instance.output().tail();
    assert!(output.starts_with("[32") && output.len() < 70_000, "{:.60}", output);
    assert!(output.ends_with("full5..\nthe last line\nsurvived\n"), "{:.60}", output);
    neighbour.leave();
}

/// 100 MB would take such a guest an hour, an exit for every four bytes; so this program plays the
/// monitor that passes them on.
fn great_flood(fixture: &Fixture) {
    let config = MicrovmConfig {
        vmm: std::env::current_exe().expect("its own path"),
        ..fixture.config.clone()
    };
    let before = status_kib("self", "VmHWM");
    let outcome = fixture.run_from(&config, &fixture.image, &fixture.workload(&[]));
    let grown = status_kib("self", "VmHWM") - before;
    assert!(grown < 4 << 10, "this program grew by {grown} KiB");
    assert_eq!(monitor_failed(outcome.exit), "the monitor exited with code 0 without a word");
    let output = outcome.output;
    assert!(output.len() < 70_000 && output.ends_with("the last line\n"), "{:.60}", output);
    assert!(output.starts_with("[99"), "{:.60}", output);
}

/// Plays the monitor of [`great_flood`].
pub fn flooding_monitor() -> ! {
    let mut line = [b'f'; 100];
    line[99] = b'\n';
    let lines = line.repeat(1000);
    let mut out = std::io::stdout().lock();
    for _ in 0..1000 {
        out.write_all(&lines).expect("write");
    }
    out.write_all(b"the last line\n").expect("write");
    std::process::exit(0)
}

/// A figure of /proc/PID/status; 0 for a kernel thread, which has none.
pub fn status_kib(pid: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |line| line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("KiB"))
}

fn sweeps(fixture: &Fixture) {
    survive(fixture, &[("ports", 0), ("addresses", 0)]);
}

fn frames(fixture: &Fixture) {
    let no_frame = "the guest wrote no frame to its port: frame ";
    crash(
        fixture,
        &[
            ("frames-noise", 1, no_frame),
            ("frames-noise", 2, no_frame),
            ("frames-unknown", 0, "frame of unknown kind 4660"),
            ("frames-long", 0, "frame with a payload of 65535 bytes"),
            ("frames-monitors", 0, "the guest spoke for its monitor: Crashed"),
        ],
    );
}

fn frame_floods(fixture: &Fixture) {
    survive(fixture, &[("frames-marks", 2000), ("frames-reports", 100)]);
}

/// The end it told of counts, and it is ended if it does not end itself.
fn ended(fixture: &Fixture) {
    let mut instance = start(fixture, "frames-ended", 0);
    let until = Instant::now() + Duration::from_secs(1);
    pump_until(instance.as_mut(), DEADLINE, |_| Instant::now() > until);
    instance.stop(Duration::from_secs(1)).expect("stop");
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Code { code: 0 }));
}

fn queues(fixture: &Fixture) {
    survive(
        fixture,
        &[
            ("queues", 0),
            ("queue-addresses", 0),
            ("queue-order", 0),
            ("queue-feedback", 0),
            ("queue-race", 200),
            ("queue-noise", 100),
        ],
    );
}

fn resets(fixture: &Fixture) {
    survive(fixture, &[("resets", 100)]);
}
