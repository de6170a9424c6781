//! Whole artefacts, made with the real programs. Those marked "apt" download packages.

// clippy.toml lifts this for test functions only, not for what they share.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use compare_image::{
    Cache, Error, Options, Prepared, Silent, check_packages, load, prepare, tree_digest, verify,
};
use compare_spec::Workload;

/// Says that a test cannot run here; where `COMPARE_REQUIRE` names this crate, that is a failure.
fn skip(reason: &str) {
    let required = std::env::var("COMPARE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "image"), "required, but cannot run: {reason}");
    println!("SKIP: {reason}");
}

fn has(programs: &[&str]) -> bool {
    let checked = check_packages();
    let missing = checked.iter().find(|(need, found)| !found && programs.contains(&need.program));
    if let Some((requirement, _)) = missing {
        skip(&format!("{} is not installed ({})", requirement.program, requirement.package));
    }
    missing.is_none()
}

/// Whether apt knows packages at all: in a fresh container its lists are empty.
fn has_apt() -> bool {
    if !has(&["apt-get", "dpkg-deb", "mkfs.erofs"]) {
        return false;
    }
    let known = Command::new("apt-cache")
        .args(["show", "nginx"])
        .output()
        .is_ok_and(|output| !output.stdout.is_empty());
    if !known {
        skip("apt's lists are empty: run apt-get update");
    }
    known
}

fn workload(image: &str) -> Workload {
    let text =
        format!("name = \"test\"\ncommand = [\"/bin/x\"]\nready = {{ exit = 0 }}\n{image}\n");
    Workload::parse("test.toml", &text).unwrap()
}

fn options(programs: &Path) -> Options<'_> {
    Options { programs, refresh: false }
}

/// The static program nearest at hand is this one.
fn programs(folder: &Path) -> std::path::PathBuf {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).unwrap();
    fs::copy(std::env::current_exe().unwrap(), programs.join("compare-hello")).unwrap();
    programs
}

