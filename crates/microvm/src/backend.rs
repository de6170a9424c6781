//! The backend: one monitor process for each instance, started by one linear recipe.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use compare_backend::{
    Backend, Instance, Output, StartError, StartRequest, Template, Timeline, monotonic_ns,
};
use compare_cgroup::{Limits, spawn::NOT_STARTED};
use compare_confine::Room;
use compare_net::{Addressing, Interface, Tap};
use compare_spec::{Bytes, RootDevice, Workload};
use compare_wire::{Frame, GuestConfig, GuestIdentity, GuestNet, Kind};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use crate::{
    args::{DeviceArgs, VmmArgs},
    guest,
    instance::{MicrovmInstance, Parts},
    spawn::spawn,
};

/// What the leaf may use beyond guest RAM: the monitor itself, KVM's page tables (2 MiB for each
/// GiB of guest RAM, twice over), and pipes and sockets of the instance.
const MONITOR_ALLOWANCE: Bytes = Bytes::mib(64);
/// Threads of the monitor beside its vCPUs, and kernel threads KVM puts beside them since Linux
/// 5.2 (`kvm-nx-lpage-recovery`), with room to spare.
const MONITOR_THREADS: u32 = 16;

/// What every instance is made from.
#[derive(Debug, Clone)]
pub struct MicrovmConfig {
    /// The monitor, `compare-vmm`.
    pub vmm: PathBuf,
    /// Guest kernel: an uncompressed `vmlinux` or a bzImage.
    pub kernel: PathBuf,
    /// Initramfs with our `/init`: `compare_image::cpio::init_archive`.
    pub initramfs: PathBuf,
    /// KVM device, usually `/dev/kvm`.
    pub kvm: PathBuf,
    /// More words for the guest's kernel command line, usually none.
    pub append: String,
}

/// Starts workloads in microVMs.
#[derive(Debug)]
pub struct MicrovmBackend {
    config: MicrovmConfig,
    devices: DeviceArgs,
    mode: Mode,
    /// Where the monitors confine themselves. Making it takes privileges; without, each makes what it
    /// may for itself, and tells.
    room: Option<Room>,
}

/// How a backend's machines come to run.
#[derive(Debug)]
enum Mode {
    /// A kernel is booted; the machine can then be saved, if it is said where.
    Boot { save_to: Option<PathBuf> },
    /// A machine that `template` booted and that was saved there goes on.
    Restore { directory: PathBuf, template: Box<MicrovmBackend> },
}

impl MicrovmBackend {
    /// A backend that boots every instance from these files. They are looked at when an instance
    /// is started.
    pub fn new(config: MicrovmConfig) -> Self {
        Self {
            config,
            devices: DeviceArgs::default(),
            mode: Mode::Boot { save_to: None },
            room: Room::make().ok(),
        }
    }

    /// A backend that restores every instance from `directory`, to which an instance of its
    /// [`Backend::template`] was saved.
    pub fn restoring(config: MicrovmConfig, directory: PathBuf) -> Self {
        let devices = DeviceArgs::default();
        let mode = Mode::Boot { save_to: Some(directory.clone()) };
        let template = Box::new(Self {
            config: config.clone(),
            devices: devices.clone(),
            mode,
            room: Room::make().ok(),
        });
        Self {
            config,
            devices,
            mode: Mode::Restore { directory, template },
            room: Room::make().ok(),
        }
    }

    /// The same with further devices, which the template has too. Two machines that run at once must
    /// not be given the same socket or scratch disk.
    #[must_use]
    pub fn with_devices(mut self, devices: DeviceArgs) -> Self {
        if let Mode::Restore { template, .. } = &mut self.mode {
            template.devices.clone_from(&devices);
        }
        self.devices = devices;
        self
    }

