//! Guests that stand still: where instructions are translated, an interrupt that is delivered twice
//! may leave a guest waiting for itself for ever (docs/lab.md), and whatever runs beside it gets half
//! of the CPU. Figures taken meanwhile are of no use.

use std::{collections::BTreeSet, fs, io, path::Path, time::Duration};

use compare_backend::{Instance, monotonic_ns};
use nix::mount::{MsFlags, mount, umount};

use super::clones::Clone;

/// The share of the CPU from which on a clone that nobody asks does not rest.
const BUSY: f64 = 0.25;

const TRACEFS: &str = "/sys/kernel/tracing";
/// Long enough for some ticks of the host, each of which makes a running guest leave.
const TRACED: Duration = Duration::from_millis(20);

/// What clones use of the CPU from a moment on.
pub struct Watch {
    begin_ns: u64,
    used_ns: Vec<u64>,
}

impl Watch {
    /// Begins now.
    pub fn of(clones: &[Clone]) -> Self {
        Self { begin_ns: monotonic_ns(), used_ns: clones.iter().map(used_ns).collect() }
    }

    /// The share of the CPU that each clone which was there when it began has used since.
    pub fn shares(&self, clones: &[Clone]) -> Vec<f64> {
        let elapsed = (monotonic_ns() - self.begin_ns) as f64;
        let since = clones.iter().zip(&self.used_ns);
        since.map(|(one, before)| used_ns(one).saturating_sub(*before) as f64 / elapsed).collect()
    }

    /// One that does not rest.
    pub fn busy(&self, clones: &[Clone]) -> Option<usize> {
        self.shares(clones).iter().position(|share| *share > BUSY)
    }
}

fn used_ns(clone: &Clone) -> u64 {
    clone.leaf().cpu_usage_ns().expect("CPU time is accounted")
}

/// Where a guest is: its instruction pointer whenever it leaves in some milliseconds, told by the
/// host's tracepoint `kvm_exit`.
///
/// # Errors
/// There is no tracefs, or no such tracepoint.
pub fn places(instance: &dyn Instance) -> io::Result<Vec<String>> {
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>)?;
    let trace = trace();
    umount(TRACEFS)?;
    let pids = instance.leaf().procs().map_err(io::Error::other)?;
    let rip = |line: &str| {
        let of = pids.iter().any(|pid| line.contains(&format!("-{pid} ")));
        let (_, rest) = line.split_once("kvm_exit: ").filter(|_| of)?;
        let mut words = rest.split_whitespace().skip_while(|word| *word != "rip").skip(1);
        words.next().map(str::to_owned)
    };
    Ok(trace?.lines().filter_map(rip).collect::<BTreeSet<_>>().into_iter().collect())
}

fn trace() -> io::Result<String> {
    let set = |name: &str, value: &str| fs::write(Path::new(TRACEFS).join(name), value);
    set("trace", "")?;
    set("events/kvm/kvm_exit/enable", "1")?;
    std::thread::sleep(TRACED);
    set("events/kvm/kvm_exit/enable", "0")?;
    fs::read_to_string(Path::new(TRACEFS).join("trace"))
}
