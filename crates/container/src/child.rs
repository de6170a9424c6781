//! The new process, from its first instruction to the workload's. It is a copy of a process that
//! may have threads, so it only does what signal-safety(7) allows: no allocation, no lock, no
//! panic; all it uses was made by [`Prepared`]. What fails is told by a frame, and ends it.
#![allow(unsafe_code)] // execve.

use std::{
    convert::Infallible,
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, IntoRawFd},
};

use compare_net::{Control, Interface, StepError};
use compare_wire::{Frame, Kind};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::{chdir, read, setsid, write},
};

use crate::{
    capabilities, mounts,
    prepared::{Network, Prepared},
    sys,
};

/// Where the frames go once every other descriptor but stdio is closed.
const FRAMES_FD: i32 = 3;
/// Where the seccomp listener goes out.
const LISTENER_FD: i32 = 4;

/// A step that failed.
pub(crate) struct Failure<'a> {
    step: &'a str,
    errno: i32,
}

impl<'a> Failure<'a> {
    pub(crate) fn new(step: &'a str, errno: Errno) -> Self {
        Self { step, errno: errno as i32 }
    }
}

impl From<StepError> for Failure<'static> {
    fn from(error: StepError) -> Self {
        Self { step: error.step.as_str(), errno: error.errno }
    }
}

/// Names the step an error comes from.
pub(crate) trait At<T> {
    fn at(self, step: &str) -> Result<T, Failure<'_>>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: &str) -> Result<T, Failure<'_>> {
        self.map_err(|errno| Failure::new(step, errno))
    }
}

/// Runs the recipe; returns the exit code of a process that did not become the workload.
pub(crate) fn run(prepared: &Prepared) -> i32 {
    let mut told = Told { fd: prepared.ends.frames.as_raw_fd(), init_ns: 0 };
    let Err(failure) = become_workload(prepared, &mut told);
    let step = failure.step.as_bytes();
    // Nobody could be told that this fails.
    let _ = told.send(&Frame::new(Kind::Failed, failure.errno as u32, now_ns(), step));
    1
}

/// What this program is told. The time of `Init` goes out with the next frame: sent by itself, it
/// would wake this program in the midst of what is measured, to compete for the CPU.
struct Told {
    fd: i32,
    /// 0 once sent, or not reached.
    init_ns: u64,
}

impl Told {
    /// Sends a frame, and `Init` before it: one write, which a pipe takes whole (pipe(7),
    /// PIPE_BUF).
    fn send(&mut self, frame: &Frame) -> Result<(), Errno> {
        let mut bytes = [0; 512];
        let mut filled = 0;
        let init = Frame::new(Kind::Init, 0, self.init_ns, b"");
        for frame in &[&init, frame][usize::from(self.init_ns == 0)..] {
            let (encoded, len) = frame.encode();
            bytes[filled..filled + len].copy_from_slice(&encoded[..len]);
            filled += len;
        }
        self.init_ns = 0;
        // SAFETY: the descriptor is open until execve or exit.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        write(fd, &bytes[..filled]).map(|_| ())
    }
}

/// The recipe. Its order matters where a line says so.
fn become_workload<'a>(p: &'a Prepared, told: &mut Told) -> Result<Infallible, Failure<'a>> {
    // The link's far end is put into our network namespace by the other side: wait for it.
    let released = read(&p.ends.release, &mut [0; 8]);
    released.at("wait for the release")?;
    told.init_ns = now_ns();

    if p.userns {
        become_root_inside(p)?;
    }
    if let Network::Pooled(namespace) = &p.net {
        setns(namespace, CloneFlags::CLONE_NEWNET).at("enter the network namespace")?;
    }
    // The cgroup namespace's root is the cgroup we are in: only now are we in the right one.
    unshare(CloneFlags::CLONE_NEWCGROUP).at("unshare the cgroup namespace")?;
    let _ = umask(Mode::empty());
    let dev = mounts::enter_root(p)?;
    mounts::mount_defaults(p, dev)?;
    // Before /proc/sys is read-only.
    for (path, value, step) in &p.settings {
        write_setting(path, value).at(step)?;
    }
    mounts::mask(&p.host)?;
    mounts::mount_below_dev(p)?;

    sys::sethostname(&p.hostname).at("sethostname")?;
    configure_network(p)?;

    // A key the host's session holds must not be readable inside. Kernels without keys have none.
    match sys::new_session_keyring() {
        Ok(_) | Err(Errno::ENOSYS) => {}
        Err(error) => return Err(Failure::new("join a new session keyring", error)),
    }
    setsid().at("setsid")?;
    reset_signals(p.host.ignored)?;
    open_stdio(p)?;
    // Really closed, not only at execve: neither the working directory nor the program may be
    // reached through a descriptor of the host's (CVE-2024-21626).
    keep_descriptors(p, told)?;

    chdir(p.working_dir.as_c_str()).at(&p.chdir_step)?;
    refuse_magic(p.program.as_c_str()).at(&p.exec_step)?;
    for (resource, soft, hard, step) in &p.rlimits {
        sys::set_limit(*resource, *soft, *hard).at(step)?;
    }
    // Bounding set and groups while we still have the privilege, capabilities before the user,
    // since a user other than root has none left to change; CAP_SETUID is in the set kept.
    capabilities::drop_bounding().at("drop the bounding capabilities")?;
    sys::clear_ambient().at("clear the ambient capabilities")?;
    if !p.keep_groups {
        sys::setgroups(&p.groups).at("setgroups")?;
    }
    sys::setgid(p.gid).at("setgid")?;
    sys::keep_capabilities(compare_wire::DEFAULT_CAPABILITIES).at("capset")?;
    sys::setuid(p.uid).at("setuid")?;
    // Changing the user has cleared it (prctl(2)).
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64).at("set the parent death signal")?;
    let _ = umask(Mode::from_bits_truncate(0o022));
    // Sets no_new_privs too.
    let listener = p.host.filters.install().at("install the system call filter")?;
    if let Some(listener) = listener {
        // Open across execve as little as anything else here, and with this program by then.
        let listener = listener.into_raw_fd();
        sys::send_descriptor(LISTENER_FD, listener).at("hand over the system call listener")?;
    }

    // Fails with EPIPE if our parent died before the death signal was set again.
    told.send(&Frame::new(Kind::Exec, 0, now_ns(), b"")).at("tell of execve")?;
    // SAFETY: `Strings` ends its arrays in a null pointer and keeps the strings alive.
    let error = unsafe { sys::execve(&p.program, p.argv.pointers(), p.envp.pointers()) };
    Err(Failure::new(&p.exec_step, error))
}

