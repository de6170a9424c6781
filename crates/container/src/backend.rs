//! This program's side of a start: one linear recipe. Whatever fails, what was made before is
//! undone by the values that own it.
#![allow(unsafe_code)] // clone_into: the child keeps to its contract, see `child`.

use std::{error::Error, fs, io, os::fd::OwnedFd, sync::Arc};

use compare_backend::{Backend, Instance, StartError, StartRequest, Timeline};
use compare_cgroup::{Finding, Limits, spawn::clone_into};
use compare_net::{Addressing, Interface, Netns, create_veth};
use compare_spec::{Confinement, ContainerVariant, Phase, Workload};
use compare_wire::DEFAULT_CAPABILITIES;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        eventfd::{EfdFlags, EventFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
    unistd::{fchown, pipe2},
};

use crate::{
    check, child,
    instance::{Container, Pipes},
    pool,
    prepared::{Ends, Host, Network, Prepared},
    userns,
};

/// The namespaces a container gets at its birth (namespaces(7)). Its cgroup namespace it makes
/// itself, once it is in its cgroup.
const NAMESPACES: u64 = (libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWTIME) as u64;

/// [`NAMESPACES`] and the cgroup namespace, as records name them.
const RECORDED_NAMESPACES: [&str; 7] = ["pid", "net", "mount", "uts", "ipc", "cgroup", "time"];

