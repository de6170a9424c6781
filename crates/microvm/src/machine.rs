//! The one recipe by which a machine is built and run.

use std::{
    convert::Infallible,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use compare_wire::Kind;
use vmm_sys_util::eventfd::EventFd;

use crate::{
    args::VmmArgs,
    boot,
    bus::{Bus, Line},
    cmdline::command_line,
    console::Console,
    ending::{Ending, end},
    error::Error,
    events::EventLoop,
    frames::{FramePort, Frames},
    initramfs::Archives,
    kernel::KernelFile,
    layout, memory, vcpu,
    virtio::{Device, block::Block, net::Net, transport::Transport},
    vm::{Vm, open_kvm},
    watch::Watch,
};

/// Stack of the threads besides the first: they nest few calls.
const STACK_BYTES: usize = 64 << 10;

/// The descriptors a monitor is given.
#[derive(Debug)]
pub struct Descriptors {
    /// Control bytes come from here.
    pub control: File,
    /// The guest's console goes here.
    pub console: File,
    /// Where the monitor's frames and the guest's go.
    pub frames: Arc<Frames>,
    /// Tap device of the guest's interface.
    pub tap: Option<OwnedFd>,
    /// Archive of this guest alone.
    pub config: Option<OwnedFd>,
}

/// Builds a machine and runs it. Does not come back once the guest runs: the process ends with it.
///
/// # Errors
/// The machine cannot be built.
pub fn run(args: &VmmArgs, fds: Descriptors) -> Result<Infallible, Error> {
    // Files first: what is wrong with them is told before anything is made.
    let kernel = KernelFile::open(&args.kernel)?;
    let archives = Archives::open(&args.initramfs, fds.config)?;
    let disk = args.disk.as_deref().map(|path| open_disk(path, args.disk_bytes)).transpose()?;

    let kvm = open_kvm(&args.kvm)?;
    let vm = Vm::create(&kvm, args.vcpus)?;

    // The initramfs before the kernel: it is what checks that both fit. Both before KVM learns of
    // the memory, so that replacing its pages concerns nobody yet.
    let memory = Arc::new(memory::map(args.memory.0)?);
    let initramfs = archives.load(&memory, args.memory.0, kernel.end(), &args.initramfs)?;
    let kernel = kernel.load(&memory)?;
    vm.set_memory(&memory)?;

    // Devices in the order the guest numbers them.
    let mut events = EventLoop::new(fds.control).map_err(Error::system("create the event loop"))?;
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    devices.extend(disk.map(|disk| Box::new(disk) as Box<dyn Device>));
    if let Some(tap) = fds.tap {
        let packets = tap.try_clone().map_err(Error::system("watch the tap device"))?;
        events
            .attach_packets(devices.len(), packets)
            .map_err(Error::system("watch the tap device"))?;
        let net = Net::new(tap, args.mac).map_err(Error::system("set up the tap device"))?;
        devices.push(Box::new(net));
    }
    let irqs = irqs(devices.len());
    let command_line = command_line(devices.len(), &args.append)?;
    boot::write(&memory, args.memory.0, args.vcpus, &irqs, &command_line, initramfs)?;

    let console = Console::new(attach_line(&vm, layout::SERIAL_IRQ)?, fds.console);
    let virtio = devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| {
            attach_doorbells(&vm, &mut events, index, device.queue_sizes().len())?;
            let line = attach_line(&vm, layout::VIRTIO_IRQS[index])?;
            Ok(Mutex::new(Transport::new(device, memory.clone(), line)))
        })
        .collect::<Result<_, Error>>()?;
    let mut vcpus = vm.create_vcpus(args.vcpus, kernel.entry)?.into_iter();
    let mut first = vcpus.next().expect("the VM was created with at least one vCPU");

    let bus = Arc::new(Bus {
        console: Mutex::new(console),
        frame_port: Mutex::new(FramePort::default()),
        frames: fds.frames,
        virtio,
        init_runs: event().map_err(Error::system("create an event"))?,
        watch: Watch::new(args.vcpus).map_err(Error::system("handle a signal"))?,
    });
    spawn("devices", &bus, move |bus| events.run(bus))?;
    for (mut vcpu, id) in vcpus.zip(1..) {
        spawn("vcpu", &bus, move |bus| vcpu::run(id, &mut vcpu, bus))?;
    }
    for range in memory::host_ranges(&memory) {
        let payload = [range.start.to_le_bytes(), (range.end - range.start).to_le_bytes()].concat();
        bus.frames.hold(Kind::GuestRam, 0, &payload);
    }
    bus.frames.hold(Kind::Created, 0, &[]);
    // Nothing between this mark and the first entry.
    bus.frames.hold(Kind::Kernel, 0, &[]);
    let ending = vcpu::run(0, &mut first, &bus);
    end(&bus, &ending)
}

/// The interrupts in use.
fn irqs(devices: usize) -> Vec<u32> {
    [layout::SERIAL_IRQ].into_iter().chain(layout::VIRTIO_IRQS.into_iter().take(devices)).collect()
}

fn open_disk(path: &Path, expected: Option<u64>) -> Result<Block, Error> {
    let failed = |attempt| move |source| Error::File { attempt, path: path.to_owned(), source };
    let file = File::open(path).map_err(failed("open the disk"))?;
    let actual = file.metadata().map_err(failed("read the length of"))?.len();
    match expected {
        Some(expected) if expected != actual => {
            Err(Error::DiskLength { path: path.to_owned(), actual, expected })
        }
        _ => Ok(Block::new(file, actual)),
    }
}

fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

fn attach_line(vm: &Vm, irq: u32) -> Result<Line, Error> {
    let event = event().map_err(Error::system("create an event"))?;
    vm.attach_interrupt(&event, irq)?;
    Ok(Line(event))
}

fn attach_doorbells(
    vm: &Vm,
    events: &mut EventLoop,
    device: usize,
    queues: usize,
) -> Result<(), Error> {
    for queue in 0..queues {
        let event = event().map_err(Error::system("create an event"))?;
        let address = layout::virtio_address(device)
            + u64::from(virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY);
        vm.attach_doorbell(&event, address, queue as u32)?;
        events.attach_doorbell(device, queue, event).map_err(Error::system("watch a queue"))?;
    }
    Ok(())
}

/// Runs a part of the machine in a thread of its own; whichever part ends, ends the machine.
fn spawn(
    name: &str,
    bus: &Arc<Bus>,
    part: impl FnOnce(&Bus) -> Ending + Send + 'static,
) -> Result<(), Error> {
    let bus = bus.clone();
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let ending = part(&bus);
            end(&bus, &ending)
        })
        .map(drop)
        .map_err(Error::system("start a thread"))
}
