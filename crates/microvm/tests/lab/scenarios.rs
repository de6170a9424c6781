//! The tests, one function each.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use compare_backend::Instance;
use compare_microvm::{MicrovmBackend, MicrovmConfig, args::DeviceArgs};
use compare_spec::{Bytes, Ceiling, Exit, Image, Phase, Resource, RootDevice, Unlimited, Workload};

use crate::fixture::{Fixture, pump_until};

/// A test.
pub type Scenario = fn(&Fixture);

/// All of them.
pub const ALL: &[(&str, Scenario)] = &[
    ("hello_is_printed_and_ends_with_0", hello),
    ("phases_come_in_order", phases),
    ("exit_codes_come_through", exit_code),
    ("a_signal_is_told_apart_from_a_code", signal),
    ("a_missing_program_is_told", missing_program),
    ("a_missing_working_directory_is_told", missing_directory),
    ("out_of_memory_in_the_guest_is_told", oom),
    ("the_workload_sees_a_containers_world", view),
    ("another_user_has_no_capabilities", other_user),
    ("limits_are_the_guests_and_the_monitors", limits),
    ("a_limit_that_cannot_be_set_is_told", wrong_limits),
    ("orphans_are_buried", orphans),
    ("every_cpu_comes_up", cpus),
    ("a_flood_of_output_is_kept_within_bounds", flood),
    ("the_network_answers", network),
    ("facts_come_when_asked", facts),
    ("stop_is_graceful", stop_graceful),
    ("stop_is_forced_where_it_must_be", stop_forced),
    ("a_dropped_instance_leaves_nothing", dropped),
    ("a_killed_monitor_is_told", killed_monitor),
    ("a_file_that_is_no_kernel_is_told", no_kernel),
    ("a_truncated_disk_is_told", truncated_disk),
    ("a_disk_that_is_no_file_system_is_told", no_file_system),
    ("too_little_memory_is_told", too_little_memory),
    ("a_missing_monitor_is_told", missing_monitor),
    ("a_missing_kvm_is_told", missing_kvm),
    ("a_kernel_panic_is_told_with_its_words", panic),
    ("a_guest_that_halts_is_told", halted),
    ("a_distributions_own_kernel_boots", bzimage),
    ("a_distributions_own_kernel_has_timers", timers),
    ("a_bzimage_with_too_little_memory_is_told", bzimage_memory),
    ("twenty_starts_in_a_row", twenty),
];

fn hello(fixture: &Fixture) {
    let outcome = fixture.run(&fixture.workload(&["hello"]));
    assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{}", outcome.output);
    assert_eq!(outcome.output, "hello from the guest\n");
}

fn phases(fixture: &Fixture) {
    let mut instance = fixture.start(&fixture.workload(&["hello"]));
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| instance.exit().is_some());
    let ended = instance.exit().expect("it ended").1 - instance.timeline().t0();
    instance.stop(Duration::ZERO).expect("stop");
    let events = instance.timeline().events();
    let order = [Phase::Created, Phase::Kernel, Phase::Init, Phase::Exec]
        .map(|phase| events.get(phase).expect("reached"));
    assert!(order.is_sorted() && order[3] <= ended, "{events:?}");
    assert!(events.stop.is_some() && events.stopped >= events.stop, "{events:?}");
    let [created, kernel, init, exec] = order.map(|ns| ns as f64 / 1e6);
    println!(
        "     created {created:.2} kernel {kernel:.2} init {init:.2} exec {exec:.2} ended {:.2} ms",
        ended as f64 / 1e6
    );
}

fn exit_code(fixture: &Fixture) {
    assert_eq!(fixture.run(&fixture.workload(&["exit", "7"])).exit, Exit::Code { code: 7 });
}

fn signal(fixture: &Fixture) {
    assert_eq!(fixture.run(&fixture.workload(&["abort"])).exit, Exit::Signal { signal: 9 });
}

fn missing_program(fixture: &Fixture) {
    let mut workload = fixture.workload(&[]);
    workload.command = vec!["/no/such/program".to_owned()];
    let exit = fixture.run(&workload).exit;
    assert_eq!(exit, Exit::ExecFailed { errno: libc::ENOENT, path: "/no/such/program".to_owned() });
}

