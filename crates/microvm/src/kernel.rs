//! Places a kernel at the physical addresses it asks for: an uncompressed ELF file (`vmlinux`), whose
//! segments are mapped where their alignment allows and copied otherwise, or a compressed `bzImage`,
//! which is one segment that unpacks itself.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use linux_loader::elf;
use vm_memory::{ByteValued, Bytes, GuestAddress};

use crate::{
    bzimage::{self, BzImage},
    error::Error,
    layout,
    mapping::map_file,
    memory::{Memory, PAGE},
};

/// Most program headers looked at; Linux has five.
const MAX_HEADERS: u16 = 64;
/// `ELFCLASS64` and `ELFDATA2LSB` at their places in `e_ident` (System V ABI, chapter 4).
const ELF64_LITTLE_ENDIAN: [u8; 6] = *b"\x7fELF\x02\x01";

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Guest-physical address of its first instruction.
    pub entry: u64,
    /// One past the last byte it occupies, uninitialised data included.
    pub end: u64,
}

/// A kernel file that was found to be bootable.
#[derive(Debug)]
pub struct KernelFile {
    path: PathBuf,
    file: File,
    entry: u64,
    segments: Vec<elf::Elf64_Phdr>,
    bzimage: Option<BzImage>,
}

impl KernelFile {
    /// Opens a kernel file and reads its headers.
    ///
    /// # Errors
    /// It cannot be read, is neither an x86-64 ELF program nor a bzImage with a 64-bit entry point, or
    /// is cut short.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |attempt| move |source| Error::File { attempt, path: path.to_owned(), source };
        let wrong = |problem: String| Err(Error::Kernel { path: path.to_owned(), problem });
        let file = File::open(path).map_err(failed("open the kernel"))?;
        let length = file.metadata().map_err(failed("read the length of"))?.len();
        let mut head = [0; bzimage::HEAD];
        let count = length.min(head.len() as u64) as usize;
        file.read_exact_at(&mut head[..count], 0).map_err(failed("read"))?;
        if BzImage::is(&head[..count]) {
            return match BzImage::parse(&head[..count], length) {
                Ok(bzimage) => Ok(Self::from_bzimage(path.to_owned(), file, bzimage)),
                Err(problem) => wrong(problem),
            };
        }
        let mut header = elf::Elf64_Ehdr::default();
        if length < size_of_val(&header) as u64 {
            return wrong(format!("{length} bytes are too short for an ELF header"));
        }
        file.read_exact_at(header.as_mut_slice(), 0).map_err(failed("read"))?;
        if header.e_ident[..6] != ELF64_LITTLE_ENDIAN {
            return wrong("it is no 64-bit ELF file (vmlinux) and no bzImage".to_owned());
        }
        if header.e_machine != elf::EM_X86_64 {
            return wrong(format!("it is for machine {}, not x86-64", header.e_machine));
        }
        let mut headers = vec![elf::Elf64_Phdr::default(); header.e_phnum.into()];
        if header.e_phnum > MAX_HEADERS
            || usize::from(header.e_phentsize) != size_of::<elf::Elf64_Phdr>()
        {
            return wrong("its program headers make no sense".to_owned());
        }
        for (index, place) in headers.iter_mut().enumerate() {
            let offset = (index * size_of::<elf::Elf64_Phdr>()) as u64;
            match header.e_phoff.checked_add(offset) {
                Some(offset) if offset < length => {
                    file.read_exact_at(place.as_mut_slice(), offset).map_err(failed("read"))?;
                }
                _ => return wrong("its program headers lie outside the file".to_owned()),
            }
        }
        headers.retain(|segment| segment.p_type == elf::PT_LOAD && segment.p_memsz > 0);
        if headers.is_empty() {
            return wrong("it has nothing to load".to_owned());
        }
        for segment in &headers {
            let last_byte = segment.p_offset.checked_add(segment.p_filesz);
            if last_byte.is_none_or(|end| end > length) {
                return wrong(format!(
                    "it is cut short: {length} bytes do not hold all of its segments"
                ));
            }
            let end = segment.p_paddr.checked_add(segment.p_memsz);
            if segment.p_paddr < layout::HIGH_RAM_START
                || segment.p_filesz > segment.p_memsz
                || end.is_none_or(|end| end > layout::MMIO_GAP_START)
            {
                return wrong(format!(
                    "it wants to be loaded at {:#x}, where no RAM is",
                    segment.p_paddr
                ));
            }
        }
        let within = |segment: &elf::Elf64_Phdr| {
            (segment.p_paddr..segment.p_paddr + segment.p_filesz).contains(&header.e_entry)
        };
        if !headers.iter().any(within) {
            return wrong(format!(
                "its entry point {:#x} is outside of what it loads",
                header.e_entry
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            entry: header.e_entry,
            segments: headers,
            bzimage: None,
        })
    }

    fn from_bzimage(path: PathBuf, file: File, bzimage: BzImage) -> Self {
        let segment = elf::Elf64_Phdr {
            p_type: elf::PT_LOAD,
            p_offset: bzimage.code.start,
            p_paddr: bzimage.address,
            p_filesz: bzimage.code.end - bzimage.code.start,
            p_memsz: bzimage.init_size,
            ..Default::default()
        };
        Self { path, file, entry: bzimage.entry(), segments: vec![segment], bzimage: Some(bzimage) }
    }

    /// One past the last byte of guest memory the kernel occupies.
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|segment| segment.p_paddr + segment.p_memsz).max().unwrap_or(0)
    }

    /// Places the kernel in guest memory that reaches beyond [`Self::end`], and the setup header of a
    /// bzImage in the zero page.
    ///
    /// # Errors
    /// The file cannot be mapped or read.
    pub fn load(&self, memory: &Memory) -> Result<Kernel, Error> {
        for segment in &self.segments {
            self.load_segment(memory, segment).map_err(|source| Error::File {
                attempt: "map the kernel",
                path: self.path.clone(),
                source,
            })?;
        }
        if let Some(bzimage) = &self.bzimage {
            bzimage.place_header(memory)?;
        }
        Ok(Kernel { entry: self.entry, end: self.end() })
    }

    /// Guest RAM is zero to begin with, so only the file's bytes are placed. Whole pages are
    /// mapped; a first or last part-page that may belong to a neighbour too is copied.
    fn load_segment(&self, memory: &Memory, segment: &elf::Elf64_Phdr) -> std::io::Result<()> {
        let (start, end) = (segment.p_paddr, segment.p_paddr + segment.p_filesz);
        let offset_of = |address: u64| segment.p_offset + (address - start);
        let aligned = start.next_multiple_of(PAGE);
        let mapped = aligned.min(end)..(end / PAGE * PAGE).max(aligned.min(end));
        if offset_of(mapped.start).is_multiple_of(PAGE) {
            map_file(
                memory,
                mapped.start,
                &self.file,
                offset_of(mapped.start),
                mapped.end - mapped.start,
            )?;
            self.copy(memory, start..mapped.start, segment.p_offset)?;
            self.copy(memory, mapped.end..end, offset_of(mapped.end))
        } else {
            self.copy(memory, start..end, segment.p_offset)
        }
    }

    fn copy(
        &self,
        memory: &Memory,
        to: std::ops::Range<u64>,
        mut offset: u64,
    ) -> std::io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut address = to.start;
        while address < to.end {
            let count = buffer.len().min((to.end - address) as usize);
            self.file.read_exact_at(&mut buffer[..count], offset)?;
            memory
                .write_slice(&buffer[..count], GuestAddress(address))
                .map_err(std::io::Error::other)?;
            address += count as u64;
            offset += count as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
