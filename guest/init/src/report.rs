//! What the guest knows of itself, for those who ask: `/proc/meminfo`, the kernel's release, CPUs.

use alloc::borrow::ToOwned;

use compare_wire::GuestReport;

use crate::sys;

/// Takes the figures now.
pub fn take() -> GuestReport {
    let mut buffer = [0; 4096];
    let meminfo = sys::read_file(c"/proc/meminfo", &mut buffer).unwrap_or(&[]);
    let mut name = [0; 65];
    GuestReport {
        release: core::str::from_utf8(sys::kernel_release(&mut name))
            .unwrap_or_default()
            .to_owned(),
        cpus: sys::online_cpus(),
        total_kib: field(meminfo, b"MemTotal:"),
        available_kib: field(meminfo, b"MemAvailable:"),
        free_kib: field(meminfo, b"MemFree:"),
        slab_kib: field(meminfo, b"Slab:"),
        cached_kib: field(meminfo, b"Cached:"),
    }
}

/// Whether the kernel has killed anything for want of memory since boot (`oom_kill`,
/// Documentation/filesystems/proc.rst on vmstat).
pub fn saw_oom() -> bool {
    let mut buffer = [0; 16 << 10];
    let vmstat = sys::read_file(c"/proc/vmstat", &mut buffer).unwrap_or(&[]);
    field(vmstat, b"oom_kill ") > 0
}

/// The number behind a name at the start of a line; 0 where there is none.
fn field(text: &[u8], name: &[u8]) -> u64 {
    text.split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .map(|rest| {
            rest.iter()
                .skip_while(|byte| **byte == b' ')
                .take_while(|byte| byte.is_ascii_digit())
                .fold(0, |number: u64, &digit| {
                    number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
                })
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text =
            b"MemTotal:        2034 kB\nSwapCached:    7 kB\nCached:       42 kB\noom_kill 3\n";
        assert_eq!(field(text, b"MemTotal:"), 2034);
        assert_eq!(field(text, b"Cached:"), 42);
        assert_eq!(field(text, b"Slab:"), 0);
        assert_eq!(field(text, b"oom_kill "), 3);
    }

    #[test]
    fn this_machine_has_a_report() {
        let report = take();
        assert!(report.total_kib > report.free_kib && report.cpus > 0);
        assert!(!report.release.is_empty());
    }
}
