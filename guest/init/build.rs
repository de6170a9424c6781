//! Links the program without the C library's start-up code, by a layout of its own: it travels in
//! every initramfs, so its pages are read, copied and mapped by every guest that boots.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    for argument in [
        "-nostartfiles",
        // At a fixed address nothing has to be relocated at run time, which nobody would do.
        "-static",
        "-no-pie",
        &format!("-Wl,-T,{folder}/layout.ld"),
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,--strip-all",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
