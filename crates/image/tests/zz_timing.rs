//! Temporary.
#![allow(clippy::unwrap_used)]
use compare_image::*;
use std::time::Instant;
#[test]
fn timing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &Silent).unwrap();
    let nginx = load("nginx").unwrap();
    let options = Options { programs: folder.path(), refresh: false };
    for _ in 0..3 {
        let begin = Instant::now();
        let p = prepare(&cache, &nginx, &options, &Silent).unwrap();
        println!("prepare {:?} {} {}", begin.elapsed(), p.image.digest, p.image.erofs_digest);
        let begin = Instant::now();
        verify(&p.image).unwrap();
        println!("verify {:?}", begin.elapsed());
    }
    for _ in 0..2 {
        let begin = Instant::now();
        let k = lab_kernel(&cache, &["kvm-amd", "overlay", "virtio_pci"], &Silent).unwrap();
        println!("lab_kernel {:?} {}", begin.elapsed(), k.release);
    }
    let big = folder.path().join("big");
    std::fs::write(&big, vec![7u8; 100 << 20]).unwrap();
    for _ in 0..2 {
        let begin = Instant::now();
        lab_disk(&cache, &[("big", &big)], &Silent).unwrap();
        println!("lab_disk of 100 MiB {:?}", begin.elapsed());
    }
    for path in ["/tmp/vmlinux-guest"] {
        let begin = Instant::now();
        println!("{:?} {:?}", check_kernel(std::path::Path::new(path)), begin.elapsed());
    }
}
