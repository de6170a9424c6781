//! What each thread of the microVM's monitor may still ask of the kernel once its guest runs.
//!
//! The lists hold what the monitor's code does and what the C library and the standard library do on
//! its behalf, and every call seen in a record of the monitor's own tests (`examples/record.rs`) is
//! on them. Nothing on them opens, connects, starts a thread or a program, maps anything executable
//! or signals another process.

mod kvm;

use libc::c_long;

use crate::seccomp::{Action, Call, Policy, int, long};

/// What differs from one monitor to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Monitor {
    /// Its process id: the only process its threads may signal.
    pub process: u32,
    /// Whether its machine may be saved while it runs, into files that are open already.
    pub saves: bool,
    /// Whether it takes connections on a socket that listens already.
    pub listens: bool,
}

/// What every Rust thread may come to do: locks, memory, signals, randomness, the time where the
/// vDSO has none, dropping what it owns, a panic's message and abort(3).
const EVERY_THREAD: &[c_long] = &[
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_mremap,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_sigaltstack,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
];

/// Moving data between guest memory and what is open: the virtual CPU's thread too serves a queue,
/// where its guest notifies one in a way that rings no doorbell.
const SERVE_QUEUES: &[c_long] = &[
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_fdatasync,
    libc::SYS_preadv,
    libc::SYS_pwritev,
];

/// Waiting for doorbells, packets and control bytes.
const WAIT_FOR_EVENTS: &[c_long] =
    &[libc::SYS_read, libc::SYS_epoll_wait, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait];

/// Saving: what it takes besides [`SERVE_QUEUES`] to write a file, sparse where memory is, and to
/// share what another file holds already.
const SAVE: &[c_long] = &[
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_msync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_copy_file_range,
];

/// Connections of a listening socket.
const LISTEN: &[c_long] = &[
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_accept4,
];

/// `FUTEX_WAIT`, `FUTEX_WAKE` and their `_BITSET` forms (linux/futex.h), private to the process.
const FUTEX_PRIVATE: [u64; 4] = [0x80, 0x81, 0x89, 0x8a];
/// What may be advised of memory: that it is given back.
const ADVICE: [u64; 3] =
    [libc::MADV_DONTNEED as u64, libc::MADV_FREE as u64, libc::MADV_REMOVE as u64];
/// `TUNSETOFFLOAD` (linux/if_tun.h): the guest's driver chooses when it activates its network card.
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
/// asm-generic/ioctls.h.
const FIONBIO: u64 = 0x5421;

impl Monitor {
    /// Threads that run a virtual CPU.
    pub fn vcpu(&self) -> Policy {
        let mut requests = kvm::RUN.to_vec();
        requests.push(TUNSETOFFLOAD);
        if self.saves {
            requests.extend(kvm::SAVE_VCPU.iter().chain(kvm::SAVE_VM));
        }
        let list = self.every_thread().allow(SERVE_QUEUES);
        self.saving(list).call(ioctl(requests))
    }

    /// The thread that serves the devices.
    pub fn devices(&self) -> Policy {
        let mut requests = Vec::new();
        if self.saves {
            requests.extend(kvm::SAVE_VM);
        }
        let mut list = self.every_thread().allow(SERVE_QUEUES).allow(WAIT_FOR_EVENTS);
        if self.listens {
            // A guest that wants to connect out is refused, not killed: there is nowhere to.
            let socket = Call::new(libc::SYS_socket).with(Action::Errno(libc::EACCES as u16));
            list = list.allow(LISTEN).call(socket);
            requests.push(FIONBIO);
        }
        list = self.saving(list);
        if requests.is_empty() { list } else { list.call(ioctl(requests)) }
    }

    fn every_thread(&self) -> Policy {
        let not_executable = long(2).masked(libc::PROT_EXEC as u64, 0);
        let anonymous = long(3).masked(libc::MAP_ANONYMOUS as u64, libc::MAP_ANONYMOUS as u64);
        let mmap = Call::new(libc::SYS_mmap);
        Policy::new(Action::KillProcess)
            .allow(EVERY_THREAD)
            .call(match self.saves {
                // The files memory is saved in may be mapped.
                true => mmap.when([not_executable.clone()]),
                false => mmap.when([not_executable.clone(), anonymous]),
            })
            .call(Call::new(libc::SYS_mprotect).when([not_executable]))
            .call(Call::new(libc::SYS_madvise).when([int(2).one_of(&ADVICE[..])]))
            .call(Call::new(libc::SYS_futex).when([int(1).one_of(&FUTEX_PRIVATE[..])]))
            .call(Call::new(libc::SYS_tgkill).when([int(0).is(self.process.into())]))
    }

    fn saving(&self, list: Policy) -> Policy {
        if self.saves { list.allow(SAVE) } else { list }
    }
}

fn ioctl(requests: Vec<u64>) -> Call {
    // The kernel takes the request as an unsigned int, whatever the C library makes of it.
    Call::new(libc::SYS_ioctl).when([int(1).one_of(requests)])
}

#[cfg(test)]
mod tests;
