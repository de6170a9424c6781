//! The KVM side of a machine: the VM with its memory and interrupt controllers, and CPUs set up to
//! enter a kernel. Every ioctl is one of Documentation/virt/kvm/api.rst.
#![allow(unsafe_code)]

use std::{io, path::Path};

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry,
    kvm_segment, kvm_userspace_memory_region, kvm_xcrs,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    boot,
    cpuid::{self, Features},
    error::Error,
    layout,
    memory::Memory,
    state::{TscOffset, VcpuState},
};

/// IA32_MISC_ENABLE and its bit for fast string operations, which firmware sets and Linux on Intel
/// takes as the sign that `rep movs` is fast (Intel SDM vol. 4, table 2-2).
const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRING: u64 = 1;
/// IA32_MTRR_DEF_TYPE: enabled, write-back, as firmware leaves it (Intel SDM vol. 3, 12.11.2.1).
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// Control bits (Intel SDM vol. 3, 2.5; vol. 4 for EFER).
const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Flags with nothing set but the bit that always is.
const RFLAGS: u64 = 2;

/// Opens KVM and checks that it speaks the one API there is.
///
/// # Errors
/// It is absent, not permitted, or not KVM.
pub fn open_kvm(path: &Path) -> Result<Kvm, Error> {
    let c_path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let kvm = Kvm::new_with_path(&c_path).map_err(|error| {
        let source = io::Error::from_raw_os_error(error.errno());
        Error::OpenKvm { path: path.to_owned(), remedy: open_remedy(&source), source }
    })?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(Error::KvmLacks("API version 12"));
    }
    Ok(kvm)
}

/// What helps where `/dev/kvm` cannot be opened.
pub fn open_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "add yourself to group kvm (`sudo usermod -aG kvm $USER`, then log in again) or run as root"
        }
        Some(libc::ENOENT) => {
            "enable virtualisation in the firmware and load the module (`sudo modprobe kvm_intel` or \
             `kvm_amd`), or pass the device on into this container"
        }
        Some(libc::ENODEV | libc::ENXIO) => {
            "the device node is there but no KVM module: `sudo modprobe kvm_intel` or `kvm_amd`"
        }
        Some(libc::EBUSY) => "another hypervisor holds the CPU's virtualisation: stop it",
        _ => "look at `dmesg | grep -i kvm`",
    }
}

/// Checks for everything the monitor uses.
///
/// # Errors
/// KVM lacks something.
pub fn check_extensions(kvm: &Kvm) -> Result<(), Error> {
    for (cap, name) in [
        (Cap::Irqchip, "in-kernel interrupt controllers (KVM_CAP_IRQCHIP)"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    ] {
        if !kvm.check_extension(cap) {
            return Err(Error::KvmLacks(name));
        }
    }
    Ok(())
}

/// A virtual machine without CPUs yet.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    cpuid: CpuId,
    features: Features,
}

