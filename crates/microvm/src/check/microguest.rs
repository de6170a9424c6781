//! Two guests without a kernel: a loop at privilege level 0, timed, and one SYSCALL at level 3,
//! whose landing is looked at. All of it is set up from outside; the guests are ten instructions.
//!
//! ```text
//!  user half (linear = physical)       kernel half (linear = KERNEL + physical, supervisor only)
//!    SYSCALL_CODE: syscall   ─────────► LANDING: mov al, 0x4b; out LANDED, al
//!                                       LOOP: dec rcx; jnz LOOP; out LOOPED, al
//!    any exception  ─── IDT, TSS ─────► STUBS: mov al, vector; out FAULTED, al
//! ```
#![allow(unsafe_code)]

use std::{
    io,
    time::{Duration, Instant},
};

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::{
    error::Error,
    layout,
    memory::{self, Memory},
};

/// Where things lie in the 2 MiB of memory.
const MEMORY: u64 = 2 << 20;
const PML4: u64 = 0x1000;
const USER_PDPT: u64 = 0x2000;
const USER_PD: u64 = 0x3000;
const KERNEL_PDPT: u64 = 0x4000;
const KERNEL_PD: u64 = 0x5000;
const IDT: u64 = 0x6000;
const STUBS: u64 = 0x7000;
const TSS: u64 = 0x8000;
const STACK_TOP: u64 = 0xa000;
const SYSCALL_CODE: u64 = 0xb000;
const LANDING: u64 = 0xc000;
const LOOP: u64 = 0xd000;
/// The kernel half: the first linear address above the hole, index 256 of the top-level table.
const KERNEL: u64 = 0xffff_8000_0000_0000;

/// Ports the guests report by.
const LOOPED: u8 = 0xe1;
const LANDED: u8 = 0xe2;
const FAULTED: u8 = 0xe3;

/// Exceptions (Intel SDM vol. 3, 6.3.1).
const VECTORS: u64 = 32;
/// Selectors: SYSCALL takes CS from STAR and SS eight above it (AMD APM vol. 2, 6.1.1).
const KERNEL_CODE: u16 = 0x08;
const USER_CODE: u16 = 0x33;
const USER_DATA: u16 = 0x2b;

/// MSRs and EFER bits of SYSCALL and long mode (AMD APM vol. 2, 6.1.1 and 3.1.7).
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const EFER_SCE_LME_LMA: u64 = 1 | 1 << 8 | 1 << 10;
/// CR0: protection, MP, ET, NE, WP, paging; CR4: PAE.
const CR0: u64 = 0x8001_0033;
const CR4: u64 = 0x20;

/// Where a SYSCALL at privilege level 3 went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// To its handler at level 0.
    Kernel,
    /// To its handler, still at level 3.
    User,
    /// Into this exception.
    Fault(u8),
    /// Out of the guest: a triple fault, or an instruction KVM cannot run.
    Nowhere,
}

/// A VM with one vCPU and the guests in its memory.
pub struct MicroGuest {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: Memory,
}

impl MicroGuest {
    /// Makes the VM.
    pub fn create(kvm: &Kvm) -> Result<Self, Error> {
        let memory = memory::map(MEMORY)?;
        write_guests(&memory)
            .map_err(|source| Error::GuestMemory { what: "a guest", source: Box::new(source) })?;
        let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        vm.set_tss_address(layout::KVM_TSS).map_err(Error::kvm("KVM_SET_TSS_ADDR"))?;
        let region = memory.iter().next().expect("one range was mapped");
        let slot = kvm_userspace_memory_region {
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the range is the live mapping of `memory`, which `Self` keeps until after the VM:
        // fields drop in their order.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
        let vcpu = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        vcpu.set_cpuid2(&cpuid).map_err(Error::kvm("KVM_SET_CPUID2"))?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// Times so many iterations of a loop of two instructions at privilege level 0.
    pub fn time_loop(&mut self, iterations: u64) -> Result<Duration, Error> {
        self.enter(KERNEL_CODE, KERNEL + LOOP, iterations)?;
        let start = Instant::now();
        match self.run()? {
            Exit::Out(LOOPED, _) => Ok(start.elapsed()),
            other => Err(io::Error::other(format!("a loop at CPL 0 ended in {other:?}")).into()),
        }
    }

    /// Executes SYSCALL at privilege level 3.
    pub fn land_syscall(&mut self) -> Result<Landing, Error> {
        let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
        let entries =
            [entry(MSR_STAR, u64::from(KERNEL_CODE) << 32), entry(MSR_LSTAR, KERNEL + LANDING)];
        let msrs = Msrs::from_entries(&entries).expect("two entries are far below the limit");
        self.vcpu.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))?;
        self.enter(USER_CODE, SYSCALL_CODE, 0)?;
        Ok(match self.run()? {
            Exit::Out(LANDED, _) => {
                let sregs = self.vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
                if sregs.cs.selector & 3 == 0 && sregs.ss.dpl == 0 {
                    Landing::Kernel
                } else {
                    Landing::User
                }
            }
            Exit::Out(FAULTED, vector) => Landing::Fault(vector),
            _ => Landing::Nowhere,
        })
    }

