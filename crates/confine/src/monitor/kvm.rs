//! Requests of KVM's ioctls (linux/kvm.h; Documentation/virt/kvm/api.rst), by what they are for. They
//! are made of a direction, the size of what is passed, KVM's letter and a number
//! (asm-generic/ioctl.h).

const NONE: u64 = 0;
const WRITE: u64 = 1;
const READ: u64 = 2;

const fn request(direction: u64, number: u64, bytes: u64) -> u64 {
    const KVMIO: u64 = 0xae;
    direction << 30 | bytes << 16 | KVMIO << 8 | number
}

/// Running a virtual CPU and looking at it. KVM_RUN first: it is compared first, at every exit.
pub(super) const RUN: &[u64] = &[KVM_RUN, KVM_GET_MP_STATE, KVM_GET_REGS];

/// Reading the state of a virtual CPU, and telling it that its guest stood still meanwhile.
pub(super) const SAVE_VCPU: &[u64] = &[
    KVM_GET_SREGS,
    KVM_GET_SREGS2,
    KVM_GET_MSRS,
    KVM_GET_FPU,
    KVM_GET_LAPIC,
    KVM_GET_VCPU_EVENTS,
    KVM_GET_DEBUGREGS,
    KVM_GET_XSAVE,
    KVM_GET_XSAVE2,
    KVM_GET_XCRS,
    KVM_GET_CPUID2,
    KVM_GET_TSC_KHZ,
    KVM_KVMCLOCK_CTRL,
];

/// Reading the state of the machine around them.
pub(super) const SAVE_VM: &[u64] = &[KVM_GET_IRQCHIP, KVM_GET_CLOCK, KVM_GET_DIRTY_LOG];

pub(super) const KVM_RUN: u64 = request(NONE, 0x80, 0);
pub(super) const KVM_GET_DIRTY_LOG: u64 = request(WRITE, 0x42, 16);
pub(super) const KVM_GET_IRQCHIP: u64 = request(READ | WRITE, 0x62, 520);
pub(super) const KVM_GET_CLOCK: u64 = request(READ, 0x7c, 48);
pub(super) const KVM_GET_REGS: u64 = request(READ, 0x81, 144);
pub(super) const KVM_GET_SREGS: u64 = request(READ, 0x83, 312);
pub(super) const KVM_GET_MSRS: u64 = request(READ | WRITE, 0x88, 8);
pub(super) const KVM_GET_FPU: u64 = request(READ, 0x8c, 416);
pub(super) const KVM_GET_LAPIC: u64 = request(READ, 0x8e, 1024);
pub(super) const KVM_GET_CPUID2: u64 = request(READ | WRITE, 0x91, 8);
pub(super) const KVM_GET_MP_STATE: u64 = request(READ, 0x98, 4);
pub(super) const KVM_GET_VCPU_EVENTS: u64 = request(READ, 0x9f, 64);
pub(super) const KVM_GET_DEBUGREGS: u64 = request(READ, 0xa1, 128);
pub(super) const KVM_GET_TSC_KHZ: u64 = request(NONE, 0xa3, 0);
pub(super) const KVM_GET_XSAVE: u64 = request(READ, 0xa4, 4096);
pub(super) const KVM_GET_XCRS: u64 = request(READ, 0xa6, 392);
pub(super) const KVM_KVMCLOCK_CTRL: u64 = request(NONE, 0xad, 0);
pub(super) const KVM_GET_SREGS2: u64 = request(READ, 0xcc, 320);
pub(super) const KVM_GET_XSAVE2: u64 = request(READ, 0xcf, 4096);
