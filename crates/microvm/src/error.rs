//! What the monitor can fail at before its guest runs. Every message says what was attempted, on
//! what, and what helps; [`Error::chain`] puts it in one line for the frame the backend reads.

use std::{io, path::PathBuf};

use compare_spec::Bytes;

/// A machine that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/kvm` could not be opened.
    #[error("open {path}: {remedy}", path = path.display())]
    OpenKvm {
        /// The device.
        path: PathBuf,
        /// What helps.
        remedy: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A call to KVM failed.
    #[error("{ioctl}")]
    Kvm {
        /// Its name.
        ioctl: &'static str,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// KVM lacks something.
    #[error("KVM on this host lacks {0}")]
    KvmLacks(&'static str),
    /// A file could not be used.
    #[error("{attempt} {path}", path = path.display())]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel file cannot be booted.
    #[error("{path}: not a kernel this monitor can boot: {problem}", path = path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk is not the file it should be.
    #[error(
        "disk {path}: {actual} bytes where {expected} were expected: the image is truncated or not \
         the one that was made; remove it so that it is made anew",
        path = path.display()
    )]
    DiskLength {
        /// The file.
        path: PathBuf,
        /// Its length, bytes.
        actual: u64,
        /// What it should be, bytes.
        expected: u64,
    },
    /// The guest has too little RAM to boot at all.
    #[error(
        "memory of {memory}: kernel and initramfs alone need {needed}: give the workload more memory"
    )]
    MemoryTooSmall {
        /// What was given.
        memory: Bytes,
        /// What is needed at the least.
        needed: Bytes,
    },
    /// Guest RAM could not be mapped.
    #[error("map {memory} of guest RAM")]
    MapMemory {
        /// How much.
        memory: Bytes,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The command line does not fit.
    #[error("kernel command line of {length} bytes: the most is {most}")]
    CommandLine {
        /// Its length.
        length: usize,
        /// The limit.
        most: usize,
    },
    /// More vCPUs than the machine or KVM has room for.
    #[error("{asked} vCPUs: this host allows 1 to {most}")]
    Vcpus {
        /// How many were asked for.
        asked: u32,
        /// The limit.
        most: u32,
    },
    /// KVM does not take a register's value.
    #[error("KVM refuses {value:#x} for MSR {index:#x}: the machine was saved on another CPU")]
    MsrRefused {
        /// Its number.
        index: u32,
        /// What it had.
        value: u64,
    },
    /// The CPU shows the guest something else than it did when the machine was saved.
    #[error(
        "this CPU or its KVM is another than the one the machine was saved on: they differ in CPUID \
         leaf {function:#x}, subleaf {index:#x}; save it anew here"
    )]
    OtherCpu {
        /// The leaf.
        function: u32,
        /// Its subleaf.
        index: u32,
    },
    /// A saved machine cannot be restored.
    #[error("{path}: not a machine this monitor can restore: {problem}", path = path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Guest memory could not be accessed.
    #[error("write {what} into guest memory")]
    GuestMemory {
        /// What was to be written.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The monitor could not be confined.
    #[error("confine the monitor")]
    Confine {
        /// Why not.
        source: compare_confine::Error,
    },
    /// A system call failed.
    #[error("{attempt}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// A failed KVM call.
    pub(crate) fn kvm(ioctl: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { ioctl, source }
    }

    /// A confinement that failed.
    pub(crate) fn confine(source: compare_confine::Error) -> Self {
        Self::Confine { source }
    }

    /// A failed system call.
    pub(crate) fn system(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { attempt, source }
    }

    /// The message and all its causes, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_holds_every_cause_once() {
        let error = Error::File {
            attempt: "open",
            path: "/no/kernel".into(),
            source: io::Error::from_raw_os_error(2),
        };
        assert_eq!(error.chain(), "open /no/kernel: No such file or directory (os error 2)");
    }
}