fn missing_directory(fixture: &Fixture) {
    let mut workload = fixture.workload(&["hello"]);
    workload.working_dir = "/no/where".into();
    let exit = fixture.run(&workload).exit;
    let step = "chdir /no/where".to_owned();
    assert_eq!(exit, Exit::SetupFailed { step, errno: libc::ENOENT });
}

fn oom(fixture: &Fixture) {
    assert_eq!(fixture.run(&fixture.workload(&["eat"])).exit, Exit::Oom);
}

fn view(fixture: &Fixture) {
    let mut workload = fixture.workload(&["view"]);
    workload.env.insert("COLOUR".to_owned(), "green".to_owned());
    workload.working_dir = "/tmp".into();
    let outcome = fixture.run(&workload);
    assert_eq!(outcome.exit, Exit::Code { code: 0 }, "{}", outcome.output);
    for expected in [
        "cwd /tmp\n",
        "env COLOUR=green\n",
        "CapEff:\t00000000a80425fb\n",
        "CapBnd:\t00000000a80425fb\n",
        "NoNewPrivs:\t1\n",
        "overlay / overlay rw",
        "proc /proc proc rw,nosuid,nodev,noexec",
        "path /dev/null true\n",
        "path /dev/pts/ptmx true\n",
        "path /dev/fd/1 true\n",
        "path /lower false\n",
        "path /compare.config false\n",
    ] {
        assert!(outcome.output.contains(expected), "no {expected:?} in:\n{}", outcome.output);
    }
    assert_eq!(outcome.output.matches("env ").count(), 1, "{}", outcome.output);
}

fn other_user(fixture: &Fixture) {
    let image = Image { uid: 1000, gid: 1001, groups: vec![7, 8], ..fixture.image.clone() };
    // The root belongs to root: writing to it fails, which the actor reports by its code.
    let outcome = fixture.run_from(&fixture.config, &image, &fixture.workload(&["view"]));
    for expected in [
        "Uid:\t1000\t1000\t1000\t1000\n",
        "Gid:\t1001\t1001\t1001\t1001\n",
        "Groups:\t7 8",
        "CapEff:\t0000000000000000\n",
    ] {
        assert!(outcome.output.contains(expected), "no {expected:?} in:\n{}", outcome.output);
    }
}

fn limits(fixture: &Fixture) {
    let mut workload = fixture.workload(&["limits"]);
    let unlimited = Ceiling::Word(Unlimited::Unlimited);
    workload.rlimits = BTreeMap::from([
        (Resource::Nofile, [Ceiling::Number(77), Ceiling::Number(1 << 20)]),
        (Resource::Memlock, [Ceiling::Number(4096), unlimited]),
    ]);
    workload.oom_score_adj = Some(-321);
    workload.sysctls = BTreeMap::from([
        ("net.core.somaxconn".to_owned(), "123".to_owned()),
        ("kernel.sem".to_owned(), "250 32000 100 129".to_owned()),
    ]);
    workload.limits.cpu_weight = Some(300);
    workload.limits.cpuset = Some("0".parse().expect("a set of CPUs"));
    let image = Image { uid: 1000, gid: 1001, ..fixture.image.clone() };
    let mut instance = fixture.start_from(&fixture.config, &image, &workload);
    instance.output().watch("standing by");
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| {
        let exit = instance.exit().map(|(exit, _)| exit.clone());
        assert_eq!(exit, None, "{}", instance.output().tail());
        instance.output().matched().is_some()
    });
    let output = instance.output().tail();
    let lines: Vec<String> =
        output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "Max open files 77 1048576 files",
        "Max locked memory 4096 unlimited bytes",
        "/proc/self/oom_score_adj: -321",
        "/proc/sys/net/core/somaxconn: 123",
        "/proc/sys/kernel/sem: 250 32000 100 129",
    ] {
        assert!(lines.iter().any(|line| line == expected), "no {expected:?} in:\n{output}");
    }
    let leaf = instance.leaf().path();
    for (file, expected) in [("cpu.weight", "300"), ("cpuset.cpus", "0"), ("memory.high", "max")] {
        let text = std::fs::read_to_string(leaf.join(file)).expect("read a file of the leaf");
        assert_eq!(text.trim(), expected, "{file}");
    }
    instance.stop(Duration::from_secs(5)).expect("stop");
}

