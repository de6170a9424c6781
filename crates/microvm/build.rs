//! Packs the monitor's 3,000 relative relocations (DT_RELR) where the C library can apply them in a
//! static program: from 76 KB, read at each start, to less than 1 KB.

use std::process::Command;

/// First glibc that can (its NEWS for 2.36).
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if glibc().is_some_and(|version| version >= FIRST) {
        println!("cargo::rustc-link-arg-bin=compare-vmm=-Wl,-z,pack-relative-relocs");
    }
}

/// Version of the C library here, as getconf(1) tells it: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
