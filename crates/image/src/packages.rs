//! A root file system from the distribution's packages: the named ones whole, except what no
//! program reads, and of all others only the shared libraries.

use std::{fs, path::Path};

use crate::{
    apt::{Apt, Control, download},
    cache::{Cache, remove_tree},
    copy::copy_tree,
    error::{At, Error, Result},
    libraries::{Libraries, Unpacked, merged},
    manifest::PackageVersion,
    progress::Progress,
    rooted::Root,
    skeleton,
};

/// What packages hold for people, for the init system and for other packages, but not for their
/// own programs.
const LEFT_OUT: [&str; 31] = [
    "etc/bash_completion.d",
    "etc/cron.d",
    "etc/cron.daily",
    "etc/cron.weekly",
    "etc/default",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/rcS.d",
    "etc/systemd",
    "etc/ufw",
    "usr/lib/systemd",
    "usr/lib/sysusers.d",
    "usr/lib/tmpfiles.d",
    "usr/lib/udev",
    "usr/include",
    "usr/share/apport",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/fish",
    "usr/share/info",
    "usr/share/initramfs-tools",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/pixmaps",
    "usr/share/reportbug",
    "usr/share/vim",
    "usr/share/zsh",
];

/// Whether a path of a package, in the merged layout, belongs into an image.
fn is_wanted(path: &Path) -> bool {
    !LEFT_OUT.iter().any(|prefix| path.starts_with(prefix))
}

/// Fills the empty `root` from packages; `scratch` is a directory for what is not kept. Returns
/// the packages anything was taken from.
pub(crate) fn fill(
    cache: &Cache,
    names: &[String],
    root: &Root,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Vec<PackageVersion>> {
    if !cfg!(target_arch = "x86_64") {
        let problem = "images are made from packages on x86-64 only".to_owned();
        return Err(Error::Package { package: names.join(" "), problem, source: None });
    }
    fs::create_dir_all(scratch).at("create", scratch)?;
    skeleton::lay_out(root)?;
    let mut apt = Apt::default();
    let whole = with_siblings(&mut apt, names, progress)?;
    let files = download(cache, &whole, progress)?;
    let mut packages = Vec::new();
    for (control, file) in whole.into_iter().zip(files) {
        progress.detail(&format!("unpacking {}", control.name));
        let package = Unpacked::open(control, &file, scratch, true)?;
        copy_tree(&package.directory, root, Path::new(""), |path| is_wanted(&merged(path)))?;
        packages.push(package);
    }
    progress.detail("looking for shared libraries");
    let mut libraries = Libraries { cache, apt: &mut apt, staging: scratch, progress, packages };
    libraries.complete(root, is_wanted)?;
    let mut versions: Vec<PackageVersion> = libraries.packages.into_iter().map(version).collect();
    versions.sort();
    // Only now: whatever fails above leaves it to the staging directory around it.
    remove_tree(scratch).at("remove", scratch)?;
    Ok(versions)
}

fn version(package: Unpacked) -> PackageVersion {
    let Control { name, version, architecture, .. } = package.control;
    PackageVersion { name, version, architecture, whole: package.whole }
}

/// The named packages and those they depend on that were built from the same source: `nginx` is
/// one package with its data in another on Debian, and only a name for others on Ubuntu 22.04.
fn with_siblings(apt: &mut Apt, names: &[String], progress: &dyn Progress) -> Result<Vec<Control>> {
    progress.detail(&format!("asking apt for {}", names.join(", ")));
    apt.look_up(names)?;
    let mut found: Vec<Control> = Vec::new();
    let mut pending = names.iter().map(|name| apt.need(name)).collect::<Result<Vec<_>>>()?;
    while let Some(control) = pending.pop() {
        if found.iter().any(|other| other.name == control.name) {
            continue;
        }
        let is_sibling = |other: &Control| other.source == control.source;
        pending.extend(apt.depends(&control)?.into_iter().filter(is_sibling));
        found.push(control);
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_program_can_need_is_kept() {
        for kept in [
            "usr/sbin/nginx",
            "etc/nginx/mime.types",
            "usr/share/nginx/html/index.html",
            "usr/share/docs",
            "",
        ] {
            assert!(is_wanted(Path::new(kept)), "{kept}");
        }
        for left in [
            "usr/share/doc/nginx/copyright",
            "etc/init.d/nginx",
            "lib/systemd/system/nginx.service",
        ] {
            assert!(!is_wanted(&merged(Path::new(left))), "{left}");
        }
    }
}
