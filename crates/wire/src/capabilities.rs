//! What root may do, on either side: a program must find neither more permissive than the other.

/// The capabilities a workload running as root keeps, one bit each: CHOWN, DAC_OVERRIDE, FOWNER,
/// FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE
/// and SETFCAP: the set Docker grants, and podman and containerd with small differences (moby
/// `oci/caps/defaults.go`; capabilities(7), linux/capability.h for the numbers).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_dockers() {
        // What `grep CapEff /proc/self/status` shows in a default Docker container.
        assert_eq!(DEFAULT_CAPABILITIES, 0xa804_25fb);
    }
}