impl Vm {
    /// Creates a VM with in-kernel interrupt controllers. There is no PIT: a guest with a TSC of
    /// known frequency and a TSC deadline timer needs none (`apic_needs_pit`,
    /// arch/x86/kernel/apic/apic.c).
    ///
    /// # Errors
    /// KVM refuses, has too few vCPUs, or lacks what every KVM since Linux 4.20 has.
    pub fn create(kvm: &Kvm, vcpus: u32) -> Result<Self, Error> {
        check_extensions(kvm)?;
        let most = layout::MAX_VCPUS.min(kvm.get_max_vcpus() as u32);
        if vcpus == 0 || vcpus > most {
            return Err(Error::Vcpus { asked: vcpus, most });
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        let fd = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        fd.set_tss_address(layout::KVM_TSS).map_err(Error::kvm("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(Error::kvm("KVM_CREATE_IRQCHIP"))?;
        Ok(Self { fd, cpuid, features: Features::of(vcpus, tsc_deadline) })
    }

    /// Its descriptor.
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// What the CPU with this number shows of itself.
    pub fn cpuid(&self, id: u32) -> Vec<kvm_cpuid_entry2> {
        let mut cpuid = self.cpuid.clone();
        cpuid::configure(&mut cpuid, id, self.features);
        cpuid.as_slice().to_vec()
    }

    /// Gives the VM its RAM, which must outlive it: a program that runs a VM keeps both to its end.
    ///
    /// # Errors
    /// KVM refuses the ranges.
    pub fn set_memory(&self, memory: &Memory) -> Result<(), Error> {
        for (slot, region) in memory.iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: `userspace_addr` and `memory_size` are a live mapping of `memory`; slots and
            // guest-physical ranges are disjoint, since `memory` keeps its regions so. KVM reaches
            // the pages through this process's address space: were the mapping to go first, the
            // guest would fault, not touch foreign memory.
            unsafe { self.fd.set_user_memory_region(region) }
                .map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }

    /// Connects an event to an interrupt line: writing to it raises the line once.
    ///
    /// # Errors
    /// KVM refuses the line.
    pub fn attach_interrupt(&self, event: &EventFd, irq: u32) -> Result<(), Error> {
        self.fd.register_irqfd(event, irq).map_err(Error::kvm("KVM_IRQFD"))
    }

    /// Turns a guest's 32-bit write of `value` to an address into an event.
    ///
    /// # Errors
    /// KVM refuses the address.
    pub fn attach_doorbell(&self, event: &EventFd, address: u64, value: u32) -> Result<(), Error> {
        self.fd
            .register_ioevent(event, &IoEventAddress::Mmio(address), value)
            .map_err(Error::kvm("KVM_IOEVENTFD"))
    }

    /// Creates all CPUs. The first is set to enter the kernel; the others wait for it to start
    /// them, as KVM has them do after creation (KVM_MP_STATE_UNINITIALIZED).
    ///
    /// # Errors
    /// KVM refuses.
    pub fn create_vcpus(&self, entry: u64) -> Result<Vec<VcpuFd>, Error> {
        (0..self.features.vcpus)
            .map(|id| {
                let vcpu = self.create_vcpu(id)?;
                configure_msrs(&vcpu)?;
                if id == 0 {
                    configure_entry(&vcpu, entry)?;
                }
                Ok(vcpu)
            })
            .collect()
    }

    /// Creates all CPUs as they were saved.
    ///
    /// # Errors
    /// This host's CPU is another than that of the host they were saved on, or KVM refuses.
    pub fn restore_vcpus(&self, states: &[VcpuState]) -> Result<Vec<VcpuFd>, Error> {
        let tsc = states.first().map(TscOffset::of);
        states
            .iter()
            .zip(tsc.into_iter().cycle())
            .zip(0..)
            .map(|((state, tsc), id)| {
                self.check_cpu(id, &state.cpuid)?;
                let vcpu = self.create_vcpu(id)?;
                state.put(&vcpu, tsc)?;
                Ok(vcpu)
            })
            .collect()
    }

    fn create_vcpu(&self, id: u32) -> Result<VcpuFd, Error> {
        let vcpu = self.fd.create_vcpu(id.into()).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let mut cpuid = self.cpuid.clone();
        cpuid::configure(&mut cpuid, id, self.features);
        vcpu.set_cpuid2(&cpuid).map_err(Error::kvm("KVM_SET_CPUID2"))?;
        enable_extended_state(&vcpu, &cpuid)?;
        Ok(vcpu)
    }

    /// A guest goes by what it saw when it started, so it must see nothing else afterwards.
    fn check_cpu(&self, id: u32, saved: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        let here = self.cpuid(id);
        if here == saved {
            return Ok(());
        }
        let missing = |from: &[kvm_cpuid_entry2], of: &[kvm_cpuid_entry2]| {
            of.iter().find(|entry| !from.contains(entry)).copied()
        };
        let differing = missing(&here, saved).or_else(|| missing(saved, &here));
        match differing {
            Some(entry) => Err(Error::OtherCpu { function: entry.function, index: entry.index }),
            None => Ok(()),
        }
    }
}

/// Lets the CPU keep all the extended state it shows (XCR0; Intel SDM vol. 1, 13.3). Kernels do that
/// themselves; but where QEMU's translator emulates this machine, their XSETBV never reaches KVM, whose
/// CPUID then goes on to tell the size of the state at reset, and Linux warns at length and does without
/// XSAVE and AVX.
fn enable_extended_state(vcpu: &VcpuFd, cpuid: &CpuId) -> Result<(), Error> {
    let state = cpuid.as_slice().iter().find(|entry| entry.function == 0xd && entry.index == 0);
    let Some(entry) = state.filter(|entry| entry.eax | entry.edx != 0) else { return Ok(()) };
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = u64::from(entry.edx) << 32 | u64::from(entry.eax);
    vcpu.set_xcrs(&xcrs).map_err(Error::kvm("KVM_SET_XCRS"))
}

/// What firmware would have left in model-specific registers. FPU, local APIC and all other
/// registers stay as KVM resets them: Linux initialises the FPU itself, and KVM's reset already
/// puts LINT0 of the first CPU into virtual wire mode (KVM_X86_QUIRK_LINT0_REENABLED).
fn configure_msrs(vcpu: &VcpuFd) -> Result<(), Error> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries =
        [entry(IA32_MISC_ENABLE, FAST_STRING), entry(IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK)];
    let msrs = Msrs::from_entries(&entries).expect("two entries are far below the limit");
    match vcpu.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))? {
        2 => Ok(()),
        _ => Err(Error::KvmLacks("IA32_MISC_ENABLE or IA32_MTRR_DEF_TYPE")),
    }
}