/// Writes a file of /proc.
fn write_setting(path: &CStr, value: &str) -> Result<(), Errno> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, value.as_bytes()).map(drop)
}

/// Closes all but standard input and output, the frame pipe and the socket for the listener.
fn keep_descriptors(p: &Prepared, told: &mut Told) -> Result<(), Failure<'static>> {
    let step = "dup the descriptors to keep";
    // Out of the way first: either may have the other's number.
    let spare = sys::duplicate_above(p.ends.listener.as_raw_fd(), 64).at(step)?;
    sys::duplicate(told.fd, FRAMES_FD, libc::O_CLOEXEC).at(step)?;
    sys::duplicate(spare, LISTENER_FD, libc::O_CLOEXEC).at(step)?;
    told.fd = FRAMES_FD;
    sys::close_from(LISTENER_FD + 1).at("close descriptors")
}

/// In a user namespace a process has all rights at first and no id: nothing it made would have an
/// owner. The image's tree, seen with the ids of inside, goes over the tree.
fn become_root_inside(p: &Prepared) -> Result<(), Failure<'static>> {
    sys::setgroups(&[]).at("setgroups in the user namespace")?;
    sys::setgid(0).at("setgid in the user namespace")?;
    sys::setuid(0).at("setuid in the user namespace")?;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64).at("set the parent death signal")?;
    let tree = sys::receive_descriptor(p.ends.listener.as_raw_fd());
    tree.and_then(|tree| sys::move_mount(tree, &p.tree))
        .at("mount the image's tree with ids of inside")
}

/// Loopback, and our end of the link if there is one.
fn configure_network(p: &Prepared) -> Result<(), Failure<'static>> {
    let Network::Own(settings) = &p.net else { return Ok(()) };
    let control = Control::open()?;
    control.bring_up(&Interface::LOOPBACK)?;
    if let Some(settings) = settings {
        control.configure(&Interface::ETH0, settings)?;
    }
    Ok(())
}

/// Nothing blocked, nothing ignored. Handlers are gone already (CLONE_CLEAR_SIGHAND).
fn reset_signals(ignored: u64) -> Result<(), Failure<'static>> {
    for number in (1..=64).filter(|number| ignored & 1 << (number - 1) != 0) {
        sys::default_signal(number).at("reset an ignored signal")?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).at("unblock signals")
}

/// Standard input reads nothing; output and error go to the pipe, which the workload's user owns and
/// may reopen through `/dev/stdout`.
fn open_stdio(p: &Prepared) -> Result<(), Failure<'static>> {
    let null = open(c"/dev/null", OFlag::O_RDONLY, Mode::empty()).at("open /dev/null")?;
    let output = p.ends.output.as_raw_fd();
    for (from, to) in [(null.as_raw_fd(), 0), (output, 1), (output, 2)] {
        sys::duplicate(from, to, 0).at("dup standard descriptors")?;
    }
    // Closed with all others: dropping it then would close a stranger's number.
    std::mem::forget(null);
    Ok(())
}

/// Refuses a program, or the interpreter of a script, that is reached through a magic link such as
/// `/proc/self/exe`: that is this very program, from outside (CVE-2019-5736). Nothing else runs in
/// the container yet, so what is checked is what is executed. Other errors are left to execve,
/// which tells them better.
fn refuse_magic(program: &CStr) -> Result<(), Errno> {
    let mut line = [0_u8; 257];
    let mut next = sys::open_without_magic(program);
    // The kernel follows at most five scripts (BINPRM recursion in fs/exec.c).
    for _ in 0..6 {
        let fd = match next {
            Ok(fd) => fd,
            Err(Errno::ELOOP) => return Err(Errno::ELOOP),
            Err(_) => return Ok(()),
        };
        let got = sys::read_and_close(fd, &mut line[..256]);
        let Some(start) = line[..got].strip_prefix(b"#!") else { return Ok(()) };
        let start = got - start.trim_ascii_start().len();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0);
        let end = line[start..got].iter().position(blank).map_or(got, |len| start + len);
        line[end] = 0;
        let Ok(interpreter) = CStr::from_bytes_until_nul(&line[start..]) else { return Ok(()) };
        next = sys::open_without_magic(interpreter);
    }
    Ok(())
}

fn now_ns() -> u64 {
    compare_backend::monotonic_ns()
}