fn wrong_limits(fixture: &Fixture) {
    let mut workload = fixture.workload(&["hello"]);
    workload.sysctls = BTreeMap::from([("net.no.such".to_owned(), "1".to_owned())]);
    let step = "write /proc/sys/net/no/such".to_owned();
    assert_eq!(fixture.run(&workload).exit, Exit::SetupFailed { step, errno: libc::ENOENT });
    workload.sysctls.clear();
    // Above fs.nr_open.
    let most = Ceiling::Number(1 << 40);
    workload.rlimits = BTreeMap::from([(Resource::Nofile, [most, most])]);
    let step = "set resource limits".to_owned();
    assert_eq!(fixture.run(&workload).exit, Exit::SetupFailed { step, errno: libc::EPERM });
}

fn orphans(fixture: &Fixture) {
    assert_eq!(fixture.run(&fixture.workload(&["orphan"])).exit, Exit::Code { code: 0 });
}

fn cpus(fixture: &Fixture) {
    let config = MicrovmConfig { kernel: fixture.smp.clone(), ..fixture.config.clone() };
    for vcpus in [1, 2, 5] {
        let mut workload = fixture.workload(&["cpus"]);
        workload.vcpus = vcpus;
        let outcome = fixture.run_from(&config, &fixture.image, &workload);
        assert_eq!(outcome.output, format!("cpus {vcpus}\n"));
    }
}

fn flood(fixture: &Fixture) {
    let outcome = fixture.run(&fixture.workload(&["flood"]));
    assert_eq!(outcome.exit, Exit::Code { code: 0 });
    assert!(outcome.output.len() < 70_000 && outcome.output.ends_with("flood \n"));
}

fn network(fixture: &Fixture) {
    let mut instance = serving(fixture);
    for _ in 0..5 {
        assert!(answers(instance.as_ref()).ends_with(&"x".repeat(1000)));
    }
    instance.stop(Duration::from_secs(5)).expect("stop");
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Signal { signal: 15 }));
}

/// A guest that listens.
pub fn serving(fixture: &Fixture) -> Box<dyn Instance> {
    let mut workload = fixture.workload(&["serve"]);
    workload.port = Some(80);
    let mut instance = fixture.start(&workload);
    instance.output().watch("listening");
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| {
        let exit = instance.exit().map(|(exit, _)| exit.clone());
        assert_eq!(exit, None, "{}", instance.output().tail());
        instance.output().matched().is_some()
    });
    instance
}

/// Asks it something; returns the answer.
pub fn answers(instance: &dyn Instance) -> String {
    let address = SocketAddr::from((instance.address().expect("an address"), 80));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:.60}");
    assert!(answer.len() > 200_000, "{}", answer.len());
    answer
}

fn facts(fixture: &Fixture) {
    let mut instance = fixture.start(&fixture.workload(&["sleep"]));
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| {
        instance.timeline().has(Phase::Exec)
    });
    let facts =
        instance.guest_facts(Duration::from_secs(5)).expect("ask").expect("a guest has facts");
    let (total, available) =
        (facts.total_bytes.expect("total"), facts.available_bytes.expect("available"));
    assert!(
        available < total && total < facts.ram_bytes && facts.ram_bytes == 64 << 20,
        "{facts:?}"
    );
    let release = instance.kernel_release().expect("known by now").to_owned();
    assert!(release.starts_with("6."), "{release}");
    assert_eq!(instance.guest_ram().len(), 1);
    assert_eq!(instance.guest_ram()[0].end - instance.guest_ram()[0].start, 64 << 20);
    println!("     used in the guest {} KiB of {} KiB", (total - available) >> 10, total >> 10);
    instance.stop(Duration::from_secs(5)).expect("stop");
    assert!(instance.guest_facts(Duration::from_secs(1)).is_err());
}

fn stop_graceful(fixture: &Fixture) {
    let mut instance = fixture.start(&fixture.workload(&["sleep"]));
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| {
        instance.timeline().has(Phase::Exec)
    });
    instance.stop(Duration::from_secs(20)).expect("stop");
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Signal { signal: 15 }));
    instance.stop(Duration::ZERO).expect("a second time does nothing");
}

fn stop_forced(fixture: &Fixture) {
    let mut instance = fixture.start(&fixture.workload(&["stubborn"]));
    instance.output().watch("stubborn");
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| {
        instance.output().matched().is_some()
    });
    instance.stop(Duration::from_millis(300)).expect("stop");
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::Signal { signal: 9 }));
}

