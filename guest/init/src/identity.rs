//! Being saved, and becoming somebody else. PID 1 itself tells the monitor when to save, so that in
//! every machine restored from it these very lines run first: on one CPU nothing else does before
//! the random numbers, the clock, the name and the address are this machine's own.
//!
//! ```text
//!  Save frame ─┬─► (the machine that is saved ends here)
//!              └─► restored: identity ─► random ─► clock ─► name ─► network ─► Init frame
//! ```

use alloc::borrow::ToOwned;

use compare_wire::{GuestNet, Kind};

use crate::{
    failure::{Failure, step},
    monitor::Monitor,
    network,
    sys::{self, Errno},
};

/// Has the machine saved, and takes on the identity of the one that was restored. `net` is the
/// network as it is set up.
///
/// # Errors
/// The monitor gives no identity, or a step of taking it on failed.
pub fn renew(monitor: &Monitor, net: &mut Option<GuestNet>) -> Result<(), Failure> {
    monitor.send(Kind::Save, 0, &[]);
    let identity = monitor.identity().ok_or_else(|| Failure {
        step: "take on an identity after being restored".to_owned(),
        errno: Errno(libc::EINVAL),
    })?;
    step("seed the random number generator", sys::seed_random(&identity.seed))?;
    step("set the clock", sys::set_clock(identity.realtime_ns))?;
    step("set the host name", sys::set_host_name(identity.hostname.as_bytes()))?;
    if identity.net != *net {
        if let Some(new) = &identity.net {
            network::configure(new, Some(identity.mac))?;
        }
        *net = identity.net;
    }
    monitor.send(Kind::Init, 0, &[]);
    Ok(())
}
