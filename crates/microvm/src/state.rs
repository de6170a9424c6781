//! What KVM keeps of a machine, taken out of it and put into another: registers, interrupt
//! controllers, clock. Every call is one of Documentation/virt/kvm/api.rst.

use std::{io, os::fd::AsRawFd};

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_VCPU_TSC_CTRL,
    KVM_VCPU_TSC_OFFSET, Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_device_attr,
    kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The deadline of the local APIC's timer, an absolute TSC value (Intel SDM vol. 3, 11.5.4.1).
const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// The time-stamp counter (Intel SDM vol. 4, table 2-2).
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
/// The bit by which the type of a busy task state segment differs from an available one's (Intel SDM
/// vol. 3, table 3-2).
const TSS_BUSY: u8 = 2;
/// EBX of CPUID leaf 0 on Intel CPUs: the beginning of "GenuineIntel".
const GENU: u32 = u32::from_le_bytes(*b"Genu");
/// `_IOW(KVMIO, 0xe1, struct kvm_device_attr)` of include/uapi/linux/kvm.h.
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
/// MSRs KVM takes and gives in one call (MAX_IO_MSRS, arch/x86/kvm/x86.c).
const MOST_MSRS: usize = 256;
/// Interrupt controllers saved, in the order they are kept.
const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// One CPU.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// What it shows of itself: the machine it goes into must be able to show the same.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// Frequency of its time-stamp counter, kHz.
    pub tsc_khz: u32,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl VcpuState {
    /// Takes the state of a CPU that is in the kernel for nothing (KVM_RUN has completed whatever
    /// exit there was).
    ///
    /// # Errors
    /// KVM refuses.
    pub fn take(vcpu: &VcpuFd, cpuid: &[kvm_cpuid_entry2], msrs: &[u32]) -> Result<Self, Error> {
        Ok(Self {
            cpuid: cpuid.to_vec(),
            tsc_khz: vcpu.get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?,
            // First: it has KVM settle INIT and SIPI that are under way.
            mp_state: vcpu.get_mp_state().map_err(Error::kvm("KVM_GET_MP_STATE"))?,
            regs: vcpu.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?,
            sregs: vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?,
            xsave: vcpu.get_xsave().map_err(Error::kvm("KVM_GET_XSAVE"))?,
            xcrs: vcpu.get_xcrs().map_err(Error::kvm("KVM_GET_XCRS"))?,
            debug: vcpu.get_debug_regs().map_err(Error::kvm("KVM_GET_DEBUGREGS"))?,
            lapic: vcpu.get_lapic().map_err(Error::kvm("KVM_GET_LAPIC"))?,
            msrs: take_msrs(vcpu, msrs)?,
            events: vcpu.get_vcpu_events().map_err(Error::kvm("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    /// Puts the state into a new CPU that already shows [`Self::cpuid`]. The order matters: the
    /// local APIC's mode is in `sregs`; its timer's mode must be set before the deadline, which is
    /// an MSR; pending events must not be cleared by anything that follows.
    ///
    /// # Errors
    /// KVM refuses, or has another TSC frequency and cannot scale.
    pub fn put(&self, vcpu: &VcpuFd, tsc: TscOffset) -> Result<(), Error> {
        if vcpu.get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))? != self.tsc_khz {
            vcpu.set_tsc_khz(self.tsc_khz).map_err(Error::kvm("KVM_SET_TSC_KHZ"))?;
        }
        vcpu.set_mp_state(self.mp_state).map_err(Error::kvm("KVM_SET_MP_STATE"))?;
        vcpu.set_regs(&self.regs).map_err(Error::kvm("KVM_SET_REGS"))?;
        vcpu.set_sregs(&self.special_registers()).map_err(Error::kvm("KVM_SET_SREGS"))?;
        set_xsave(vcpu, &self.xsave)?;
        vcpu.set_xcrs(&self.xcrs).map_err(Error::kvm("KVM_SET_XCRS"))?;
        vcpu.set_debug_regs(&self.debug).map_err(Error::kvm("KVM_SET_DEBUGREGS"))?;
        vcpu.set_lapic(&self.lapic).map_err(Error::kvm("KVM_SET_LAPIC"))?;
        match tsc.put(vcpu) {
            // Its counter is right already.
            Ok(()) => put_msrs(vcpu, &self.msrs[usize::from(self.tsc().is_some())..])?,
            Err(_) => put_msrs(vcpu, &self.msrs)?,
        }
        vcpu.set_vcpu_events(&self.events).map_err(Error::kvm("KVM_SET_VCPU_EVENTS"))?;
        // The guest's watchdog must not take the time it was saved for time it hung. A guest that
        // does not use kvm-clock has none (EINVAL).
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }
}

impl VcpuState {
    /// Its time-stamp counter, the first of the MSRs ([`msrs`]).
    fn tsc(&self) -> Option<u64> {
        self.msrs
            .first()
            .filter(|entry| entry.index == IA32_TIME_STAMP_COUNTER)
            .map(|entry| entry.data)
    }

    /// AMD's CPUs do not keep the busy flag of the task register; KVM shows it all the same
    /// (`svm_get_segment`, arch/x86/kvm/svm/svm.c), and Intel's would not enter the guest without
    /// (Intel SDM vol. 3, 27.3.1.2). Given back, it makes no difference to an AMD CPU, but QEMU's
    /// emulation of one then takes the register for no task's and refuses the guest's `in` and `out`
    /// (`check_io`, target/i386/tcg/seg_helper.c).
    fn special_registers(&self) -> kvm_sregs {
        let mut sregs = self.sregs;
        let intel = self.cpuid.iter().any(|entry| entry.function == 0 && entry.ebx == GENU);
        if !intel {
            sregs.tr.type_ &= !TSS_BUSY;
        }
        sregs
    }
}

/// What the time-stamp counters of a restored machine's CPUs are ahead of the host's, for them to go
/// on where they were: one value for all, so that they stay in step.
///
/// Writing the counter itself would not do: KVM takes a value less than a second from what the
/// counter of a new machine shows for an attempt to set several CPUs alike, and ignores it
/// (`kvm_synchronize_tsc`, arch/x86/kvm/x86.c). Time would run backwards in a guest that was saved
/// in its first second.
#[derive(Debug, Clone, Copy)]
pub struct TscOffset(u64);

impl TscOffset {
    /// By the saved state of the machine's first CPU, as of now.
    pub fn of(first: &VcpuState) -> Self {
        // SAFETY: every x86-64 CPU has the instruction, and Linux lets programs use it unless one
        // asks to be kept from it (PR_SET_TSC, prctl(2)).
        #[allow(unsafe_code)]
        let host = unsafe { core::arch::x86_64::_rdtsc() };
        Self(first.tsc().unwrap_or(0).wrapping_sub(host))
    }

    /// Sets it (KVM_VCPU_TSC_OFFSET, Documentation/virt/kvm/devices/vcpu.rst); KVM has had that
    /// since Linux 5.16.
    #[allow(unsafe_code)]
    fn put(self, vcpu: &VcpuFd) -> io::Result<()> {
        let attribute = kvm_device_attr {
            group: KVM_VCPU_TSC_CTRL,
            attr: KVM_VCPU_TSC_OFFSET.into(),
            addr: (&raw const self.0) as u64,
            flags: 0,
        };
        // SAFETY: the ioctl reads one kvm_device_attr, and the u64 its `addr` points to; both live
        // across the call.
        let result =
            unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attribute) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// KVM_SET_XSAVE reads as many bytes as KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) says.
#[allow(unsafe_code)]
fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), Error> {
    // SAFETY: more than the 4096 bytes of `kvm_xsave` are only read where dynamically enabled
    // features were permitted to guests (arch_prctl(2), ARCH_REQ_XCOMP_GUEST_PERM), which this
    // program never asks for.
    unsafe { vcpu.set_xsave(xsave) }.map_err(Error::kvm("KVM_SET_XSAVE"))
}

/// The MSRs KVM can save.
///
/// # Errors
/// KVM refuses.
pub fn msrs(kvm: &Kvm) -> Result<Vec<u32>, Error> {
    let list = kvm.get_msr_index_list().map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
    let mut indices = list.as_slice().to_vec();
    // KVM sets them in this order, and a deadline means something only once the counter is right.
    indices.sort_by_key(|&index| match index {
        IA32_TIME_STAMP_COUNTER => 0,
        IA32_TSC_DEADLINE => 2,
        _ => 1,
    });
    Ok(indices)
}

/// Reads every MSR this CPU has. KVM lists more than each guest has; it stops at those.
fn take_msrs(vcpu: &VcpuFd, mut indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
    let mut taken = Vec::with_capacity(indices.len());
    while !indices.is_empty() {
        let (now, _) = indices.split_at(indices.len().min(MOST_MSRS));
        let entries: Vec<_> =
            now.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        let mut msrs = Msrs::from_entries(&entries).expect("no more than KVM takes");
        let count = vcpu.get_msrs(&mut msrs).map_err(Error::kvm("KVM_GET_MSRS"))?;
        taken.extend_from_slice(&msrs.as_slice()[..count]);
        // The one it stopped at is left out.
        indices = &indices[(count + usize::from(count < now.len()))..];
    }
    Ok(taken)
}

fn put_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), Error> {
    for entries in entries.chunks(MOST_MSRS) {
        let msrs = Msrs::from_entries(entries).expect("no more than KVM takes");
        let count = vcpu.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))?;
        if let Some(refused) = entries.get(count) {
            return Err(Error::MsrRefused { index: refused.index, value: refused.data });
        }
    }
    Ok(())
}

/// What all CPUs share.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmState {
    controllers: [kvm_irqchip; CONTROLLERS.len()],
    clock: kvm_clock_data,
}

impl VmState {
    /// Takes it once no CPU runs.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn take(vm: &VmFd) -> Result<Self, Error> {
        let mut controllers = [kvm_irqchip::default(); CONTROLLERS.len()];
        for (state, chip_id) in controllers.iter_mut().zip(CONTROLLERS) {
            state.chip_id = chip_id;
            vm.get_irqchip(state).map_err(Error::kvm("KVM_GET_IRQCHIP"))?;
        }
        let clock = vm.get_clock().map_err(Error::kvm("KVM_GET_CLOCK"))?;
        // The guest's clock goes on from where it was: time in the snapshot is time it never saw.
        Ok(Self { controllers, clock: kvm_clock_data { clock: clock.clock, ..Default::default() } })
    }

    /// Puts it into a new machine before any CPU runs.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn put(&self, vm: &VmFd) -> Result<(), Error> {
        for state in &self.controllers {
            vm.set_irqchip(state).map_err(Error::kvm("KVM_SET_IRQCHIP"))?;
        }
        vm.set_clock(&self.clock).map_err(Error::kvm("KVM_SET_CLOCK"))
    }
}
