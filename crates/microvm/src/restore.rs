//! The recipe by which a machine that was saved is built again and goes on. Its RAM is the
//! snapshot's file, mapped so that what it writes stays its own and all else is shared, through the
//! host's page cache, with every other machine restored from it.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read, Seek},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use compare_spec::RootDevice;
use compare_virtio::{Memory, transport::Transport};
use compare_wire::GuestIdentity;

use crate::{
    args::VmmArgs,
    assembly::{Assembly, Parts},
    console::Console,
    devices::Extras,
    disk::Disk,
    error::Error,
    identity::IdentityPort,
    layout,
    machine::Descriptors,
    mapping::map_file,
    memory,
    snapshot::{Saved, WorkingSet},
    vm::{Vm, open_kvm},
};

/// Builds the machine saved in `directory` and lets it go on. Does not come back once the guest
/// runs: the process ends with it.
///
/// # Errors
/// The snapshot is not usable or not usable here, or the machine cannot be built.
pub fn restore(directory: &Path, args: &VmmArgs, fds: Descriptors) -> Result<Infallible, Error> {
    let Saved { memory: ram, snapshot, .. } = Saved::open(directory)?;
    let disk = args
        .disk
        .as_deref()
        .map(|path| Disk::open(path, snapshot.disk_bytes, RootDevice::Blk))
        .transpose()?;
    let extras = Extras::open(&args.devices)?;
    let working_set = WorkingSet::read(directory, snapshot.ram_bytes)?;
    let identity = read_identity(fds.config)?;

    let kvm = open_kvm(&args.kvm)?;
    let vm = Vm::create(&kvm, snapshot.vcpus.len() as u32)?;
    let memory = Arc::new(memory::map(snapshot.ram_bytes)?);
    let disk = disk.map(|disk| disk.into_device(&memory, snapshot.ram_bytes)).transpose()?;
    map_ram(&memory, &ram, directory)?;
    // Before KVM has the memory: afterwards each change of a page concerns it, too.
    working_set.bring_in(&memory);
    vm.set_memory(&memory)?;

    let mut assembly = Assembly::new(fds.control)?;
    let (devices, target) = extras.behind(disk, fds.tap, args.mac)?;
    if devices.len() != snapshot.devices.len()
        || args.disk.is_some() != snapshot.disk_bytes.is_some()
    {
        return Err(Error::Snapshot {
            path: directory.join("state"),
            problem: format!(
                "it was saved with {} devices, this machine is to have {}: give it the same disk, \
                 network and other devices",
                snapshot.devices.len(),
                devices.len()
            ),
        });
    }
    let line = assembly.attach_line(&vm, layout::SERIAL_IRQ)?;
    let console = Console::restore(&snapshot.console, line, fds.console)
        .map_err(Error::system("restore the console"))?;
    let mut virtio = devices
        .into_iter()
        .zip(&snapshot.devices)
        .enumerate()
        .map(|(index, (device, state))| {
            let line = assembly.attach_device(&vm, index, &*device)?;
            Transport::restore(device, memory.clone(), line, state).map_err(|error| {
                Error::Snapshot {
                    path: directory.join("state"),
                    problem: format!("device {index}: {error}"),
                }
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let vcpus = vm.restore_vcpus(&snapshot.vcpus)?;
    // After the CPUs: the interrupt controllers deliver to them.
    snapshot.vm.put(vm.fd())?;
    // The balloon's own target was restored with it.
    target.set();
    // Doorbells and lines that were under way when it was saved are no part of the state.
    virtio.iter_mut().for_each(Transport::resume);
    let parts = Parts {
        memory,
        vcpus,
        console,
        virtio,
        identity,
        saver: None,
        room: fds.room,
        listens: args.devices.listens(),
    };
    assembly.run(parts, fds.frames)
}

/// Maps the ranges of guest RAM, which lie in the file one after another.
fn map_ram(memory: &Memory, ram: &File, directory: &Path) -> Result<(), Error> {
    let mut offset = 0;
    for range in memory::ranges(memory::bytes(memory)) {
        map_file(memory, range.start, ram, offset, range.end - range.start).map_err(|source| {
            Error::File { attempt: "map", path: directory.join("memory"), source }
        })?;
        offset += range.end - range.start;
    }
    Ok(())
}

fn read_identity(fd: Option<OwnedFd>) -> Result<IdentityPort, Error> {
    let failed = Error::system("read the guest's identity");
    let Some(fd) = fd else { return Ok(IdentityPort::default()) };
    let mut file = File::from(fd);
    let mut bytes = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(GuestIdentity::SIZE as u64).read_to_end(&mut bytes))
        .and_then(|_| GuestIdentity::decode(&bytes).map_err(io::Error::other));
    read.map(IdentityPort::new).map_err(failed)
}
