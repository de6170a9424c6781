//! The loop that runs one virtual CPU and answers its exits.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::{bus::Bus, ending::Ending};

/// Runs the CPU with this number until the machine ends.
pub fn run(id: usize, vcpu: &mut VcpuFd, bus: &Bus) -> Ending {
    bus.watch.begin(id);
    loop {
        let ending = match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => bus.write_port(port, data),
            Ok(VcpuExit::IoIn(port, data)) => {
                bus.read_port(port, data);
                None
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                bus.read_memory(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                bus.write_memory(address, data);
                None
            }
            // Triple fault: what `reboot=t` ends in after a panic, and what a broken guest does.
            Ok(VcpuExit::Shutdown) => Some(Ending::Crashed(
                "triple fault: the kernel panicked, restarted or lost its way".to_owned(),
            )),
            Ok(VcpuExit::SystemEvent(kind, _)) => {
                Some(Ending::Crashed(format!("system event {kind}")))
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => Some(Ending::Failed(format!(
                "KVM_RUN: the hardware refused to enter the guest on CPU {cpu}: reason {reason:#x}"
            ))),
            Ok(VcpuExit::InternalError) => Some(internal_error(vcpu)),
            Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => None,
            Ok(exit) => Some(Ending::Failed(format!("KVM_RUN: unexpected exit {exit:?}"))),
            Err(error) if error.errno() == libc::EINTR => {
                bus.watch.look(id, vcpu);
                None
            }
            Err(error) if error.errno() == libc::EAGAIN => None,
            Err(error) => Some(Ending::Failed(format!("KVM_RUN: {error}"))),
        };
        if let Some(ending) = ending {
            return ending;
        }
    }
}

/// An instruction KVM could not run for the guest (KVM_EXIT_INTERNAL_ERROR,
/// Documentation/virt/kvm/api.rst).
fn internal_error(vcpu: &VcpuFd) -> Ending {
    let at = vcpu
        .get_regs()
        .map_or_else(|_| "an unknown address".to_owned(), |regs| format!("{:#x}", regs.rip));
    Ending::Crashed(format!("KVM could not emulate the instruction at {at}"))
}