/// Starts containers. What is the same for all of them is found out once.
#[derive(Debug)]
pub struct ContainerBackend {
    host: Arc<Host>,
    kernel_release: Option<String>,
    variant: ContainerVariant,
    /// Made before the clock started, for the next start.
    pooled: Option<Result<pool::Network, pool::Error>>,
    /// Networks made for the pool so far.
    networks: u32,
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
        Self::of(ContainerVariant::Plain)
    }

    /// The same, for containers of another kind.
    pub fn of(variant: ContainerVariant) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            host: Arc::new(Host::look()),
            kernel_release: release.map(|release| release.trim().to_owned()),
            variant,
            pooled: None,
            networks: 0,
        }
    }

    /// What containers need of this host and whether it is there, for `doctor`. Tries each thing in
    /// a thread with namespaces of its own; leaves nothing behind.
    pub fn check() -> Vec<Finding> {
        check::check()
    }

    fn launch(
        &mut self,
        request: &StartRequest<'_>,
        timeline: &mut Timeline,
    ) -> Result<Container, Refusal> {
        let workload = request.workload;
        let userns = self.variant == ContainerVariant::Userns;
        if userns && self.host.surroundings.is_nested() {
            let why = "only root can: an ordinary user's containers are in a user namespace anyway, \
                       use --backend container";
            return Err(("give out ids".to_owned(), why.into()));
        }
        if let Some(why) = self.host.surroundings.lacks(request.image, self.variant) {
            return Err((format!("be the user {} in it", request.image.uid), why.into()));
        }
        // Made now, within the time, if nobody had it made before.
        let pooled = match (self.variant, self.pooled.take()) {
            (ContainerVariant::Pooled, None) => Some(self.another_network(workload)),
            (ContainerVariant::Pooled, pooled) => pooled,
            _ => None,
        };
        let pooled =
            pooled.transpose().to(|| "make a network namespace for the pool".to_owned())?;
        // A workload that serves nothing has loopback alone, as with `docker run --network none`.
        let link = workload.port.map(|_| Addressing::of(request.slot));
        let host_end = Interface::new(&format!("c-{}", request.name))
            .to(|| format!("name the network interface of {}", request.name))?;
        let more = &workload.limits;
        let limits = Limits {
            memory: Some(workload.memory),
            memory_high: more.memory_high,
            swap: more.swap,
            cpus: workload.cpus,
            cpu_weight: more.cpu_weight,
            cpuset: more.cpuset.clone(),
            pids: Some(workload.pids),
            freezer: false,
        };
        let leaf = request
            .parent
            .create_leaf(request.name, &limits)
            .to(|| format!("create the cgroup of {}", request.name))?;
        let (pipes, ends) = channels().to(|| "create the pipes to the container".to_owned())?;
        let ids = if userns { userns::first_id(request.slot) } else { 0 };
        let (uid, gid) = (ids + request.image.uid, ids + request.image.gid);
        if (uid, gid) != (0, 0) {
            fchown(&ends.output, Some(uid.into()), Some(gid.into()))
                .to(|| "give the output pipe to the workload's user".to_owned())?;
        }
        let mut flags = NAMESPACES;
        let network = match &pooled {
            Some(pooled) => {
                flags &= !(libc::CLONE_NEWNET as u64);
                pooled.namespace.try_clone().map(Network::Pooled)
            }
            None => Ok(Network::Own(link.as_ref().map(Addressing::peer_settings))),
        }
        .to(|| "keep the network namespace".to_owned())?;
        if userns {
            flags |= libc::CLONE_NEWUSER as u64;
        }
        let host = Arc::clone(&self.host);
        let prepared = Prepared::new(request, &leaf, network, userns, host, ends)
            .to(|| format!("prepare the start of {}", request.name))?;

        // SAFETY: `child::run` and all it calls neither allocate nor lock, and use only what
        // `Prepared` holds; its module says how.
        let child = unsafe { clone_into(&leaf, flags, || child::run(&prepared)) }
            .to(|| "clone into new namespaces (needs root, or CAP_SYS_ADMIN)".to_owned())?;
        let pid = child.pid;
        // From here on dropping the container undoes everything.
        let mut container =
            Container::new(child, leaf, pipes, workload, self.kernel_release.clone());
        if userns {
            let attempt = || "map the ids of the user namespace".to_owned();
            userns::map(pid, ids).to(attempt)?;
            let tree = userns::mapped(&prepared.tree, pid).to(|| {
                let tree = request.image.tree.display();
                format!("show {tree} under the ids of inside (its file system must know idmapped mounts)")
            })?;
            container.hand_over(&tree).to(|| "hand over the image's tree".to_owned())?;
        }
        if let Some(network) = pooled {
            if let Some((host_end, link)) = network.link {
                container.linked(host_end, link.peer_ip);
            }
            container.keep(network.namespace);
        } else if let Some(link) = link {
            create_veth(&host_end, &Interface::ETH0, &link, Netns::Pid(pid))
                .to(|| format!("connect {}", request.name))?;
            container.linked(host_end, link.peer_ip);
        }
        if let Some(score) = workload.oom_score_adj {
            // From inside a user namespace the file is nobody's.
            let path = format!("/proc/{pid}/oom_score_adj");
            fs::write(&path, score.to_string()).to(|| format!("write {score} to {path}"))?;
        }
        timeline.reach(Phase::Created);
        release(&prepared.ends.release).to(|| "release the container".to_owned())?;
        // Only told about: what it takes is not the start's.
        container.confined(self.confinement(request, ids));
        Ok(container)
    }

    fn another_network(&mut self, workload: &Workload) -> Result<pool::Network, pool::Error> {
        self.networks += 1;
        pool::Network::make(self.networks, workload.port.is_some())
    }

    /// What the workload will run without, for the record.
    fn confinement(&self, request: &StartRequest<'_>, ids: u32) -> Confinement {
        let mut namespaces = RECORDED_NAMESPACES.map(str::to_owned).to_vec();
        let nested = self.host.surroundings.is_nested();
        if nested || self.variant == ContainerVariant::Userns {
            namespaces.push("user".to_owned());
        }
        let image = request.image;
        let (uid, gid) = self.host.surroundings.outside(ids + image.uid, ids + image.gid);
        Confinement {
            namespaces,
            empty_root: false,
            uid,
            gid,
            capabilities: if image.uid == 0 { DEFAULT_CAPABILITIES } else { 0 },
            no_new_privileges: true,
            filters: vec![self.host.filters.size()],
            lacks: Vec::new(),
        }
    }
}

impl Backend for ContainerBackend {
    fn name(&self) -> &str {
        self.variant.name()
    }

    fn prepare(&mut self, workload: &Workload) {
        if self.variant == ContainerVariant::Pooled && self.pooled.is_none() {
            self.pooled = Some(self.another_network(workload));
        }
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