    /// Sets the CPU to this code segment and address, in long mode with paging.
    fn enter(&mut self, code: u16, address: u64, count: u64) -> Result<(), Error> {
        let level = (code & 3) as u8;
        let flat = |selector, type_, l| kvm_segment {
            limit: 0xffff_ffff,
            selector,
            type_,
            present: 1,
            dpl: level,
            db: 1 - l,
            s: 1,
            l,
            g: 1,
            ..Default::default()
        };
        let mut sregs = self.vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
        sregs.cs = flat(code, 11, 1);
        let data = flat(if level == 0 { KERNEL_CODE + 8 } else { USER_DATA }, 3, 0);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            base: KERNEL + TSS,
            limit: 0x67,
            selector: 0x40,
            type_: 11,
            present: 1,
            ..Default::default()
        };
        sregs.idt = kvm_dtable {
            base: KERNEL + IDT,
            limit: (VECTORS * 16 - 1) as u16,
            ..Default::default()
        };
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, PML4, CR4, EFER_SCE_LME_LMA);
        self.vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
        let regs =
            kvm_regs { rip: address, rsp: STACK_TOP, rcx: count, rflags: 2, ..Default::default() };
        self.vcpu.set_regs(&regs).map_err(Error::kvm("KVM_SET_REGS"))
    }

    fn run(&mut self) -> Result<Exit, Error> {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, data)) => {
                    return Ok(Exit::Out(port as u8, data.first().copied().unwrap_or(0)));
                }
                Ok(VcpuExit::Intr) => {}
                Ok(other) => return Ok(Exit::Other(format!("{other:?}"))),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(Error::kvm("KVM_RUN")(error)),
            }
        }
    }
}

/// How a guest came back.
#[derive(Debug)]
enum Exit {
    /// By writing this byte to this port.
    Out(u8, u8),
    /// Otherwise, in words.
    Other(#[allow(dead_code, reason = "shown by Debug")] String),
}

fn write_guests(memory: &Memory) -> Result<(), vm_memory::GuestMemoryError> {
    let word = |value: u64, address: u64| memory.write_obj(value, GuestAddress(address));
    let code = |bytes: &[u8], address: u64| memory.write_slice(bytes, GuestAddress(address));
    // Page tables (Intel SDM vol. 3, 4.5): one page of 2 MiB, once for everybody (U/S set at every
    // level) and once for the supervisor alone.
    word(USER_PDPT | 7, PML4)?;
    word(USER_PD | 7, USER_PDPT)?;
    word(0x87, USER_PD)?;
    word(KERNEL_PDPT | 3, PML4 + 256 * 8)?;
    word(KERNEL_PD | 3, KERNEL_PDPT)?;
    word(0x83, KERNEL_PD)?;
    code(&[0x0f, 0x05], SYSCALL_CODE)?; // syscall
    code(&[0xb0, 0x4b, 0xe6, LANDED, 0xf4], LANDING)?; // mov al, 0x4b; out LANDED, al; hlt
    code(&[0x48, 0xff, 0xc9, 0x75, 0xfb, 0xe6, LOOPED, 0xf4], LOOP)?; // dec rcx; jnz; out LOOPED, al; hlt
    word(KERNEL + STACK_TOP, TSS + 4)?; // RSP0 (SDM vol. 3, 7.7)
    for vector in 0..VECTORS {
        let stub = STUBS + vector * 16;
        code(&[0xb0, vector as u8, 0xe6, FAULTED, 0xf4], stub)?; // mov al, vector; out FAULTED, al; hlt
        // An interrupt gate of 64 bits (SDM vol. 3, 6.14.1), present, for level 0.
        let target = KERNEL + stub;
        let gate = target & 0xffff
            | u64::from(KERNEL_CODE) << 16
            | 0x8e00 << 32
            | (target >> 16 & 0xffff) << 48;
        word(gate, IDT + vector * 16)?;
        word(target >> 32, IDT + vector * 16 + 8)?;
    }
    Ok(())
}
