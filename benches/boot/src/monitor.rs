//! One boot: the monitor is started as its backend starts it, and its frames are read.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    ops::Range,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use compare_image::cpio;
use compare_microvm::args::VmmArgs;
use compare_net::{Addressing, Interface, Tap};
use compare_wire::{Control, Decoder, Frame, GuestConfig, Kind};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;

use crate::{
    args::{Column, Settings},
    child::{self, Child, close_on_exec_pipe},
    memory::{self, Memory},
};

/// Times of one boot, nanoseconds.
#[derive(Serialize)]
pub struct Times {
    exec_to_kernel_ns: u64,
    exec_to_init_ns: u64,
    exec_to_workload_ns: u64,
    off_to_gone_ns: u64,
}

/// Boots `hello` to its end.
///
/// # Errors
/// The monitor or its guest fails.
pub fn time(settings: &Settings, column: &Column) -> io::Result<Times> {
    let mut guest = Guest::start(settings, column, &settings.disk, "", false)?;
    let kernel = guest.until(Kind::Kernel)?.ns;
    let init = guest.until(Kind::Init)?.ns;
    let workload = guest.until(Kind::Exec)?.ns;
    let off = guest.until(Kind::PowerOff)?.ns;
    let exec = guest.child.exec_ns;
    let gone = guest.child.wait()?;
    Ok(Times {
        exec_to_kernel_ns: kernel - exec,
        exec_to_init_ns: init - exec,
        exec_to_workload_ns: workload - exec,
        off_to_gone_ns: gone - off,
    })
}

/// Boots a `hello` that stays, with a disk and a network card, and reads the memory it takes once
/// the guest is idle.
///
/// # Errors
/// The monitor or its guest fails.
pub fn weigh(settings: &Settings, column: &Column) -> io::Result<Memory> {
    let mut guest = Guest::start(settings, column, &settings.idle_disk, "idle", true)?;
    guest.until(Kind::Exec)?;
    guest.wait_for_hello()?;
    // Far more than the guest needs to go to sleep after its line.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let memory = memory::read(guest.child.pid, &guest.ram)?;
    guest.stop()?;
    Ok(memory)
}

/// A running monitor.
pub struct Guest {
    /// Its process.
    pub child: Child,
    frames: File,
    console: File,
    control: File,
    decoder: Decoder,
    pending: Vec<u8>,
    ram: Vec<Range<u64>>,
    _tap: Option<Tap>,
}

impl Guest {
    /// Starts a monitor; `part` is the argument of the workload, which `hello` ignores.
    ///
    /// # Errors
    /// Something it needs cannot be made.
    pub fn start(
        settings: &Settings,
        column: &Column,
        disk: &str,
        part: &str,
        net: bool,
    ) -> io::Result<Self> {
        let (frames, frames_in) = close_on_exec_pipe()?;
        let (console, console_in) = close_on_exec_pipe()?;
        let (control_out, control) = close_on_exec_pipe()?;
        let config = config_archive(part)?;
        let addressing = Addressing::of(0);
        let tap = net
            .then(|| {
                let name = Interface::new("boot0").map_err(io::Error::other)?;
                Tap::create(&name, &addressing, true).map_err(io::Error::other)
            })
            .transpose()?;
        let args = VmmArgs {
            kernel: column.kernel.clone().into(),
            initramfs: settings.initramfs.clone().into(),
            memory: settings.memory,
            disk: Some(disk.into()),
            tap_fd: tap.as_ref().map(|tap| tap.as_fd().as_raw_fd()),
            mac: addressing.peer_mac,
            config_fd: Some(config.as_raw_fd()),
            frames_fd: Some(frames_in.as_raw_fd()),
            append: column.words.clone(),
            ..VmmArgs::default()
        };
        let mut argv = args.to_argv().map_err(io::Error::other)?;
        argv[0] = CString::new(settings.vmm.as_str()).map_err(io::Error::other)?;
        let standard = [control_out.as_raw_fd(), console_in.as_raw_fd(), console_in.as_raw_fd()];
        let inherited: Vec<_> =
            [args.tap_fd, args.config_fd, args.frames_fd].into_iter().flatten().collect();
        let child = child::start(&argv, standard, &inherited)?;
        Ok(Self {
            child,
            frames: frames.into(),
            console: console.into(),
            control: control.into(),
            decoder: Decoder::default(),
            pending: Vec::new(),
            ram: Vec::new(),
            _tap: tap,
        })
    }

