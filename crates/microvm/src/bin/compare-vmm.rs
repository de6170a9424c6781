//! The monitor: one process for one virtual machine. It reads its command line, takes over the
//! descriptors it was given and follows the recipe in `compare_microvm::machine`.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    process::exit,
    sync::Arc,
};

use compare_microvm::{
    args::{HELP, Invocation, VmmArgs, parse},
    ending::exit_code,
    frames::Frames,
    machine::{self, Descriptors},
};
use compare_wire::Kind;

fn main() {
    let args = match parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run(args)) => args,
        Ok(Invocation::Help) => return print!("{HELP}"),
        Ok(Invocation::Version) => return println!("compare-vmm {}", env!("CARGO_PKG_VERSION")),
        Err(error) => {
            eprintln!("compare-vmm: {error}");
            exit(exit_code::USAGE);
        }
    };
    let frames = match args.frames_fd.map(adopt).transpose() {
        Ok(pipe) => Arc::new(Frames::new(pipe)),
        Err(error) => {
            eprintln!("compare-vmm: --frames-fd: {error}");
            exit(exit_code::USAGE);
        }
    };
    let failure = match descriptors(&args, frames.clone()) {
        Ok(fds) => match machine::run(&args, fds) {
            Ok(never) => match never {},
            Err(error) => error.chain(),
        },
        Err(error) => format!("take over a descriptor: {error}"),
    };
    let _ = frames.send(Kind::MonitorFailed, 0, failure.as_bytes());
    eprintln!("compare-vmm: {failure}");
    exit(exit_code::MONITOR_FAILED);
}

fn descriptors(args: &VmmArgs, frames: Arc<Frames>) -> io::Result<Descriptors> {
    Ok(Descriptors {
        control: io::stdin().as_fd().try_clone_to_owned()?.into(),
        console: io::stdout().as_fd().try_clone_to_owned()?.into(),
        frames,
        tap: args.tap_fd.map(adopt).transpose()?,
        config: args.config_fd.map(adopt).transpose()?,
    })
}

/// Takes over an inherited descriptor.
fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes a number and reports whether it is a descriptor.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{fd} is no descriptor to inherit"),
        ));
    }
    // SAFETY: the number is an open descriptor that this process was started with, so nothing here
    // owns it; each option names its own and is adopted once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
