//! What a process has taken from itself, as plain data for its record.

use serde::{Deserialize, Serialize};

use crate::seccomp::Filter;

/// How far a process is confined.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// Namespaces it is in that are not those it was started in.
    pub namespaces: Vec<Namespace>,
    /// Whether those were made once for several such processes (a [`Room`](crate::Room)).
    pub shared: bool,
    /// Whether its root is an empty read-only directory.
    pub empty_root: bool,
    /// Its user id outside of any user namespace.
    pub uid: u32,
    /// Its group id, likewise.
    pub gid: u32,
    /// Number of supplementary groups it is still in.
    pub groups: u32,
    /// Capabilities it still has (permitted), a bit each.
    pub capabilities: u64,
    /// Whether the bounding set of capabilities is empty too.
    pub bounding_set_empty: bool,
    /// Whether execve(2) can no longer give it privileges.
    pub no_new_privileges: bool,
    /// Whether others of its user may look into it, and a crash may leave its memory in a file.
    pub dumpable: bool,
    /// Its system call filters, one for each kind of thread.
    pub filters: Vec<FilterSize>,
    /// What could not be had here, and why.
    pub lacks: Vec<Lack>,
}

/// A kind of namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mounts.
    Mount,
    /// Interfaces, sockets and all else of the network.
    Net,
    /// User ids and capabilities.
    User,
    /// Host name.
    Uts,
}

/// Size of a system call filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterSize {
    /// The threads it is for.
    pub thread: String,
    /// Instructions of the program.
    pub instructions: u32,
    /// System calls it lets through, at least with some arguments.
    pub system_calls: u32,
}

impl FilterSize {
    /// The size of the filter of this kind of thread.
    pub fn of(thread: &str, filter: &Filter) -> Self {
        Self {
            thread: thread.to_owned(),
            instructions: filter.instructions().len() as u32,
            system_calls: filter.system_calls().len() as u32,
        }
    }
}

/// A part of confinement that some processes may not give themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Namespaces, and with them an empty root.
    Namespaces,
    /// A user and group id that nobody else has.
    Identity,
    /// No supplementary groups.
    Groups,
    /// An empty bounding set.
    BoundingSet,
}

/// A part that could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Which.
    pub part: Part,
    /// Why: the error number of the call that would have given it.
    pub errno: i32,
}
