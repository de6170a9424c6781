use super::*;
use crate::seccomp::name;

const PLAIN: Monitor = Monitor { process: 4242, saves: false, listens: false };
const ALL: Monitor = Monitor { saves: true, listens: true, ..PLAIN };

fn allows(policy: &Policy, call: c_long, arguments: [u64; 6]) -> bool {
    policy.decide(call as u32, &arguments) == Action::Allow
}

#[test]
fn every_list_compiles_and_says_what_it_holds() {
    for monitor in [PLAIN, ALL] {
        for (kind, policy) in [("vcpu", monitor.vcpu()), ("devices", monitor.devices())] {
            let filter = policy.compile().unwrap();
            let names: Vec<&str> =
                filter.system_calls().iter().map(|&call| name(call).unwrap()).collect();
            println!(
                "{kind}: {} instructions, {} calls: {names:?}",
                filter.instructions().len(),
                names.len()
            );
            assert!(filter.instructions().len() < 160);
            for never in [
                "socket",
                "connect",
                "open",
                "openat",
                "openat2",
                "execve",
                "execveat",
                "clone",
                "clone3",
                "fork",
                "ptrace",
                "process_vm_writev",
                "kill",
                "mount",
                "setns",
                "unshare",
                "prctl",
                "seccomp",
                "memfd_create",
                "dup",
                "io_uring_setup",
                "bpf",
                "userfaultfd",
                "shmget",
                "keyctl",
                "rt_sigaction",
                "setrlimit",
                "prlimit64",
                "pidfd_open",
            ] {
                assert!(!names.contains(&never), "{kind} may {never}");
            }
        }
    }
}

/// What the monitor's own tests were seen to call from the first entry into the guest on, every kind
/// of end of a guest among them (`examples/record.rs`).
#[test]
fn what_was_seen_is_allowed() {
    let seen_of_all: &[(c_long, u64)] = &[
        (libc::SYS_clock_gettime, 0),
        (libc::SYS_close, 0),
        (libc::SYS_exit_group, 0),
        (libc::SYS_futex, 0x81),
        (libc::SYS_futex, 0x89),
        (libc::SYS_munmap, 0),
        (libc::SYS_rt_sigreturn, 0),
        (libc::SYS_write, 0),
    ];
    let seen_of_vcpus: &[(c_long, u64)] = &[
        (libc::SYS_ioctl, 0xae80),
        (libc::SYS_ioctl, 0x8004_ae98),
        (libc::SYS_ioctl, 0x8090_ae81),
        (libc::SYS_ioctl, 0x4004_54d0),
    ];
    let seen_of_devices: &[(c_long, u64)] = &[
        (libc::SYS_epoll_ctl, 0),
        (libc::SYS_epoll_wait, 0),
        (libc::SYS_getpid, 0),
        (libc::SYS_preadv, 0),
        (libc::SYS_read, 0),
        (libc::SYS_readv, 0),
        (libc::SYS_writev, 0),
    ];
    for monitor in [PLAIN, ALL] {
        for (policy, seen) in
            [(monitor.vcpu(), seen_of_vcpus), (monitor.devices(), seen_of_devices)]
        {
            for &(call, argument) in seen_of_all.iter().chain(seen) {
                assert!(allows(&policy, call, [0, argument, 0, 0, 0, 0]), "{call} {argument:#x}");
            }
        }
    }
}

