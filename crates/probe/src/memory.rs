//! The memory figures of one instance, taken from the host's own accounting: `/proc/PID/smaps`
//! (proc_pid_smaps(5)) for its processes, its leaf cgroup for what it is charged, and the guest's
//! `/proc/meminfo` for what a kernel of its own uses.

use std::{fs, io, ops::Range, time::Duration};

use compare_backend::Instance;
use compare_cgroup::Leaf;
use compare_spec::{GuestFacts, Memory, MemorySplit};

/// How long a guest may take to answer what it knows of its memory.
const GUEST_ANSWER: Duration = Duration::from_secs(5);

/// What was read, and why the rest was not.
#[derive(Debug, Default)]
pub struct MemoryReading {
    /// The figures.
    pub memory: Memory,
    /// The guest's own view, for a backend that has one.
    pub guest: Option<GuestFacts>,
    /// Figure and reason.
    pub unavailable: Vec<(String, String)>,
}

/// Reads everything of a running instance. The cgroup is read first and the guest last, so that no
/// reading counts what another one caused.
pub fn read_memory(instance: &mut dyn Instance) -> MemoryReading {
    let mut reading = MemoryReading::default();
    read_charge(instance.leaf(), &mut reading);
    match processes(instance.leaf(), instance.guest_ram()) {
        Ok(sum) => {
            reading.memory.rss_bytes = Some(sum.rss);
            reading.memory.pss_bytes = Some(sum.pss);
            reading.memory.uss_bytes = Some(sum.uss);
            if !instance.guest_ram().is_empty() {
                reading.memory.vmm_overhead_bytes = Some(sum.outside_guest_ram);
            }
        }
        Err(error) => {
            for figure in ["rss", "pss", "uss", "vmm_overhead"] {
                reading.unavailable.push((figure.to_owned(), format!("smaps: {error}")));
            }
        }
    }
    match instance.guest_facts(GUEST_ANSWER) {
        Ok(facts) => {
            reading.memory.guest_used_bytes = facts
                .as_ref()
                .and_then(|guest| guest.total_bytes?.checked_sub(guest.available_bytes?));
            reading.guest = facts;
        }
        Err(error) => {
            reading
                .unavailable
                .push(("guest_used".to_owned(), format!("the guest did not tell: {error}")));
        }
    }
    reading
}

/// Reads what outlives the processes of an instance that has already ended: the cgroup's peak.
pub fn read_peak(instance: &dyn Instance) -> MemoryReading {
    let mut reading = MemoryReading::default();
    read_charge(instance.leaf(), &mut reading);
    let peak = reading.memory.cgroup_peak_bytes;
    reading.memory = Memory { cgroup_peak_bytes: peak, ..Memory::default() };
    reading.unavailable.retain(|(figure, _)| figure == "cgroup_peak");
    for figure in ["rss", "pss", "uss", "vmm_overhead", "cgroup_current", "guest_used"] {
        let reason = "the workload had ended by then: nothing was left to measure";
        reading.unavailable.push((figure.to_owned(), reason.to_owned()));
    }
    reading
}

fn read_charge(leaf: &Leaf, reading: &mut MemoryReading) {
    let charge = leaf.memory();
    reading.memory.cgroup_current_bytes = charge.current;
    reading.memory.cgroup_peak_bytes = charge.peak;
    reading.memory.cgroup_split = MemorySplit {
        anon_bytes: charge.anon,
        file_bytes: charge.file,
        kernel_bytes: charge.kernel,
        pagetables_bytes: charge.pagetables,
        sec_pagetables_bytes: charge.sec_pagetables,
        slab_bytes: charge.slab,
        sock_bytes: charge.sock,
    };
    let named =
        charge.unavailable.into_iter().map(|(figure, reason)| (format!("cgroup_{figure}"), reason));
    reading.unavailable.extend(named);
}

/// Sums over all processes of an instance, bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    rss: u64,
    pss: u64,
    uss: u64,
    outside_guest_ram: u64,
}

fn processes(leaf: &Leaf, guest_ram: &[Range<u64>]) -> io::Result<Sum> {
    let mut sum = Sum::default();
    let pids = leaf.procs()?;
    if pids.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the instance has no process"));
    }
    for pid in pids {
        // A process may end between the two readings; what is gone takes no memory.
        let file =
            format!("/proc/{pid}/{}", if guest_ram.is_empty() { "smaps_rollup" } else { "smaps" });
        match fs::read_to_string(&file) {
            Ok(text) => sum.add(&text, guest_ram),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{file}: {error}"))),
        }
    }
    Ok(sum)
}

impl Sum {
    /// Adds the text of one `smaps` or `smaps_rollup`.
    fn add(&mut self, text: &str, guest_ram: &[Range<u64>]) {
        let mut is_guest_ram = false;
        for line in text.lines() {
            if let Some(start) = mapping_start(line) {
                is_guest_ram = guest_ram.iter().any(|range| range.contains(&start));
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let Some(kib) =
                value.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok())
            else {
                continue;
            };
            let bytes = kib << 10;
            match name {
                "Rss" => {
                    self.rss += bytes;
                    if !is_guest_ram {
                        self.outside_guest_ram += bytes;
                    }
                }
                "Pss" => self.pss += bytes,
                "Private_Clean" | "Private_Dirty" => self.uss += bytes,
                _ => {}
            }
        }
    }
}

/// The first address of a mapping's header line, such as `7f00-7f80 rw-p 00000000 00:00 0`.
fn mapping_start(line: &str) -> Option<u64> {
    let (range, rest) = line.split_once(' ')?;
    let (start, _) = range.split_once('-')?;
    let permissions = rest.as_bytes();
    (permissions.len() > 4 && permissions[4] == b' ')
        .then(|| u64::from_str_radix(start, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 fd:00 12   /bin/vmm
Size:               1024 kB
Rss:                 100 kB
Pss:                  50 kB
Shared_Clean:         60 kB
Private_Clean:        30 kB
Private_Dirty:        10 kB
VmFlags: rd ex
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:               20000 kB
Pss:               20000 kB
Private_Clean:         0 kB
Private_Dirty:     20000 kB
";

    #[test]
    fn guest_ram_is_told_apart_from_the_monitor() {
        let ram = 0x7f00_0000_0000..0x7f00_0800_0000;
        let mut sum = Sum::default();
        sum.add(SMAPS, std::slice::from_ref(&ram));
        let kib = |n: u64| n << 10;
        assert_eq!(
            sum,
            Sum { rss: kib(20100), pss: kib(20050), uss: kib(20040), outside_guest_ram: kib(100) }
        );
    }

    #[test]
    fn this_process_has_memory() {
        let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let mut sum = Sum::default();
        sum.add(&text, &[]);
        assert!(sum.rss >= sum.pss && sum.pss >= sum.uss && sum.uss > 0, "{sum:?}");
    }
}
