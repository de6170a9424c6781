//! The monitor: one process for one virtual machine. It reads its command line, takes over the
//! descriptors it was given and follows the recipe in `compare_microvm::machine` or
//! `compare_microvm::restore`.
//!
//! It goes without the start of Rust's standard library, which asks the kernel where the stack of the
//! first thread lies (by reading /proc/self/maps) so that it can say more of an overflow, and gives
//! every thread a second stack for that. An overflow meets a guard page and ends the process all the
//! same.
#![allow(unsafe_code)]
#![no_main]

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    process::exit,
    sync::Arc,
};

use compare_confine::{Room, jail::close_except};
use compare_microvm::{
    Error,
    args::{HELP, Invocation, VmmArgs, parse},
    ending::exit_code,
    frames::Frames,
    machine::{Descriptors, boot},
    restore::restore,
};
use compare_wire::Kind;

/// Where the C library enters. It has given the arguments to the standard library by then, which
/// takes them from an initialiser (`std::sys::args`, for glibc).
#[unsafe(no_mangle)]
extern "C" fn main(_: libc::c_int, _: *const *const libc::c_char) -> libc::c_int {
    // What the start of the standard library does besides and this program needs: a reader that is
    // gone is an error of write(2).
    // SAFETY: no handler is installed, and there is one thread yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // One heap for all threads, which allocate next to nothing: otherwise each maps one of its own.
    // SAFETY: mallopt(3) takes two integers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    let args = match parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run(args)) => args,
        Ok(Invocation::Help) => {
            print!("{HELP}");
            return 0;
        }
        Ok(Invocation::Version) => {
            println!("compare-vmm {}", env!("CARGO_PKG_VERSION"));
            return 0;
        }
        Err(error) => {
            eprintln!("compare-vmm: {error}");
            exit(exit_code::USAGE);
        }
    };
    let inherited = [args.tap_fd, args.config_fd, args.frames_fd].into_iter().flatten();
    let keep: Vec<RawFd> =
        (0..=2).chain(inherited).chain(args.room_fds.into_iter().flatten()).collect();
    // SAFETY: nothing has been opened yet, and what was passed on purpose is kept.
    if let Err(error) = unsafe { close_except(&keep) } {
        eprintln!("compare-vmm: {error}");
        exit(exit_code::MONITOR_FAILED);
    }
    let frames = match args.frames_fd.map(adopt).transpose() {
        Ok(pipe) => Arc::new(Frames::new(pipe)),
        Err(error) => {
            eprintln!("compare-vmm: --frames-fd: {error}");
            exit(exit_code::USAGE);
        }
    };
    let failure = match descriptors(&args, frames.clone()) {
        Ok(fds) => match run(&args, fds) {
            Ok(never) => match never {},
            Err(error) => error.chain(),
        },
        Err(error) => format!("take over a descriptor: {error}"),
    };
    let _ = frames.send(Kind::MonitorFailed, 0, failure.as_bytes());
    eprintln!("compare-vmm: {failure}");
    exit(exit_code::MONITOR_FAILED);
}

fn run(args: &VmmArgs, fds: Descriptors) -> Result<Infallible, Error> {
    match &args.restore {
        Some(directory) => restore(directory, args, fds),
        None => boot(args, fds),
    }
}

fn descriptors(args: &VmmArgs, frames: Arc<Frames>) -> io::Result<Descriptors> {
    Ok(Descriptors {
        control: io::stdin().as_fd().try_clone_to_owned()?.into(),
        console: io::stdout().as_fd().try_clone_to_owned()?.into(),
        frames,
        tap: args.tap_fd.map(adopt).transpose()?,
        config: args.config_fd.map(adopt).transpose()?,
        room: args.room_fds.map(adopt_room).transpose()?,
    })
}

fn adopt_room([ipc, net, uts, mount]: [RawFd; 4]) -> io::Result<Room> {
    Ok(Room::from_descriptors([adopt(ipc)?, adopt(net)?, adopt(uts)?, adopt(mount)?]))
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
