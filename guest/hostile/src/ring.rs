//! Rings of a split virtqueue (section 2.7 of the virtio specification) and memory for requests, as
//! plain addresses: what stands in them is up to whoever writes them.

use crate::cpu;

/// Descriptor flags (2.7.5).
pub const NEXT: u16 = 1;
/// The device writes it.
pub const WRITE: u16 = 2;
/// It holds a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Bytes for one queue: a page for the table, one for each ring, and more for buffers.
const AREA_BYTES: u64 = 16 << 12;
const BUFFERS: u64 = 4 << 12;

#[repr(C, align(4096))]
struct Areas([u8; 2 * AREA_BYTES as usize]);

/// Only ever reached by address.
static mut AREAS: Areas = Areas([0; 2 * AREA_BYTES as usize]);

/// A descriptor as it stands in a table: address, length, flags, next.
pub type Entry = (u64, u32, u16, u16);

/// The memory of one queue.
#[derive(Clone, Copy)]
pub struct Rings {
    area: u64,
    available_ring: u64,
    available: u16,
}

impl Rings {
    /// Entries.
    pub const SIZE: u16 = 8;

    /// The rings of this queue, zeroed.
    pub fn empty(queue: u64) -> Self {
        let area = &raw mut AREAS as u64 + queue * AREA_BYTES;
        (area..area + 4 * 4096).step_by(8).for_each(|address| cpu::write(address, 0_u64));
        Self { area, available_ring: area + 0x1000, available: 0 }
    }

    /// Table, available ring, used ring.
    pub fn addresses(self) -> [u64; 3] {
        [self.area, self.available_ring, self.area + 0x2000]
    }

    /// Has the available ring lie elsewhere.
    pub fn move_available(&mut self, address: u64) {
        self.available_ring = address;
    }

    /// Memory for requests, nothing else in it.
    pub fn buffers(self) -> u64 {
        self.area + BUFFERS
    }

    /// Writes a descriptor into this queue's table.
    pub fn describe(self, index: u16, entry: Entry) {
        describe_at(self.area, index, entry);
    }

    /// Offers the chain that starts at `head`.
    pub fn offer(&mut self, head: u16) {
        cpu::write(self.available_ring + 4 + u64::from(self.available % Self::SIZE) * 2, head);
        self.set_available(self.available.wrapping_add(1));
    }

    /// Sets the available ring's index, to whatever.
    pub fn set_available(&mut self, index: u16) {
        self.available = index;
        cpu::write(self.available_ring + 2, index);
    }

    /// The used ring's index.
    pub fn used_index(self) -> u16 {
        cpu::read(self.addresses()[2] + 2)
    }

    /// Describes a disk's read of one sector, in three descriptors from `first` on.
    pub fn put_request(self, first: u16, sector: u64) {
        let at = self.buffers();
        cpu::write::<u64>(at, 0); // VIRTIO_BLK_T_IN
        cpu::write(at + 8, sector);
        cpu::write::<u8>(at + 0x1000, 0xff);
        self.describe(first, (at, 16, NEXT, first + 1));
        self.describe(first + 1, (at + 0x200, 512, NEXT | WRITE, first + 2));
        self.describe(first + 2, (at + 0x1000, 1, WRITE, 0));
    }

    /// What the disk answered it with; 0xff where it has not.
    pub fn request_status(self) -> u8 {
        cpu::read(self.buffers() + 0x1000)
    }
}

/// Writes a descriptor into a table anywhere.
pub fn describe_at(table: u64, index: u16, (address, length, flags, next): Entry) {
    let at = table + u64::from(index) * 16;
    cpu::write(at, address);
    cpu::write(at + 8, length);
    cpu::write(at + 12, flags);
    cpu::write(at + 14, next);
}
