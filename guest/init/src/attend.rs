//! The course of PID 1, from its first mark to the machine's end.

use alloc::{borrow::ToOwned, vec};
use core::{mem::ManuallyDrop, panic::PanicInfo};

use compare_wire::{Control, GuestConfig, GuestNet, Kind, MAX_PAYLOAD};

use crate::{
    failure::{Failure, step},
    identity,
    monitor::Monitor,
    network, report, root,
    sys::{self, Errno, Fd},
    workload,
};

/// Where control bytes arrive: standard input, which the kernel opened on the console.
const CONSOLE: Fd = 0;

/// Does everything, and ends with the machine.
pub fn main() -> ! {
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

/// Tells the monitor where this program is wrong, and ends the machine. The message is left out, and
/// the line is put together here: the code that formats would be most of what this brings in.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    if let Ok(monitor) = Monitor::open() {
        let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
        let mut place = [0; MAX_PAYLOAD];
        let said = decimal(line);
        let said = b"panic at ".iter().chain(file.as_bytes()).chain(b":").chain(&said);
        let mut len = 0;
        for (byte, &said) in place.iter_mut().zip(said) {
            *byte = said;
            len += 1;
        }
        monitor.send(Kind::Failed, libc::ENOTRECOVERABLE as u32, &place[..len]);
        monitor.send(Kind::PowerOff, 0, &[]);
    }
    sys::trap()
}

/// A number as six digits, which is enough lines for any file.
fn decimal(number: u32) -> [u8; 6] {
    let mut rest = number;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// Everything from the first mark to the workload's end.
fn run(monitor: &Monitor) -> Result<(), Failure> {
    // Never given back: the code that would is a part of what this program weighs.
    let mut config = ManuallyDrop::new(read_config()?);
    raw_console()?;
    // Blocked before the first child exists, so that no end is missed.
    step("block SIGCHLD", sys::block_signal(Some(libc::SIGCHLD)))?;
    let children = step("watch for children", sys::signal_fd(libc::SIGCHLD))?;
    root::enter(&config)?;
    step("set the host name", sys::set_host_name(config.hostname.as_bytes()))?;
    if let Some(net) = &config.net {
        network::configure(net, None)?;
    }
    for (path, text) in &config.settings {
        sys::write_file(&root::c_string(path)?, text.as_bytes())
            .map_err(|errno| Failure { step: ["write ", path].concat(), errno })?;
    }
    let workload = workload::start(&config, monitor)?;
    let status = attend(workload, children, monitor, config.net.take())?;
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

/// Serves until the workload has ended; returns its status as wait(2) encodes it. `net` is the network
/// as it is set up.
fn attend(
    workload: i32,
    children: Fd,
    monitor: &Monitor,
    mut net: Option<GuestNet>,
) -> Result<i32, Failure> {
    loop {
        while let Some((pid, status)) = sys::reap() {
            if pid == workload {
                return Ok(status);
            }
        }
        let [_, asked] = sys::wait_readable([children, CONSOLE]);
        let mut buffer = [0; 128];
        let _ = sys::read(children, &mut buffer);
        if asked {
            let count = sys::read(CONSOLE, &mut buffer).unwrap_or(0);
            for control in buffer[..count].iter().filter_map(|&byte| Control::decode(byte)) {
                match control {
                    // It may be gone already: then there is nobody to tell.
                    Control::Signal(number) => drop(sys::kill(workload, number)),
                    Control::Report => monitor.send(Kind::Report, 0, &report::take().encode()),
                    Control::Save => identity::renew(monitor, &mut net)?,
                }
            }
        }
    }
}

/// Prints what is left and asks the monitor to end the machine, which it does at this very write.
fn power_off(monitor: &Monitor) -> ! {
    sys::drain_terminal(CONSOLE);
    monitor.send(Kind::PowerOff, 0, &[]);
    sys::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_decimal() {
        assert_eq!(&decimal(0), b"000000");
        assert_eq!(&decimal(1234), b"001234");
        assert_eq!(&decimal(u32::MAX), b"967295");
    }
}
