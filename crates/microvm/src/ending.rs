//! How a machine ends. The monitor's process is the machine: the thread that sees the end writes
//! the last frame and leaves the process, and the kernel releases everything else at once.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use compare_wire::Kind;

use crate::bus::Bus;

/// Whether some thread is already telling the ending.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Exit codes of the monitor.
pub mod exit_code {
    /// The guest asked for its power to be cut, or was saved.
    pub const POWER_OFF: i32 = 0;
    /// The monitor failed; standard error and the last frame say why.
    pub const MONITOR_FAILED: i32 = 1;
    /// The command line was wrong.
    pub const USAGE: i32 = 2;
    /// The guest crashed; the last frame says how.
    pub const GUEST_CRASHED: i32 = 3;
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest asked for it.
    PowerOff,
    /// The guest asks to be saved. Whoever runs the CPU does so, and ends with what came of it.
    Save,
    /// The machine was saved.
    Saved,
    /// The guest crashed, in words.
    Crashed(String),
    /// KVM failed, in words.
    Failed(String),
    /// Nobody reads what the monitor says: whoever started it is gone.
    Abandoned,
}

/// Without `--save-to` there is nowhere to save to.
const NOT_SAVED: &[u8] = b"the guest asks to be saved, which this machine was not built for";

/// Tells the ending and leaves the process. It does not wait for other threads, which may be inside
/// the guest, and runs no destructors: there is nothing that the kernel does not release faster.
/// The first thread to come here decides; others wait for the process to go away.
pub fn end(bus: &Bus, ending: &Ending) -> ! {
    while ENDING.swap(true, Ordering::AcqRel) {
        std::thread::park();
    }
    // A CPU that holds the console while it waits for a slow reader is not waited for.
    if let Ok(mut console) = bus.console.try_lock() {
        console.drain();
    }
    let code = match ending {
        Ending::PowerOff => exit_code::POWER_OFF,
        Ending::Saved => {
            let _ = bus.frames.send(Kind::Saved, 0, &[]);
            exit_code::POWER_OFF
        }
        Ending::Save => {
            let _ = bus.frames.send(Kind::MonitorFailed, 0, NOT_SAVED);
            exit_code::MONITOR_FAILED
        }
        Ending::Crashed(reason) => {
            let _ = bus.frames.send(Kind::Crashed, 0, reason.as_bytes());
            eprintln!("compare-vmm: guest crashed: {reason}");
            exit_code::GUEST_CRASHED
        }
        Ending::Failed(reason) => {
            let _ = bus.frames.send(Kind::MonitorFailed, 0, reason.as_bytes());
            eprintln!("compare-vmm: {reason}");
            exit_code::MONITOR_FAILED
        }
        Ending::Abandoned => exit_code::MONITOR_FAILED,
    };
    // SAFETY: _exit(2) takes an integer and does not return. No exit handler has to run: output is
    // unbuffered or drained above.
    unsafe { libc::_exit(code) }
}