    /// The recipe. Everything made on the way is undone by its own destructor if a step fails.
    fn start_monitor(&self, request: &StartRequest<'_>) -> Result<Parts, Step> {
        let (workload, image) = (request.workload, request.image);
        let limits = Limits {
            memory: Some(Bytes(workload.memory.0 + MONITOR_ALLOWANCE.0)),
            cpus: workload.cpus,
            pids: Some(workload.vcpus + MONITOR_THREADS),
            cpu_weight: workload.limits.cpu_weight,
            cpuset: workload.limits.cpuset.clone(),
            // Memory high and swap are of the workload's memory, not of the guest RAM around it: its
            // own kernel is to give memory back, not the host's to take pages it knows nothing of.
            ..Limits::default()
        };
        let leaf = request
            .parent
            .create_leaf(request.name, &limits)
            .map_err(step("make the leaf cgroup"))?;

        // A workload that serves nothing gets no network, as in the container.
        let addressing = workload.port.map(|_| Addressing::of(request.slot));
        let tap = addressing
            .as_ref()
            .map(|addressing| attach_tap(request.name, addressing))
            .transpose()?;
        let told = match &self.mode {
            Mode::Boot { .. } => {
                configuration(request, self.devices.root_device, addressing.as_ref())
            }
            Mode::Restore { .. } => identity(request, addressing.as_ref()),
        }
        .map_err(step("write what the guest is told"))?;

        let (frames_reader, frames) = pipe(OFlag::O_CLOEXEC)?;
        let (console_reader, console) = pipe(OFlag::O_CLOEXEC)?;
        let (control, control_writer) = pipe(OFlag::O_CLOEXEC)?;
        for end in [&frames_reader, &console_reader, &control_writer] {
            // This program never waits for an instance.
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(step("set up a pipe"))?;
        }

        let args = VmmArgs {
            kernel: self.config.kernel.clone(),
            initramfs: self.config.initramfs.clone(),
            memory: workload.memory,
            vcpus: workload.vcpus,
            disk: Some(image.erofs.clone()),
            disk_bytes: Some(image.erofs_bytes),
            tap_fd: tap.as_ref().map(AsRawFd::as_raw_fd),
            mac: addressing.map_or(VmmArgs::default().mac, |addressing| addressing.peer_mac),
            config_fd: Some(told.as_raw_fd()),
            frames_fd: Some(frames.as_raw_fd()),
            append: self.config.append.clone(),
            save_to: match &self.mode {
                Mode::Boot { save_to } => save_to.clone(),
                Mode::Restore { .. } => None,
            },
            restore: match &self.mode {
                Mode::Boot { .. } => None,
                Mode::Restore { directory, .. } => Some(directory.clone()),
            },
            room_fds: self
                .room
                .as_ref()
                .map(|room| room.descriptors().map(|namespace| namespace.as_raw_fd())),
            kvm: self.config.kvm.clone(),
            devices: self.devices.clone(),
        };
        let program = Program::new(&self.config.vmm, &args)
            .map_err(step("write the monitor's command line"))?;
        let inherited: Vec<RawFd> = args
            .tap_fd
            .into_iter()
            .chain(args.config_fd)
            .chain(args.frames_fd)
            .chain(args.room_fds.into_iter().flatten())
            .collect();
        let standard = [control.as_raw_fd(), console.as_raw_fd(), console.as_raw_fd()];
        // SAFETY: the closure makes async-signal-safe calls only (dup2, fcntl, execve, write) on
        // values prepared above, and writes to none of them; `Frame` lives on the stack and allocates
        // nothing.
        let child = unsafe { spawn(&leaf, || program.execute(standard, &inherited, &frames)) }
            .map_err(step("start the monitor"))?;
        Ok(Parts {
            child,
            leaf,
            frames: frames_reader,
            output: Output::new(console_reader),
            control: control_writer,
            address: addressing.map(|addressing| addressing.peer_ip),
            ram: workload.memory,
            stop_signal: workload.stop_signal,
            save_to: args.save_to,
            restored_from: args.restore,
        })
    }
}

impl Backend for MicrovmBackend {
    fn name(&self) -> &str {
        self.devices.memory_pages.microvm(self.devices.root_device)
    }

    fn start_mode(&self) -> &str {
        match self.mode {
            Mode::Boot { .. } => "cold",
            Mode::Restore { .. } => "restored",
        }
    }

    fn template(&mut self) -> Option<Template<'_>> {
        match &mut self.mode {
            Mode::Boot { .. } => None,
            Mode::Restore { directory, template } => {
                Some(Template { backend: &mut **template, directory: directory.clone() })
            }
        }
    }

    fn start(
        &mut self,
        request: &StartRequest<'_>,
        timeline: Timeline,
    ) -> Result<Box<dyn Instance>, StartError> {
        match self.start_monitor(request) {
            Ok(parts) => Ok(Box::new(MicrovmInstance::new(parts, timeline))),
            Err(Step { attempt, source }) => Err(StartError {
                attempt: format!("microvm {}: {attempt}", request.name),
                source: Some(source),
                timeline,
            }),
        }
    }
}

/// A step of the recipe that failed.
struct Step {
    attempt: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn step<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    attempt: &'static str,
) -> impl FnOnce(E) -> Step {
    move |source| Step { attempt, source: source.into() }
}

/// A pipe whose ends are no standard descriptors, not even where this program was started without
/// those: the child puts others there.
fn pipe(flags: OFlag) -> Result<(OwnedFd, OwnedFd), Step> {
    let above = |fd: OwnedFd| -> io::Result<OwnedFd> {
        if fd.as_raw_fd() > libc::STDERR_FILENO { Ok(fd) } else { fd.try_clone() }
    };
    let (reader, writer) = pipe2(flags).map_err(step("make a pipe"))?;
    Ok((above(reader).map_err(step("make a pipe"))?, above(writer).map_err(step("make a pipe"))?))
}

