//! What every distribution's root has and no package brings along when it is unpacked without
//! being installed: the merged layout, places to mount on, and the fixed accounts.

use std::path::Path;

use crate::{error::Result, rooted::Root};

/// The accounts of Debian's base-passwd, whose numbers are the same on every installation (Debian
/// Policy, 9.2.2). Daemons that make an account when installed are not among them: such a workload
/// brings its own `/etc/passwd` as an `[[image.file]]`.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
news:x:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:x:13:13:proxy:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
list:x:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:x:39:39:ircd:/run/ircd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
news:x:9:
uucp:x:10:
man:x:12:
proxy:x:13:
kmem:x:15:
dialout:x:20:
fax:x:21:
voice:x:22:
cdrom:x:24:
floppy:x:25:
tape:x:26:
sudo:x:27:
audio:x:29:
dip:x:30:
www-data:x:33:
backup:x:34:
operator:x:37:
list:x:38:
irc:x:39:
src:x:40:
shadow:x:42:
utmp:x:43:
video:x:44:
sasl:x:45:
plugdev:x:46:
staff:x:50:
games:x:60:
users:x:100:
nogroup:x:65534:
";

/// Files and DNS only: everything else would need libraries that are loaded at run time.
const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
";

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// Lays out an empty root in the merged form that all supported distributions have: `/bin`, `/lib`,
/// `/lib64` and `/sbin` lead into `/usr`.
pub(crate) fn lay_out(root: &Root) -> Result<()> {
    root.set_directory_mode(Path::new(""), 0o755)?;
    for name in ["bin", "lib", "lib64", "sbin"] {
        root.directory(&Path::new("usr").join(name))?;
        root.symlink(Path::new(name), &Path::new("usr").join(name))?;
    }
    for name in ["etc", "home", "srv", "var/cache", "var/lib", "var/log", "var/spool"] {
        root.directory(Path::new(name))?;
    }
    root.directory(Path::new("root"))?;
    root.set_directory_mode(Path::new("root"), 0o700)?;
    root.directory(Path::new("var/tmp"))?;
    root.set_directory_mode(Path::new("var/tmp"), 0o1777)?;
    root.symlink(Path::new("var/run"), Path::new("/run"))?;
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", NSSWITCH),
        ("etc/hosts", HOSTS),
    ] {
        root.file(Path::new(path), 0o644, &mut text.as_bytes())?;
    }
    mount_points(root)
}

/// Adds the directories that backends mount on, where the tree has none.
pub(crate) fn mount_points(root: &Root) -> Result<()> {
    for (name, mode) in
        [("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("run", 0o755), ("tmp", 0o1777)]
    {
        let path = Path::new(name);
        if !root.has(path) {
            root.directory(path)?;
            root.set_directory_mode(path, mode)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::user::resolve_user;

    #[test]
    fn a_root_has_its_layout_and_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        lay_out(&root).unwrap();
        assert_eq!(fs::read_link(folder.path().join("lib64")).unwrap(), Path::new("usr/lib64"));
        let mode =
            |path| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode(""), mode("tmp"), mode("root"), mode("proc")),
            (0o755, 0o1777, 0o700, 0o755)
        );
        assert_eq!(resolve_user(folder.path(), "www-data").unwrap().uid, 33);
        assert_eq!(resolve_user(folder.path(), "nobody:nogroup").unwrap().gid, 65534);
    }
}
