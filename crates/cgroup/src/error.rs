//! What can go wrong with control groups, in words that say what to do.

use std::{io, path::PathBuf};

use crate::Controller;

/// A control group operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup file system.
    #[error(
        "{root}: no control groups are mounted here: mount one, such as \
         `mount -t cgroup2 none {root}`", root = root.display()
    )]
    NotMounted {
        /// Where one was looked for.
        root: PathBuf,
    },
    /// A limit needs a controller that this process cannot use.
    #[error("the cgroup controller `{controller}` cannot be used: {reason}")]
    Missing {
        /// The controller.
        controller: Controller,
        /// Why, and what would help.
        reason: String,
    },
    /// A limit that this cgroup version or this host cannot set.
    #[error("{limit} cannot be set here: {reason}")]
    Unsupported {
        /// The limit, as the workload file calls it.
        limit: &'static str,
        /// Why, and what would help.
        reason: String,
    },
    /// A group could not be made.
    #[error("{path}: cannot create the cgroup", path = path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The group has processes of its own, so controllers cannot be handed to groups below
    /// (cgroups(7), "no internal processes").
    #[error(
        "{path}: other processes ({pids:?}) live in this group itself, so its controllers cannot be \
         handed down: start this program alone in a group, such as by \
         `systemd-run --user --scope -p Delegate=yes compare …`",
        path = path.display()
    )]
    Occupied {
        /// The group.
        path: PathBuf,
        /// The processes in it.
        pids: Vec<i32>,
    },
    /// The group belongs to somebody else (cgroups(7), "Delegation").
    #[error(
        "{path}: this user may not make groups here: run as root, or have a group delegated, such as \
         by `systemd-run --user --scope -p Delegate=yes compare …`",
        path = path.display()
    )]
    NotDelegated {
        /// The group.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a group could not be read.
    #[error("{path}: cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of a group did not take a value.
    #[error("{path}: cannot write `{value}`", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A group could not be removed.
    #[error("{path}: cannot remove the cgroup, still in it: {pids:?}", path = path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// The processes in it.
        pids: Vec<i32>,
        /// Why.
        source: io::Error,
    },
    /// A group's name holds something else than letters, digits, `-`, `_` and `.`.
    #[error("`{0}` cannot name a cgroup: use letters, digits, `-`, `_` and `.`")]
    Name(String),
}
