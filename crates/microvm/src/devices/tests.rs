use std::path::PathBuf;

use compare_spec::{MemoryPages, RootDevice};

use super::*;
use crate::layout;

fn failure(args: DeviceArgs) -> String {
    Extras::open(&args).expect_err("it cannot be opened").chain()
}

fn file(directory: &Path, name: &str, length: u64) -> PathBuf {
    let path = directory.join(name);
    File::create_new(&path).unwrap().set_len(length).unwrap();
    path
}

fn ids(args: &DeviceArgs, disk: bool) -> Vec<u32> {
    let disk = disk.then(|| boxed(Block::new(tempfile::tempfile().unwrap(), 4096)));
    let (devices, target) = Extras::open(args).unwrap().behind(disk, None, [2; 6]).unwrap();
    target.set();
    devices.iter().map(|device| device.id()).collect()
}

/// The numbers are those of the specification, section 5.
#[test]
fn they_come_in_one_order() {
    let directory = tempfile::tempdir().unwrap();
    let all = DeviceArgs {
        root_device: RootDevice::Blk,
        memory_pages: MemoryPages::Normal,
        scratch: Some(file(directory.path(), "scratch", 1 << 20)),
        rng: true,
        vsock: Some(directory.path().join("vsock")),
        vsock_cid: 3,
        balloon: true,
        balloon_mib: Some(1),
    };
    assert_eq!(ids(&all, true), [2, 2, 4, 19, 5]);
    let some = DeviceArgs { scratch: None, vsock: None, ..all };
    assert_eq!(ids(&some, false), [4, 5]);
    assert_eq!(ids(&DeviceArgs::default(), true), [2]);
}

#[test]
fn every_machine_has_a_line_for_each() {
    // Disk, tap and those here.
    assert!(layout::VIRTIO_IRQS.len() >= 6);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let args = DeviceArgs { scratch: Some("/no/disk".into()), ..DeviceArgs::default() };
    assert_eq!(failure(args), "open /no/disk: No such file or directory (os error 2)");
}

#[test]
fn only_a_socket_nobody_listens_at_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let args = |name: &str| DeviceArgs {
        vsock: Some(directory.path().join(name)),
        ..DeviceArgs::default()
    };
    let listening = Extras::open(&args("socket")).unwrap();
    assert!(failure(args("socket")).contains("Address already in use"));
    drop(listening);
    Extras::open(&args("socket")).unwrap();

    let kept = file(directory.path(), "file", 5);
    assert!(failure(args("file")).contains("Address already in use"));
    assert_eq!(std::fs::metadata(kept).unwrap().len(), 5);
    let text = failure(args("no/directory"));
    assert!(text.starts_with("listen at ") && text.contains("No such file"), "{text}");
    assert!(failure(args(&"x".repeat(200))).contains("listen at "));
}
