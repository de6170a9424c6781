//! Saving a running machine. The guest asks for it at a point of its own choosing, so the CPU that
//! asked does the work, in the thread that runs it; the others are stopped where they are.
//!
//! ```text
//!  CPU that asked:  Save frame ─► completes its exit ─► stops the others ─► takes everything ─► ends
//!  other CPUs:      signal ─► KVM_RUN ends ─► complete their exit, take their state ─► wait for the end
//!  event loop:      is kept out by the devices' locks
//! ```

use std::{
    fs::File,
    ops::Range,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use compare_virtio::Memory;
use kvm_ioctls::{Kvm, VcpuFd};

use crate::{
    args::VmmArgs,
    bus::{Bus, lock},
    ending::Ending,
    error::Error,
    memory,
    snapshot::{Files, Pages, Snapshot},
    state::{self, VcpuState, VmState},
    vcpu,
    vm::Vm,
};

/// How long a CPU that was signalled is waited for before it is signalled again: the signal may
/// have come just before KVM_RUN.
const SIGNAL_PERIOD: Duration = Duration::from_millis(1);

/// What a machine that is to be saved keeps at hand.
#[derive(Debug)]
pub struct Saver {
    vm: Vm,
    msrs: Vec<u32>,
    memory: Arc<Memory>,
    mapped: [Range<u64>; 2],
    pagemap: File,
    files: Mutex<Files>,
    disk_bytes: Option<u64>,
    pause: Pause,
}

/// Stops CPUs and keeps their states.
#[derive(Debug)]
struct Pause {
    asked: AtomicBool,
    states: Mutex<Vec<Option<Result<VcpuState, Error>>>>,
    changed: Condvar,
}

impl Pause {
    fn new(vcpus: u32) -> Self {
        let states = Mutex::new((0..vcpus).map(|_| None).collect());
        Self { asked: AtomicBool::new(false), states, changed: Condvar::new() }
    }
}

impl Saver {
    /// For a machine that is to be saved to `directory`; files are mapped to the ranges `mapped` of
    /// its RAM.
    ///
    /// # Errors
    /// The files cannot be created, or KVM cannot tell which MSRs it saves.
    pub fn new(
        directory: &Path,
        kvm: &Kvm,
        vm: Vm,
        memory: Arc<Memory>,
        mapped: [Range<u64>; 2],
        args: &VmmArgs,
    ) -> Result<Self, Error> {
        Ok(Self {
            msrs: state::msrs(kvm)?,
            vm,
            memory,
            mapped,
            pagemap: File::open("/proc/self/pagemap")
                .map_err(Error::system("open /proc/self/pagemap"))?,
            files: Mutex::new(Files::create(directory)?),
            disk_bytes: args.disk_bytes,
            pause: Pause::new(args.vcpus),
        })
    }

    /// Whether CPUs are to stop.
    pub fn is_pausing(&self) -> bool {
        self.pause.asked.load(Ordering::Acquire)
    }

    /// Takes the state of the calling thread's CPU, which another asked to stop. Does not come back.
    pub fn park(&self, id: usize, vcpu: &mut VcpuFd, bus: &Bus) -> ! {
        let state = self.take_cpu(id, vcpu, bus);
        lock(&self.pause.states)[id] = Some(state);
        self.pause.changed.notify_all();
        loop {
            std::thread::park();
        }
    }

    /// Saves the machine whose CPU `id` asked for it; tells what came of it.
    pub fn save(&self, id: usize, vcpu: &mut VcpuFd, bus: &Bus) -> Ending {
        match self.try_save(id, vcpu, bus) {
            Ok(()) => Ending::Saved,
            Err(error) => Ending::Failed(format!("save the machine: {}", error.chain())),
        }
    }

    fn try_save(&self, id: usize, vcpu: &mut VcpuFd, bus: &Bus) -> Result<(), Error> {
        let own = self.take_cpu(id, vcpu, bus);
        lock(&self.pause.states)[id] = Some(own);
        self.pause.asked.store(true, Ordering::Release);
        let mut states = lock(&self.pause.states);
        while states.iter().any(Option::is_none) {
            for (other, _) in states.iter().enumerate().filter(|(_, state)| state.is_none()) {
                bus.watch.interrupt(other);
            }
            (states, _) = self
                .pause
                .changed
                .wait_timeout(states, SIGNAL_PERIOD)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let vcpus = states.drain(..).flatten().collect::<Result<_, _>>()?;
        // From here on nothing moves: no CPU runs, and whoever serves a device needs its lock.
        let mut console = lock(&bus.console);
        let devices: Vec<_> = bus.virtio.iter().map(lock).collect();
        let mut files = lock(&self.files);
        let failed = Error::system("write guest RAM");
        let ram_bytes = memory::bytes(&self.memory);
        let ram_checksum = Pages::of_memory(&self.memory, &self.pagemap, &self.mapped)
            .and_then(|pages| pages.write(files.memory(), ram_bytes))
            .map_err(failed)?;
        files.finish(&Snapshot {
            ram_bytes,
            ram_checksum,
            vcpus,
            vm: VmState::take(self.vm.fd())?,
            console: console.save(),
            devices: devices.iter().map(|device| device.save()).collect(),
            disk_bytes: self.disk_bytes,
        })
    }

    /// KVM finishes an exit when its CPU is next run: it is, but not to enter the guest.
    fn take_cpu(&self, id: usize, vcpu: &mut VcpuFd, bus: &Bus) -> Result<VcpuState, Error> {
        vcpu.set_kvm_immediate_exit(1);
        loop {
            match vcpu.run() {
                // A string instruction that is not through: the rest of it is served as ever, for
                // what it does to devices is part of what is saved.
                Ok(exit) => drop(vcpu::answer(exit, bus)),
                Err(error) if error.errno() == libc::EINTR => break,
                Err(error) => return Err(Error::Kvm { ioctl: "KVM_RUN", source: error }),
            }
        }
        VcpuState::take(vcpu, &self.vm.cpuid(id as u32), &self.msrs)
    }
}
