//! Sweeps: every port, and addresses all over the guest-physical space.

use crate::{
    boot::BootParams,
    cpu::{self, in8, in8_run, in16, in32, out8, out8_run, out16, out32},
    paging::{WINDOW_BYTES, look_at, physical_bits},
    report::{FRAMES, expect},
    virtio::MAGIC,
};

/// Ports that end the machine or speak, and would hide what the rest do: the keyboard controller's
/// command port, the console and the frames port.
fn speaks(port: u16) -> bool {
    matches!(port, 0x64 | 0x3f8..0x400) || (FRAMES..FRAMES + 4).contains(&port)
}

/// Reads and writes every port, four at a time, and the lower ones, where a PC has its devices, in all
/// other ways too.
pub fn ports() {
    for port in (0..=u16::MAX).step_by(4).filter(|&port| !speaks(port)) {
        _ = in32(port);
        out32(port, u32::from(port) << 16 | 0xff);
    }
    let mut noise = cpu::Noise::new(7);
    let mut buffer = [0; 64];
    for port in (0..0x1000).filter(|&port| !speaks(port)) {
        let value = noise.next() as u32;
        match noise.next() % 6 {
            0 => out8(port, value as u8),
            1 => out16(port, value as u16),
            2 => _ = in8(port),
            3 => _ = in16(port),
            4 => in8_run(port, &mut buffer[..3]),
            _ => out8_run(port, &buffer[..2]),
        }
    }
    // A port nobody has reads as all ones in every width.
    expect("an empty port, 1 byte", in8(0x700).into(), 0xff);
    expect("an empty port, 2 bytes", in16(0x700).into(), 0xffff);
    expect("an empty port, 4 bytes", in32(0x700).into(), 0xffff_ffff);
    // The console in widths it does not have.
    let _ = (in32(0x3fe), in16(0x3fc));
    in8_run(0x3fd, &mut buffer);
}

/// Reads and writes addresses that are no RAM, in every width and at odd places: the registers of
/// every device, the hole below 4 GiB in steps, and each power of two up to the end of what the CPU
/// can address.
pub fn addresses(boot: &BootParams) {
    for device in boot.devices() {
        for offset in 0..0x400 {
            poke(device + offset);
        }
        for offset in (0xff0..0x1010).chain(0x1ff8..0x2000) {
            poke(device + offset);
        }
        expect("a device's magic", cpu::read::<u32>(device).into(), MAGIC.into());
    }
    for address in (0xd010_0000..0xfec0_0000).step_by(1 << 20) {
        poke(address + (address >> 20) % 16);
    }
    for address in (0xa_0000..0x10_0000).step_by(0x1fff) {
        poke(address);
    }
    for bit in 32..physical_bits() {
        for physical in [1 << bit, (1 << bit) + 0xff8, (2 << bit) - WINDOW_BYTES, (2 << bit) - 8] {
            let place = look_at(physical);
            poke(place);
            expect("nothing, read", cpu::read(place), u64::MAX);
        }
    }
    // Across the end of RAM: one half is memory, the other nothing.
    let end = boot.ram_end();
    for back in (1..8).rev() {
        cpu::write(end - back, 0x1122_3344_5566_7788_u64);
        let _ = cpu::read::<u64>(end - back);
    }
    expect("the last byte of RAM", cpu::read::<u8>(end - 1).into(), 0x88);
}

/// Every width at one address.
fn poke(address: u64) {
    let _ = cpu::read::<u8>(address);
    let _ = cpu::read::<u16>(address);
    let _ = cpu::read::<u32>(address);
    let _ = cpu::read::<u64>(address);
    cpu::write::<u8>(address, 0xff);
    cpu::write::<u16>(address, 0xffff);
    cpu::write::<u32>(address, 0xffff_ffff);
    cpu::write::<u64>(address, u64::MAX);
}
