//! What a process holds, from `/proc/PID/smaps` (proc(5)).

use std::{fs, io, ops::Range};

use nix::unistd::Pid;
use serde::Serialize;

/// Memory of a monitor and its guest, bytes.
#[derive(Serialize, Default)]
pub struct Memory {
    /// Pages of guest RAM that are this guest's own: written by it or for it.
    guest_private_dirty_bytes: u64,
    /// Pages of guest RAM that are mapped, shared ones included.
    guest_rss_bytes: u64,
    /// Memory of the monitor outside guest RAM that is its own.
    monitor_uss_bytes: u64,
}

/// Reads it; `guest_ram` is where guest RAM lies in the process.
///
/// # Errors
/// The process is gone.
pub fn read(pid: Pid, guest_ram: &[Range<u64>]) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut memory = Memory::default();
    let mut in_guest = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        if let Some(start) = name.split_once('-').filter(|_| !name.ends_with(':')) {
            let start = u64::from_str_radix(start.0, 16).map_err(io::Error::other)?;
            in_guest = guest_ram.iter().any(|range| range.contains(&start));
            continue;
        }
        let Ok(bytes) = value.parse::<u64>().map(|kib| kib << 10) else { continue };
        match (name, in_guest) {
            ("Private_Dirty:", true) => memory.guest_private_dirty_bytes += bytes,
            ("Rss:", true) => memory.guest_rss_bytes += bytes,
            ("Private_Dirty:" | "Private_Clean:", false) => memory.monitor_uss_bytes += bytes,
            _ => {}
        }
    }
    Ok(memory)
}