#[test]
fn arguments_count() {
    let (vcpu, devices) = (PLAIN.vcpu(), PLAIN.devices());
    let ioctl = |request| [3, request, 0, 0, 0, 0];
    assert!(allows(&vcpu, libc::SYS_ioctl, ioctl(kvm::KVM_RUN)));
    assert!(allows(&vcpu, libc::SYS_ioctl, ioctl(TUNSETOFFLOAD)));
    assert!(!allows(&vcpu, libc::SYS_ioctl, ioctl(kvm::KVM_GET_LAPIC)));
    assert!(!allows(&vcpu, libc::SYS_ioctl, ioctl(0x5401)));
    assert!(!allows(&devices, libc::SYS_ioctl, ioctl(kvm::KVM_RUN)));
    assert!(allows(&ALL.vcpu(), libc::SYS_ioctl, ioctl(kvm::KVM_GET_LAPIC)));
    assert!(allows(&ALL.devices(), libc::SYS_ioctl, ioctl(kvm::KVM_GET_CLOCK)));
    assert!(!allows(&ALL.devices(), libc::SYS_ioctl, ioctl(kvm::KVM_RUN)));
    for policy in [&vcpu, &devices] {
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let mmap = |prot: i32, flags| [0, 4096, prot as u64, flags, u64::MAX, 0];
        let (rw, rx) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
        assert!(allows(policy, libc::SYS_mmap, mmap(rw, anonymous)));
        assert!(!allows(policy, libc::SYS_mmap, mmap(rx, anonymous)));
        assert!(!allows(policy, libc::SYS_mmap, mmap(rw, libc::MAP_SHARED as u64)));
        assert!(allows(policy, libc::SYS_mprotect, mmap(rw, 0)));
        assert!(!allows(policy, libc::SYS_mprotect, mmap(rx, 0)));
        assert!(allows(policy, libc::SYS_tgkill, [4242, 7, 34, 0, 0, 0]));
        assert!(!allows(policy, libc::SYS_tgkill, [1, 7, 34, 0, 0, 0]));
        assert!(allows(policy, libc::SYS_futex, [0, 0x80, 0, 0, 0, 0]));
        assert!(!allows(policy, libc::SYS_futex, [0, 0x84, 0, 0, 0, 0]), "requeue");
        assert!(!allows(policy, libc::SYS_madvise, [0, 4096, 100, 0, 0, 0]), "poison a page");
    }
    assert!(allows(&devices, libc::SYS_read, [0; 6]) && !allows(&vcpu, libc::SYS_read, [0; 6]));
    assert!(!allows(&devices, libc::SYS_accept4, [0; 6]));
    let refused = Action::Errno(libc::EACCES as u16);
    assert_eq!(ALL.devices().decide(libc::SYS_socket as u32, &[1, 1, 0, 0, 0, 0]), refused);
    assert_eq!(devices.decide(libc::SYS_socket as u32, &[1, 1, 0, 0, 0, 0]), Action::KillProcess);
    assert!(allows(&ALL.devices(), libc::SYS_accept4, [0; 6]));
}

#[test]
fn requests_are_as_long_as_what_they_pass() {
    use kvm_bindings::*;
    let bytes = |request: u64| (request >> 16 & 0x3fff) as usize;
    assert_eq!(kvm::KVM_RUN, 0xae80);
    assert_eq!(kvm::KVM_GET_REGS, 0x8090_ae81);
    for (request, size) in [
        (kvm::KVM_GET_DIRTY_LOG, size_of::<kvm_dirty_log>()),
        (kvm::KVM_GET_IRQCHIP, size_of::<kvm_irqchip>()),
        (kvm::KVM_GET_CLOCK, size_of::<kvm_clock_data>()),
        (kvm::KVM_GET_REGS, size_of::<kvm_regs>()),
        (kvm::KVM_GET_SREGS, size_of::<kvm_sregs>()),
        (kvm::KVM_GET_SREGS2, size_of::<kvm_sregs2>()),
        (kvm::KVM_GET_MSRS, size_of::<kvm_msrs>()),
        (kvm::KVM_GET_FPU, size_of::<kvm_fpu>()),
        (kvm::KVM_GET_LAPIC, size_of::<kvm_lapic_state>()),
        (kvm::KVM_GET_CPUID2, size_of::<kvm_cpuid2>()),
        (kvm::KVM_GET_MP_STATE, size_of::<kvm_mp_state>()),
        (kvm::KVM_GET_VCPU_EVENTS, size_of::<kvm_vcpu_events>()),
        (kvm::KVM_GET_DEBUGREGS, size_of::<kvm_debugregs>()),
        (kvm::KVM_GET_XSAVE, size_of::<kvm_xsave>()),
        (kvm::KVM_GET_XCRS, size_of::<kvm_xcrs>()),
        (kvm::KVM_GET_XSAVE2, size_of::<kvm_xsave>()),
    ] {
        assert_eq!(bytes(request), size, "{request:#x}");
    }
}
