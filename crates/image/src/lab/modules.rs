//! Kernel modules of a package that was never installed: there is no `modules.dep`, so that what a
//! module depends on is read from the module itself.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    elf::module_depends,
    error::{At, Error, Result},
    program::{command, run},
    tree::walk,
};

/// The modules of one kernel, by name with `_` for `-`.
#[derive(Debug)]
pub(super) struct Index {
    files: BTreeMap<String, PathBuf>,
    built_in: HashSet<String>,
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// `kvm-amd.ko.xz` is `kvm_amd`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, rest) = name.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| plain(stem))
}

impl Index {
    /// Finds the modules of `release` in unpacked packages.
    pub(super) fn read(unpacked: &Path, release: &str) -> Result<Self> {
        let mut index = Self { files: BTreeMap::new(), built_in: HashSet::new() };
        for prefix in ["lib/modules", "usr/lib/modules"] {
            let directory = unpacked.join(prefix).join(release);
            if !directory.is_dir() {
                continue;
            }
            for (path, facts) in walk(&directory)? {
                if let (true, Some(name)) = (facts.is_file(), module_name(&path)) {
                    index.files.insert(name, directory.join(path));
                }
            }
            let list = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
            index.built_in.extend(list.lines().filter_map(|line| module_name(Path::new(line))));
        }
        Ok(index)
    }

    /// Whether a module is there, as a file or in the kernel.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = plain(name);
        self.files.contains_key(&name) || self.built_in.contains(&name)
    }

    /// Writes `modules` and what they depend on into `directory`; returns file names in the order
    /// in which they can be loaded. `package` is who is blamed for what is missing.
    pub(super) fn collect(
        &self,
        modules: &[&str],
        directory: &Path,
        package: &str,
    ) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for module in modules {
            self.visit(&plain(module), directory, package, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        directory: &Path,
        package: &str,
        order: &mut Vec<String>,
    ) -> Result<()> {
        let file = format!("{name}.ko");
        if self.built_in.contains(name) || order.contains(&file) {
            return Ok(());
        }
        let source = self.files.get(name).ok_or_else(|| Error::Package {
            package: package.to_owned(),
            problem: format!("holds no module {name}"),
            source: None,
        })?;
        let content = decompress(source)?;
        let depends = module_depends(&content)
            .map_err(|error| Error::Elf { path: source.clone(), source: error })?;
        for other in depends {
            self.visit(&other, directory, package, order)?;
        }
        let path = directory.join(&file);
        fs::write(&path, content).at("write", &path)?;
        order.push(file);
        Ok(())
    }
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(OsStr::to_str) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).at("read", path),
    };
    run(command(program).arg("-dc").arg(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules_are_read() {
        let name = |text| module_name(Path::new(text));
        assert_eq!(name("kernel/kvm-amd.ko").unwrap(), "kvm_amd");
        assert_eq!(name("kernel/kvm-amd.ko.zst").unwrap(), "kvm_amd");
        assert_eq!(name("modules.order"), None);
        assert_eq!(name("x.koala"), None);
    }

    #[test]
    fn what_is_built_in_is_left_out_and_what_is_missing_told() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("lib/modules/6.1");
        fs::create_dir_all(directory.join("kernel")).unwrap();
        fs::write(directory.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let index = Index::read(folder.path(), "6.1").unwrap();
        assert!(index.has("ext4") && !index.has("kvm-amd"));
        assert!(index.collect(&["ext4"], folder.path(), "p").unwrap().is_empty());
        let text = index.collect(&["kvm-amd"], folder.path(), "p").unwrap_err().to_string();
        assert_eq!(text, "package p: holds no module kvm_amd");
    }
}
