//! Notes the revision the program is built from, so that every record can name it.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    // A file that never exists: any source may have changed, and asking git takes milliseconds.
    println!("cargo::rerun-if-changed=always");
    if let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=COMPARE_REVISION={revision}");
    }
    if let Some(changes) = git(&["status", "--porcelain", "--untracked-files=no"]) {
        println!("cargo::rustc-env=COMPARE_DIRTY={}", !changes.is_empty());
    }
}
