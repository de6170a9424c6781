//! A network namespace made beforehand, with its link: what a container of the pooled kind goes into.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
};

use compare_net::{Addressing, Control, Interface, Netns, configure, create_veth};
use nix::sched::{CloneFlags, setns, unshare};

/// The first slot whose addresses are the pool's: those below are the runner's to give.
const FIRST_SLOT: u32 = 1 << 21;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// One namespace, ready. The kernel takes it down when this is dropped and nobody is in it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) namespace: OwnedFd,
    /// The host's end and the addresses of its link, if it has one.
    pub(crate) link: Option<(Interface, Addressing)>,
}

impl Network {
    /// Makes the one of this number.
    pub(crate) fn make(number: u32, linked: bool) -> Result<Self, Error> {
        let namespace = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Control::open()
                .and_then(|control| control.bring_up(&Interface::LOOPBACK))
                .map_err(|error| io::Error::from_raw_os_error(error.errno))?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        })?;
        if !linked {
            return Ok(Self { namespace, link: None });
        }
        let link = Addressing::of(FIRST_SLOT + number);
        let host_end = Interface::new(&format!("c-pool{number}"))?;
        let network = Self { namespace, link: Some((host_end, link)) };
        create_veth(&host_end, &Interface::ETH0, &link, Netns::Fd(network.namespace.as_fd()))?;
        in_thread(|| {
            setns(&network.namespace, CloneFlags::CLONE_NEWNET)?;
            configure(&Interface::ETH0, &link.peer_settings())
                .map_err(|error| io::Error::from_raw_os_error(error.errno))
        })?;
        Ok(network)
    }
}

/// A namespace can be entered by a thread for good only.
fn in_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope.spawn(act).join().unwrap_or_else(|_| Err(io::Error::other("panicked")))
    })
}
