//! Devices that no machine has unless it is asked for.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use compare_backend::{Backend, Instance};
use compare_microvm::{MicrovmBackend, args::DeviceArgs};
use compare_spec::{Bytes, Digest, Exit, MemoryPages, RootDevice, Workload};

use crate::{
    fixture::{Fixture, Outcome, pump_until},
    hostile::status_kib,
    scenarios::{Scenario, monitor_failed},
};

/// All of them.
pub const ALL: &[(&str, Scenario)] = &[
    ("devices_entropy_comes_from_the_host", rng),
    ("devices_scratch_disk_keeps_what_is_synced", scratch),
    ("devices_sockets_take_calls_of_the_host", vsock),
    ("devices_balloon_takes_what_it_is_told_to", inflate),
    ("devices_freed_memory_goes_back_to_the_host", report),
    ("devices_of_a_saved_machine_go_on", restored),
    ("devices_root_in_persistent_memory_is_used_in_place", pmem),
    ("memory_of_huge_pages_is_had_where_the_host_allows_it", huge_pages),
    ("devices_that_cannot_be_are_told", refused),
];

const PATIENCE: Duration = Duration::from_secs(60);

fn backend(fixture: &Fixture, devices: DeviceArgs) -> MicrovmBackend {
    MicrovmBackend::new(fixture.config.clone()).with_devices(devices)
}

fn start(fixture: &Fixture, devices: DeviceArgs, workload: &Workload) -> Box<dyn Instance> {
    fixture.start_by(&mut backend(fixture, devices), &fixture.image, workload)
}

/// Runs a workload with these devices to its end.
fn run(fixture: &Fixture, devices: DeviceArgs, part: &[&str]) -> Outcome {
    let mut instance = start(fixture, devices, &fixture.workload(part));
    pump_until(instance.as_mut(), PATIENCE, |instance| instance.exit().is_some());
    instance.stop(Duration::from_secs(1)).expect("release");
    let exit = instance.exit().expect("it ended").0.clone();
    Outcome { exit, output: instance.output().tail() }
}

/// Follows an instance until it prints this.
fn await_line(instance: &mut dyn Instance, line: &str) {
    instance.output().watch(line);
    pump_until(instance, PATIENCE, |instance| {
        let exit = instance.exit().map(|(exit, _)| exit.clone());
        assert_eq!(exit, None, "{}", instance.output().tail());
        instance.output().matched().is_some()
    });
}

fn rng(fixture: &Fixture) {
    let outcome = run(fixture, DeviceArgs { rng: true, ..DeviceArgs::default() }, &["random"]);
    assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{}", outcome.output);
    assert!(outcome.output.contains("source virtio_rng.0\n"), "{}", outcome.output);
    let mut lines: Vec<_> =
        outcome.output.lines().filter(|line| line.starts_with("random")).collect();
    assert_eq!(lines.len(), 2);
    lines.dedup();
    assert_eq!(lines.len(), 2, "twice the same");
    assert!(!outcome.output.contains(&"00".repeat(8)), "{}", outcome.output);
}

fn file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).expect("write a file");
    path
}

fn scratch(fixture: &Fixture) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path(), "scratch", &[b's'; 1 << 20]);
    let devices = DeviceArgs { scratch: Some(path.clone()), ..DeviceArgs::default() };
    let outcome = run(fixture, devices, &["write"]);
    assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{}", outcome.output);
    assert_eq!(outcome.output, "first ssssssssssssssss\npast the end true\n");
    let bytes = fs::read(path).expect("read");
    assert_eq!(bytes.len(), 1 << 20);
    let (before, after) = bytes.split_at(512 << 10);
    assert!(before.iter().chain(&after[8192..]).all(|&byte| byte == b's'));
    assert!(after[..8192].iter().all(|&byte| byte == b'w'));
}

