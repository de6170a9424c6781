//! The devices a machine can have besides its root disk and its network card: opened first of all,
//! before anything is made, and put behind those in a fixed order, by which the guest numbers them:
//!
//! ```text
//!  disk /dev/vda or /dev/pmem0 ─ tap eth0 ─ scratch /dev/vdb ─ rng ─ vsock ─ balloon
//! ```
//! Whoever is missing leaves no gap. The order is part of a snapshot.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
};

use compare_virtio::{
    Device,
    balloon::{self, Balloon},
    block::Block,
    net::Net,
    rng::Rng,
    vsock::Vsock,
};

use crate::{args::DeviceArgs, error::Error};

/// Pages of a balloon in a MiB (section 5.5.6 of the virtio specification: 4 KiB each).
const PAGES_PER_MIB: u32 = 256;

/// Those devices, opened.
#[derive(Debug)]
pub struct Extras {
    scratch: Option<Block>,
    rng: Option<Rng>,
    vsock: Option<Vsock>,
    balloon: Option<Balloon>,
    target: Option<(balloon::Control, u32)>,
}

impl Extras {
    /// Opens what is asked for.
    ///
    /// # Errors
    /// A file cannot be opened, or a socket not be bound.
    pub fn open(args: &DeviceArgs) -> Result<Self, Error> {
        let balloon = args.balloon.then(Balloon::new).transpose();
        let (balloon, control) = balloon.map_err(Error::system("make the balloon"))?.unzip();
        Ok(Self {
            scratch: args.scratch.as_deref().map(open_scratch).transpose()?,
            rng: args.rng.then(Rng::new),
            vsock: args.vsock.as_deref().map(|path| bind(path, args.vsock_cid)).transpose()?,
            balloon,
            target: control.zip(args.balloon_mib),
        })
    }

    /// Every device of the machine, in the order of their addresses; and what is to be asked of the
    /// balloon once it is the guest's.
    ///
    /// # Errors
    /// The tap device refuses something.
    pub fn behind(
        self,
        disk: Option<Box<dyn Device>>,
        tap: Option<OwnedFd>,
        mac: [u8; 6],
    ) -> Result<(Vec<Box<dyn Device>>, Target), Error> {
        let net = tap
            .map(|tap| Net::new(tap, mac))
            .transpose()
            .map_err(Error::system("set up the tap device"))?;
        let devices = [
            disk,
            net.map(boxed),
            self.scratch.map(boxed),
            self.rng.map(boxed),
            self.vsock.map(boxed),
            self.balloon.map(boxed),
        ];
        Ok((devices.into_iter().flatten().collect(), Target(self.target)))
    }
}

fn boxed(device: impl Device + 'static) -> Box<dyn Device> {
    Box::new(device)
}

/// What the guest is to give up.
#[derive(Debug)]
#[must_use]
pub struct Target(Option<(balloon::Control, u32)>);

impl Target {
    /// Asks for it. A restored balloon has a target of its own, so this comes after.
    pub fn set(self) {
        if let Some((control, mib)) = self.0 {
            control.set_target_pages(mib.saturating_mul(PAGES_PER_MIB));
        }
    }
}

/// A file or block device.
fn open_scratch(path: &Path) -> Result<Block, Error> {
    let failed = |source| Error::File { attempt: "open", path: path.to_owned(), source };
    let mut file = File::options().read(true).write(true).open(path).map_err(failed)?;
    let length = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(failed)?;
    Ok(Block::writable(file, length))
}

/// The host's side of the guest's sockets. A socket that a machine of before has left, at which
/// nobody listens, is replaced; anything else at `path` stays.
fn bind(path: &Path, cid: u32) -> Result<Vsock, Error> {
    let bound = UnixListener::bind(path).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse if is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        _ => Err(error),
    });
    bound
        .and_then(|listener| Vsock::new(cid.into(), listener, path.to_owned()))
        .map_err(|source| Error::File { attempt: "listen at", path: path.to_owned(), source })
}

fn is_abandoned(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests;
