//! Links the guest as a kernel is: no C library, no start files, no relocations left to be done, at an
//! address where guests have RAM.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-no-pie",
        "-Wl,--no-dynamic-linker",
        "-Wl,--image-base=0x1000000", // 16 MiB
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,norelro",
        "-Wl,--strip-all",
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
