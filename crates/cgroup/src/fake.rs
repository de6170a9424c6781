//! A cgroup tree of plain files in a temporary directory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::Hierarchy;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped.
pub(crate) struct Fake(PathBuf);

impl Fake {
    pub(crate) fn empty() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("compare-cgroup-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir.canonicalize().unwrap())
    }

    pub(crate) fn v2(controllers: &str) -> Self {
        let fake = Self::empty();
        fake.write("cgroup.controllers", controllers);
        fake.write("cgroup.subtree_control", "");
        fake
    }

    pub(crate) fn v1(mounts: &[&str]) -> Self {
        let fake = Self::empty();
        for mount in mounts {
            fs::create_dir(fake.0.join(mount)).unwrap();
        }
        fake
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    pub(crate) fn detect(&self) -> Hierarchy {
        Hierarchy::detect(&self.0).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