fn dropped(fixture: &Fixture) {
    drop(serving(fixture));
    // At any moment of its life.
    for milliseconds in [0, 3, 20] {
        let instance = fixture.start(&fixture.workload(&["sleep"]));
        std::thread::sleep(Duration::from_millis(milliseconds));
        drop(instance);
    }
}

fn killed_monitor(fixture: &Fixture) {
    let mut instance = fixture.start(&fixture.workload(&["sleep"]));
    pump_until(instance.as_mut(), Duration::from_secs(30), |instance| {
        instance.timeline().has(Phase::Exec)
    });
    instance.leaf().kill().expect("kill");
    pump_until(instance.as_mut(), Duration::from_secs(5), |instance| instance.exit().is_some());
    let reason = "the monitor was killed by signal 9".to_owned();
    assert_eq!(instance.exit().map(|(exit, _)| exit), Some(&Exit::MonitorFailed { reason }));
    instance.stop(Duration::ZERO).expect("stop");
}

pub fn monitor_failed(exit: Exit) -> String {
    match exit {
        Exit::MonitorFailed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

pub fn crashed(exit: Exit) -> String {
    match exit {
        Exit::GuestCrashed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn no_kernel(fixture: &Fixture) {
    let mut config = fixture.config.clone();
    config.kernel = fixture.image.erofs.clone();
    let reason = monitor_failed(
        fixture.run_from(&config, &fixture.image, &fixture.workload(&["hello"])).exit,
    );
    assert!(reason.contains("no 64-bit ELF file (vmlinux) and no bzImage"), "{reason}");
    config.kernel = "/no/kernel".into();
    let reason = monitor_failed(
        fixture.run_from(&config, &fixture.image, &fixture.workload(&["hello"])).exit,
    );
    assert!(reason.contains("/no/kernel") && reason.contains("No such file"), "{reason}");
}

fn truncated_disk(fixture: &Fixture) {
    let image = Image { erofs_bytes: fixture.image.erofs_bytes + 4096, ..fixture.image.clone() };
    let reason = monitor_failed(
        fixture.run_from(&fixture.config, &image, &fixture.workload(&["hello"])).exit,
    );
    assert!(reason.contains("truncated"), "{reason}");
}

fn no_file_system(fixture: &Fixture) {
    let erofs = std::env::temp_dir().join("compare-no-file-system");
    std::fs::write(&erofs, [0; 65536]).expect("write");
    let image = Image { erofs: erofs.clone(), erofs_bytes: 65536, ..fixture.image.clone() };
    let exit = fixture.run_from(&fixture.config, &image, &fixture.workload(&["hello"])).exit;
    assert_eq!(
        exit,
        Exit::SetupFailed { step: "mount the root disk".to_owned(), errno: libc::EINVAL }
    );
    std::fs::remove_file(erofs).expect("remove");
}

fn too_little_memory(fixture: &Fixture) {
    let mut workload = fixture.workload(&["hello"]);
    workload.memory = Bytes::mib(8);
    let reason = monitor_failed(fixture.run(&workload).exit);
    assert!(reason.starts_with("memory of 8MiB: kernel and initramfs alone need"), "{reason}");
}

fn missing_monitor(fixture: &Fixture) {
    let mut config = fixture.config.clone();
    config.vmm = "/no/monitor".into();
    let reason = monitor_failed(
        fixture.run_from(&config, &fixture.image, &fixture.workload(&["hello"])).exit,
    );
    assert!(reason.contains("No such file"), "{reason}");
}

fn missing_kvm(fixture: &Fixture) {
    let mut config = fixture.config.clone();
    config.kvm = "/no/kvm".into();
    let reason = monitor_failed(
        fixture.run_from(&config, &fixture.image, &fixture.workload(&["hello"])).exit,
    );
    assert!(reason.contains("/no/kvm") && reason.contains("modprobe"), "{reason}");
}

fn panic(fixture: &Fixture) {
    let mut config = fixture.config.clone();
    config.append = "rdinit=/nothing".to_owned();
    let outcome = fixture.run_from(&config, &fixture.image, &fixture.workload(&["hello"]));
    let reason = crashed(outcome.exit);
    assert!(reason.contains("triple fault"), "{reason}");
    assert!(outcome.output.contains("Kernel panic - not syncing"), "{}", outcome.output);
}

/// The actor as PID 1 halts the machine: `cli; hlt` on every CPU, which KVM does not tell.
fn halted(fixture: &Fixture) {
    let mut config = fixture.config.clone();
    let actor = std::fs::read(std::env::current_exe().expect("its own path")).expect("read it");
    config.initramfs = std::env::temp_dir().join("compare-halting.cpio");
    std::fs::write(&config.initramfs, compare_image::init_archive(&actor)).expect("write");
    for (vcpus, kernel) in [(1, &fixture.config.kernel), (2, &fixture.smp)] {
        config.kernel.clone_from(kernel);
        config.append = "-- actor halt".to_owned();
        // The actor is this whole test program, unstripped.
        let memory = Bytes::mib(256);
        let workload = Workload { vcpus, memory, ..fixture.workload(&[]) };
        let reason = crashed(fixture.run_from(&config, &fixture.image, &workload).exit);
        assert_eq!(reason, "every CPU halted with interrupts off");
    }
    std::fs::remove_file(config.initramfs).expect("remove");
}

/// Debian's cloud kernel, which unpacks itself: it gets as far as our PID 1, whose first mark says so.
/// Its virtio and EROFS drivers are modules, which nobody loads: there is no root disk then.
fn bzimage(fixture: &Fixture) {
    let config = MicrovmConfig { kernel: fixture.bzimage.clone(), ..fixture.config.clone() };
    let workload = Workload { memory: Bytes::mib(512), ..fixture.workload(&["hello"]) };
    let mut instance = fixture.start_from(&config, &fixture.image, &workload);
    pump_until(instance.as_mut(), Duration::from_secs(90), |instance| instance.exit().is_some());
    instance.stop(Duration::from_secs(1)).expect("release");
    let events = instance.timeline().events();
    println!("     init after {:?} ms", events.get(Phase::Init).map(|ns| ns / 1_000_000));
    assert!(events.get(Phase::Init).is_some(), "{}", instance.output().tail());
    let exit = instance.exit().map(|(exit, _)| exit.clone());
    let step = "mount the root disk".to_owned();
    let expected = Exit::SetupFailed { step, errno: libc::ENODEV };
    assert_eq!(exit, Some(expected), "{}", instance.output().tail());
}

/// The same kernel, which learns of its interrupt controllers from ACPI alone: without them it would
/// have no timer either, and PID 1 would wait for ever for a disk whose driver nobody loads.
fn timers(fixture: &Fixture) {
    let config = MicrovmConfig { kernel: fixture.bzimage.clone(), ..fixture.config.clone() };
    let workload = Workload { memory: Bytes::mib(512), ..fixture.workload(&["hello"]) };
    let devices = DeviceArgs { root_device: RootDevice::Pmem, ..DeviceArgs::default() };
    let mut backend = MicrovmBackend::new(config).with_devices(devices);
    let mut instance = fixture.start_by(&mut backend, &fixture.image, &workload);
    pump_until(instance.as_mut(), Duration::from_secs(90), |instance| instance.exit().is_some());
    instance.stop(Duration::from_secs(1)).expect("release");
    let init = instance.timeline().events().get(Phase::Init).expect("PID 1 ran");
    let (exit, at) = instance.exit().map(|(exit, at)| (exit.clone(), at)).expect("it ended");
    let waited = Duration::from_nanos(at - instance.timeline().t0() - init);
    println!("     waited {} ms", waited.as_millis());
    let step = "mount the root disk".to_owned();
    let expected = Exit::SetupFailed { step, errno: libc::ENODEV };
    assert_eq!(exit, expected, "{}", instance.output().tail());
    // `PATIENCE_MS` of PID 1 (guest/init/src/root.rs).
    assert!((1000..1500).contains(&waited.as_millis()), "{waited:?}");
}

fn bzimage_memory(fixture: &Fixture) {
    let config = MicrovmConfig { kernel: fixture.bzimage.clone(), ..fixture.config.clone() };
    let exit = fixture.run_from(&config, &fixture.image, &fixture.workload(&["hello"])).exit;
    let reason = monitor_failed(exit);
    assert!(reason.starts_with("memory of 64MiB: kernel and initramfs alone need"), "{reason}");
}

fn twenty(fixture: &Fixture) {
    for _ in 0..20 {
        hello(fixture);
    }
}