/// The state of the 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"):
/// long mode, paging on, flat segments, RSI at the zero page, interrupts off.
fn configure_entry(vcpu: &VcpuFd, entry: u64) -> Result<(), Error> {
    let mut sregs = vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
    sregs.cs = segment(boot::CODE_SELECTOR);
    let data = segment(boot::DATA_SELECTOR);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = layout::BOOT_GDT;
    sregs.gdt.limit = size_of_val(&boot::GDT) as u16 - 1;
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    sregs.cr3 = layout::BOOT_PML4;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
    let mut regs = vcpu.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?;
    regs.rip = entry;
    regs.rsi = layout::ZERO_PAGE;
    regs.rflags = RFLAGS;
    vcpu.set_regs(&regs).map_err(Error::kvm("KVM_SET_REGS"))
}

/// The descriptor of [`boot::GDT`] with this selector, taken apart as KVM wants it.
fn segment(selector: u16) -> kvm_segment {
    let descriptor = boot::GDT[usize::from(selector >> 3)];
    let bits = |from: u32, count: u32| (descriptor >> from & ((1 << count) - 1)) as u8;
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: bits(40, 4),
        s: bits(44, 1),
        dpl: bits(45, 2),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: bits(55, 1),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_from_the_gdt() {
        let code = segment(boot::CODE_SELECTOR);
        assert_eq!(
            (code.type_, code.s, code.dpl, code.present, code.l, code.db, code.g),
            (0xb, 1, 0, 1, 1, 0, 1)
        );
        let data = segment(boot::DATA_SELECTOR);
        assert_eq!((data.type_, data.s, data.present, data.l, data.db, data.g), (3, 1, 1, 0, 1, 1));
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        assert!(open_kvm(Path::new("/no/kvm")).unwrap_err().chain().contains("modprobe"));
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert!(open_remedy(&denied).contains("group kvm"));
        assert!(matches!(open_kvm(Path::new("/dev/null")), Err(Error::KvmLacks(_))));
    }
}
