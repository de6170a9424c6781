//! The system calls of one start, with their times, by the kernel's own trace points. Each costs
//! some time itself: read the times relative to each other.

use std::{fs, path::Path};

use nix::mount::{MsFlags, mount};

use crate::{Failure, Settings, whole::World};

const TRACEFS: &str = "/sys/kernel/tracing";

/// Prints the kernel's trace of the third container.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    let _ = mount(Some("t"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>);
    let set = |name: &str, value: &str| fs::write(Path::new(TRACEFS).join(name), value);
    set("tracing_on", "0")?;
    set("buffer_size_kb", "16384")?;
    set("trace_clock", "mono")?;
    for event in ["raw_syscalls", "exceptions", "sched/sched_switch", "sched/sched_process_exit"] {
        set(&format!("events/{event}/enable"), "1")?;
    }
    let mut world = World::new(settings)?;
    world.run()?;
    world.run()?;
    std::thread::sleep(settings.gap);
    set("tracing_on", "1")?;
    world.run()?;
    set("tracing_on", "0")?;
    print!("{}", fs::read_to_string(Path::new(TRACEFS).join("trace"))?);
    Ok(())
}
