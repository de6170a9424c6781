//! Kernel files: whether one can be booted, and which Linux it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use compare_spec::Digest;
use object::{
    Endianness,
    elf::{EM_X86_64, ET_EXEC, FileHeader64, PT_LOAD},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use crate::{
    bzimage,
    error::{At, Error, Result},
};

/// A kernel that microVMs can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArtefact {
    /// The file: an uncompressed ELF file or a bzImage.
    pub vmlinux: PathBuf,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its release, as `uname -r` will print it.
    pub release: String,
}

/// Checks a kernel file: an uncompressed 64-bit x86 `vmlinux`, or a bzImage with a 64-bit entry point,
/// whole, with Linux in it.
///
/// # Errors
/// It cannot be read or cannot be booted; the message says what it is instead and what helps.
pub fn check_kernel(path: &Path) -> Result<KernelArtefact> {
    let wrong = |problem: String| Error::Kernel { path: path.to_owned(), problem };
    let facts = fs::metadata(path).at("read the kernel", path)?;
    if !facts.is_file() || facts.len() > LARGEST {
        return Err(wrong("not a regular file of at most 1 GiB".to_owned()));
    }
    let data = fs::read(path).at("read the kernel", path)?;
    let release = if bzimage::is_bzimage(&data) {
        bzimage::release(&data)
    } else {
        loadable(&data).and_then(|()| {
            release(&data).ok_or("an ELF program, but no Linux version is written in it")
        })
    };
    let release = release.map_err(|problem| wrong(problem.to_owned()))?;
    Ok(KernelArtefact { vmlinux: path.to_owned(), digest: Digest::of(&data), release })
}

/// Kernels with all their debugging information are smaller.
const LARGEST: u64 = 1 << 30;
/// What compressed files begin with.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
];

fn loadable(data: &[u8]) -> std::result::Result<(), &'static str> {
    if COMPRESSED.iter().any(|(magic, _)| data.starts_with(magic)) {
        return Err("this is a compressed file; give a vmlinux or a bzImage");
    }
    let parsed =
        FileHeader64::<Endianness>::parse(data).and_then(|header| Ok((header, header.endian()?)));
    let Ok((header, endian)) = parsed else {
        return Err(
            "not a 64-bit ELF file and not a bzImage; give a vmlinux or a bzImage, or leave --kernel out to have one built",
        );
    };
    if header.e_machine(endian) != EM_X86_64 {
        return Err("built for another architecture than x86-64");
    }
    if header.e_type(endian) != ET_EXEC || header.e_entry(endian) == 0 {
        return Err(
            "an ELF file, but not a kernel: neither a library, an object file nor a position-independent program can be booted",
        );
    }
    let segments =
        header.program_headers(endian, data).map_err(|_| "its program headers are cut off")?;
    let mut load = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD).peekable();
    if load.peek().is_none() {
        return Err("an ELF file with nothing to load");
    }
    if load.any(|segment| segment.data(endian, data).is_err()) {
        return Err("the file is cut off: it is shorter than its program headers say");
    }
    Ok(())
}

/// The kernel's banner begins with `Linux version RELEASE (`: `linux_banner` of init/version.c.
fn release(data: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let mut rest = data;
    loop {
        // The first byte is found quickly, the rest compared only there.
        let at = rest.windows(BANNER.len()).position(|window| window == BANNER)?;
        rest = &rest[at + BANNER.len()..];
        let end = rest.iter().take(64).position(|byte| *byte == b' ');
        if let Some(end) = end
            && rest[..end].first().is_some_and(u8::is_ascii_digit)
        {
            return Some(String::from_utf8_lossy(&rest[..end]).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF executable with one segment that holds `content`.
    fn elf(kind: u16, machine: u16, content: &[u8]) -> Vec<u8> {
        let mut data = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        for half in [kind, machine, 1, 0] {
            data.extend(half.to_le_bytes());
        }
        for word in [0x0100_0000_u64, 64, 0] {
            data.extend(word.to_le_bytes());
        }
        for half in [0, 0, 64_u16, 56, 1, 64, 0, 0] {
            data.extend(half.to_le_bytes());
        }
        data.extend(1_u32.to_le_bytes());
        data.extend(5_u32.to_le_bytes());
        let length = content.len() as u64;
        for word in [120, 0x0100_0000, 0x0100_0000, length, length, 0x1000] {
            data.extend(word.to_le_bytes());
        }
        data.extend(content);
        data
    }

    fn check(data: &[u8]) -> Result<KernelArtefact> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        fs::write(&path, data).unwrap();
        check_kernel(&path)
    }

    const BANNER: &[u8] = b"Linux version %s\0Linux version 6.1.192-compare (a@b) #1";

    #[test]
    fn a_kernel_is_known_by_its_banner() {
        let kernel = check(&elf(2, 62, BANNER)).unwrap();
        assert_eq!(kernel.release, "6.1.192-compare");
        assert_eq!(kernel.digest, Digest::of(&elf(2, 62, BANNER)));
    }

    #[test]
    fn other_files_are_refused_with_what_they_are() {
        let mut bzimage = vec![0; 0x400];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        let whole = elf(2, 62, BANNER);
        let cases: [(&[u8], &str); 8] = [
            (b"", "not a 64-bit ELF file"),
            (b"#!/bin/sh\n", "not a 64-bit ELF file"),
            (&bzimage, "a bzImage older than Linux 3.8"),
            (b"\x1f\x8b\x08", "compressed file"),
            (&elf(3, 62, BANNER), "neither a library"),
            (&elf(2, 183, BANNER), "another architecture"),
            (&whole[..whole.len() - 1], "cut off"),
            (&elf(2, 62, b"hello"), "no Linux version"),
        ];
        for (data, expected) in cases {
            let text = check(data).unwrap_err().to_string();
            assert!(
                text.contains("not a kernel that can be booted") && text.contains(expected),
                "{text}"
            );
        }
        let text = check_kernel(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(text.contains("not a regular file"), "{text}");
        assert!(
            check_kernel(Path::new("/no/such/kernel"))
                .unwrap_err()
                .to_string()
                .starts_with("cannot read the kernel /no")
        );
    }
}
