//! Starts the emulated machine and speaks with its agent.

// One call between fork and exec needs it: see `die_with_parent`.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use compare_image::cpio::Archive;
use compare_spec::{Bytes, Clock};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{
    inside::{MODULES, PORT},
    protocol::{Event, Request},
};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// How long the machine may take to come up. It takes three seconds on an idle machine.
const BOOT: Duration = Duration::from_secs(180);
/// RAM of the machine: room for one instance at a time and the page cache of everything it reads.
const MEMORY: Bytes = Bytes::mib(1536);

/// The machine could not be started, or ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The emulator is not there or cannot be executed.
    #[error("cannot start {QEMU}: install it with `apt-get install qemu-system-x86`")]
    Start(#[source] io::Error),
    /// A file or descriptor the machine needs.
    #[error("cannot prepare the emulated host: {0}")]
    Prepare(&'static str, #[source] io::Error),
    /// It ended before it was done.
    #[error("the emulated host ended early ({status}); the end of its console:\n{console}")]
    Ended {
        /// How the emulator ended.
        status: String,
        /// The last lines of the console and of the emulator's messages.
        console: String,
    },
    /// It did not come up in time.
    #[error("the emulated host did not come up within {BOOT:?}; the end of its console:\n{0}")]
    Silent(String),
    /// It said something that is not part of the protocol.
    #[error("the emulated host said what nobody understands: {line}")]
    Protocol {
        /// The line.
        line: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// What the machine is made of.
#[derive(Debug, Clone)]
pub struct LabFiles {
    /// Its kernel, as a bzImage.
    pub kernel: PathBuf,
    /// Its initramfs, made by [`initramfs`].
    pub initramfs: PathBuf,
    /// Its disk: an EROFS image.
    pub disk: PathBuf,
}

/// The bytes of the machine's initramfs: this very program as `/init`, and the modules it loads.
///
/// # Errors
/// A file cannot be read.
pub fn initramfs(program: &Path, modules: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "new", "modules"] {
        archive.directory(directory, 0o755);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, &std::fs::read(program)?);
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        archive.file(&format!("modules/{name}"), 0o644, &std::fs::read(module)?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file(MODULES.trim_start_matches('/'), 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Lab {
    child: Child,
    requests: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    console: File,
    kernel: String,
}

impl Lab {
    /// Starts the machine and waits until its agent answers.
    ///
    /// # Errors
    /// See [`LabError`].
    pub async fn boot(files: &LabFiles, clock: Clock) -> Result<Self, LabError> {
        let prepare = |what| move |error: io::Error| LabError::Prepare(what, error);
        // A file without a name: nothing is left behind, however this program ends. It stays open
        // across exec on purpose, since the emulator opens it by its number.
        let console: OwnedFd = memfd_create(c"compare-lab-console", MFdFlags::empty())
            .map_err(io::Error::from)
            .map_err(prepare("console"))?;
        let console = File::from(console);
        let mut command = Command::new(QEMU);
        command.args(arguments(files, clock, console.as_raw_fd()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(console.try_clone().map_err(prepare("console"))?);
        command.kill_on_drop(true);
        // Ctrl-C at a terminal goes to the whole group: it is this program that decides what it means.
        command.process_group(0);
        // SAFETY: the closure runs between fork and exec; prctl and getppid are async-signal-safe
        // and the closure allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let mut child = command.spawn().map_err(LabError::Start)?;
        let requests = child.stdin.take().expect("it was asked for");
        let events = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let mut lab = Self { child, requests, events, console, kernel: String::new() };
        match timeout(BOOT, lab.next()).await {
            Ok(Ok(Event::Up { kernel })) => lab.kernel = kernel,
            Ok(Ok(Event::Failed { message })) => {
                return Err(LabError::Ended { status: message, console: lab.console_tail() });
            }
            Ok(Ok(other)) => {
                let line = format!("{other:?}");
                let source = <serde_json::Error as serde::de::Error>::custom("expected `up` first");
                return Err(LabError::Protocol { line, source });
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(LabError::Silent(lab.console_tail())),
        }
        Ok(lab)
    }

    /// Kernel release of the emulated host.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The machine is gone.
    pub async fn ask(&mut self, request: &Request) -> Result<(), LabError> {
        let mut line = serde_json::to_vec(request).expect("requests have string keys only");
        line.push(b'\n');
        match self.requests.write_all(&line).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    /// The next event. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// The machine is gone, or speaks nonsense.
    pub async fn next(&mut self) -> Result<Event, LabError> {
        match self.events.next_line().await {
            Ok(Some(line)) => {
                serde_json::from_str(&line).map_err(|source| LabError::Protocol { line, source })
            }
            Ok(None) | Err(_) => Err(self.ended().await),
        }
    }

    /// The last lines of the console and of the emulator's own messages.
    pub fn console_tail(&self) -> String {
        let mut console = &self.console;
        let mut text = Vec::new();
        let length = console.seek(SeekFrom::End(0)).unwrap_or(0);
        let _ = console.seek(SeekFrom::Start(length.saturating_sub(4096)));
        let _ = console.read_to_end(&mut text);
        String::from_utf8_lossy(&text).replace('\r', "").trim().to_owned()
    }

    /// Waits for the machine to power off, at most for ten seconds, then ends it.
    pub async fn close(mut self) {
        drop(self.requests);
        if timeout(Duration::from_secs(10), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    async fn ended(&mut self) -> LabError {
        let status = match timeout(Duration::from_secs(5), self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its console closed".to_owned(),
        };
        LabError::Ended { status, console: self.console_tail() }
    }
}

/// The kernel kills the emulator when this thread ends (PR_SET_PDEATHSIG, prctl(2)), so that not
/// even SIGKILL leaves one behind.
fn die_with_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

/// The emulator's command line: docs/lab.md's canonical setting where time counts instructions.
fn arguments(files: &LabFiles, clock: Clock, console: i32) -> Vec<String> {
    let (accelerator, cpus) = match clock {
        Clock::Instructions => ("tcg,thread=single", "1"),
        Clock::Real => ("tcg,thread=multi", "2"),
    };
    let path = |path: &Path| path.display().to_string().replace(',', ",,");
    let mut arguments: Vec<String> = [
        ("-machine", "q35"),
        ("-accel", accelerator),
        // `rep stosb` would count one instruction a byte and make clearing memory dear (docs/lab.md).
        ("-cpu", "max,-erms"),
        ("-smp", cpus),
        ("-display", "none"),
        ("-device", "virtio-blk-pci,drive=disk"),
        ("-device", "virtio-serial-pci"),
        ("-chardev", "stdio,id=agent,signal=off"),
        ("-serial", "chardev:console"),
    ]
    .iter()
    .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
    .collect();
    arguments.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    for (option, value) in [
        ("-m", format!("{}M", MEMORY.0 >> 20)),
        ("-chardev", format!("file,id=console,path=/proc/self/fd/{console},append=on")),
        ("-device", format!("virtserialport,chardev=agent,name={PORT}")),
        ("-drive", format!("if=none,id=disk,format=raw,readonly=on,file={}", path(&files.disk))),
        ("-kernel", files.kernel.display().to_string()),
        ("-initrd", files.initramfs.display().to_string()),
        ("-append", COMMAND_LINE.to_owned()),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    if clock == Clock::Instructions {
        arguments.extend(["-icount".to_owned(), "shift=0,sleep=off".to_owned()]);
    }
    arguments
}

/// RCU is expedited because an idle machine otherwise spends ten milliseconds of every
/// KVM_CREATE_VM waiting for a grace period; huge pages are off because clearing one costs two
/// (docs/lab.md, "Canonical setting"). What follows `--` are arguments of `/init`.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 rcupdate.rcu_expedited=1 transparent_hugepage=never -- agent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_time_is_the_canonical_setting() {
        let files = LabFiles { kernel: "/k".into(), initramfs: "/i".into(), disk: "/d,1".into() };
        let line = arguments(&files, Clock::Instructions, 9).join(" ");
        for part in
            ["-cpu max,-erms", "-icount shift=0,sleep=off", "-smp 1", "thread=single", "file=/d,,1"]
        {
            assert!(line.contains(part), "{part}: {line}");
        }
        let line = arguments(&files, Clock::Real, 9).join(" ");
        assert!(!line.contains("icount") && line.contains("-smp 2"));
        assert!(
            COMMAND_LINE.contains("rcu_expedited=1") && COMMAND_LINE.contains("hugepage=never")
        );
    }
}