/// Calls the guest's port 6000 and says something; returns all it answers.
fn call(path: &Path, text: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set up a socket");
    stream.write_all(b"CONNECT 6000\n").expect("write");
    let mut greeting = Vec::new();
    while greeting.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("read");
        greeting.push(byte[0]);
    }
    assert!(greeting.starts_with(b"OK "), "{greeting:?}");
    stream.write_all(text.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

/// Where the guest's calls to port 5000 would arrive, were its monitor not confined.
fn port_5000(path: &Path) -> UnixListener {
    let mut name = path.as_os_str().to_owned();
    name.push("_5000");
    let listener = UnixListener::bind(name).expect("bind");
    listener.set_nonblocking(true).expect("set up a socket");
    listener
}

fn assert_uncalled(listener: &UnixListener) {
    assert_eq!(listener.accept().expect_err("a call").kind(), ErrorKind::WouldBlock);
}

fn vsock(fixture: &Fixture) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vsock");
    let listener = port_5000(&path);
    let devices =
        DeviceArgs { vsock: Some(path.clone()), rng: true, vsock_cid: 42, ..DeviceArgs::default() };
    let mut instance = start(fixture, devices, &fixture.workload(&["talk"]));
    await_line(instance.as_mut(), "listening");
    assert_eq!(instance.output().tail(), "called Err(ECONNRESET)\nlistening\n");
    assert_uncalled(&listener);
    for count in 1..4 {
        let answer = call(&path, "hello");
        assert!(answer.starts_with(&format!("{count} hello true [")), "{answer}");
    }
    instance.stop(Duration::from_secs(5)).expect("stop");
}