fn attach_tap(name: &str, addressing: &Addressing) -> Result<OwnedFd, Step> {
    let interface = Interface::new(name).map_err(step("name the tap device"))?;
    let tap = Tap::create(&interface, addressing, true).map_err(step("make the tap device"))?;
    Ok(tap.into_fd())
}

/// What a guest that is booted is told: all it is to do.
fn configuration(
    request: &StartRequest<'_>,
    root_device: RootDevice,
    addressing: Option<&Addressing>,
) -> io::Result<OwnedFd> {
    let (workload, image) = (request.workload, request.image);
    let (root, root_options) = guest::root(root_device);
    guest::config_archive(&GuestConfig {
        root: root.to_owned(),
        root_type: guest::ROOT_TYPE.to_owned(),
        root_options: root_options.to_owned(),
        hostname: request.name.to_owned(),
        command: workload.command.clone(),
        env: workload.env.clone().into_iter().collect(),
        working_dir: workload.working_dir.to_string_lossy().into_owned(),
        uid: image.uid,
        gid: image.gid,
        groups: image.groups.clone(),
        net: addressing.map(guest_net),
        settings: settings(workload),
        rlimits: workload
            .rlimits()
            .into_iter()
            .map(|(resource, soft, hard)| (resource, (soft, hard)))
            .collect(),
    })
}

/// What the guest's kernel is told in files of /proc.
fn settings(workload: &Workload) -> Vec<(String, String)> {
    let score = workload
        .oom_score_adj
        .map(|score| (GuestConfig::OOM_SCORE_ADJ.to_owned(), score.to_string()));
    workload.sysctl_files().into_iter().chain(score).collect()
}

/// What a guest that is restored is told: who it is.
fn identity(request: &StartRequest<'_>, addressing: Option<&Addressing>) -> io::Result<OwnedFd> {
    let mut seed = [0; 32];
    // SAFETY: getrandom(2) writes at most that many bytes to a live array.
    let count = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    if count != seed.len() as isize {
        return Err(io::Error::last_os_error());
    }
    guest::identity_file(&GuestIdentity {
        hostname: request.name.to_owned(),
        net: addressing.map(guest_net),
        mac: addressing.map_or(VmmArgs::default().mac, |addressing| addressing.peer_mac),
        realtime_ns: 0, // the monitor fills it in when the guest asks
        seed,
    })
}

/// The guest's own view of its end of the link.
fn guest_net(addressing: &Addressing) -> GuestNet {
    GuestNet {
        interface: guest::INTERFACE.to_owned(),
        address: addressing.peer_ip,
        prefix: addressing.prefix,
        gateway: addressing.host_ip,
        gateway_mac: addressing.host_mac,
    }
}

/// The monitor's program and command line, ready for execve(2).
struct Program {
    path: CString,
    _argv: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Program {
    fn new(path: &std::path::Path, args: &VmmArgs) -> Result<Self, std::ffi::NulError> {
        let argv = args.to_argv()?;
        let pointers =
            argv.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { path: CString::new(path.as_os_str().as_bytes())?, _argv: argv, pointers })
    }

    /// In the child: puts `standard` at descriptors 0 to 2, lets `inherited` through execve(2) and
    /// becomes the monitor, with an empty environment. Says so in a frame where that fails.
    fn execute(&self, standard: [RawFd; 3], inherited: &[RawFd], frames: &OwnedFd) -> i32 {
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: setsid takes nothing, sigprocmask a mask that lives on this stack; dup2 and fcntl
        // take descriptor numbers, all open in this process; execve takes a C string and two arrays
        // of C strings ended by null, which `self` and this frame own.
        unsafe {
            // Ctrl-C at a terminal is for the tool to understand, not for the monitor to die of.
            libc::setsid();
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            for (target, fd) in standard.into_iter().enumerate() {
                libc::dup2(fd, target as RawFd);
            }
            for &fd in inherited {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            libc::execve(self.path.as_ptr(), self.pointers.as_ptr(), environment.as_ptr());
        }
        let errno = nix::errno::Errno::last_raw();
        let (bytes, len) =
            Frame::new(Kind::MonitorFailed, errno as u32, monotonic_ns(), EXEC_FAILED).encode();
        // SAFETY: `len` bytes are there, and the pipe is open.
        unsafe { libc::write(frames.as_raw_fd(), bytes.as_ptr().cast(), len) };
        NOT_STARTED
    }
}

/// The child has no memory to make a better text of; the reader adds errno and the path.
const EXEC_FAILED: &[u8] = b"execve of the monitor";
