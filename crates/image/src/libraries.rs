//! Finds the shared libraries of a set of programs in the packages that their own packages depend
//! on, and takes nothing else from there: `libc6` is 12 MiB unpacked, what nginx needs of it 2.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs,
    path::{Component, Path, PathBuf},
};

use crate::{
    apt::{Apt, Control, download, unpack},
    cache::Cache,
    elf::needs,
    error::{At, Error, Result},
    progress::Progress,
    rooted::Root,
    tree::walk,
};

/// Where the dynamic linker of Debian and Ubuntu looks (ld.so(8) and /etc/ld.so.conf.d), in the
/// merged layout, best first.
const LIBRARY_DIRECTORIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"];
/// Libraries that others load at run time and cannot do without: glibc aborts in pthread_exit(3)
/// and pthread_cancel(3) if it finds no unwinder.
const LOADED_LATER: [(&str, &str); 1] = [("libc.so.6", "libgcc_s.so.1")];

/// A package unpacked into a directory of its own.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Its control data.
    pub(crate) control: Control,
    /// Where it is unpacked.
    pub(crate) directory: PathBuf,
    /// Whether all of it belongs into the image.
    pub(crate) whole: bool,
    /// Its files: the path in the merged layout, and the path below `directory`.
    files: HashMap<PathBuf, PathBuf>,
}

impl Unpacked {
    /// Unpacks a package file below `staging`.
    pub(crate) fn open(control: Control, file: &Path, staging: &Path, whole: bool) -> Result<Self> {
        let directory = staging.join(&control.name);
        unpack(file, &directory)?;
        let paths = walk(&directory)?.into_iter().filter(|(_, facts)| !facts.is_dir());
        let files = paths.map(|(path, _)| (merged(&path), path)).collect();
        Ok(Self { control, directory, whole, files })
    }

    /// The path, in the merged layout, of a library of this name.
    fn library(&self, soname: &str) -> Option<PathBuf> {
        let usual = LIBRARY_DIRECTORIES.iter().map(|directory| Path::new(directory).join(soname));
        let private = || {
            let mut paths: Vec<&PathBuf> = self.files.keys().collect();
            paths.sort();
            let fits = |path: &&PathBuf| {
                path.starts_with("usr/lib") && path.file_name() == Some(soname.as_ref())
            };
            paths.into_iter().find(fits).cloned()
        };
        usual.into_iter().find(|path| self.files.contains_key(path)).or_else(private)
    }

    /// Copies a file and the links that lead to it; returns where the file itself is unpacked.
    fn place(&self, path: &Path, root: &Root) -> Result<PathBuf> {
        let mut path = path.to_owned();
        // More links than that are a loop (path_resolution(7)).
        for _ in 0..40 {
            let Some(unpacked) = self.files.get(&path) else { break };
            let outside = self.directory.join(unpacked);
            let facts = fs::symlink_metadata(&outside).at("read", &outside)?;
            if !facts.is_symlink() {
                use std::os::unix::fs::PermissionsExt as _;
                root.copy(&path, facts.permissions().mode() & 0o7777, &outside)?;
                return Ok(outside);
            }
            let target = fs::read_link(&outside).at("read", &outside)?;
            root.symlink(&path, &target)?;
            path = merged(&follow(path.parent().unwrap_or(Path::new("")), &target));
        }
        let problem = format!("a link in package {} leads nowhere", self.control.name);
        Err(Error::Source { path: self.directory.join(path), problem })
    }
}

/// The path in the layout where `/bin`, `/lib`, `/lib64` and `/sbin` are links into `/usr`.
pub(crate) fn merged(path: &Path) -> PathBuf {
    let merges = ["bin", "lib", "lib64", "sbin"].iter().any(|name| path.starts_with(name));
    if merges { Path::new("usr").join(path) } else { path.to_owned() }
}

/// Where a link in `directory` leads, by its text alone.
fn follow(directory: &Path, target: &Path) -> PathBuf {
    let mut path = if target.is_absolute() { PathBuf::new() } else { directory.to_owned() };
    for part in target.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// The search in progress.
pub(crate) struct Libraries<'a> {
    /// Where packages are downloaded to.
    pub(crate) cache: &'a Cache,
    /// What apt knows.
    pub(crate) apt: &'a mut Apt,
    /// Where packages are unpacked.
    pub(crate) staging: &'a Path,
    /// Who is told.
    pub(crate) progress: &'a dyn Progress,
    /// Every package unpacked so far.
    pub(crate) packages: Vec<Unpacked>,
}

