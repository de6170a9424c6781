//! Notices a guest that can never go on: every CPU halted with interrupts off, which is how a kernel
//! that was told to halt ends, and a broken one too. KVM does not tell, since it keeps halted CPUs
//! to itself when it has the interrupt controllers; so idle CPUs are asked now and then.
//!
//! ```text
//!  event loop, idle for PERIOD ── signal ──► CPU's thread: KVM_RUN ends with EINTR
//!        ▲                                        │ looks at its own registers
//!        └───── at the next tick: all stuck? ◄────┘
//! ```
#![allow(unsafe_code)]

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    time::Duration,
};

use kvm_bindings::KVM_MP_STATE_RUNNABLE;
use kvm_ioctls::VcpuFd;

/// How long nothing may happen before the CPUs are asked.
pub const PERIOD: Duration = Duration::from_secs(1);
/// RFLAGS.IF: interrupts are taken.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// One CPU's thread and its last answer.
#[derive(Debug, Default)]
struct Cpu {
    thread: AtomicI32,
    stuck: AtomicBool,
}

/// All CPUs.
#[derive(Debug)]
pub struct Watch(Vec<Cpu>);

/// Does nothing: that it is delivered is what ends KVM_RUN.
extern "C" fn on_signal(_: libc::c_int) {}

fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

impl Watch {
    /// A watch over so many CPUs; takes the first real-time signal for itself.
    ///
    /// # Errors
    /// sigaction(2) fails.
    pub fn new(vcpus: u32) -> io::Result<Self> {
        // SAFETY: all zeroes are a valid sigaction: no flags, so that calls are interrupted and not
        // restarted, and an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
        // SAFETY: the handler does nothing, which any signal context allows; the old action is not
        // asked for.
        if unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self((0..vcpus).map(|_| Cpu::default()).collect()))
    }

    /// The calling thread runs this CPU.
    pub fn begin(&self, id: usize) {
        // SAFETY: gettid(2) takes nothing.
        self.0[id].thread.store(unsafe { libc::gettid() }, Ordering::Release);
    }

    /// The CPU's thread was interrupted: looks at the CPU.
    pub fn look(&self, id: usize, vcpu: &VcpuFd) {
        let waits = vcpu.get_mp_state().is_ok_and(|state| state.mp_state != KVM_MP_STATE_RUNNABLE);
        let deaf = vcpu.get_regs().is_ok_and(|regs| regs.rflags & INTERRUPT_FLAG == 0);
        self.0[id].stuck.store(waits && deaf, Ordering::Release);
    }

    /// Whether every CPU found itself stuck when last asked. If not, asks again.
    pub fn tick(&self) -> bool {
        if self.0.iter().all(|cpu| cpu.stuck.load(Ordering::Acquire)) {
            return true;
        }
        for (id, cpu) in self.0.iter().enumerate() {
            cpu.stuck.store(false, Ordering::Release);
            self.interrupt(id);
        }
        false
    }

    /// Has a CPU's KVM_RUN end, if its thread is in it.
    pub fn interrupt(&self, id: usize) {
        let thread = self.0[id].thread.load(Ordering::Acquire);
        if thread != 0 {
            // SAFETY: three integers; the thread is one of this process, which ends with it.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }
}
