//! The programs and files of the host that set-up relies on, and the packages that hold them: one
//! table for `doctor`, for the wrapper script and for every "not installed" message.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// What a requirement is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Root file systems.
    Image,
    /// The guest kernel, unless one is given with `--kernel`.
    GuestKernel,
    /// The emulated host.
    Lab,
}

/// Something that must be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// A program found through PATH, or a file by absolute path.
    pub program: &'static str,
    /// The Debian and Ubuntu package that holds it.
    pub package: &'static str,
    /// What it is needed for, as in "needed to …".
    pub why: &'static str,
    /// The part of the set-up that needs it.
    pub purpose: Purpose,
}

const fn need(
    program: &'static str,
    package: &'static str,
    why: &'static str,
    purpose: Purpose,
) -> Requirement {
    Requirement { program, package, why, purpose }
}

static REQUIRED: [Requirement; 14] = [
    need("apt-get", "apt", "to download the distribution's packages", Purpose::Image),
    need("dpkg-deb", "dpkg", "to unpack packages", Purpose::Image),
    need("mkfs.erofs", "erofs-utils", "to make root disks", Purpose::Image),
    need("tar", "tar", "to unpack the kernel's source", Purpose::GuestKernel),
    need("xz", "xz-utils", "to unpack the kernel's source and modules", Purpose::GuestKernel),
    need("gcc", "gcc", "to build the guest kernel", Purpose::GuestKernel),
    need("make", "make", "to build the guest kernel", Purpose::GuestKernel),
    need("flex", "flex", "to build the guest kernel", Purpose::GuestKernel),
    need("bison", "bison", "to build the guest kernel", Purpose::GuestKernel),
    need("bc", "bc", "to build the guest kernel", Purpose::GuestKernel),
    need("strip", "binutils", "to build the guest kernel", Purpose::GuestKernel),
    need("/usr/include/libelf.h", "libelf-dev", "to build the guest kernel", Purpose::GuestKernel),
    need("/usr/include/stdio.h", "libc6-dev", "to build the guest kernel", Purpose::GuestKernel),
    need("qemu-system-x86_64", "qemu-system-x86", "to run the emulated host", Purpose::Lab),
];

/// What only some distributions need: their kernel modules are compressed with it.
static OCCASIONAL: Requirement =
    need("zstd", "zstd", "to unpack this distribution's kernel modules", Purpose::Lab);

/// Everything set-up relies on.
pub fn required_packages() -> &'static [Requirement] {
    &REQUIRED
}

/// Each requirement and whether it is there. Looks at files only; takes well under a millisecond.
pub fn check_packages() -> Vec<(Requirement, bool)> {
    let path = env::var_os("PATH").unwrap_or_default();
    REQUIRED
        .iter()
        .map(|requirement| (*requirement, is_there(requirement.program, &path)))
        .collect()
}

/// The command that installs what is missing among `requirements`, or none.
pub fn install_command(requirements: &[(Requirement, bool)]) -> Option<String> {
    let mut packages: Vec<&str> = requirements
        .iter()
        .filter(|(_, found)| !found)
        .map(|(requirement, _)| requirement.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    (!packages.is_empty()).then(|| install(&packages.join(" ")))
}

/// The command that installs packages, with `sudo` where it is needed.
pub(crate) fn install(packages: &str) -> String {
    let sudo = if nix::unistd::geteuid().is_root() { "" } else { "sudo " };
    format!("{sudo}apt-get install {packages}")
}

/// The requirement a program is listed under.
pub(crate) fn requirement_of(program: &OsStr) -> Option<&'static Requirement> {
    // The programs of one package stand in the table once.
    let listed = match program.to_str()? {
        "apt-cache" => "apt-get",
        other => other,
    };
    REQUIRED.iter().chain([&OCCASIONAL]).find(|requirement| requirement.program == listed)
}

fn is_there(program: &str, path: &OsStr) -> bool {
    if Path::new(program).is_absolute() {
        return Path::new(program).exists();
    }
    let is_program = |directory: PathBuf| {
        let file = directory.join(program);
        file.is_file() && nix::unistd::access(&file, nix::unistd::AccessFlags::X_OK).is_ok()
    };
    env::split_paths(path).any(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_files_are_looked_for() {
        let path = env::var_os("PATH").unwrap();
        assert!(is_there("sh", &path));
        assert!(is_there("/etc/passwd", &path));
        assert!(!is_there("no-such-program", &path));
        assert!(!is_there("sh", OsStr::new("/nowhere")));
    }

    #[test]
    fn one_command_installs_what_is_missing() {
        let checked: Vec<_> = REQUIRED
            .iter()
            .map(|requirement| (*requirement, requirement.purpose == Purpose::Lab))
            .collect();
        let command = install_command(&checked).unwrap();
        assert!(command.ends_with("apt-get install apt bc binutils bison dpkg erofs-utils flex gcc libc6-dev libelf-dev make tar xz-utils"), "{command}");
        let all: Vec<_> = REQUIRED.iter().map(|requirement| (*requirement, true)).collect();
        assert_eq!(install_command(&all), None);
    }
}
