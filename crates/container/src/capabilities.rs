//! Takes from root what it must not have inside (capabilities(7)). Of what is left, MKNOD makes
//! nodes nobody can open: every mount a workload can write to is `nodev`.

use compare_wire::DEFAULT_CAPABILITIES;
use nix::errno::Errno;

use crate::sys;

/// Takes all others out of the bounding set, for good. Needs CAP_SETPCAP still.
pub(crate) fn drop_bounding() -> Result<(), Errno> {
    for capability in 0..64 {
        if DEFAULT_CAPABILITIES & 1 << capability != 0 {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // Beyond the last one this kernel knows.
            Err(Errno::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
