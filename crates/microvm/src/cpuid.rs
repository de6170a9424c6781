//! What the guest reads from CPUID: everything KVM supports, with the parts that describe this
//! very CPU and its place among the others put right. Leaves as in the Intel SDM vol. 2, CPUID, and
//! the AMD APM vol. 3, appendix E.

use core::arch::x86_64::__cpuid;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaf 1, ECX: timer deadline as a TSC value; a hypervisor is present.
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 and leaf 0x8000_0001, ECX: hardware virtualisation of Intel and of AMD. A guest needs no
/// guests of its own, and KVM's emulation of that is a large part of its attack surface.
const ECX_VMX: u32 = 1 << 5;
const ECX_SVM: u32 = 1 << 2;
/// Leaf 1, EDX: EBX holds a count of logical processors.
const EDX_HTT: u32 = 1 << 28;

/// Kinds of topology level in leaves 0xb and 0x1f.
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// KVM's own features (Documentation/virt/kvm/x86/cpuid.rst) and the one by which an interrupt may
/// end without an exit, KVM_FEATURE_PV_EOI.
const KVM_FEATURES: u32 = 0x4000_0001;
const EAX_PV_EOI: u32 = 1 << 6;

/// What all CPUs of a machine show alike.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Number of CPUs.
    pub vcpus: u32,
    /// Whether the local APIC's timer takes a TSC value for its deadline.
    pub tsc_deadline: bool,
    /// Whether an interrupt may end without an exit. See [`Features::of`].
    pub pv_eoi: bool,
}

impl Features {
    /// What is shown here. Where QEMU's translator emulates this machine, it delivers an interrupt a
    /// second time if one of its timers falls due before the guest's next exit, whatever the guest
    /// is doing then (docs/lab.md). With several CPUs that loses wake-ups; so there the guest gets no
    /// means to end an interrupt without an exit, which then comes a few hundred instructions after
    /// each delivery. With one CPU no such loss was ever seen, and the exits would have to be paid.
    pub fn of(vcpus: u32, tsc_deadline: bool) -> Self {
        Self { vcpus, tsc_deadline, pv_eoi: vcpus == 1 || !is_translated() }
    }
}

/// The name of the hypervisor this machine runs under, if any (leaf 1, ECX bit 31; leaf 0x40000000).
pub fn hypervisor() -> Option<String> {
    if __cpuid(1).ecx & ECX_HYPERVISOR == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let bytes = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}

/// Whether QEMU's translator (TCG) emulates this machine.
pub fn is_translated() -> bool {
    hypervisor().is_some_and(|name| name == "TCGTCGTCGTCG")
}

/// Turns what KVM supports into what the CPU with this APIC id shows: one thread per core, all
/// cores in one package.
pub fn configure(cpuid: &mut CpuId, apic_id: u32, features: Features) {
    for entry in cpuid.as_mut_slice() {
        configure_entry(entry, apic_id, features);
    }
}

fn configure_entry(entry: &mut kvm_cpuid_entry2, apic_id: u32, features: Features) {
    let Features { vcpus, tsc_deadline, pv_eoi } = features;
    let core_bits = vcpus.next_power_of_two().trailing_zeros();
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0x0000_ffff | apic_id << 24 | vcpus << 16;
            entry.ecx |= ECX_HYPERVISOR;
            entry.ecx &= !ECX_VMX;
            entry.ecx = set(entry.ecx, ECX_TSC_DEADLINE, tsc_deadline);
            entry.edx = set(entry.edx, EDX_HTT, vcpus > 1);
        }
        // Caches: no more logical processors share any of them than there are (EAX 25:14), and the
        // package has so many core ids (EAX 31:26). A subleaf of type 0 ends the list.
        0x4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 0x7;
            let sharing = if level >= 3 { (1 << core_bits) - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | ((1 << core_bits) - 1) << 26;
        }
        0xb | 0x1f => {
            let (shift, count, kind) = match entry.index {
                0 => (0, 1, LEVEL_SMT),
                1 => (core_bits, vcpus, LEVEL_CORE),
                _ => (0, 0, 0),
            };
            entry.eax = shift;
            entry.ebx = count;
            entry.ecx = kind << 8 | entry.index & 0xff;
            entry.edx = apic_id;
        }
        KVM_FEATURES if !pv_eoi => entry.eax &= !EAX_PV_EOI,
        0x8000_0001 => entry.ecx &= !ECX_SVM,
        // AMD: number of threads less one, and how many bits of the APIC id tell them apart.
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | core_bits << 12 | (vcpus - 1),
        // AMD: extended APIC id, one thread in each core, one node.
        0x8000_001e => {
            entry.eax = apic_id;
            entry.ebx = apic_id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

fn set(word: u32, bit: u32, on: bool) -> u32 {
    if on { word | bit } else { word & !bit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(function: u32, index: u32, eax: u32, apic_id: u32, vcpus: u32) -> kvm_cpuid_entry2 {
        let mut entry = kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx: 0xffff_ffff,
            ecx: 0,
            edx: 0,
            ..Default::default()
        };
        let features = Features { vcpus, tsc_deadline: true, pv_eoi: false };
        configure_entry(&mut entry, apic_id, features);
        entry
    }

    #[test]
    fn each_cpu_shows_its_own_id() {
        let first = shown(1, 0, 0, 3, 4);
        assert_eq!(first.ebx, 0x0304_ffff);
        assert_eq!(first.ecx, ECX_HYPERVISOR | ECX_TSC_DEADLINE);
        assert_eq!(first.edx, EDX_HTT);
        assert_eq!(shown(1, 0, 0, 0, 1).edx, 0);
        assert_eq!(shown(0x8000_001e, 0, 0, 3, 4).ebx, 3);
    }

    #[test]
    fn an_interrupt_ends_without_an_exit_only_where_it_may() {
        assert_eq!(shown(KVM_FEATURES, 0, 0xff, 0, 2).eax, 0xbf);
        assert!(Features::of(1, true).pv_eoi);
        assert_eq!(Features::of(2, true).pv_eoi, !is_translated());
    }

    #[test]
    fn topology_counts_cores_not_threads() {
        let core = shown(0xb, 1, 0, 5, 6);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (3, 6, LEVEL_CORE << 8 | 1, 5));
        let smt = shown(0xb, 0, 0, 5, 6);
        assert_eq!((smt.eax, smt.ebx, smt.ecx), (0, 1, LEVEL_SMT << 8));
        assert_eq!(shown(0xb, 2, 0, 5, 6).ecx, 2);
        assert_eq!(shown(0x8000_0008, 0, 0, 0, 6).ecx, 3 << 12 | 5);
    }

    #[test]
    fn private_caches_are_shared_by_none() {
        let level = |level: u32| shown(4, 0, 1 | level << 5 | 0x3f << 14, 0, 4).eax >> 14 & 0xfff;
        assert_eq!((level(1), level(3)), (0, 3));
        assert_eq!(shown(4, 4, 0, 0, 4).eax, 0);
    }
}
