//! Leaf cgroups on v1, v2 and hybrid hosts: create, limit, account, kill, remove.
//! (Skeleton of the contract; bodies follow.)
#![allow(missing_docs, dead_code)]
use std::path::Path;
#[derive(Debug)]
pub struct Hierarchy;
#[derive(Debug)]
pub struct Parent;
#[derive(Debug)]
pub struct Leaf;
pub struct Limits { pub memory: Option<compare_spec::Bytes>, pub cpus: Option<f64>, pub pids: Option<u32> }
impl Hierarchy { pub fn detect(_root: &Path) -> Self { Self } }
