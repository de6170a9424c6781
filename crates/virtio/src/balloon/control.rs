//! The monitor's end of a balloon: how many pages the guest is to give up, and how many it has.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// What both ends see.
#[derive(Debug)]
pub(super) struct Shared {
    target_pages: AtomicU32,
    actual_pages: AtomicU32,
    reclaimed_bytes: AtomicU64,
    /// Raised when the target was set.
    pub(super) wake: EventFd,
}

impl Shared {
    pub(super) fn target(&self) -> u32 {
        self.target_pages.load(Ordering::Relaxed)
    }

    pub(super) fn set_target(&self, pages: u32) {
        self.target_pages.store(pages, Ordering::Relaxed);
    }

    pub(super) fn set_actual(&self, pages: u32) {
        self.actual_pages.store(pages, Ordering::Relaxed);
    }

    pub(super) fn add_reclaimed(&self, bytes: u64) {
        self.reclaimed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Inflates a balloon, from any thread. Pages are of 4 KiB.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    pub(super) fn new() -> io::Result<(Arc<Shared>, Self)> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared {
            target_pages: AtomicU32::new(0),
            actual_pages: AtomicU32::new(0),
            reclaimed_bytes: AtomicU64::new(0),
            wake,
        });
        Ok((shared.clone(), Self(shared)))
    }

    /// Asks the guest to hold so many pages in the balloon. A guest may take its time, or refuse.
    pub fn set_target_pages(&self, pages: u32) {
        self.0.set_target(pages);
        // Only a counter at its end refuses, and then the device is woken already.
        let _ = self.0.wake.write(1);
    }

    /// What the guest was asked for.
    pub fn target_pages(&self) -> u32 {
        self.0.target()
    }

    /// How many pages the guest says it holds in the balloon.
    pub fn actual_pages(&self) -> u32 {
        self.0.actual_pages.load(Ordering::Relaxed)
    }

    /// Bytes given back to the host so far, by inflating and by reporting. A page given back twice
    /// counts twice.
    pub fn reclaimed_bytes(&self) -> u64 {
        self.0.reclaimed_bytes.load(Ordering::Relaxed)
    }
}
