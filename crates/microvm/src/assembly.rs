//! What booting and restoring a machine have in common: connecting its devices to KVM and to the event
//! loop, and setting everything in motion.

use std::{
    convert::Infallible,
    fs::File,
    io,
    sync::{Arc, Mutex},
    thread,
};

use compare_confine::{Room, seccomp::Filter};
use compare_virtio::{Device, Memory, transport::Transport};
use compare_wire::Kind;
use kvm_ioctls::VcpuFd;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vmm_sys_util::eventfd::EventFd;

use crate::{
    bus::{Bus, Line},
    confinement::{Filters, Plan},
    console::Console,
    ending::{Ending, end},
    error::Error,
    events::EventLoop,
    frames::{FramePort, Frames},
    identity::IdentityPort,
    layout, memory,
    save::Saver,
    vcpu,
    vm::Vm,
    watch::Watch,
};

/// Stack of the threads besides the first. Saving takes the most: whole states of a CPU pass by value.
const STACK_BYTES: usize = 256 << 10;

/// What a recipe puts together.
pub struct Parts {
    /// Guest RAM.
    pub memory: Arc<Memory>,
    /// The CPUs.
    pub vcpus: Vec<VcpuFd>,
    /// The console.
    pub console: Console<Line>,
    /// The virtio devices in the order of their addresses.
    pub virtio: Vec<Transport<Line>>,
    /// Who the guest is.
    pub identity: IdentityPort,
    /// Saves the machine, if it is built for that.
    pub saver: Option<Saver>,
    /// Namespaces to confine the monitor to, made for several.
    pub room: Option<Room>,
    /// How many descriptors connections may take, if a device takes any.
    pub listens: Option<u64>,
}

/// A machine being put together.
#[derive(Debug)]
pub struct Assembly {
    events: EventLoop,
}

impl Assembly {
    /// Begins one that passes `control` bytes on.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(control: File) -> Result<Self, Error> {
        let events = EventLoop::new(control).map_err(Error::system("create the event loop"))?;
        Ok(Self { events })
    }

    /// Connects an interrupt line.
    ///
    /// # Errors
    /// KVM refuses it.
    pub fn attach_line(&self, vm: &Vm, irq: u32) -> Result<Line, Error> {
        let event = event().map_err(Error::system("create an event"))?;
        vm.attach_interrupt(&event, irq)?;
        Ok(Line(event))
    }

    /// Connects the virtio device with this index: a doorbell for each of its queues, what it watches
    /// of the host, and its line.
    ///
    /// # Errors
    /// KVM refuses one.
    pub fn attach_device(
        &mut self,
        vm: &Vm,
        index: usize,
        device: &dyn Device,
    ) -> Result<Line, Error> {
        for queue in 0..device.queue_sizes().len() {
            let event = event().map_err(Error::system("create an event"))?;
            let address = layout::virtio_address(index) + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY);
            vm.attach_doorbell(&event, address, queue as u32)?;
            self.events
                .attach_doorbell(index, queue, event)
                .map_err(Error::system("watch a queue"))?;
        }
        if let Some(watched) = device.watched() {
            self.events
                .attach_device(index, watched)
                .map_err(Error::system("watch the host's side of a device"))?;
        }
        self.attach_line(vm, layout::VIRTIO_IRQS[index])
    }

    /// Confines the monitor and sets everything in motion. Does not come back: the process ends with
    /// the machine.
    ///
    /// # Errors
    /// The monitor cannot be confined, or a thread not be started.
    pub fn run(self, parts: Parts, frames: Arc<Frames>) -> Result<Infallible, Error> {
        let count = parts.vcpus.len();
        let mut vcpus = parts.vcpus.into_iter();
        let mut first = vcpus.next().ok_or(Error::Vcpus { asked: 0, most: layout::MAX_VCPUS })?;
        let bus = Arc::new(Bus {
            console: Mutex::new(parts.console),
            frame_port: Mutex::new(FramePort::default()),
            frames,
            virtio: parts.virtio.into_iter().map(Mutex::new).collect(),
            init_runs: event().map_err(Error::system("create an event"))?,
            watch: Watch::new(count as u32).map_err(Error::system("handle a signal"))?,
            identity: Mutex::new(parts.identity),
            saver: parts.saver,
        });
        // While there is one thread, and all that is needed is open.
        let mut confined = Plan {
            room: parts.room,
            saves: bus.saver.is_some().then(|| memory::bytes(&parts.memory)),
            listens: parts.listens,
        }
        .enter()?;
        let filters = Arc::new(confined.filters()?);
        let events = self.events;
        spawn("devices", &bus, &filters, |filters| &filters.devices, move |bus| events.run(bus))?;
        for (mut vcpu, id) in vcpus.zip(1..) {
            spawn(
                "vcpu",
                &bus,
                &filters,
                |filters| &filters.vcpu,
                move |bus| vcpu::run(id, &mut vcpu, bus),
            )?;
        }
        bus.frames.hold(Kind::Confined, 0, &confined.encode());
        for range in memory::host_ranges(&parts.memory) {
            let payload =
                [range.start.to_le_bytes(), (range.end - range.start).to_le_bytes()].concat();
            bus.frames.hold(Kind::GuestRam, 0, &payload);
        }
        // This thread's filter comes last: it allows no thread to be started.
        filters.vcpu.install().map_err(Error::confine)?;
        bus.frames.hold(Kind::Created, 0, &[]);
        // Nothing between this mark and the first entry.
        bus.frames.hold(Kind::Kernel, 0, &[]);
        let ending = vcpu::run(0, &mut first, &bus);
        end(&bus, &ending)
    }
}

fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

/// Runs a part of the machine in a thread of its own, under this filter; whichever part ends, ends
/// the machine.
fn spawn(
    name: &str,
    bus: &Arc<Bus>,
    filters: &Arc<Filters>,
    filter: fn(&Filters) -> &Filter,
    part: impl FnOnce(&Bus) -> Ending + Send + 'static,
) -> Result<(), Error> {
    let (bus, filters) = (bus.clone(), filters.clone());
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let ending = match filter(&filters).install() {
                Ok(()) => part(&bus),
                Err(error) => Ending::Failed(Error::confine(error).chain()),
            };
            end(&bus, &ending)
        })
        .map(drop)
        .map_err(Error::system("start a thread"))
}
