//! What can go wrong while artefacts are made, each with what was attempted, on what, and what
//! helps.

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
};

use compare_spec::WorkloadError;

/// The result of making or opening an artefact.
pub type Result<T> = std::result::Result<T, Error>;

/// An artefact could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was attempted, as an infinitive.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file system that holds the cache is full.
    #[error("no space left for {} ({} MiB free once cleaned up): free some, or set XDG_CACHE_HOME to a directory on a larger disk", path.display(), free_bytes >> 20)]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// What an unprivileged program may still use there.
        free_bytes: u64,
        /// What met the limit.
        source: Box<Error>,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where the cache is.
    #[error("no place for the cache: set XDG_CACHE_HOME or HOME to an absolute path")]
    NoCacheHome,
    /// An external program is not installed.
    #[error("{program} is not installed: it is needed {why}; run `{remedy}`")]
    ProgramMissing {
        /// The program.
        program: String,
        /// What for.
        why: &'static str,
        /// The command that installs it.
        remedy: String,
    },
    /// An external program failed.
    #[error("`{command}` failed ({status}){}{stderr}", if stderr.is_empty() { "" } else { ":\n" })]
    Program {
        /// The program and its arguments.
        command: String,
        /// Its exit status, or the signal that ended it.
        status: String,
        /// The last lines it wrote to standard error.
        stderr: String,
    },
    /// A package of the distribution cannot be had.
    #[error("package {package}: {problem}")]
    Package {
        /// Its name, or several.
        package: String,
        /// What is wrong and what helps.
        problem: String,
        /// What apt said, where it said something.
        source: Option<Box<Error>>,
    },
    /// A shared library a program needs is in none of the packages its own package depends on.
    #[error(
        "{needed_by} needs the library {soname}, which none of these packages holds: {searched}"
    )]
    Library {
        /// The library.
        soname: String,
        /// The program or library that needs it.
        needed_by: PathBuf,
        /// The packages looked into.
        searched: String,
    },
    /// A file that should be an ELF object cannot be read as one.
    #[error("{}: not a usable ELF file", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: object::Error,
    },
    /// Something in a source tree that cannot be part of an image.
    #[error("{}: {problem}", path.display())]
    Source {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A kernel file that cannot be booted.
    #[error("{}: not a kernel that can be booted: {problem}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Something in the cache that is not what was put there.
    #[error("{}: {problem}: delete {} and run `compare setup`", path.display(), entry.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The directory to delete.
        entry: PathBuf,
    },
    /// A user or group that the image does not know.
    #[error("user `{user}`: {problem}")]
    User {
        /// The user as the workload writes it.
        user: String,
        /// What is wrong, with the names that exist.
        problem: String,
    },
    /// No built-in workload has this name.
    #[error(
        "no workload is called `{name}`{hint}: there are {known}; your own is given by its path, such as ./{name}.toml"
    )]
    UnknownWorkload {
        /// The name asked for.
        name: String,
        /// A name that looks like it, as a question, or nothing.
        hint: String,
        /// The names that exist.
        known: String,
    },
    /// A workload file that cannot be used.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

impl Error {
    /// Whether this came from a full disk or an exhausted quota, in this process or in a program
    /// it ran.
    pub(crate) fn is_disk_full(&self) -> bool {
        if let Self::Program { stderr, .. } = self {
            return stderr.contains("No space left on device")
                || stderr.contains("Disk quota exceeded");
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                );
            }
            if let Some(error) = error.downcast_ref::<Box<Self>>() {
                return error.is_disk_full();
            }
            cause = error.source();
        }
        false
    }

    /// The error and its causes in one line, for a note that does not stop anything.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Says what was attempted when a file operation fails.
pub(crate) trait At<T> {
    /// Wraps the error: `cannot ATTEMPT PATH`.
    fn at(self, attempt: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, attempt: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::Io { attempt, path: path.to_owned(), source: error.into() })
    }
}
