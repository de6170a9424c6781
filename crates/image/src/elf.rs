//! What a program needs besides itself, and what a kernel module does: read from ELF files (gABI;
//! Documentation/livepatch/module-elf-format.rst for `.modinfo`).

use std::path::Path;

use object::{
    Endianness,
    elf::{DT_NEEDED, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

use crate::error::{At, Error, Result};

/// What the dynamic linker will look for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    /// The dynamic linker itself, by absolute path.
    pub(crate) interpreter: Option<String>,
    /// Names of shared libraries.
    pub(crate) libraries: Vec<String>,
}

/// What `file` needs, or none if it is not a program or library for x86-64.
pub(crate) fn needs(file: &Path) -> Result<Option<Needs>> {
    let data = std::fs::read(file).at("read", file)?;
    if !data.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    parse_needs(&data).map_err(|source| Error::Elf { path: file.to_owned(), source })
}

fn parse_needs(data: &[u8]) -> object::Result<Option<Needs>> {
    let Ok(header) = FileHeader64::<Endianness>::parse(data) else { return Ok(None) };
    let endian = header.endian()?;
    if header.e_machine(endian) != EM_X86_64 || ![ET_EXEC, ET_DYN].contains(&header.e_type(endian))
    {
        return Ok(None);
    }
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, data)? {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            needs.interpreter = Some(String::from_utf8_lossy(interpreter).into_owned());
        }
    }
    let sections = header.sections(endian, data)?;
    let Some((dynamic, link)) = sections.dynamic(endian, data)? else { return Ok(Some(needs)) };
    let strings = sections.strings(endian, data, link)?;
    for entry in dynamic {
        if entry.d_tag(endian) == DT_NEEDED {
            let name = entry.string(endian, strings)?;
            needs.libraries.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(Some(needs))
}

/// The names of the modules that a kernel module depends on (`depends=` of its `.modinfo`), with
/// `_` for `-`.
pub(crate) fn module_depends(data: &[u8]) -> object::Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let Some((_, section)) = sections.section_by_name(endian, b".modinfo") else {
        return Ok(Vec::new());
    };
    let mut depends = Vec::new();
    for field in section.data(endian, data)?.split(|byte| *byte == 0) {
        if let Some(names) = field.strip_prefix(b"depends=") {
            let names = String::from_utf8_lossy(names).replace('-', "_");
            depends.extend(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    Ok(depends)
}