    /// The next frame of this kind.
    ///
    /// # Errors
    /// It did not come.
    pub fn until(&mut self, kind: Kind) -> io::Result<Frame> {
        loop {
            let mut input = &self.pending[..];
            let frame = self.decoder.take(&mut input).map_err(io::Error::other)?;
            self.pending = input.to_vec();
            match frame {
                Some(frame) if frame.kind == kind => return Ok(frame),
                Some(frame) if frame.kind == Kind::GuestRam => {
                    let word = |at: usize| {
                        frame.payload().get(at..at + 8).and_then(|bytes| bytes.try_into().ok())
                    };
                    if let (Some(start), Some(length)) = (word(0), word(8)) {
                        let start = u64::from_le_bytes(start);
                        self.ram.push(start..start + u64::from_le_bytes(length));
                    }
                }
                Some(frame)
                    if matches!(frame.kind, Kind::Failed | Kind::Crashed | Kind::MonitorFailed) =>
                {
                    return Err(self.failure(&format!(
                        "{:?}, {} ns after execve: {}",
                        frame.kind,
                        frame.ns - self.child.exec_ns,
                        frame.text()
                    )));
                }
                Some(_) => {}
                None => {
                    let mut bytes = [0; 4096];
                    let count = self.frames.read(&mut bytes)?;
                    if count == 0 {
                        return Err(self.failure(&format!("it ended before {kind:?}")));
                    }
                    self.pending = bytes[..count].to_vec();
                }
            }
        }
    }

    /// What went wrong, with what the guest had to say. The guest is gone, so its console ends.
    fn failure(&mut self, what: &str) -> io::Error {
        let mut text = Vec::new();
        let _ = self.console.read_to_end(&mut text);
        io::Error::other(format!("{what}\n{}", String::from_utf8_lossy(&text)))
    }

    /// Waits for the workload's line; returns everything printed so far.
    ///
    /// # Errors
    /// The guest ends without it.
    pub fn wait_for_hello(&mut self) -> io::Result<String> {
        let mut text = Vec::new();
        let mut bytes = [0; 4096];
        while !text.ends_with(b"hello\n") {
            match self.console.read(&mut bytes)? {
                0 => return Err(io::Error::other("it said nothing")),
                count => text.extend_from_slice(&bytes[..count]),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end well.
    pub fn stop(mut self) -> io::Result<()> {
        self.control.write_all(&[Control::Signal(libc::SIGKILL as u8).encode()])?;
        self.until(Kind::PowerOff)?;
        self.child.wait().map(drop)
    }
}

/// What the guest is told, as the backend of microVMs tells it for `hello`.
fn config_archive(part: &str) -> io::Result<OwnedFd> {
    let config = GuestConfig {
        root: "/dev/vda".to_owned(),
        root_type: "erofs".to_owned(),
        root_options: String::new(),
        hostname: "boot".to_owned(),
        command: vec!["/hello".to_owned(), part.to_owned()],
        env: Vec::new(),
        working_dir: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        net: None,
        settings: Vec::new(),
        rlimits: Vec::new(),
    };
    let mut archive = Vec::new();
    cpio::append_file(&mut archive, GuestConfig::PATH, 0o400, &config.encode());
    let mut file = File::from(memfd_create(c"boot-config", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&archive)?;
    Ok(file.into())
}