impl Libraries<'_> {
    /// Copies into `root` every library that the programs of the whole packages need, and that
    /// those need in turn.
    pub(crate) fn complete(&mut self, root: &Root, keep: impl Fn(&Path) -> bool) -> Result<()> {
        // Files to look into, each with the package it came from.
        let mut pending: VecDeque<(PathBuf, usize)> = VecDeque::new();
        for (index, package) in self.packages.iter().enumerate() {
            let mut paths: Vec<_> = package
                .files
                .iter()
                .filter(|(path, _)| keep(path))
                .map(|(_, path)| package.directory.join(path))
                .collect();
            paths.retain(|path| fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file()));
            paths.sort();
            pending.extend(paths.into_iter().map(|path| (path, index)));
        }
        let mut found: HashSet<String> = HashSet::new();
        while let Some((file, owner)) = pending.pop_front() {
            let Some(mut needs) = needs(&file)? else { continue };
            let later = LOADED_LATER
                .iter()
                .filter(|(library, _)| file.file_name() == Some(library.as_ref()));
            needs.libraries.extend(later.map(|(_, library)| (*library).to_owned()));
            // The linker is named by path; its own package has it at that place.
            needs
                .libraries
                .extend(needs.interpreter.map(|path| path.trim_start_matches('/').to_owned()));
            for library in needs.libraries {
                if !found.insert(library.clone()) {
                    continue;
                }
                let (package, path) = self.find(&library, owner, &file)?;
                let place = self.packages[package].place(&path, root)?;
                // What a whole package holds is being looked into anyway.
                if !self.packages[package].whole {
                    pending.push_back((place, package));
                }
            }
        }
        Ok(())
    }

    /// The package that holds a library, and the library's path in it: looks into the package that
    /// needs it, into what that depends on as far as unpacked, then downloads the rest, libraries
    /// first.
    fn find(&mut self, library: &str, owner: usize, needed_by: &Path) -> Result<(usize, PathBuf)> {
        let control = self.packages[owner].control.clone();
        let depends = self.apt.depends(&control)?;
        let mut names = vec![control.name.as_str()];
        names.extend(depends.iter().map(|other| other.name.as_str()));
        for is_next in [|other: &Control| other.section.ends_with("libs"), |_: &Control| true] {
            if let Some(found) = self.look(library, &names) {
                return Ok(found);
            }
            let is_new =
                |name: &str| self.packages.iter().all(|package| package.control.name != name);
            let missing = depends.iter().filter(|other| is_new(&other.name) && is_next(other));
            self.add(missing.cloned().collect())?;
        }
        self.look(library, &names).ok_or_else(|| Error::Library {
            soname: library.to_owned(),
            needed_by: needed_by.strip_prefix(self.staging).unwrap_or(needed_by).to_owned(),
            searched: names.join(", "),
        })
    }

    /// Looks for a library, by its name or by its path, in those packages of `names` that are
    /// unpacked.
    fn look(&self, library: &str, names: &[&str]) -> Option<(usize, PathBuf)> {
        self.packages.iter().enumerate().find_map(|(index, package)| {
            if !names.contains(&package.control.name.as_str()) {
                return None;
            }
            let path = if library.contains('/') {
                Some(merged(Path::new(library))).filter(|path| package.files.contains_key(path))
            } else {
                package.library(library)
            };
            Some((index, path?))
        })
    }

    fn add(&mut self, packages: Vec<Control>) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        let files = download(self.cache, &packages, self.progress)?;
        for (control, file) in packages.into_iter().zip(files) {
            self.progress.detail(&format!("unpacking {}", control.name));
            self.packages.push(Unpacked::open(control, &file, self.staging, false)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_merged_and_links_followed() {
        assert_eq!(merged(Path::new("lib64/ld.so")), Path::new("usr/lib64/ld.so"));
        assert_eq!(merged(Path::new("library/x")), Path::new("library/x"));
        assert_eq!(
            follow(Path::new("usr/lib64"), Path::new("/lib/x/ld.so")),
            Path::new("lib/x/ld.so")
        );
        assert_eq!(
            follow(Path::new("usr/lib64"), Path::new("../lib/./ld.so")),
            Path::new("usr/lib/ld.so")
        );
        assert_eq!(follow(Path::new("usr"), Path::new("../../../x")), Path::new("x"));
    }
}
