//! Containers of the other kinds do what those of the default kind do, and what they are for.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use compare_backend::{Backend, StartRequest, Timeline};
use compare_container::ContainerBackend;
use compare_spec::{ContainerVariant, Exit};

use crate::{
    Case,
    network::ask,
    world::{World, wait_line},
};

pub const CASES: &[Case] = &[
    ("variants::root_inside_a_user_namespace_is_nobody_outside", root_inside_is_nobody_outside),
    ("variants::a_user_namespace_has_all_it_needs", a_user_namespace_has_all_it_needs),
    ("variants::a_pooled_network_answers", a_pooled_network_answers),
    ("variants::a_pool_that_is_empty_is_filled", a_pool_that_is_empty_is_filled),
];

fn with(world: &mut World, variant: ContainerVariant, case: impl FnOnce(&mut World)) {
    let usual = std::mem::replace(&mut world.backend, ContainerBackend::of(variant));
    assert_eq!(world.backend.name(), variant.name());
    let result = panic::catch_unwind(AssertUnwindSafe(|| case(world)));
    world.backend = usual;
    if let Err(panic) = result {
        panic::resume_unwind(panic);
    }
}

/// Whether the image's file system can be shown under other ids: a tmpfs only since Linux 6.3. Where it
/// cannot, that is what the start says.
fn can_be_mapped(world: &mut World) -> bool {
    let workload = world.workload("exit", &["0"]);
    let name = "mapped";
    let parent = world.parent.as_ref().unwrap();
    let image = &world.image;
    let request = StartRequest { name, slot: 6000, workload: &workload, image, parent };
    match world.backend.start(&request, Timeline::start()) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("must know idmapped mounts"), "{error}");
            let tmpfs = nix::sys::statfs::statfs(&image.tree).unwrap().filesystem_type();
            assert_eq!(tmpfs, nix::sys::statfs::TMPFS_MAGIC, "others know them: {error}");
            false
        }
    }
}

fn root_inside_is_nobody_outside(world: &mut World) {
    with(world, ContainerVariant::Userns, |world| {
        if !can_be_mapped(world) {
            return;
        }
        let workload = world.workload("sleep", &[]);
        let mut instance = world.start(&workload);
        wait_line(&mut *instance, "asleep");
        let pid = instance.leaf().procs().unwrap()[0];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = instance.confinement().unwrap().uid;
        assert!(uid >= 0x6000_0000, "{uid}");
        assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{status}");
        assert!(instance.confinement().unwrap().namespaces.contains(&"user".to_owned()));
        instance.stop(Duration::ZERO).unwrap();
    });
}

fn a_user_namespace_has_all_it_needs(world: &mut World) {
    with(world, ContainerVariant::Userns, |world| {
        if !can_be_mapped(world) {
            return;
        }
        let workload = world.workload("facts", &[]);
        let output = world.output(&workload);
        for expected in ["pid 1 ppid 0", "Uid:\t0\t0\t0\t0", "pdeathsig 9", "NoNewPrivs:\t1"] {
            assert!(output.contains(expected), "{expected}: {output}");
        }
        let workload = world.workload("write", &["/new", "/dev/null", "/dev/shm/x", "/dev/stdout"]);
        let output = world.output(&workload);
        assert_eq!(output.matches(": []").count(), 4, "{output}");
        let workload = world.workload("write", &["/proc/sys/kernel/hostname", "/proc/kcore"]);
        assert!(!world.output(&workload).contains("hostname: []"));
        let mut workload = world.workload("exit", &["0"]);
        workload.command[0] = "/missing".to_owned();
        let failed = Exit::ExecFailed { errno: libc::ENOENT, path: "/missing".to_owned() };
        assert_eq!(world.run(&workload).exit, failed);
        // A directory of the image can go, with what is in it: where the tmpfs can mark it as gone.
        let tree = world.image.tree.join("there");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        let workload = world.workload("remove", &["/there"]);
        let output = world.output(&workload);
        fs::remove_dir_all(tree).unwrap();
        assert!(output.contains("/there: []"), "{output}");
        crate::isolation::limits_and_settings_hold(world);
        serve(world);
    });
}

fn a_pooled_network_answers(world: &mut World) {
    with(world, ContainerVariant::Pooled, |world| {
        let mut workload = world.workload("serve", &["80"]);
        workload.port = Some(80);
        for _ in 0..3 {
            world.backend.prepare(&workload);
            serve(world);
        }
        // One that was made and is not needed goes with the backend.
        world.backend.prepare(&workload);
    });
}

fn a_pool_that_is_empty_is_filled(world: &mut World) {
    with(world, ContainerVariant::Pooled, serve);
}

fn serve(world: &mut World) {
    let mut workload = world.workload("serve", &["80"]);
    workload.port = Some(80);
    let mut instance = world.start(&workload);
    let answer = ask(&*instance);
    assert!(answer.starts_with("hello 10."), "{answer}");
    instance.stop(Duration::ZERO).unwrap();
    instance.until_gone(Duration::from_secs(10)).unwrap();
    assert!(instance.timeline().events().gone.is_some());
}
