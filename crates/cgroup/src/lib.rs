//! Leaf cgroups on v1, v2 and hybrid hosts: create, limit, spawn into, account, kill, remove.
//! Every instance of every backend lives in one leaf below one parent group of this process, so
//! that both sides of a comparison are limited and charged by the same rules, and so that a later
//! run can find by name what a killed one left behind. Takes the mount's path, so that everything
//! but [`spawn`] can be tried on a temporary directory.

mod account;
mod aside;
mod error;
mod files;
mod finding;
mod freezer;
mod hierarchy;
mod leaf;
mod limits;
mod owner;
mod parent;
mod reclaim;
pub mod spawn;

pub use account::MemoryCharge;
pub use error::CgroupError;
pub use finding::Finding;
pub use hierarchy::{Controller, Hierarchy};
pub use leaf::Leaf;
pub use limits::Limits;
pub use parent::Parent;

#[cfg(test)]
mod fake;
