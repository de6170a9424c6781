//! Stopping: with a handler, without, against one's will, twice, or not at all.

use std::time::{Duration, Instant};

use compare_spec::{Exit, Signal};

use crate::{
    Case,
    world::{World, wait_line},
};

pub const CASES: &[Case] = &[
    ("stopping::a_handler_is_given_its_grace", a_handler_is_given_its_grace),
    ("stopping::without_a_handler_nothing_is_waited_for", without_a_handler_nothing_is_waited_for),
    ("stopping::grace_runs_out", grace_runs_out),
    ("stopping::sigkill_is_a_stop_signal_too", sigkill_is_a_stop_signal_too),
    ("stopping::a_blocked_writer_can_be_stopped", a_blocked_writer_can_be_stopped),
    ("stopping::twice_is_once", twice_is_once),
    ("stopping::dropping_releases", dropping_releases),
    ("stopping::right_after_the_start", right_after_the_start),
];

fn a_handler_is_given_its_grace(world: &mut World) {
    let workload = world.workload("handle", &[]);
    let mut instance = world.start(&workload);
    wait_line(&mut *instance, "asleep");
    instance.stop(Duration::from_secs(20)).unwrap();
    assert_eq!(instance.exit().unwrap().0, &Exit::Code { code: 7 });
}

fn without_a_handler_nothing_is_waited_for(world: &mut World) {
    let workload = world.workload("sleep", &[]);
    let mut instance = world.start(&workload);
    wait_line(&mut *instance, "asleep");
    let started = Instant::now();
    instance.stop(Duration::from_secs(20)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(instance.exit().unwrap().0, &Exit::Signal { signal: 9 });
}

fn grace_runs_out(world: &mut World) {
    let workload = world.workload("ignore", &[]);
    let mut instance = world.start(&workload);
    wait_line(&mut *instance, "asleep");
    let started = Instant::now();
    instance.stop(Duration::from_millis(150)).unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(150)
            && started.elapsed() < Duration::from_secs(5)
    );
    assert_eq!(instance.exit().unwrap().0, &Exit::Signal { signal: 9 });
}

fn sigkill_is_a_stop_signal_too(world: &mut World) {
    let mut workload = world.workload("handle", &[]);
    workload.stop_signal = Signal::Sigkill;
    let mut instance = world.start(&workload);
    wait_line(&mut *instance, "asleep");
    instance.stop(Duration::from_secs(20)).unwrap();
    assert_eq!(instance.exit().unwrap().0, &Exit::Signal { signal: 9 });
}

fn a_blocked_writer_can_be_stopped(world: &mut World) {
    let workload = world.workload("flood", &["1000000000"]);
    let mut instance = world.start(&workload);
    wait_line(&mut *instance, "yyy");
    instance.stop(Duration::from_secs(20)).unwrap();
    assert!(instance.output().tail().ends_with("yyy"));
}

fn twice_is_once(world: &mut World) {
    let workload = world.workload("sleep", &[]);
    let mut instance = world.start(&workload);
    instance.stop(Duration::ZERO).unwrap();
    let events = instance.timeline().events();
    instance.stop(Duration::ZERO).unwrap();
    assert_eq!(instance.timeline().events(), events);
    assert!(instance.leaf().procs().is_err(), "the leaf is gone");
    assert!(instance.leaf().memory().current.is_none());
}

fn dropping_releases(world: &mut World) {
    let mut workload = world.workload("serve", &["80"]);
    workload.port = Some(80);
    drop(world.start(&workload));
}

fn right_after_the_start(world: &mut World) {
    for _ in 0..5 {
        let mut workload = world.workload("handle", &[]);
        workload.port = Some(80);
        let mut instance = world.start(&workload);
        instance.stop(Duration::from_secs(5)).unwrap();
    }
}
