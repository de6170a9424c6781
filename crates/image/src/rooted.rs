//! File operations below a directory that no symbolic link leads out of: the kernel resolves every
//! path as if the directory were `/` (RESOLVE_IN_ROOT, openat2(2)). Trees come from packages and
//! from users, and may hold links to anywhere.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{Mode, SFlag, mkdirat, mknodat},
    unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat},
};

use crate::error::{At, Error, Result};

/// Small files are read whole; anything larger is not what was looked for.
const READ_LIMIT: u64 = 16 << 20;

/// A directory that is treated as `/`. Paths may be given with or without a leading slash.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens an existing directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fd = File::open(path).at("open", path)?.into();
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory and its missing parents. Returns whether it was missing.
    pub(crate) fn directory(&self, path: &Path) -> Result<bool> {
        self.directories(path).map(|(_, made)| made).at("create the directory", &self.outside(path))
    }

    /// Sets the permission bits of a directory; those of links are left alone.
    pub(crate) fn set_directory_mode(&self, path: &Path, mode: u32) -> Result<()> {
        let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let set =
            || File::from(self.resolve(path, how)?).set_permissions(Permissions::from_mode(mode));
        set().at("set the mode of", &self.outside(path))
    }

    /// Writes a regular file with these permission bits, replacing what is there.
    pub(crate) fn file(&self, path: &Path, mode: u32, content: &mut impl io::Read) -> Result<()> {
        let mut write = || {
            let (parent, name) = self.place(path)?;
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_EXCL
                | OFlag::O_NOFOLLOW
                | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(&parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            io::copy(content, &mut file)?;
            // After the last write, which clears the set-user-ID bits (inode(7)).
            file.set_permissions(Permissions::from_mode(mode))
        };
        write().at("write", &self.outside(path))
    }

    /// Copies a regular file of the host, replacing what is there.
    pub(crate) fn copy(&self, path: &Path, mode: u32, source: &Path) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let mut file =
            File::from(nix::fcntl::open(source, flags, Mode::empty()).at("open", source)?);
        self.file(path, mode, &mut file)
    }

    /// Makes a symbolic link, replacing what is there.
    pub(crate) fn symlink(&self, path: &Path, target: &Path) -> Result<()> {
        let link = || {
            let (parent, name) = self.place(path)?;
            Ok::<_, io::Error>(symlinkat(target, &parent, name)?)
        };
        link().at("create the link", &self.outside(path))
    }

    /// Makes a second name for a file that [`Root::file`] wrote.
    pub(crate) fn hard_link(&self, path: &Path, existing: &Path) -> Result<()> {
        let link = || {
            let (from, old) = self.place_of(existing)?;
            let (parent, name) = self.place(path)?;
            Ok::<_, io::Error>(linkat(&from, old, &parent, name, AtFlags::empty())?)
        };
        link().at("create the link", &self.outside(path))
    }

    /// Makes a named pipe.
    pub(crate) fn fifo(&self, path: &Path, mode: u32) -> Result<()> {
        let make = || {
            let (parent, name) = self.place(path)?;
            mknodat(&parent, name, SFlag::S_IFIFO, Mode::from_bits_truncate(mode), 0)?;
            let how = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
            File::from(self.resolve(path, how)?).set_permissions(Permissions::from_mode(mode))
        };
        make().at("create the pipe", &self.outside(path))
    }

    /// Whether anything is there; a link that leads nowhere counts as well.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
    }

    /// The content of a regular file, following links inside; none if there is no such file.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let outside = self.outside(path);
        // A pipe in the place of the file must not make us wait for a writer.
        let file = match self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).at("open", &outside),
        };
        let facts = file.metadata().at("read", &outside)?;
        if !facts.is_file() || facts.len() > READ_LIMIT {
            let problem = format!("expected a regular file of at most {} MiB", READ_LIMIT >> 20);
            return Err(Error::Source { path: outside, problem });
        }
        let mut content = Vec::new();
        file.take(READ_LIMIT).read_to_end(&mut content).at("read", &outside)?;
        Ok(Some(content))
    }

    /// The path as the host sees it, for messages.
    fn outside(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how =
            OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        loop {
            match openat2(&self.fd, path, how) {
                // A rename anywhere on the system while `..` was resolved (openat2(2)).
                Err(Errno::EAGAIN) => {}
                result => return Ok(result?),
            }
        }
    }

    fn directories(&self, path: &Path) -> io::Result<(OwnedFd, bool)> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.resolve(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return Ok((result?, false)),
        }
        let (parent, name) = split(path)?;
        let (parent, _) = self.directories(parent)?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
        let made = self.resolve(path, flags)?;
        // Whatever the umask of the user is.
        let file = File::from(self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?);
        file.set_permissions(Permissions::from_mode(0o755))?;
        Ok((made, true))
    }

    /// The parent directory, made if need be, and a name in it that is free.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = split(path)?;
        let (parent, _) = self.directories(parent)?;
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok((parent, name)),
            Err(error) => Err(error.into()),
        }
    }

    fn place_of<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = split(path)?;
        Ok((self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name))
    }
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let last = path.components().next_back();
    match (path.parent(), last) {
        (Some(parent), Some(Component::Normal(name))) => Ok((parent, name)),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a path that ends in a name is needed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_lead_nowhere_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("passwd"), "secret").unwrap();
        symlink(&outside, inside.join("absolute")).unwrap();
        symlink("../out", inside.join("up")).unwrap();
        symlink("../out/passwd", inside.join("file")).unwrap();
        let root = Root::open(&inside).unwrap();
        for path in ["absolute/new", "up/new", "absolute/sub/new", "/up/../../out/new"] {
            // Either refused or done inside; never outside.
            let _ = root.file(Path::new(path), 0o644, &mut &b"x"[..]);
            let _ = root.directory(Path::new(path));
        }
        root.file(Path::new("file"), 0o644, &mut &b"mine"[..]).unwrap();
        assert_eq!(fs::read(outside.join("passwd")).unwrap(), b"secret");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert!(
            fs::symlink_metadata(inside.join("file")).unwrap().is_file(),
            "the link was replaced"
        );
        symlink("/passwd", inside.join("own")).unwrap();
        fs::write(inside.join("passwd"), "own").unwrap();
        assert_eq!(root.read(Path::new("/own")).unwrap().unwrap(), b"own");
        assert_eq!(root.read(Path::new("/missing")).unwrap(), None);
    }

    #[test]
    fn links_inside_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        root.directory(Path::new("usr/bin")).unwrap();
        root.symlink(Path::new("bin"), Path::new("/usr/bin")).unwrap();
        root.file(Path::new("/bin/tool"), 0o4755, &mut &b"x"[..]).unwrap();
        let mode = fs::metadata(folder.path().join("usr/bin/tool")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o4755);
        root.hard_link(Path::new("usr/bin/same"), Path::new("bin/tool")).unwrap();
        root.fifo(Path::new("run/pipe"), 0o622).unwrap();
        assert!(root.has(Path::new("usr/bin/same")) && root.has(Path::new("run/pipe")));
        assert!(
            root.read(Path::new("run/pipe")).is_err(),
            "a pipe is no file and nobody waits on it"
        );
    }
}
