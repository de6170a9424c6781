//! The system calls a workload may make: those Docker's default profile allows with the default
//! capabilities (moby, `profiles/seccomp/default.json`; docs.docker.com, "Seccomp security profiles
//! for Docker"), and no more. Three kinds of refusal:
//!
//! - EPERM, told to this program by name: calls the kernel has and a workload has no business with;
//! - ENOSYS: what is not listed here at all, so that programs fall back as on an older kernel, and
//!   `clone3`, whose flags lie in memory where no filter can look;
//! - death: a call of another architecture.

use std::os::fd::OwnedFd;

use compare_confine::{
    Error,
    seccomp::{Action, Call, Filter, Policy, int, long},
};
use compare_spec::FilterSize;
use nix::errno::Errno;

/// Allowed, whatever the arguments.
#[rustfmt::skip] // a list, not a column
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read, libc::SYS_write, libc::SYS_open, libc::SYS_close, libc::SYS_stat,
    libc::SYS_fstat, libc::SYS_lstat, libc::SYS_poll, libc::SYS_lseek, libc::SYS_mmap,
    libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_brk, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_ioctl, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_readv, libc::SYS_writev, libc::SYS_access, libc::SYS_pipe,
    libc::SYS_select, libc::SYS_sched_yield, libc::SYS_mremap, libc::SYS_msync, libc::SYS_mincore,
    libc::SYS_madvise, libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_dup,
    libc::SYS_dup2, libc::SYS_pause, libc::SYS_nanosleep, libc::SYS_getitimer, libc::SYS_alarm,
    libc::SYS_setitimer, libc::SYS_getpid, libc::SYS_sendfile, libc::SYS_connect, libc::SYS_accept,
    libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_shutdown,
    libc::SYS_bind, libc::SYS_listen, libc::SYS_getsockname, libc::SYS_getpeername,
    libc::SYS_socketpair, libc::SYS_setsockopt, libc::SYS_getsockopt, libc::SYS_fork,
    libc::SYS_vfork, libc::SYS_execve, libc::SYS_exit, libc::SYS_wait4, libc::SYS_kill,
    libc::SYS_uname, libc::SYS_semget, libc::SYS_semop, libc::SYS_semctl, libc::SYS_shmdt,
    libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv, libc::SYS_msgctl, libc::SYS_fcntl,
    libc::SYS_flock, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_truncate, libc::SYS_ftruncate,
    libc::SYS_getdents, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_rename,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_creat, libc::SYS_link, libc::SYS_unlink,
    libc::SYS_symlink, libc::SYS_readlink, libc::SYS_chmod, libc::SYS_fchmod, libc::SYS_chown,
    libc::SYS_fchown, libc::SYS_lchown, libc::SYS_umask, libc::SYS_gettimeofday,
    libc::SYS_getrlimit, libc::SYS_getrusage, libc::SYS_sysinfo, libc::SYS_times, libc::SYS_ptrace,
    libc::SYS_getuid, libc::SYS_getgid, libc::SYS_setuid, libc::SYS_setgid, libc::SYS_geteuid,
    libc::SYS_getegid, libc::SYS_setpgid, libc::SYS_getppid, libc::SYS_getpgrp, libc::SYS_setsid,
    libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_getgroups, libc::SYS_setgroups,
    libc::SYS_setresuid, libc::SYS_getresuid, libc::SYS_setresgid, libc::SYS_getresgid,
    libc::SYS_getpgid, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_getsid, libc::SYS_capget,
    libc::SYS_capset, libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_utime, libc::SYS_mknod,
    libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_getpriority, libc::SYS_setpriority,
    libc::SYS_sched_setparam, libc::SYS_sched_getparam, libc::SYS_sched_setscheduler,
    libc::SYS_sched_getscheduler, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_sched_rr_get_interval, libc::SYS_mlock,
    libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall, libc::SYS_modify_ldt,
    libc::SYS_prctl, libc::SYS_arch_prctl, libc::SYS_adjtimex, libc::SYS_setrlimit,
    libc::SYS_chroot, libc::SYS_sync, libc::SYS_gettid, libc::SYS_readahead, libc::SYS_setxattr,
    libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_getxattr, libc::SYS_lgetxattr,
    libc::SYS_fgetxattr, libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr, libc::SYS_tkill,
    libc::SYS_time, libc::SYS_futex, libc::SYS_sched_setaffinity, libc::SYS_sched_getaffinity,
    libc::SYS_set_thread_area, libc::SYS_io_setup, libc::SYS_io_destroy, libc::SYS_io_getevents,
    libc::SYS_io_submit, libc::SYS_io_cancel, libc::SYS_get_thread_area, libc::SYS_epoll_create,
    libc::SYS_epoll_ctl_old, libc::SYS_epoll_wait_old, libc::SYS_remap_file_pages,
    libc::SYS_getdents64, libc::SYS_set_tid_address, libc::SYS_restart_syscall,
    libc::SYS_semtimedop, libc::SYS_fadvise64, libc::SYS_timer_create, libc::SYS_timer_settime,
    libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep,
    libc::SYS_exit_group, libc::SYS_epoll_wait, libc::SYS_epoll_ctl, libc::SYS_tgkill,
    libc::SYS_utimes, libc::SYS_mq_open, libc::SYS_mq_unlink, libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive, libc::SYS_mq_notify, libc::SYS_mq_getsetattr, libc::SYS_waitid,
    libc::SYS_ioprio_set, libc::SYS_ioprio_get, libc::SYS_inotify_init,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_openat, libc::SYS_mkdirat,
    libc::SYS_mknodat, libc::SYS_fchownat, libc::SYS_futimesat, libc::SYS_newfstatat,
    libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_linkat, libc::SYS_symlinkat,
    libc::SYS_readlinkat, libc::SYS_fchmodat, libc::SYS_faccessat, libc::SYS_pselect6,
    libc::SYS_ppoll, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_splice,
    libc::SYS_tee, libc::SYS_sync_file_range, libc::SYS_vmsplice, libc::SYS_utimensat,
    libc::SYS_epoll_pwait, libc::SYS_signalfd, libc::SYS_timerfd_create, libc::SYS_eventfd,
    libc::SYS_fallocate, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime, libc::SYS_accept4,
    libc::SYS_signalfd4, libc::SYS_eventfd2, libc::SYS_epoll_create1, libc::SYS_dup3,
    libc::SYS_pipe2, libc::SYS_inotify_init1, libc::SYS_preadv, libc::SYS_pwritev,
    libc::SYS_rt_tgsigqueueinfo, libc::SYS_recvmmsg, libc::SYS_fanotify_mark, libc::SYS_prlimit64,
    libc::SYS_name_to_handle_at, libc::SYS_clock_adjtime, libc::SYS_syncfs, libc::SYS_sendmmsg,
    libc::SYS_getcpu, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_sched_setattr, libc::SYS_sched_getattr, libc::SYS_renameat2, libc::SYS_seccomp,
    libc::SYS_getrandom, libc::SYS_memfd_create, libc::SYS_execveat, libc::SYS_membarrier,
    libc::SYS_mlock2, libc::SYS_copy_file_range, libc::SYS_preadv2, libc::SYS_pwritev2,
    libc::SYS_pkey_mprotect, libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_statx,
    io_pgetevents::SYS, libc::SYS_rseq, libc::SYS_pidfd_send_signal, libc::SYS_pidfd_open,
    libc::SYS_close_range, libc::SYS_openat2, libc::SYS_faccessat2, libc::SYS_epoll_pwait2,
    libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self, libc::SYS_memfd_secret, libc::SYS_process_mrelease,
    libc::SYS_futex_waitv, libc::SYS_fchmodat2,
];

