//! PID 1 of the microVM. It marks that it runs, builds the workload's world, starts the workload,
//! and then does what is left for the first process: it buries orphans, passes signals on, answers
//! what is asked of the guest, and cuts the power when the workload has ended.
//!
//! ```text
//!  kernel ─► Init frame ─► root ─► host name ─► network ─► Exec frame ─► execve
//!                    any step fails: Failed frame ─► PowerOff frame
//!  then: SIGCHLD ─► reap; the workload itself ─► Exited frame ─► drain console ─► PowerOff frame
//!        control byte on the console ─► signal the workload, or Report frame
//! ```
//! The monitor ends the machine at PowerOff: nothing has to be unmounted or synced, since nothing
//! of this machine outlives it.

mod failure;
mod monitor;
mod network;
mod report;
mod root;
mod sys;
mod workload;

use compare_wire::{Control, GuestConfig, Kind};

use crate::{
    failure::{Failure, step},
    monitor::Monitor,
    sys::{Errno, Fd},
};

/// Where control bytes arrive: standard input, which the kernel opened on the console.
const CONSOLE: Fd = 0;

fn main() {
    let Ok(monitor) = Monitor::open() else {
        // Without the port nobody can be told anything but this, which panics the kernel.
        sys::exit(1)
    };
    monitor.send(Kind::Init, 0, &[]);
    if let Err(Failure { step, errno }) = run(&monitor) {
        monitor.send(Kind::Failed, errno.0 as u32, step.as_bytes());
    }
    power_off(&monitor)
}

/// Everything from the first mark to the workload's end.
fn run(monitor: &Monitor) -> Result<(), Failure> {
    let config = read_config()?;
    raw_console()?;
    // Blocked before the first child exists, so that no end is missed.
    step("block SIGCHLD", sys::block_signal(Some(libc::SIGCHLD)))?;
    let children = step("watch for children", sys::signal_fd(libc::SIGCHLD))?;
    root::enter(&config)?;
    step("set the host name", sys::set_host_name(config.hostname.as_bytes()))?;
    if let Some(net) = &config.net {
        network::configure(net)?;
    }
    let workload = workload::start(&config, monitor)?;
    let status = attend(workload, children, monitor);
    // Only then is it worth the reading: the kernel kills by this signal alone.
    let oom = status & 0x7f == libc::SIGKILL && report::saw_oom();
    monitor.send(Kind::Exited, status as u32, if oom { b"oom" } else { b"" });
    // Which kernel this was, should nobody have asked before the workload ended.
    monitor.send(Kind::Report, 0, &report::take().encode());
    Ok(())
}

fn read_config() -> Result<GuestConfig, Failure> {
    let path = root::c_string(GuestConfig::PATH)?;
    let mut bytes = vec![0; step("find the configuration", sys::file_len(&path))?];
    step("read the configuration", sys::read_file(&path, &mut bytes))?;
    let _ = sys::unlink(&path); // it holds the environment, which is the workload's business alone
    GuestConfig::decode(&bytes).map_err(|_| Failure {
        step: "decode the configuration".to_owned(),
        errno: Errno(libc::EINVAL),
    })
}

/// Lets bytes pass the console unchanged both ways (termios(3), cfmakeraw).
fn raw_console() -> Result<(), Failure> {
    let raw = sys::change_terminal(CONSOLE, |settings| {
        settings.input &=
            !(libc::ICRNL | libc::INLCR | libc::IGNCR | libc::IXON | libc::ISTRIP | libc::BRKINT);
        settings.output &= !libc::OPOST;
        settings.local &= !(libc::ICANON | libc::ECHO | libc::ECHONL | libc::ISIG | libc::IEXTEN);
    });
    step("set up the console", raw)
}

/// Serves until the workload has ended; returns its status as wait(2) encodes it.
fn attend(workload: i32, children: Fd, monitor: &Monitor) -> i32 {
    loop {
        while let Some((pid, status)) = sys::reap() {
            if pid == workload {
                return status;
            }
        }
        let [_, asked] = sys::wait_readable([children, CONSOLE]);
        let mut buffer = [0; 128];
        let _ = sys::read(children, &mut buffer);
        if asked {
            let count = sys::read(CONSOLE, &mut buffer).unwrap_or(0);
            buffer[..count].iter().filter_map(|&byte| Control::decode(byte)).for_each(|control| {
                match control {
                    // It may be gone already: then there is nobody to tell.
                    Control::Signal(number) => drop(sys::kill(workload, number)),
                    Control::Report => monitor.send(Kind::Report, 0, &report::take().encode()),
                }
            });
        }
    }
}

/// Prints what is left and asks the monitor to end the machine, which it does at this very write.
fn power_off(monitor: &Monitor) -> ! {
    sys::drain_terminal(CONSOLE);
    monitor.send(Kind::PowerOff, 0, &[]);
    sys::exit(0)
}
