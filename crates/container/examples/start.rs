//! Starts a program from a root tree again and again and prints how long each phase took, median
//! and extremes, and the CPU time of this process and what it started:
//!
//! ```sh
//! start TREE COUNT GAP_MS PORT|- PROGRAM [ARGUMENT...]
//! ```
//! With a port, ready is the first TCP connection accepted; without, the program's exit.

use std::{
    net::TcpStream,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use compare_backend::{Backend, Instance, StartRequest, Timeline};
use compare_cgroup::{Hierarchy, Parent};
use compare_container::{ContainerBackend, enter_private_mounts};
use compare_net::enter_private_netns;
use compare_spec::{Digest, Image, Phase, Workload};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::resource::{UsageWho, getrusage},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tree, count, gap, port, command @ ..] = args.as_slice() else {
        return Err("usage: start TREE COUNT GAP_MS PORT|- PROGRAM [ARGUMENT...]".into());
    };
    enter_private_netns()?;
    enter_private_mounts()?;
    let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"))?;
    let parent = Parent::create(&hierarchy)?;
    let digest = Digest::of(b"");
    let image = Image {
        digest: digest.clone(),
        tree: PathBuf::from(tree),
        erofs: PathBuf::new(),
        erofs_digest: digest,
        erofs_bytes: 0,
        uid: 0,
        gid: 0,
        groups: vec![],
    };
    let text =
        "name = \"x\"\ncommand = [\"/x\"]\nready = { exit = 0 }\n[image]\nprogram = \"hello\"\n";
    let mut workload = Workload::parse("x", text)?;
    workload.command = command.to_vec();
    workload.port = port.parse().ok();
    workload.cpus = Some(1.0);
    let mut backend = ContainerBackend::new();
    let mut phases: Vec<(&str, Vec<u64>)> = ["created", "init", "exec", "ready", "stop", "stopped"]
        .map(|name| (name, Vec::new()))
        .into();
    let mut cpu = cpu_us()?;
    let cpu_before = cpu;
    for slot in 0..count.parse()? {
        thread::sleep(Duration::from_millis(gap.parse()?));
        let name = format!("b{slot}");
        let request =
            StartRequest { name: &name, slot, workload: &workload, image: &image, parent: &parent };
        let mut instance = backend.start(&request, Timeline::start())?;
        wait(&mut *instance, workload.port)?;
        instance.timeline_mut().reach(Phase::Ready);
        instance.stop(Duration::from_secs(5))?;
        let events = instance.timeline().events();
        let reached =
            [events.created, events.init, events.exec, events.ready, events.stop, events.stopped];
        for ((_, values), reached) in phases.iter_mut().zip(reached) {
            values.extend(reached);
        }
        if slot == 0 {
            let exit = instance.exit().map(|(exit, _)| exit.clone());
            println!("exit {exit:?}, output: {}", instance.output().tail());
            cpu = cpu_us()?;
        }
    }
    for (name, values) in &mut phases {
        values.sort_unstable();
        if let (Some(first), Some(last)) = (values.first(), values.last()) {
            println!(
                "{name:8} {:>8} us  ({} to {})",
                values[values.len() / 2] / 1000,
                first / 1000,
                last / 1000
            );
        }
    }
    println!("CPU      {:>8} us first, {} us in all", cpu - cpu_before, cpu_us()? - cpu_before);
    Ok(())
}

fn wait(instance: &mut dyn Instance, port: Option<u16>) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        instance.pump()?;
        if instance.exit().is_some() {
            return Ok(());
        }
        if let (Some(port), Some(address)) = (port, instance.address()) {
            let address = (address, port).into();
            if TcpStream::connect_timeout(&address, Duration::from_millis(1)).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_micros(100));
            continue;
        }
        let mut fds: Vec<PollFd<'_>> = instance
            .fds()
            .into_iter()
            .map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        poll(&mut fds, 1000_u16)?;
    }
}

/// User and system time of this process and its reaped children, microseconds.
fn cpu_us() -> nix::Result<i64> {
    let mut sum = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        sum += [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
            .sum::<i64>();
    }
    Ok(sum)
}
