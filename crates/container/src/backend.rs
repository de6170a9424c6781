//! This program's side of a start: one linear recipe. Whatever fails, what was made before is
//! undone by the values that own it.
#![allow(unsafe_code)] // clone_into: the child keeps to its contract, see `child`.

use std::{error::Error, fs, io, os::fd::OwnedFd, sync::Arc};

use compare_backend::{Backend, Instance, StartError, StartRequest, Timeline};
use compare_cgroup::{Finding, Limits, spawn::clone_into};
use compare_net::{Addressing, Interface, Netns, create_veth};
use compare_spec::Phase;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        eventfd::{EfdFlags, EventFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
    unistd::pipe2,
};

use crate::{
    check, child,
    instance::{Container, Pipes},
    prepared::{Ends, Prepared},
    seccomp::Filters,
};

/// The namespaces a container gets at its birth (namespaces(7)). Its cgroup namespace it makes
/// itself, once it is in its cgroup.
const NAMESPACES: u64 = (libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWTIME) as u64;

/// Starts containers. What is the same for all of them is found out once.
#[derive(Debug)]
pub struct ContainerBackend {
    /// Signals this program ignores, bit 0 for signal 1: the workload must not inherit that.
    ignored: u64,
    kernel_release: Option<String>,
    filters: Arc<Filters>,
}

impl Default for ContainerBackend {
    fn default() -> Self {
        Self::new()
    }
}

/// What was attempted, and why it failed.
type Refusal = (String, Box<dyn Error + Send + Sync>);

/// Says what was attempted.
trait Attempt<T> {
    fn to(self, attempt: impl FnOnce() -> String) -> Result<T, Refusal>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Attempt<T> for Result<T, E> {
    fn to(self, attempt: impl FnOnce() -> String) -> Result<T, Refusal> {
        self.map_err(|error| (attempt(), error.into()))
    }
}

impl ContainerBackend {
    /// Looks at this process and its kernel; makes nothing.
    pub fn new() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            ignored: crate::instance::signal_set(&status, "SigIgn:").unwrap_or(0),
            kernel_release: release.map(|release| release.trim().to_owned()),
            filters: Arc::new(Filters::new()),
        }
    }

    /// What containers need of this host and whether it is there, for `doctor`. Tries each thing in
    /// a thread with namespaces of its own; leaves nothing behind.
    pub fn check() -> Vec<Finding> {
        check::check()
    }

    fn launch(
        &self,
        request: &StartRequest<'_>,
        timeline: &mut Timeline,
    ) -> Result<Container, Refusal> {
        let workload = request.workload;
        // A workload that serves nothing has loopback alone, as with `docker run --network none`.
        let link = workload.port.map(|_| Addressing::of(request.slot));
        let host_end = Interface::new(&format!("c-{}", request.name))
            .to(|| format!("name the network interface of {}", request.name))?;
        let limits = Limits {
            memory: Some(workload.memory),
            cpus: workload.cpus,
            pids: Some(workload.pids),
        };
        let leaf = request
            .parent
            .create_leaf(request.name, &limits)
            .to(|| format!("create the cgroup of {}", request.name))?;
        let (pipes, ends) = channels().to(|| "create the pipes to the container".to_owned())?;
        let prepared = Prepared::new(
            request,
            &leaf,
            link.as_ref(),
            self.ignored,
            Arc::clone(&self.filters),
            ends,
        )
        .to(|| format!("prepare the start of {}", request.name))?;

        // SAFETY: `child::run` and all it calls neither allocate nor lock, and use only what
        // `Prepared` holds; its module says how.
        let child = unsafe { clone_into(&leaf, NAMESPACES, || child::run(&prepared)) }
            .to(|| "clone into new namespaces (needs root, or CAP_SYS_ADMIN)".to_owned())?;
        let pid = child.pid;
        // From here on dropping the container undoes everything.
        let mut container =
            Container::new(child, leaf, pipes, request, self.kernel_release.clone(), &self.filters);
        if let Some(link) = link {
            create_veth(&host_end, &Interface::ETH0, &link, Netns::Pid(pid))
                .to(|| format!("connect {}", request.name))?;
            container.linked(host_end, link.peer_ip);
        }
        timeline.reach(Phase::Created);
        release(&prepared.ends.release).to(|| "release the container".to_owned())?;
        Ok(container)
    }
}

impl Backend for ContainerBackend {
    fn name(&self) -> &str {
        "container"
    }

    fn start(
        &mut self,
        request: &StartRequest<'_>,
        mut timeline: Timeline,
    ) -> Result<Box<dyn Instance>, StartError> {
        match self.launch(request, &mut timeline) {
            Ok(container) => Ok(Box::new(container.with(timeline))),
            Err((attempt, source)) => Err(StartError {
                attempt: format!("cannot {attempt}"),
                source: Some(source),
                timeline,
            }),
        }
    }
}

/// Both ends of what this program and the child share. Only our own ends do not block: the child
/// and its workload are held back while nobody reads.
fn channels() -> io::Result<(Pipes, Ends)> {
    let (frames_in, frames) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let (output_in, output) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&output_in, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let release = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?.into();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (listener_in, listener) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
    let pipes = Pipes { frames: frames_in, output: output_in, listener: listener_in };
    Ok((pipes, Ends { frames, output, release, listener }))
}

fn release(eventfd: &OwnedFd) -> io::Result<()> {
    nix::unistd::write(eventfd, &1_u64.to_ne_bytes())?;
    Ok(())
}
