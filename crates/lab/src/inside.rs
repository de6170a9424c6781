//! The agent's side: from being the first process of an emulated machine to a line of JSON.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        reboot::{RebootMode, reboot},
    },
    unistd::{chdir, chroot},
};

use crate::protocol::{Event, Request};

/// The name of the virtio console port.
pub const PORT: &str = "compare.agent";
/// The file of the initramfs that lists the modules, one a line, in the order they are loaded.
pub const MODULES: &str = "/modules/order";
/// Where the disk is mounted.
pub const DISK: &str = "/lab";

/// Turns the emulated machine from an initramfs into a host: loads modules, mounts the disk, moves
/// to a root that can be pivoted away from (an initramfs cannot: pivot_root(2)), mounts cgroup v2.
///
/// # Errors
/// A step failed; the message names it.
pub fn become_init() -> io::Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        attach(kind, kind, place, MsFlags::empty(), "")?;
    }
    for module in fs::read_to_string(MODULES)?.lines() {
        let path = Path::new(MODULES).with_file_name(module);
        finit_module(File::open(&path)?, c"", ModuleInitFlags::empty())
            .map_err(|error| about(&path, error))?;
    }
    let disk = wait_for(Path::new("/dev"), || {
        Some(PathBuf::from("/dev/vda")).filter(|path| path.exists())
    })?;
    attach("tmpfs", "tmpfs", "/new", MsFlags::empty(), "mode=755")?;
    for directory in ["lab", "proc", "sys", "dev", "tmp", "run", "etc", "root"] {
        fs::create_dir(Path::new("/new").join(directory))?;
    }
    attach(&disk.display().to_string(), "erofs", "/new/lab", MsFlags::MS_RDONLY, "")?;
    for place in ["proc", "sys", "dev"] {
        let new = format!("/new/{place}");
        mount(
            Some(format!("/{place}").as_str()),
            new.as_str(),
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )
        .map_err(|error| about(Path::new(&new), error))?;
    }
    chdir("/new")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    fs::create_dir("/dev/shm")?;
    attach("tmpfs", "tmpfs", "/dev/shm", MsFlags::empty(), "mode=1777")?;
    attach("cgroup2", "cgroup2", "/sys/fs/cgroup", MsFlags::empty(), "")?;
    Ok(())
}

fn attach(source: &str, kind: &str, place: &str, flags: MsFlags, data: &str) -> io::Result<()> {
    mount(Some(source), place, Some(kind), flags, Some(data))
        .map_err(|error| about(Path::new(place), error))
}

fn about(path: &Path, error: Errno) -> io::Error {
    io::Error::other(format!("{}: {}", path.display(), error.desc()))
}

/// Waits until `look` finds something; looks again whenever an entry of `directory` appears.
fn wait_for<T>(directory: &Path, look: impl Fn() -> Option<T>) -> io::Result<T> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(directory, AddWatchFlags::IN_CREATE)?;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        inotify.read_events()?;
    }
}

/// The two directions of the virtio console port.
#[derive(Debug)]
pub struct Port {
    requests: BufReader<File>,
    events: File,
}

impl Port {
    /// Finds the port by its name and opens it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open() -> io::Result<Self> {
        let path = wait_for(Path::new("/dev"), || {
            let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
            ports.filter_map(Result::ok).find_map(|port| {
                let name = fs::read_to_string(port.path().join("name")).ok()?;
                let node = Path::new("/dev").join(port.file_name());
                (name.trim() == PORT && node.exists()).then_some(node)
            })
        })?;
        let port = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { events: port.try_clone()?, requests: BufReader::new(port) })
    }

    /// Splits it, so that requests can be read while events are told.
    pub fn split(self) -> (Requests, Events) {
        (Requests(self.requests), Events(self.events))
    }
}

/// Where requests come from.
#[derive(Debug)]
pub struct Requests(BufReader<File>);

impl Requests {
    /// The next request; none once the other side is gone.
    ///
    /// # Errors
    /// The port cannot be read, or the line is no request.
    pub fn take(&mut self) -> io::Result<Option<Request>> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }
}

/// Where events go. Dropping it waits until the other side has closed the port, which it does once
/// it has read the last event: a write returns before the other side has it, and what it does not
/// have when the machine ends is lost.
#[derive(Debug)]
pub struct Events(File);

impl Events {
    /// Tells one event, in one write.
    ///
    /// # Errors
    /// The port cannot be written.
    pub fn tell(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // A hang-up is told whether it is asked for or not (poll(2)).
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        while poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {}
    }
}

/// Ends the machine; does not return.
///
/// # Errors
/// The kernel refuses (this is not the first process).
pub fn power_off() -> io::Result<()> {
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::OwnedFd, unix::net::UnixStream},
        sync::mpsc::{RecvTimeoutError, channel},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn the_machine_does_not_end_before_its_last_event_is_taken() {
        let (ours, port) = UnixStream::pair().expect("a pair of sockets");
        let (done, ended) = channel();
        let agent = thread::spawn(move || {
            let mut events = Events(OwnedFd::from(port).into());
            events.tell(&Event::Exited { code: 0 }).expect("tell");
            drop(events);
            done.send(()).expect("the test waits");
        });
        let early = ended.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "it ended unheard");
        let mut line = String::new();
        let mut ours = BufReader::new(ours);
        ours.read_line(&mut line).expect("read");
        assert!(line.contains("exited"), "{line}");
        drop(ours);
        ended.recv_timeout(Duration::from_secs(10)).expect("it ends");
        agent.join().expect("no panic");
    }
}