/// The C library's headers lack it here.
mod io_pgetevents {
    /// asm/unistd_64.h.
    pub(super) const SYS: libc::c_long = 333;
}

/// Refused with EPERM, and told by name.
#[rustfmt::skip] // a list, not a column
const REFUSED: &[libc::c_long] = &[
    libc::SYS_syslog, libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs, libc::SYS_vhangup,
    libc::SYS_pivot_root, libc::SYS__sysctl, libc::SYS_acct, libc::SYS_settimeofday,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_init_module, libc::SYS_delete_module, libc::SYS_quotactl, libc::SYS_lookup_dcookie,
    libc::SYS_clock_settime, libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_get_mempolicy,
    libc::SYS_kexec_load, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
    libc::SYS_migrate_pages, libc::SYS_unshare, libc::SYS_move_pages, libc::SYS_perf_event_open,
    libc::SYS_fanotify_init, libc::SYS_open_by_handle_at, libc::SYS_setns, libc::SYS_kcmp,
    libc::SYS_finit_module, libc::SYS_kexec_file_load, libc::SYS_bpf, libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig,
    libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_pidfd_getfd, libc::SYS_process_madvise,
    libc::SYS_mount_setattr, libc::SYS_quotactl_fd, libc::SYS_set_mempolicy_home_node,
    obsolete::CREATE_MODULE, obsolete::GET_KERNEL_SYMS, obsolete::QUERY_MODULE,
    libc::SYS_nfsservctl, libc::SYS_getpmsg, libc::SYS_putpmsg, libc::SYS_afs_syscall,
    libc::SYS_tuxcall, libc::SYS_security, libc::SYS_vserver,
];

/// Numbers that no kernel since 2.6 has calls for (asm/unistd_64.h); with them, refused ones lie in
/// fewer ranges.
mod obsolete {
    pub(super) const CREATE_MODULE: libc::c_long = 174;
    pub(super) const GET_KERNEL_SYMS: libc::c_long = 177;
    pub(super) const QUERY_MODULE: libc::c_long = 178;
}

