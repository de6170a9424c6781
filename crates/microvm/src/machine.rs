//! The recipe by which a machine is built and booted. The other one, for a machine that was saved,
//! is in [`crate::restore`]; what both do is in the module `assembly`.

use std::{convert::Infallible, fs::File, os::fd::OwnedFd, sync::Arc};

use compare_confine::Room;
use compare_virtio::transport::Transport;

use crate::{
    args::VmmArgs,
    assembly::{Assembly, Parts},
    boot,
    cmdline::command_line,
    console::Console,
    devices::Extras,
    disk::Disk,
    error::Error,
    frames::Frames,
    identity::IdentityPort,
    initramfs::Archives,
    kernel::KernelFile,
    layout, memory,
    save::Saver,
    vm::{Vm, open_kvm},
};

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
    /// Archive of this guest alone; or, of a restored one, its identity (`GuestIdentity`).
    pub config: Option<OwnedFd>,
    /// Namespaces to confine the monitor to, made for several.
    pub room: Option<Room>,
}

/// Builds a machine and boots it. Does not come back once the guest runs: the process ends with it.
///
/// # Errors
/// The machine cannot be built.
pub fn boot(args: &VmmArgs, fds: Descriptors) -> Result<Infallible, Error> {
    // Files first: what is wrong with them is told before anything is made.
    let kernel = KernelFile::open(&args.kernel)?;
    let archives = Archives::open(&args.initramfs, fds.config)?;
    let disk = args
        .disk
        .as_deref()
        .map(|path| Disk::open(path, args.disk_bytes, args.devices.root_device))
        .transpose()?;
    let extras = Extras::open(&args.devices)?;

    let kvm = open_kvm(&args.kvm)?;
    let vm = Vm::create(&kvm, args.vcpus)?;

    // The initramfs before the kernel: it is what checks that both fit. Both before KVM learns of
    // the memory, so that replacing its pages concerns nobody yet.
    let window = disk.as_ref().and_then(|disk| disk.window(args.memory.0));
    let memory = Arc::new(memory::map_with(args.memory.0, window, args.devices.memory_pages)?);
    let disk = disk.map(|disk| disk.into_device(&memory, args.memory.0)).transpose()?;
    let initramfs = archives.load(&memory, args.memory.0, kernel.end(), &args.initramfs)?;
    let kernel = kernel.load(&memory)?;
    vm.set_memory(&memory)?;

    let mut assembly = Assembly::new(fds.control)?;
    let (devices, target) = extras.behind(disk, fds.tap, args.mac)?;
    target.set();
    let irqs = layout::irqs(devices.len());
    let command_line = command_line(devices.len(), &args.append)?;
    boot::write(&memory, args.memory.0, args.vcpus, &irqs, &command_line, initramfs)?;

    let console = Console::new(assembly.attach_line(&vm, layout::SERIAL_IRQ)?, fds.console);
    let virtio = devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| {
            let line = assembly.attach_device(&vm, index, &*device)?;
            Ok(Transport::new(device, memory.clone(), line))
        })
        .collect::<Result<_, Error>>()?;
    let vcpus = vm.create_vcpus(kernel.entry)?;
    let saver = match &args.save_to {
        Some(directory) => {
            let mapped = [0..kernel.end, initramfs.address..initramfs.address + initramfs.length];
            Some(Saver::new(directory, &kvm, vm, memory.clone(), mapped, args)?)
        }
        None => None,
    };
    let parts = Parts {
        memory,
        vcpus,
        console,
        virtio,
        identity: IdentityPort::default(),
        saver,
        room: fds.room,
        listens: args.devices.listens(),
    };
    assembly.run(parts, fds.frames)
}
