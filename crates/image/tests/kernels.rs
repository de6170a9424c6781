//! Kernels, made with the real programs. Both tests use apt.

use std::{fs, path::Path, process::Command, time::Duration};

use compare_image::{Cache, Progress, Silent, check_kernel, guest_kernel, lab_disk, lab_kernel};

fn skip(reason: &str) {
    let required = std::env::var("COMPARE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "image"), "required, but cannot run: {reason}");
    println!("SKIP: {reason}");
}

fn knows(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["show", package])
        .output()
        .is_ok_and(|output| !output.stdout.is_empty())
}

#[test]
fn the_lab_has_a_kernel_its_modules_and_a_disk() {
    if !knows("linux-image-cloud-amd64") {
        return skip("apt knows no cloud kernel");
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let kernel = lab_kernel(&cache, &["kvm-amd", "overlay", "virtio_pci"], &Silent).unwrap();
    let names: Vec<&str> =
        kernel.modules.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    println!("{} {names:?}", kernel.release);
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert!(
        place("kvm.ko") < place("kvm_amd.ko") && place("irqbypass.ko") < place("kvm.ko"),
        "{names:?}"
    );
    assert!(kernel.modules.iter().all(|path| fs::read(path).unwrap().starts_with(b"\x7fELF")));
    assert_eq!(check_kernel(&kernel.vmlinuz).unwrap().release, kernel.release);
    assert_eq!(lab_kernel(&cache, &["kvm-amd", "overlay", "virtio_pci"], &Silent).unwrap(), kernel);

    let modules = kernel.modules[0].parent().unwrap();
    let entries: [(&str, &Path); 2] = [("kernel", &kernel.vmlinuz), ("images/modules", modules)];
    let disk = lab_disk(&cache, &entries, &Silent).unwrap();
    assert_eq!(lab_disk(&cache, &entries, &Silent).unwrap(), disk);
    let (kernel_bytes, disk_bytes) =
        (fs::metadata(&kernel.vmlinuz).unwrap().len(), fs::metadata(&disk).unwrap().len());
    assert!(disk_bytes > kernel_bytes && disk_bytes % 4096 == 0);
}

struct Loud;

impl Progress for Loud {
    fn step(&self, name: &str) {
        println!("==> {name}");
    }
    fn detail(&self, text: &str) {
        println!("    {text}");
    }
    fn done(&self, name: &str, elapsed: Duration, cached: bool) {
        println!("==> {name}: {elapsed:?}, cached: {cached}");
    }
    fn note(&self, text: &str) {
        println!("    note: {text}");
    }
}

#[test]
#[ignore = "takes minutes: the wrapper and the CLI build the kernel anyway"]
fn the_guest_kernel_is_built_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/kernel");
    let kernel = guest_kernel(&cache, &recipe, None, &Loud).unwrap();
    println!("{kernel:?}: {} bytes", fs::metadata(&kernel.vmlinux).unwrap().len());
    assert_eq!(guest_kernel(&cache, &recipe, None, &Loud).unwrap(), kernel);
    assert_eq!(check_kernel(&kernel.vmlinux).unwrap().release, kernel.release);
    let mut names: Vec<_> = fs::read_dir(kernel.vmlinux.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["System.map", "build.log", "config", "manifest.json", "vmlinux"]);
}
