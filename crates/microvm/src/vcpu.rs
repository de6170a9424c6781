//! The loop that runs one virtual CPU and answers its exits.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::{bus::Bus, ending::Ending};

/// Runs the CPU with this number until the machine ends.
pub fn run(id: usize, vcpu: &mut VcpuFd, bus: &Bus) -> Ending {
    bus.watch.begin(id);
    loop {
        let ending = match vcpu.run() {
            Ok(VcpuExit::InternalError) => Some(internal_error(vcpu)),
            Ok(exit) => answer(exit, bus),
            Err(error) if error.errno() == libc::EINTR => {
                match &bus.saver {
                    Some(saver) if saver.is_pausing() => saver.park(id, vcpu, bus),
                    _ => bus.watch.look(id, vcpu),
                }
                None
            }
            Err(error) if error.errno() == libc::EAGAIN => None,
            Err(error) => Some(Ending::Failed(format!("KVM_RUN: {error}"))),
        };
        match (ending, &bus.saver) {
            (Some(Ending::Save), Some(saver)) => return saver.save(id, vcpu, bus),
            (Some(ending), _) => return ending,
            (None, _) => {}
        }
    }
}

/// Does what the guest wants of an exit.
pub fn answer(exit: VcpuExit<'_>, bus: &Bus) -> Option<Ending> {
    match exit {
        VcpuExit::IoOut(port, data) => return bus.write_port(port, data),
        VcpuExit::IoIn(port, data) => bus.read_port(port, data),
        VcpuExit::MmioRead(address, data) => bus.read_memory(address, data),
        VcpuExit::MmioWrite(address, data) => bus.write_memory(address, data),
        // Triple fault: what `reboot=t` ends in after a panic, and what a broken guest does.
        VcpuExit::Shutdown => {
            return Some(Ending::Crashed(
                "triple fault: the kernel panicked, restarted or lost its way".to_owned(),
            ));
        }
        VcpuExit::SystemEvent(kind, _) => {
            return Some(Ending::Crashed(format!("system event {kind}")));
        }
        VcpuExit::FailEntry(reason, cpu) => {
            return Some(Ending::Failed(format!(
                "KVM_RUN: the hardware refused to enter the guest on CPU {cpu}: reason {reason:#x}"
            )));
        }
        VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen => {}
        exit => return Some(Ending::Failed(format!("KVM_RUN: unexpected exit {exit:?}"))),
    }
    None
}

/// An instruction KVM could not run for the guest (KVM_EXIT_INTERNAL_ERROR,
/// Documentation/virt/kvm/api.rst).
fn internal_error(vcpu: &VcpuFd) -> Ending {
    let at = vcpu
        .get_regs()
        .map_or_else(|_| "an unknown address".to_owned(), |regs| format!("{:#x}", regs.rip));
    Ending::Crashed(format!("KVM could not emulate the instruction at {at}"))
}
