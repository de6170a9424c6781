//! The network between this program and its instances: one point-to-point link each, with fixed
//! addresses and static neighbours so that nobody waits for ARP. The host's ends live in a private
//! network namespace ([`enter_private_netns`]), so the host's own network is never touched and
//! nothing outlives the tool. Used by the container and the microVM. How an interface is set up is
//! `compare-syscall`'s, since the guest's PID 1 does it too.

mod address;
mod netlink;
mod netns;
mod tap;
mod veth;
mod watch;

pub use address::Addressing;
pub use compare_syscall::{
    Control, Interface, NameError, Neighbour, Settings, Step, StepError, configure,
};
pub use netns::{enter_private_netns, links};
pub use tap::Tap;
pub use veth::{Netns, create_veth, delete_link};
pub use watch::until_gone;

use std::io;

/// A network operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Not a name for an interface.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An interface could not be configured.
    #[error("interface {interface}: cannot {step}")]
    Configure {
        /// Which one.
        interface: String,
        /// What was attempted.
        step: Step,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a change of links.
    #[error("cannot {attempt}{}", remedy(source))]
    Link {
        /// What was attempted, on which link.
        attempt: String,
        /// Why.
        source: io::Error,
    },
    /// A tap device could not be made.
    #[error("tap {name}: cannot {step}{}", remedy(source))]
    Tap {
        /// Its name.
        name: String,
        /// What was attempted.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No network namespace of our own.
    #[error("cannot make a private network namespace{}", remedy(source))]
    Namespace {
        /// Why.
        source: io::Error,
    },
}

impl NetError {
    pub(crate) fn configure(interface: &Interface, error: StepError) -> Self {
        Self::Configure {
            interface: interface.to_string(),
            step: error.step,
            source: io::Error::from_raw_os_error(error.errno),
        }
    }
}

/// What helps against an error that is the host's, not ours.
fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => ": run as root, or grant CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Some(libc::EOPNOTSUPP) => ": load the kernel module, such as `modprobe veth`",
        Some(libc::ENOENT | libc::ENODEV) => ": load the kernel module, such as `modprobe tun`",
        _ => "",
    }
}