/// CLONE_NEW* of linux/sched.h, but for CLONE_NEWTIME, which clone(2) cannot ask for: no new
/// namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains of personality(2): Linux, 32 bits of uname(2) (UNAME26, PER_LINUX32), and the
/// question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Sockets to the hypervisor of a machine this one may itself be a guest of (linux/socket.h).
const AF_VSOCK: u64 = 40;

/// The list. `refusal` happens to what is refused.
fn policy(refusal: Action) -> Policy {
    let mut policy = Policy::new(Action::Errno(libc::ENOSYS as u16)).allow(ALLOWED);
    for &number in REFUSED {
        policy = policy.call(Call::new(number).with(refusal));
    }
    let clone =
        Call::new(libc::SYS_clone).when([long(0).masked(NEW_NAMESPACES, 0)]).otherwise(refusal);
    let personality = Call::new(libc::SYS_personality)
        .when([int(0).one_of(PERSONALITIES.to_vec())])
        .otherwise(refusal);
    // A list of what is allowed cannot say "but": the other way round.
    let socket = Call::new(libc::SYS_socket)
        .with(refusal)
        .when([int(0).is(AF_VSOCK)])
        .otherwise(Action::Allow);
    policy.call(clone).call(personality).call(socket)
}

/// The filter in two forms, made once.
#[derive(Debug)]
pub(crate) struct Filters {
    telling: Filter,
    silent: Filter,
}

impl Filters {
    pub(crate) fn new() -> Self {
        let compile = |refusal| policy(refusal).compile().expect("a constant, and tested");
        Self {
            telling: compile(Action::Notify),
            silent: compile(Action::Errno(libc::EPERM as u16)),
        }
    }

    /// Subjects this process for good; the descriptor for its listener. None where whoever runs this
    /// program listens already, of whom there can be one only (seccomp(2), EBUSY). Allocates nothing.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, Errno> {
        let errno = |error: Error| Errno::from_raw(error.errno().unwrap_or(0));
        match self.telling.install_with_listener() {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.errno() == Some(libc::EBUSY) => {
                self.silent.install().map(|()| None).map_err(errno)
            }
            Err(error) => Err(errno(error)),
        }
    }

    /// As the record has it.
    pub(crate) fn size(&self) -> FilterSize {
        FilterSize {
            thread: "every".to_owned(),
            // `socket` is let through by exception.
            system_calls: self.telling.system_calls().len() as u32 + 1,
            instructions: self.telling.instructions().len() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use compare_confine::seccomp::name;

    use super::*;

    /// docs.docker.com, "Significant syscalls blocked by the default profile", those of x86-64 that
    /// kernels since 4.8 still refuse.
    const DOCKER_BLOCKS: &[&str] = &[
        "acct",
        "add_key",
        "bpf",
        "clock_settime",
        "delete_module",
        "finit_module",
        "get_mempolicy",
        "init_module",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mbind",
        "mount",
        "move_pages",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "quotactl",
        "reboot",
        "request_key",
        "set_mempolicy",
        "setns",
        "settimeofday",
        "swapon",
        "swapoff",
        "sysfs",
        "_sysctl",
        "umount2",
        "unshare",
        "uselib",
        "userfaultfd",
        "ustat",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
    ];

    #[test]
    fn no_laxer_than_dockers() {
        let policy = policy(Action::Notify);
        for blocked in DOCKER_BLOCKS {
            let number = compare_confine::seccomp::number(blocked).unwrap();
            assert_eq!(policy.decide(number, &[0; 6]), Action::Notify, "{blocked}");
        }
        let decide =
            |call: libc::c_long, first: u64| policy.decide(call as u32, &[first, 0, 0, 0, 0, 0]);
        assert_eq!(decide(libc::SYS_clone, 0x0120_0011), Action::Allow, "fork");
        for flag in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000] {
            assert_eq!(decide(libc::SYS_clone, flag | 17), Action::Notify, "{flag:x}");
        }
        assert_eq!(decide(libc::SYS_socket, 2), Action::Allow);
        assert_eq!(decide(libc::SYS_socket, 40), Action::Notify);
        assert_eq!(decide(libc::SYS_personality, 0x004_0000), Action::Notify, "no ASLR");
        assert_eq!(decide(libc::SYS_personality, 0xffff_ffff), Action::Allow);
        assert_eq!(decide(libc::SYS_clone3, 0), Action::Errno(libc::ENOSYS as u16));
        assert_eq!(decide(1000, 0), Action::Errno(libc::ENOSYS as u16));
    }

    #[test]
    fn every_call_known_by_name_is_decided_on_purpose() {
        let policy = policy(Action::Notify);
        let silent: Vec<_> = (0..500)
            .filter(|&number| {
                policy.decide(number, &[u64::MAX; 6]) == Action::Errno(libc::ENOSYS as u16)
            })
            .filter_map(name)
            .collect();
        assert_eq!(silent, ["clone3", "mseal"]);
    }

    #[test]
    fn the_filter_is_small() {
        let size = Filters::new().size();
        assert!(size.instructions < 200, "{size:?}");
        assert!((290..320).contains(&size.system_calls), "{size:?}");
    }
}
