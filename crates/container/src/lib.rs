//! The container: one workload as an ordinary process of this host's kernel, kept apart by
//! namespaces, a cgroup, a root file system of its own and the capabilities Docker grants. The
//! start is two recipes, `backend.rs` (this program) and `child.rs` (the new process), read top to
//! bottom; nothing of ours stays resident beside the workload.

mod backend;
mod capabilities;
mod check;
mod child;
mod instance;
mod mounts;
mod namespace;
mod pool;
mod prepared;
mod rootless;
mod seccomp;
mod sys;
mod userns;

pub use backend::ContainerBackend;
pub use compare_cgroup::Finding;
pub use namespace::enter_private_mounts;
pub use rootless::{Ids, become_root_of_a_user_namespace, is_unprivileged};
