//! The compressed kernel distributions ship: whether it can be booted as it is, and which Linux it is,
//! by its setup header (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"). The monitor
//! reads the rest of it.

/// Offsets of its fields.
const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const XLOADFLAGS: usize = 0x236;
/// The first version whose header tells of a 64-bit entry point, and the flag that does.
const VERSION_XLOADFLAGS: u16 = 0x20c;
const XLF_KERNEL_64: u16 = 1;

/// Whether this is a kernel with a setup header.
pub fn is_bzimage(data: &[u8]) -> bool {
    data.get(MAGIC..).is_some_and(|rest| rest.starts_with(b"HdrS"))
}

/// The release of the Linux in it.
///
/// # Errors
/// Why it cannot be booted.
pub fn release(data: &[u8]) -> Result<String, &'static str> {
    const CUT_OFF: &str = "a bzImage that is cut off";
    let u16_at = |offset: usize| {
        let bytes = data.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.map(|bytes| u16::from_le_bytes(*bytes)).ok_or(CUT_OFF)
    };
    if u16_at(VERSION)? < VERSION_XLOADFLAGS {
        return Err("a bzImage older than Linux 3.8, whose header tells of no 64-bit entry point");
    }
    if u16_at(XLOADFLAGS)? & XLF_KERNEL_64 == 0 {
        return Err("a 32-bit bzImage; give one for x86-64");
    }
    // 0 stands for four sectors; the boot sector comes on top, the kernel's 16-byte units follow.
    let sectors = usize::from(match data[SETUP_SECTS] {
        0 => 4,
        sectors => sectors,
    });
    let units = usize::from(u16_at(SYSSIZE)?) | usize::from(u16_at(SYSSIZE + 2)?) << 16;
    if data.len() < (sectors + 1) * 512 + units * 16 {
        return Err(CUT_OFF);
    }
    // "a pointer to a null-terminated human-readable kernel version number string, less 0x200"
    let text = data.get(usize::from(u16_at(KERNEL_VERSION)?) + 0x200..).unwrap_or_default();
    let end = text.iter().take(64).position(|byte| matches!(byte, b' ' | 0));
    match end {
        Some(end) if text.first().is_some_and(u8::is_ascii_digit) => {
            Ok(String::from_utf8_lossy(&text[..end]).into_owned())
        }
        _ => Err("a bzImage, but no Linux version is written in it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that count, and a version behind them.
    fn image() -> Vec<u8> {
        let mut data = vec![0; 1024 + 160];
        let mut put = |offset: usize, bytes: &[u8]| {
            data[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(SETUP_SECTS, &[1]);
        put(SYSSIZE, &[10, 0, 0, 0]);
        put(MAGIC, b"HdrS\x0f\x02");
        put(KERNEL_VERSION, &[0x80, 0]);
        put(0x280, b"6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1");
        put(XLOADFLAGS, &[0x7f, 0]);
        data
    }

    fn problem(offset: usize, value: u8) -> &'static str {
        let mut data = image();
        data[offset] = value;
        release(&data).unwrap_err()
    }

    #[test]
    fn the_release_is_read() {
        assert!(is_bzimage(&image()) && !is_bzimage(b"\x7fELF"));
        assert_eq!(release(&image()).unwrap(), "6.1.0-56-cloud-amd64");
    }

    #[test]
    fn what_cannot_be_booted_is_told() {
        assert!(problem(VERSION, 0x0b).contains("older than Linux 3.8"));
        assert!(problem(XLOADFLAGS, 0x7e).contains("32-bit"));
        assert!(problem(SYSSIZE, 11).contains("cut off"));
        assert!(problem(0x280, b'x').contains("no Linux version"));
        assert!(problem(KERNEL_VERSION + 1, 0xff).contains("no Linux version"));
        let whole = image();
        assert!((0..whole.len()).all(|length| release(&whole[..length]).is_err()));
    }
}
