//! What stands behind `/dev/kvm`: found out by using it, since its mode bits, its API version and
//! even a VM that can be created say nothing about whether Linux will run in it. Two guests of a
//! few instructions decide ([`microguest`]); for `compare doctor`.
//!
//! ```text
//!  open ─► API version ─► extensions ─► loop at CPL 0 ─► SYSCALL from CPL 3 ─► whose hardware?
//!    └ none    └ none        └ none        └ software       └ software          hardware, nested,
//!                                                                               emulated SVM
//! ```

mod microguest;

use std::{io, path::Path, sync::mpsc, thread, time::Duration};

use compare_spec::KvmKind;
use kvm_ioctls::Kvm;

use crate::{
    cpuid,
    error::Error,
    vm::{self, open_kvm},
};
use microguest::{Landing, MicroGuest};

/// Iterations of the loop: half a second's hundredth at most on the slowest KVM known to run Linux,
/// a twentieth of a second on an interpreter.
const ITERATIONS: u64 = 50_000;
/// Loop iterations a second below which guest kernel code is interpreted. Hardware does a thousand
/// million, QEMU's translator over a hundred, the interpreter known about one.
const INTERPRETED_BELOW: f64 = 20e6;
/// Tries of the loop, of which the best counts: a busy host may take the CPU away.
const TRIES: usize = 3;
/// When a guest that has not come back is given up.
const DEADLINE: Duration = Duration::from_millis(800);

/// What stands behind a KVM device, why that is known, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvmVerdict {
    /// The finding.
    pub kind: KvmKind,
    /// What was seen, in the order it was looked at.
    pub evidence: Vec<String>,
    /// What helps, where Linux does not run in it.
    pub remedy: Option<String>,
}

impl KvmVerdict {
    /// Whether guests with a Linux kernel can run.
    pub fn runs_linux(&self) -> bool {
        matches!(self.kind, KvmKind::Hardware | KvmKind::Nested | KvmKind::EmulatedSvm)
    }
}

/// Examines a KVM device; takes well below a second, whatever the device does.
pub fn kvm_check(path: &Path) -> KvmVerdict {
    let mut evidence = Vec::new();
    let kvm = match open_kvm(path) {
        Ok(kvm) => kvm,
        Err(error) => return unusable(error, evidence),
    };
    evidence.push(format!("{} opens and speaks API version 12", path.display()));
    if let Err(error) = vm::check_extensions(&kvm) {
        return unusable(error, evidence);
    }
    evidence.push("it has in-kernel interrupt controllers, irqfd and ioeventfd".to_owned());
    let (kind, seen) = match examine(kvm) {
        Some(Ok(findings)) => judge(&findings),
        Some(Err(error)) => return unusable(error, evidence),
        None => (
            KvmKind::Software,
            vec![format!("a guest of ten instructions did not come back within {DEADLINE:?}")],
        ),
    };
    evidence.extend(seen);
    let remedy = (kind == KvmKind::Software).then(|| {
        "this KVM has no VMX or SVM behind it and cannot run Linux: use `--host lab`, or a machine \
         with hardware or nested virtualisation"
            .to_owned()
    });
    KvmVerdict { kind, evidence, remedy }
}

fn unusable(error: Error, mut evidence: Vec<String>) -> KvmVerdict {
    let remedy = match &error {
        Error::OpenKvm { source, .. } => vm::open_remedy(source),
        _ => "use a host kernel of Linux 5.15 or later with kvm_intel or kvm_amd",
    };
    evidence.push(error.chain());
    KvmVerdict { kind: KvmKind::None, evidence, remedy: Some(remedy.to_owned()) }
}

/// What the guests found.
#[derive(Debug)]
struct Findings {
    iterations_per_second: f64,
    landing: Landing,
}

/// Runs both guests in a thread of their own, so that one that never comes back costs a thread,
/// not this program; none if that happened.
fn examine(kvm: Kvm) -> Option<Result<Findings, Error>> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        let findings = MicroGuest::create(&kvm).and_then(|mut guest| {
            let mut best = Duration::MAX;
            for _ in 0..TRIES {
                best = best.min(guest.time_loop(ITERATIONS)?);
                if ITERATIONS as f64 / best.as_secs_f64() >= INTERPRETED_BELOW {
                    break;
                }
            }
            let landing = guest.land_syscall()?;
            Ok(Findings { iterations_per_second: ITERATIONS as f64 / best.as_secs_f64(), landing })
        });
        drop(kvm); // whoever gets the findings finds nothing of ours open
        let _ = sender.send(findings);
    };
    match thread::Builder::new().name("kvm-check".to_owned()).spawn(run) {
        Ok(_) => receiver.recv_timeout(DEADLINE).ok(),
        Err(source) => Some(Err(Error::System { attempt: "start a thread", source })),
    }
}

fn judge(findings: &Findings) -> (KvmKind, Vec<String>) {
    let millions = findings.iterations_per_second / 1e6;
    let fast = findings.iterations_per_second >= INTERPRETED_BELOW;
    let speed = format!(
        "guest code at CPL 0 runs {millions:.1} million loop iterations a second: {}",
        if fast { "native or translated" } else { "interpreted" }
    );
    let landed = findings.landing == Landing::Kernel;
    let landing = match findings.landing {
        Landing::Kernel => "SYSCALL at CPL 3 lands at CPL 0, as it must".to_owned(),
        Landing::User => "SYSCALL at CPL 3 stays at CPL 3: no kernel can work".to_owned(),
        Landing::Fault(vector) => {
            format!("SYSCALL at CPL 3 ends in exception {vector}: no kernel can work")
        }
        Landing::Nowhere => "SYSCALL at CPL 3 ends the guest: no kernel can work".to_owned(),
    };
    if !fast || !landed {
        return (KvmKind::Software, vec![speed, landing]);
    }
    let (kind, whose) = match cpuid::hypervisor() {
        None => (KvmKind::Hardware, "no hypervisor lies below this kernel".to_owned()),
        Some(_) if cpuid::is_translated() => {
            (KvmKind::EmulatedSvm, "this machine is emulated by QEMU's translator (TCG)".to_owned())
        }
        Some(name) => (KvmKind::Nested, format!("this machine is itself a guest (of {name:?})")),
    };
    (kind, vec![speed, landing, whose])
}

/// An I/O error of a KVM call, for those that have none of their own.
impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::System { attempt: "run a guest", source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_or_wrong_device_is_none_with_a_remedy() {
        for path in ["/no/kvm", "/dev/null"] {
            let verdict = kvm_check(Path::new(path));
            assert_eq!(verdict.kind, KvmKind::None);
            assert!(verdict.remedy.is_some() && !verdict.runs_linux(), "{verdict:?}");
        }
    }

    #[test]
    fn either_flaw_makes_it_software() {
        let kind = |speed, landing| judge(&Findings { iterations_per_second: speed, landing }).0;
        assert_eq!(kind(1e6, Landing::Kernel), KvmKind::Software);
        assert_eq!(kind(1e9, Landing::Fault(14)), KvmKind::Software);
        assert_eq!(kind(1e9, Landing::Nowhere), KvmKind::Software);
        assert_ne!(kind(1e9, Landing::Kernel), KvmKind::Software);
    }

    /// Whatever this machine has, the verdict comes soon and says why.
    #[test]
    fn this_machine_gets_a_verdict_in_time() {
        let start = std::time::Instant::now();
        let verdict = kvm_check(Path::new("/dev/kvm"));
        assert!(start.elapsed() < Duration::from_secs(2), "{verdict:?}");
        assert!(!verdict.evidence.is_empty());
        println!("{verdict:#?}");
    }
}