#[test]
fn a_program_is_all_there_is_in_its_image() {
    if !has(&["mkfs.erofs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let programs = programs(folder.path());
    let hello = load("hello").unwrap();
    let first = prepare(&cache, &hello, &options(&programs), &Silent).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(&first.image.tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dev", "hello", "proc", "run", "sys", "tmp"]);
    assert_eq!((first.image.uid, first.image.gid), (0, 0));
    assert_eq!(prepare(&cache, &hello, &options(&programs), &Silent).unwrap(), first);

    fs::write(programs.join("compare-hello"), "#!/bin/sh\n").unwrap();
    let error = prepare(&cache, &hello, &options(&programs), &Silent).unwrap_err().to_string();
    assert!(error.contains("not a static program"), "{error}");
    let error =
        prepare(&cache, &workload("[image]\nprogram = \"other\""), &options(&programs), &Silent)
            .unwrap_err();
    assert!(error.to_string().contains("there is `hello`"), "{error}");
}

fn source(folder: &Path) -> Workload {
    let root = folder.join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::write(root.join("usr/bin/x"), "x").unwrap();
    fs::set_permissions(root.join("usr/bin/x"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    let image = format!(
        "[image]\ndirectory = {:?}\n[[image.file]]\npath = \"/bin/y\"\nmode = 0o755\ncontent = \"y\"",
        root.display().to_string()
    );
    workload(&image)
}

#[test]
fn a_directory_is_copied_and_known_by_its_content() {
    if !has(&["mkfs.erofs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let workload = source(folder.path());
    let make = |name: &str| {
        let cache = Cache::open(&folder.path().join(name), &Silent).unwrap();
        prepare(&cache, &workload, &options(folder.path()), &Silent).unwrap()
    };
    let (one, two) = (make("one"), make("two"));
    assert_eq!(
        (&one.image.digest, &one.image.erofs_digest),
        (&two.image.digest, &two.image.erofs_digest)
    );
    assert_eq!(tree_digest(&one.image.tree).unwrap().digest, one.image.digest);
    let mode =
        |path: &str| fs::metadata(one.image.tree.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("usr/bin/x"), mode("usr/bin/y"), mode("tmp")), (0o4755, 0o755, 0o1777));
    verify(&one.image).unwrap();

    fs::write(folder.path().join("root/usr/bin/x"), "z").unwrap();
    let changed = make("one");
    assert_ne!(changed.image.digest, one.image.digest);
    assert_ne!(changed.image.tree, one.image.tree);
}

#[test]
fn no_file_is_laid_outside_the_tree() {
    if !has(&["mkfs.erofs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(folder.path().join("root")).unwrap();
    symlink(&outside, folder.path().join("root/etc")).unwrap();
    let image = format!(
        "[image]\ndirectory = \"{}/root\"\n[[image.file]]\npath = \"/etc/new\"\ncontent = \"x\"",
        folder.path().display()
    );
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    prepare(&cache, &workload(&image), &options(folder.path()), &Silent).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(cache.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_damaged_image_is_made_again_or_told() {
    if !has(&["mkfs.erofs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let workload = source(folder.path());
    let first = prepare(&cache, &workload, &options(folder.path()), &Silent).unwrap();
    let file = fs::File::options().write(true).open(&first.image.erofs).unwrap();
    file.set_len(first.image.erofs_bytes / 2).unwrap();
    let error = verify(&first.image).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(
        error.to_string().contains("bytes where") && error.to_string().contains("compare setup"),
        "{error}"
    );
    assert_eq!(prepare(&cache, &workload, &options(folder.path()), &Silent).unwrap(), first);
    verify(&first.image).unwrap();

    fs::write(first.image.tree.join("usr/bin/x"), "other").unwrap();
    let error = verify(&first.image).unwrap_err().to_string();
    assert!(error.contains("/tree: its digest is"), "{error}");
}

#[test]
fn unknown_users_are_told() {
    if !has(&["mkfs.erofs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let mut workload = source(folder.path());
    workload.user = "nobody".to_owned();
    let error =
        prepare(&cache, &workload, &options(folder.path()), &Silent).unwrap_err().to_string();
    assert!(error.starts_with("user `nobody`: no such user"), "{error}");
}

/// apt. The built-in nginx really serves its page from the tree, and the tree is the same each time
/// it is made.
#[test]
fn nginx_is_made_from_packages_and_serves_its_page() {
    if !has_apt() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let nginx = load("nginx").unwrap();
    let Prepared { image, manifest } =
        prepare(&cache, &nginx, &options(folder.path()), &Silent).unwrap();
    println!(
        "{} files, {} bytes, EROFS {} bytes",
        manifest.files, manifest.bytes, manifest.erofs_bytes
    );
    println!("tree {}, EROFS {}", manifest.digest, manifest.erofs_digest);
    assert!(manifest.bytes < 32 << 20, "{} bytes", manifest.bytes);
    let names: Vec<&str> = manifest.packages.iter().map(|package| package.name.as_str()).collect();
    assert!(
        names.contains(&"nginx") && names.contains(&"libc6") && !names.contains(&"iproute2"),
        "{names:?}"
    );
    verify(&image).unwrap();
    assert!(!image.tree.join("usr/share/doc").exists());

    let again =
        prepare(&cache, &nginx, &Options { programs: folder.path(), refresh: true }, &Silent)
            .unwrap();
    assert_eq!((&again.image, &again.manifest), (&image, &manifest));
    served(&image.tree, folder.path());
}

/// Runs nginx in a chroot on a port of its own network namespace.
fn served(tree: &Path, folder: &Path) {
    let root = folder.join("chroot");
    // A copy: nginx writes below /var and /run.
    assert!(Command::new("cp").arg("-a").arg(tree).arg(&root).status().unwrap().success());
    let script = "ip link set lo up && chroot \"$1\" /usr/sbin/nginx -t -c /etc/nginx/compare.conf && \
        { chroot \"$1\" /usr/sbin/nginx -c /etc/nginx/compare.conf & } && sleep 0.5 && \
        printf 'GET / HTTP/1.0\\r\\n\\r\\n' | { exec 3<>/dev/tcp/127.0.0.1/80; cat >&3; cat <&3; }; kill -QUIT $!; wait";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "bash", "-c", script, "bash"])
        .arg(&root)
        .output();
    match output {
        Ok(output) if output.status.success() || !output.stdout.is_empty() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                text.contains("200 OK") && text.contains("Welcome to nginx!"),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output) => skip(&format!(
            "cannot run nginx in a chroot: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => skip(&format!("cannot run nginx in a chroot: {error}")),
    }
}

/// apt.
#[test]
fn unknown_packages_are_told_and_nothing_is_left() {
    if !has_apt() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let error = prepare(
        &cache,
        &workload("[image]\npackages = [\"no-such-package\"]"),
        &options(folder.path()),
        &Silent,
    )
    .unwrap_err();
    assert!(
        error.to_string().starts_with("package no-such-package: apt knows no such package"),
        "{error}"
    );
    for place in ["tmp", "image"] {
        assert_eq!(fs::read_dir(cache.root().join(place)).unwrap().count(), 0);
    }
}
