//! The guest kernel: built from the distribution's kernel source with the configuration of
//! `guest/kernel`. Minutes of work, done once for each configuration and compiler.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use compare_spec::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    apt::{Apt, Control, download, unpack},
    cache::{Cache, Kind, Recipe, remove_tree},
    error::{At, Error, Result},
    manifest::{read_manifest, write_manifest},
    program::{command, run, run_logged, run_watched},
    progress::Progress,
    requirement::{Purpose, check_packages, install_command},
    tree::walk,
    vmlinux::{KernelArtefact, check_kernel},
};

const STEP: &str = "guest kernel";
const VMLINUX: &str = "vmlinux";
/// The script of `guest/kernel`: `build.sh SOURCE_DIR BUILD_DIR OUT_VMLINUX`.
const SCRIPT: &str = "build.sh";
/// The series the configuration was chosen for, and the oldest it is made for.
const PREFERRED: &str = "linux-source-6.1";
const OLDEST: (u32, u32) = (6, 1);
/// What source and build take while they are there.
const NEEDED_BYTES: u64 = 3 << 30;
/// How often the progress of the compiler is told.
const TICK: Duration = Duration::from_millis(250);

/// What is written down beside a kernel.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    digest: Digest,
    release: String,
    source_package: String,
    source_version: String,
    compiler: String,
}

/// Builds the guest kernel, or finds it in the cache. `recipe` is the directory with `build.sh`
/// and `config`, `fragment` the name of a file there with further options. A kernel is known by
/// these files, by others that its script names and by the compiler; the version of the source is
/// written down, not asked for again.
///
/// # Errors
/// Programs are missing, the source cannot be had, the build failed (the end of its log is told,
/// the whole kept in the cache directory) or the cache cannot be written.
pub fn guest_kernel(
    cache: &Cache,
    recipe: &Path,
    fragment: Option<&str>,
    progress: &dyn Progress,
) -> Result<KernelArtefact> {
    let begin = Instant::now();
    let compiler = compiler();
    let fragment = fragment.map(|name| recipe.join(name));
    let key = key(recipe, fragment.as_deref(), &compiler)?;
    let build =
        |staging: &Path| make(cache, recipe, fragment.as_deref(), &compiler, staging, progress);
    let entry = cache.entry(
        Recipe { kind: Kind::Kernel, key: &key, what: STEP, refresh: false },
        progress,
        build,
        open,
    )?;
    progress.done(STEP, begin.elapsed(), entry.cached);
    Ok(entry.value)
}

fn open(entry: &Path) -> Result<KernelArtefact> {
    let manifest: Manifest = read_manifest(entry)?;
    let kernel = check_kernel(&entry.join(VMLINUX))?;
    if kernel.digest != manifest.digest {
        let problem = "its bytes are not those that were built".to_owned();
        return Err(Error::Corrupt { path: kernel.vmlinux, problem, entry: entry.to_owned() });
    }
    Ok(kernel)
}

/// The first line of what the compiler says about itself; empty if there is none.
fn compiler() -> String {
    let text = run(command("gcc").arg("--version")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

fn key(recipe: &Path, fragment: Option<&Path>, compiler: &str) -> Result<Digest> {
    let script_path = recipe.join(SCRIPT);
    let script = fs::read_to_string(&script_path).at("read", &script_path)?;
    let mut parts = vec![compiler.to_owned(), script.clone()];
    let mut paths: Vec<PathBuf> = fs::read_dir(recipe)
        .at("read", recipe)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name != SCRIPT && script.contains(name) {
            parts.push(name.to_owned());
            parts.push(crate::tree::file_digest(&path)?.to_string());
        }
    }
    if let Some(fragment) = fragment {
        parts.push(crate::tree::file_digest(fragment)?.to_string());
    }
    Ok(Digest::of(parts.join("\0").as_bytes()))
}

fn make(
    cache: &Cache,
    recipe: &Path,
    fragment: Option<&Path>,
    compiler: &str,
    staging: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    progress.step(STEP);
    check_host(cache)?;
    progress.detail("asking apt for the kernel's source");
    let package = source_package(&mut Apt::default())?;
    let file = download(cache, std::slice::from_ref(&package), progress)?.remove(0);

    let work = staging.join("work");
    let source = unpack_source(&file, &work, progress)?;
    let (build, vmlinux, log) =
        (work.join("build"), staging.join(VMLINUX), staging.join("build.log"));
    let mut script = command("sh");
    script.arg(recipe.join(SCRIPT)).args([&source, &build, &vmlinux]);
    if let Some(fragment) = fragment {
        script.env("GUEST_KERNEL_FRAGMENT", fragment);
    }
    let (begin, mut last, mut compiled) = (Instant::now(), None::<Instant>, 0_u32);
    let mut doing = "";
    let outcome = run_logged(&mut script, &log, |line| {
        // What make prints for each object: `  CC      path`, `  LD      vmlinux.o`.
        match line.unwrap_or_default().split_whitespace().next() {
            Some("CC" | "AS") => (compiled, doing) = (compiled + 1, ""),
            Some("LD" | "KSYMS" | "SORTTAB") => doing = ", linking",
            _ => {}
        }
        if last.is_none_or(|last| last.elapsed() >= TICK) {
            last = Some(Instant::now());
            let seconds = begin.elapsed().as_secs();
            progress.detail(&format!("{compiled} files compiled in {seconds} s{doing}"));
        }
    });
    outcome.map_err(|error| keep_log(error, &log, cache))?;

    for (from, to) in [("System.map", "System.map"), (".config", "config")] {
        let (from, to) = (build.join(from), staging.join(to));
        fs::copy(&from, &to).at("copy", &from)?;
    }
    progress.detail("removing the source");
    remove_tree(&work).at("remove", &work)?;
    let kernel = check_kernel(&vmlinux)?;
    write_manifest(
        staging,
        &Manifest {
            digest: kernel.digest,
            release: kernel.release,
            source_package: package.name,
            source_version: package.version,
            compiler: compiler.to_owned(),
        },
    )
}

/// Looks for what the build will need before minutes are spent on it.
fn check_host(cache: &Cache) -> Result<()> {
    let mut missing = check_packages();
    missing.retain(|(requirement, found)| requirement.purpose == Purpose::GuestKernel && !found);
    if let Some(remedy) = install_command(&missing) {
        let names: Vec<&str> = missing.iter().map(|(requirement, _)| requirement.program).collect();
        return Err(Error::ProgramMissing {
            program: names.join(", "),
            why: "to build the guest kernel",
            remedy,
        });
    }
    if cache.free_bytes() < NEEDED_BYTES {
        return Err(Error::Io {
            attempt: "unpack the kernel's source, which with its build takes 3 GiB for a while, below",
            path: cache.root().to_owned(),
            source: io::ErrorKind::StorageFull.into(),
        });
    }
    Ok(())
}

/// The distribution's kernel source: the preferred series, else the one it has.
fn source_package(apt: &mut Apt) -> Result<Control> {
    apt.look_up(&[PREFERRED.to_owned(), "linux-source".to_owned()])?;
    if let Some(control) = apt.get(PREFERRED) {
        return Ok(control.clone());
    }
    let newest = apt.need("linux-source")?;
    let series = |control: &Control| {
        let mut numbers = control.name.strip_prefix("linux-source-")?.split('.');
        Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u32>().ok()?))
    };
    let depends = apt.depends(&newest)?;
    depends.into_iter().find(|control| series(control) >= Some(OLDEST)).ok_or_else(|| {
        Error::Package {
            package: newest.name,
            problem: format!(
                "version {} is older than Linux 6.1: give a kernel of your own with --kernel",
                newest.version
            ),
            source: None,
        }
    })
}