/// Waits until a guest of 192 MiB has given up 96: what is free then is less than the rest, of which
/// its kernel has some.
fn assert_inflated(instance: &mut dyn Instance) {
    let mut free = u64::MAX;
    for _ in 0..50 {
        let facts = instance.guest_facts(PATIENCE).expect("facts").expect("of a guest");
        free = facts.free_bytes.expect("a figure");
        if free < 96 << 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("     {} MiB of 192 are free", free >> 20);
    assert!((48 << 20..96 << 20).contains(&free), "{free} bytes are free");
}

fn inflate(fixture: &Fixture) {
    let devices = DeviceArgs { balloon: true, balloon_mib: Some(96), ..DeviceArgs::default() };
    let workload = Workload { memory: Bytes::mib(192), ..fixture.workload(&["sleep"]) };
    let mut instance = start(fixture, devices, &workload);
    pump_until(instance.as_mut(), PATIENCE, |instance| instance.may_answer());
    assert_inflated(instance.as_mut());
    instance.stop(Duration::from_secs(5)).expect("stop");
}

/// Memory of an instance's monitor, KiB.
fn rss_kib(instance: &dyn Instance) -> u64 {
    let pids = instance.leaf().procs().expect("list processes");
    pids.iter().map(|pid| status_kib(&pid.to_string(), "VmRSS")).sum()
}

fn report(fixture: &Fixture) {
    let devices = DeviceArgs { balloon: true, ..DeviceArgs::default() };
    let workload = Workload { memory: Bytes::mib(256), ..fixture.workload(&["release"]) };
    let mut instance = start(fixture, devices, &workload);
    await_line(instance.as_mut(), "used 32768");
    let used = rss_kib(instance.as_ref());
    assert!(used > 128 << 10, "{used} KiB");
    let mut left = used;
    pump_until(instance.as_mut(), PATIENCE, |instance| {
        left = rss_kib(instance);
        left + (100 << 10) < used
    });
    println!("     {} MiB of {} MiB are left", left >> 10, used >> 10);
    instance.stop(Duration::from_secs(5)).expect("stop");
}

fn restored(fixture: &Fixture) {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshot = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("vsock");
    let workload = Workload { memory: Bytes::mib(192), ..fixture.workload(&["talk"]) };
    let devices =
        DeviceArgs { rng: true, balloon: true, vsock: Some(path.clone()), ..DeviceArgs::default() };
    let restoring = |devices| {
        MicrovmBackend::restoring(fixture.config.clone(), snapshot.path().to_owned())
            .with_devices(devices)
    };
    let mut backend = restoring(devices.clone());
    let template = backend.template().expect("restoring needs a template");
    let mut instance = fixture.start_by(template.backend, &fixture.image, &workload);
    await_line(instance.as_mut(), "listening");
    let first = call(&path, "hello");
    assert!(first.starts_with("1 hello true ["), "{first}");
    instance.save(snapshot.path()).expect("save");
    instance.stop(Duration::ZERO).expect("stop");

    let mut inflated = restoring(DeviceArgs { balloon_mib: Some(96), ..devices.clone() });
    for (backend, is_inflated) in [(&mut backend, false), (&mut inflated, true)] {
        let mut clone = fixture.start_by(backend, &fixture.image, &workload);
        pump_until(clone.as_mut(), PATIENCE, |clone| clone.may_answer());
        let second = call(&path, "again");
        assert!(second.starts_with("2 again true ["), "{second}");
        assert_ne!(first.split('[').next_back(), second.split('[').next_back());
        if is_inflated {
            assert_inflated(clone.as_mut());
        }
        clone.stop(Duration::from_secs(5)).expect("stop");
    }
}

/// The guest's root is the host's page cache, and what its root user writes to it is the guest's alone.
fn pmem(fixture: &Fixture) {
    let devices = DeviceArgs { root_device: RootDevice::Pmem, ..DeviceArgs::default() };
    let image = || Digest::of(&fs::read(&fixture.image.erofs).expect("read"));
    let before = image();
    let outcome = run(fixture, devices.clone(), &["hello"]);
    assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{}", outcome.output);
    assert_eq!(outcome.output, "hello from the guest\n");

    let outcome = run(fixture, devices, &["in-place"]);
    assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{}", outcome.output);
    // The guest's program is this one.
    let this = fs::read(std::env::current_exe().expect("a path")).expect("read");
    let lines: Vec<&str> = outcome.output.lines().collect();
    assert_eq!(lines[0], format!("actor {}", Digest::of(&this)));
    assert_eq!(lines[1], "used in place true");
    assert_eq!(lines[2..], ["written true", "read back true"]);
    assert_eq!(image(), before);
}

/// The emulated host gives nobody huge pages unless it is told to.
fn huge_pages(fixture: &Fixture) {
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let before = fs::read_to_string(SETTING).expect("the kernel has huge pages");
    let chosen = before.split(['[', ']']).nth(1).expect("one is chosen");
    let huge_kib = |pages| {
        let devices = DeviceArgs { memory_pages: pages, ..DeviceArgs::default() };
        let mut instance = start(fixture, devices, &fixture.workload(&["stubborn"]));
        await_line(instance.as_mut(), "stubborn");
        let monitor = instance.leaf().procs().expect("list the leaf")[0];
        let rollup = fs::read_to_string(format!("/proc/{monitor}/smaps_rollup")).expect("read");
        instance.stop(Duration::ZERO).expect("release");
        let line = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
        line.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .expect("a number")
    };
    fs::write(SETTING, "madvise").expect("allow huge pages");
    let (thp, normal) = (huge_kib(MemoryPages::Thp), huge_kib(MemoryPages::Normal));
    fs::write(SETTING, chosen).expect("put the setting back");
    println!("     huge {thp} KiB, normal {normal} KiB");
    assert!(thp >= 2048 && thp % 2048 == 0 && normal == 0, "{thp} {normal}");
}

fn refused(fixture: &Fixture) {
    let directory = tempfile::tempdir().expect("a directory");
    let no_socket = file(directory.path(), "file", b"kept");
    for (devices, expected) in [
        (
            DeviceArgs { scratch: Some("/no/disk".into()), ..DeviceArgs::default() },
            "open /no/disk: No such file",
        ),
        (
            DeviceArgs { vsock: Some(no_socket.clone()), ..DeviceArgs::default() },
            "file: Address already in use",
        ),
    ] {
        let reason = monitor_failed(run(fixture, devices, &["hello"]).exit);
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(fs::read(no_socket).expect("read"), b"kept");
}
