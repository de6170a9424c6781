//! What is run: a TOML file that names the image, the process, its limits and the event that
//! counts as ready. Built-in workloads are files of the same form.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Span};

mod limits;

pub use limits::{Ceiling, GroupLimits, Resource, Unlimited};

/// A workload file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file could not be read.
    #[error("{file}: cannot read the workload file", file = path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or a field of the wrong name or type. The message carries line and column.
    #[error("{file}: {message}")]
    Parse {
        /// The file, or the name of a built-in workload.
        file: String,
        /// What the parser says, with the line it stumbled on.
        message: String,
    },
    /// A field whose value cannot work.
    #[error("{file}: field `{field}`: {problem}")]
    Field {
        /// The file, or the name of a built-in workload.
        file: String,
        /// The field's path, such as `ready.http.path`.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// One program to run, the same way in every backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// A short name: lower-case letters, digits and `-`.
    pub name: String,
    /// One line for `compare workloads list`.
    #[serde(default)]
    pub description: String,
    /// The program and its arguments; the program by absolute path inside the image.
    pub command: Vec<String>,
    /// The environment, complete: nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `user` or `user:group`, by name or number, as the image's own `/etc/passwd` knows them.
    #[serde(default = "root")]
    pub user: String,
    /// Where the program starts.
    #[serde(default = "slash")]
    pub working_dir: PathBuf,
    /// The container's memory limit and the microVM's RAM.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    /// Virtual CPUs of the microVM.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// CPU time allowed per unit of wall time, for either backend; absent is no quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Most processes and threads at a time in the container.
    #[serde(default = "default_pids")]
    pub pids: u32,
    /// Further limits of its control group.
    #[serde(default, skip_serializing_if = "GroupLimits::is_default")]
    pub limits: GroupLimits,
    /// Limits of its processes, soft and hard: `nofile = [1024, 1048576]` (getrlimit(2)).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<Resource, [Ceiling; 2]>,
    /// How soon it is killed where memory runs out, -1000 to 1000 (proc_pid_oom_score_adj(5)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Settings of the kernel that are an instance's own, such as `"net.core.somaxconn" = "1024"`
    /// (sysctl(8)).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// The TCP port the workload serves on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The signal that asks it to stop.
    #[serde(default)]
    pub stop_signal: Signal,
    /// The root file system.
    pub image: ImageSource,
    /// The event that counts as ready.
    pub ready: Readiness,
    /// How long to wait.
    #[serde(default)]
    pub timeout: Timeouts,
}

/// Where the root file system comes from: exactly one of `packages`, `program` and `directory`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// Packages of the host's distribution, unpacked without being installed, with the shared
    /// libraries their programs need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// A static program built with this tool, placed at `/PROGRAM`: `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// A directory of this host, copied as it is. Relative paths start at the workload file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Files laid over the source.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// A file of the image given in the workload itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path inside the image.
    pub path: PathBuf,
    /// Its text.
    pub content: String,
    /// Permission bits; 0o644 where absent.
    #[serde(default = "default_mode")]
    pub mode: u32,
}

/// When the workload counts as ready. The same check is made on every backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Readiness {
    /// It ended with this exit code: `ready = { exit = 0 }`.
    Exit(u8),
    /// It wrote a line that contains a text.
    Log(LogReady),
    /// It accepts a TCP connection on `port`: `ready = { tcp = {} }`.
    Tcp {},
    /// It answers an HTTP/1.1 GET on `port`.
    Http(HttpReady),
}

/// Ready when a line of output contains this text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogReady {
    /// The text to look for, in standard output or standard error.
    pub contains: String,
}

/// Ready when an HTTP request is answered as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpReady {
    /// Request target.
    #[serde(default = "slash_text")]
    pub path: String,
    /// Expected status.
    #[serde(default = "ok_status")]
    pub status: u16,
    /// A text the body must contain; absent accepts any body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// How long each step may take before the trial fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From the request to start until ready.
    pub start: Span,
    /// From the stop signal until it is killed.
    pub stop: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { start: Span(Duration::from_secs(30)), stop: Span(Duration::from_secs(10)) }
    }
}

/// A signal by its kernel name (signal(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// Hang-up, 1.
    Sighup,
    /// Interrupt, 2.
    Sigint,
    /// Quit, 3: nginx's graceful stop.
    Sigquit,
    /// Kill, 9.
    Sigkill,
    /// User-defined, 10.
    Sigusr1,
    /// User-defined, 12.
    Sigusr2,
    /// Terminate, 15.
    #[default]
    Sigterm,
}

impl Signal {
    /// Its number on x86-64 Linux.
    pub const fn number(self) -> i32 {
        match self {
            Self::Sighup => 1,
            Self::Sigint => 2,
            Self::Sigquit => 3,
            Self::Sigkill => 9,
            Self::Sigusr1 => 10,
            Self::Sigusr2 => 12,
            Self::Sigterm => 15,
        }
    }
}

fn root() -> String {
    "root".to_owned()
}
fn slash() -> PathBuf {
    "/".into()
}
fn slash_text() -> String {
    "/".to_owned()
}
const fn ok_status() -> u16 {
    200
}
const fn one() -> u32 {
    1
}
const fn default_memory() -> Bytes {
    Bytes::mib(128)
}
const fn default_pids() -> u32 {
    256
}
const fn default_mode() -> u32 {
    0o644
}

