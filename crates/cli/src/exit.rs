//! How the program ends: one number for each kind of end, and the one place that prints an error.

use std::process::ExitCode;

/// The exit codes, as `compare --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Everything asked for was done; every trial went well.
    Success = 0,
    /// Trials failed, or something broke on the way.
    Failure = 1,
    /// Wrong usage or input: an option, a workload file, a kernel file.
    Usage = 2,
    /// This host cannot run it; the lab can.
    LabOnly = 3,
    /// Neither this host nor the lab can run it.
    Nowhere = 4,
    /// Interrupted by a signal; what was measured was kept.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that ends the program with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Coded {
    /// The code.
    pub code: Code,
    /// What happened and what would help.
    pub message: String,
}

/// An error with a code and a text.
pub fn coded(code: Code, message: impl Into<String>) -> anyhow::Error {
    Coded { code, message: message.into() }.into()
}

/// The code an error ends the program with.
pub fn code_of(error: &anyhow::Error) -> Code {
    error.chain().find_map(|cause| cause.downcast_ref::<Coded>()).map_or_else(
        || {
            let is_input = error.chain().any(|cause| {
                use compare_image::Error;
                let about_workload = cause.downcast_ref::<Error>().is_some_and(|error| {
                    matches!(
                        error,
                        Error::Workload(_)
                            | Error::UnknownWorkload { .. }
                            | Error::User { .. }
                            | Error::Source { .. }
                    )
                });
                about_workload
                    || cause.is::<compare_spec::WorkloadError>()
                    || cause.is::<compare_report::ReportError>()
            });
            if is_input { Code::Usage } else { Code::Failure }
        },
        |coded| coded.code,
    )
}

/// Prints the whole chain of causes, one a line.
pub fn print_chain(error: &anyhow::Error) {
    let mut causes = error.chain().map(ToString::to_string);
    eprintln!("error: {}", causes.next().unwrap_or_default());
    for cause in causes {
        eprintln!("  because {cause}");
    }
}

/// The same chain in one line.
pub fn chain_text(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
