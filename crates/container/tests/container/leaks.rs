//! Nothing is left behind, by many starts or by a killed run.

mod crash;
mod soak;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use compare_cgroup::Parent;

use crate::{Case, world::World};

pub const CASES: &[Case] = &[
    ("leaks::starts_in_a_row", soak::starts::in_a_row),
    ("leaks::many_at_once", soak::crowd::at_once),
    ("leaks::mounts_beside_groups", soak::mounts::beside_groups),
    ("leaks::accounting_is_there_while_it_runs", accounting_is_there_while_it_runs),
    ("leaks::a_killed_run_is_reclaimed", a_killed_run_is_reclaimed),
    ("leaks::killed_at_any_point_of_a_start", crash::killed_at_any_point),
];

fn accounting_is_there_while_it_runs(world: &mut World) {
    let workload = world.workload("sleep", &[]);
    let mut instance = world.start(&workload);
    crate::world::wait_line(&mut *instance, "asleep");
    let charge = instance.leaf().memory();
    assert!(
        charge.current.unwrap() > 0 && charge.anon.is_some() && charge.file.is_some(),
        "{charge:?}"
    );
    assert!(instance.leaf().cpu_usage_ns().unwrap() > 0);
    assert_eq!(instance.leaf().oom_kills(), Some(0));
    assert_eq!(instance.leaf().procs().unwrap().len(), 1);
    instance.stop(Duration::ZERO).unwrap();
}

/// Another run of this program is killed with a container alive: the container dies with it, and
/// its cgroup is found.
fn a_killed_run_is_reclaimed(world: &mut World) {
    if std::env::var_os("COMPARE_TEST_VICTIM").is_some() {
        let workload = world.workload("sleep", &[]);
        let mut instance = world.start(&workload);
        crate::world::wait_line(&mut *instance, "asleep");
        println!("victim {}", world.parent.as_ref().unwrap().path().display());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut victim = Command::new("/proc/self/exe")
        .arg("a_killed_run_is_reclaimed")
        .env("COMPARE_TEST_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("victim ")).unwrap();
    let group = std::path::PathBuf::from(line.trim_start_matches("victim "));
    assert!(Parent::reclaim(&world.hierarchy).is_empty(), "its owner lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let started = Instant::now();
    let lines = Parent::reclaim(&world.hierarchy);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(lines.iter().any(|line| line.contains(group.to_str().unwrap())), "{lines:?}");
    assert!(!group.exists());
    assert!(Parent::reclaim(&world.hierarchy).is_empty());
    // The victim could not remove its image.
    let trees = std::env::temp_dir();
    fs::remove_dir_all(trees.join(format!("compare container,test:{}", victim.id()))).unwrap();
}