/// The least RAM a microVM is given: below it no Linux kernel reaches its first process.
const MIN_MEMORY: Bytes = Bytes::mib(4);
/// The longest timeout: a day.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// The most virtual CPUs.
const MAX_VCPUS: u32 = 32;

impl Workload {
    /// Reads a workload file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or a field is missing, unknown or out of range.
    pub fn read(path: &Path) -> Result<Self, WorkloadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| WorkloadError::Read { path: path.to_owned(), source })?;
        let mut workload = Self::parse(&path.display().to_string(), &text)?;
        if let Some(directory) = &mut workload.image.directory
            && let Some(base) = path.parent()
        {
            *directory = base.join(&*directory);
        }
        Ok(workload)
    }

    /// Parses the text of a workload; `file` is what errors call it.
    ///
    /// # Errors
    /// As for [`Workload::read`].
    pub fn parse(file: &str, text: &str) -> Result<Self, WorkloadError> {
        let workload: Self = toml::from_str(text).map_err(|error| WorkloadError::Parse {
            file: file.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        workload.validate(file)?;
        Ok(workload)
    }

    /// Checks every field; `file` is what errors call the place they came from.
    ///
    /// # Errors
    /// A field has a value that cannot work.
    pub fn validate(&self, file: &str) -> Result<(), WorkloadError> {
        let wrong = |field: &'static str, problem: String| {
            Err(WorkloadError::Field { file: file.to_owned(), field, problem })
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(plain) {
            return wrong(
                "name",
                format!("`{}`: use 1 to 32 lower-case letters, digits and `-`", self.name),
            );
        }
        match self.command.first() {
            None => return wrong("command", "is empty: give at least the program".to_owned()),
            Some(program) if !program.starts_with('/') => {
                return wrong(
                    "command",
                    format!(
                        "`{program}` is not absolute: no PATH is searched, so write /usr/…/{program}"
                    ),
                );
            }
            Some(_) => {}
        }
        let text = self.command.iter().chain(self.env.keys()).chain(self.env.values());
        if text.into_iter().any(|text| text.contains('\0')) {
            return wrong("command", "holds a NUL character".to_owned());
        }
        if !self.working_dir.is_absolute() {
            return wrong(
                "working_dir",
                format!("`{}` is not absolute", self.working_dir.display()),
            );
        }
        if self.memory < MIN_MEMORY {
            return wrong("memory", format!("{} is below the least, {MIN_MEMORY}", self.memory));
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return wrong("vcpus", format!("{}: use 1 to {MAX_VCPUS}", self.vcpus));
        }
        if self.cpus.is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus)) {
            return wrong("cpus", "use 0.01 to 1024, or leave it out for no quota".to_owned());
        }
        if self.pids == 0 {
            return wrong("pids", "0 lets nothing start: use 1 or more".to_owned());
        }
        if let Err((field, problem)) = self.check_limits() {
            return wrong(field, problem);
        }
        let source = &self.image;
        let sources = usize::from(!source.packages.is_empty())
            + usize::from(source.program.is_some())
            + usize::from(source.directory.is_some());
        if sources != 1 {
            return wrong(
                "image",
                format!(
                    "{sources} sources given: give one of `packages`, `program` and `directory`"
                ),
            );
        }
        if let Some(file) = source.files.iter().find(|file| !is_clean(&file.path)) {
            return wrong(
                "image.file.path",
                format!("`{}`: use an absolute path without `..`", file.path.display()),
            );
        }
        if let Some(file) = source.files.iter().find(|file| file.mode > 0o7777) {
            return wrong("image.file.mode", format!("{:#o} is not a permission mode", file.mode));
        }
        match &self.ready {
            Readiness::Tcp {} | Readiness::Http(_) if self.port.unwrap_or(0) == 0 => {
                return wrong("port", "`ready` needs it: give the TCP port, 1 to 65535".to_owned());
            }
            Readiness::Log(log) if log.contains.is_empty() => {
                return wrong("ready.log.contains", "is empty: every line would match".to_owned());
            }
            Readiness::Http(http)
                if !http.path.starts_with('/') || http.path.contains(char::is_whitespace) =>
            {
                return wrong(
                    "ready.http.path",
                    format!("`{}`: start it with `/`, without spaces", http.path),
                );
            }
            Readiness::Http(http) if !(100..=599).contains(&http.status) => {
                return wrong(
                    "ready.http.status",
                    format!("{} is not an HTTP status", http.status),
                );
            }
            _ => {}
        }
        if self.timeout.start.0.is_zero() {
            return wrong("timeout.start", "0 lets nothing start".to_owned());
        }
        if self.timeout.start.0.max(self.timeout.stop.0) > MAX_TIMEOUT {
            return wrong("timeout", format!("use at most {}", Span(MAX_TIMEOUT)));
        }
        Ok(())
    }
}

/// An absolute path without `.` and `..`, which therefore stays below the root it is joined to.
fn is_clean(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && path.components().count() > 1
}

#[cfg(test)]
mod tests;
