//! Every way a container ends, told apart.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use compare_spec::{Bytes, Exit};

use crate::{
    Case,
    world::{World, wait_exit},
};

pub const CASES: &[Case] = &[
    ("outcomes::exit_codes", exit_codes),
    ("outcomes::a_fault_is_its_signal", a_fault_is_its_signal),
    ("outcomes::memory_beyond_the_limit_is_oom", memory_beyond_the_limit_is_oom),
    ("outcomes::the_pids_limit_holds", the_pids_limit_holds),
    ("outcomes::exec_failures_name_errno_and_path", exec_failures_name_errno_and_path),
    ("outcomes::a_missing_working_directory_is_named", a_missing_working_directory_is_named),
    ("outcomes::a_missing_image_is_named", a_missing_image_is_named),
    ("outcomes::the_host_program_is_out_of_reach", the_host_program_is_out_of_reach),
    ("outcomes::phases_are_in_order", phases_are_in_order),
    ("outcomes::a_flood_of_output_is_held_back", a_flood_of_output_is_held_back),
];

fn exit_codes(world: &mut World) {
    for code in [0, 1, 42, 124, 255] {
        let workload = world.workload("exit", &[&code.to_string()]);
        assert_eq!(world.run(&workload).exit, Exit::Code { code });
    }
}

fn a_fault_is_its_signal(world: &mut World) {
    let workload = world.workload("fault", &[]);
    assert_eq!(world.run(&workload).exit, Exit::Signal { signal: libc::SIGSEGV });
}

fn memory_beyond_the_limit_is_oom(world: &mut World) {
    let mut workload = world.workload("eat", &[]);
    workload.memory = Bytes::mib(16);
    let mut instance = world.start(&workload);
    wait_exit(&mut *instance, Duration::from_secs(60));
    assert_eq!(instance.exit().unwrap().0, &Exit::Oom);
    assert!(instance.leaf().oom_kills().unwrap() > 0);
    let peak = instance.leaf().memory().peak;
    if let Some(peak) = peak {
        assert!(peak <= 16 << 20 && peak > 14 << 20, "{peak}");
    }
    instance.stop(Duration::ZERO).unwrap();
}

fn the_pids_limit_holds(world: &mut World) {
    let mut workload = world.workload("fork", &[]);
    workload.pids = 8;
    let mut instance = world.start(&workload);
    wait_exit(&mut *instance, Duration::from_secs(60));
    let output = instance.output().tail();
    assert!(output.contains("refused after 7: errno 11"), "{output}");
    assert!(instance.leaf().pids_limit_hits().unwrap() >= 1);
    assert!(instance.leaf().procs().unwrap().is_empty(), "PID 1's end ends them all");
    instance.stop(Duration::ZERO).unwrap();
}

fn exec_failures_name_errno_and_path(world: &mut World) {
    let tree = world.image.tree.clone();
    std::fs::write(tree.join("text"), "no program").unwrap();
    for (program, errno) in
        [("/missing", libc::ENOENT), ("/text", libc::EACCES), ("/proc/version", libc::EACCES)]
    {
        let mut workload = world.workload("exit", &["0"]);
        workload.command[0] = program.to_owned();
        let finished = world.run(&workload);
        assert_eq!(finished.exit, Exit::ExecFailed { errno, path: program.to_owned() });
    }
    std::fs::set_permissions(tree.join("text"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut workload = world.workload("exit", &["0"]);
    workload.command[0] = "/text".to_owned();
    let failed = Exit::ExecFailed { errno: libc::ENOEXEC, path: "/text".to_owned() };
    assert_eq!(world.run(&workload).exit, failed);
    std::fs::remove_file(tree.join("text")).unwrap();
}

fn a_missing_working_directory_is_named(world: &mut World) {
    let mut workload = world.workload("exit", &["0"]);
    workload.working_dir = "/no/such".into();
    let failed = Exit::SetupFailed { step: "chdir /no/such".to_owned(), errno: libc::ENOENT };
    assert_eq!(world.run(&workload).exit, failed);
}

fn a_missing_image_is_named(world: &mut World) {
    let workload = world.workload("exit", &["0"]);
    let tree = std::mem::replace(&mut world.image.tree, "/no/such/tree".into());
    let exit = world.run(&workload).exit;
    world.image.tree = tree;
    let step = "open the image's tree /no/such/tree".to_owned();
    assert_eq!(exit, Exit::SetupFailed { step, errno: libc::ENOENT });
}

/// CVE-2019-5736: neither by name, nor by a link, nor as a script's interpreter.
fn the_host_program_is_out_of_reach(world: &mut World) {
    let tree = world.image.tree.clone();
    std::os::unix::fs::symlink("/proc/self/exe", tree.join("link")).unwrap();
    let script = tree.join("script");
    std::fs::write(&script, "#! /proc/self/exe workload:exit\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["/proc/self/exe", "/link", "/script"] {
        let mut workload = world.workload("exit", &["0"]);
        workload.command[0] = program.to_owned();
        let failed = Exit::ExecFailed { errno: libc::ELOOP, path: program.to_owned() };
        assert_eq!(world.run(&workload).exit, failed);
    }
    std::fs::remove_file(tree.join("link")).unwrap();
    std::fs::remove_file(script).unwrap();
}

fn phases_are_in_order(world: &mut World) {
    let workload = world.workload("exit", &["0"]);
    let events = world.run(&workload).events;
    let order = [events.created, events.init, events.exec, events.stop, events.stopped];
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{events:?}");
    assert_eq!(events.kernel, None);
}

fn a_flood_of_output_is_held_back(world: &mut World) {
    let workload = world.workload("flood", &["20000000"]);
    let mut instance = world.start(&workload);
    // Nobody reads for a while: the workload must be waiting, not gone.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(instance.leaf().procs().unwrap().len(), 1);
    wait_exit(&mut *instance, Duration::from_secs(60));
    assert_eq!(instance.exit().unwrap().0, &Exit::Code { code: 0 });
    let tail = instance.output().tail();
    assert!(tail.starts_with("[199") && tail.ends_with("end of flood\n"), "{}", &tail[..40]);
    instance.stop(Duration::ZERO).unwrap();
}
