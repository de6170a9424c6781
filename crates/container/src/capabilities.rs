//! What root may do inside: the set Docker grants, and podman and containerd with small
//! differences (moby `oci/caps/defaults.go`; capabilities(7)).

use nix::errno::Errno;

use crate::sys;

/// The capabilities a workload running as root keeps, one bit each: CHOWN, DAC_OVERRIDE, FOWNER,
/// FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE
/// and SETFCAP. MKNOD makes nodes nobody can open: every mount a workload can write to is `nodev`.
pub const DEFAULT_CAPABILITIES: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << 27
    | 1 << 29
    | 1 << 31;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_dockers() {
        // What `grep CapEff /proc/self/status` shows in a default Docker container.
        assert_eq!(DEFAULT_CAPABILITIES, 0xa804_25fb);
    }
}