/// Unpacks the tar archive that the package holds; returns the directory of the source.
fn unpack_source(package: &Path, work: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    progress.detail("unpacking the kernel's source");
    let (outer, inner) = (work.join("package"), work.join("source"));
    fs::create_dir_all(&inner).at("create", &inner)?;
    unpack(package, &outer)?;
    let is_archive = |path: &Path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with("linux-source-") && name.contains(".tar.")
    };
    let missing = |path: &Path| Error::Source {
        path: path.to_owned(),
        problem: "holds no kernel source".to_owned(),
    };
    let files = walk(&outer)?.into_iter().filter(|(_, facts)| facts.is_file());
    let archive = files
        .map(|(path, _)| outer.join(path))
        .find(|path| is_archive(path))
        .ok_or_else(|| missing(package))?;
    let mut tar = command("tar");
    tar.arg("-xf").arg(&archive).arg("--no-same-owner").arg("-C").arg(&inner);
    let begin = Instant::now();
    run_watched(&mut tar, || {
        progress.detail(&format!("unpacking the kernel's source, {} s", begin.elapsed().as_secs()))
    })?;
    remove_tree(&outer).at("remove", &outer)?;
    let mut directories =
        fs::read_dir(&inner).at("read", &inner)?.filter_map(|entry| Some(entry.ok()?.path()));
    directories.find(|path| path.is_dir()).ok_or_else(|| missing(&archive))
}

/// Keeps the log of a failed build where it survives, and says where.
fn keep_log(error: Error, log: &Path, cache: &Cache) -> Error {
    let kept = cache.root().join("guest-kernel-failed.log");
    match error {
        Error::Program { command, status, stderr } if fs::copy(log, &kept).is_ok() => {
            Error::Program {
                command,
                status,
                stderr: format!("{stderr}\n(the whole log: {})", kept.display()),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_covers_what_the_script_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(SCRIPT, "cat \"$here/config\"; cc patch.h");
        write("config", "A=y");
        write("patch.h", "1");
        let first = key(folder.path(), None, "gcc 12").unwrap();
        write("README.md", "words");
        assert_eq!(key(folder.path(), None, "gcc 12").unwrap(), first);
        assert_ne!(key(folder.path(), None, "gcc 13").unwrap(), first);
        let fragment = folder.path().join("config");
        assert_ne!(key(folder.path(), Some(&fragment), "gcc 12").unwrap(), first);
        write("patch.h", "2");
        let second = key(folder.path(), None, "gcc 12").unwrap();
        assert_ne!(second, first);
        write("config", "A=n");
        assert_ne!(key(folder.path(), None, "gcc 12").unwrap(), second);
    }

    #[test]
    fn the_log_of_a_failed_build_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), &crate::Silent).unwrap();
        let log = folder.path().join("build.log");
        let mut script = command("sh");
        script.args(["-c", "echo '  CC      a.o'; echo broken >&2; exit 2"]);
        let mut lines = Vec::new();
        let error = run_logged(&mut script, &log, |line| lines.extend(line.map(str::to_owned)));
        let text = keep_log(error.unwrap_err(), &log, &cache).to_string();
        assert_eq!(lines, ["  CC      a.o"]);
        let kept = folder.path().join("guest-kernel-failed.log");
        assert!(text.contains("(exit status: 2)") && text.contains("broken"), "{text}");
        assert!(text.ends_with(&format!("(the whole log: {})", kept.display())), "{text}");
        assert!(fs::read_to_string(kept).unwrap().contains("broken"));
    }
}
