//! What one more file system costs beside many control groups: every container mounts some of its
//! own, and the kernel keeps for each group which of them it has pages of.

use std::{fs, path::Path};

use compare_backend::monotonic_ns;
use compare_cgroup::Limits;
use compare_spec::Bytes;
use nix::mount::{MsFlags, mount, umount};
use serde_json::json;

use super::Job;
use crate::world::World;

/// File systems mounted alone, and as many again beside the groups.
const MOUNTS: usize = 256;

/// Mounts without control groups and with as many as there were containers. Wants a host that has
/// had no more file systems before.
pub fn beside_groups(world: &mut World) {
    let job = Job::find(world, 10);
    let places = ["alone", "beside"].map(|name| world.image.tree.with_file_name(name));
    places.iter().for_each(|place| fs::create_dir(place).unwrap());
    let alone_ns = mount_all(&places[0]);
    let parent = world.parent.as_ref().unwrap();
    let limits = Limits { memory: Some(Bytes::mib(64)), ..Limits::default() };
    let groups: Vec<_> =
        (1..=job.count).map(|n| parent.create_leaf(&format!("m{n}"), &limits).unwrap()).collect();
    let beside_ns = mount_all(&places[1]);
    for place in &places {
        (0..MOUNTS).for_each(|_| umount(place).unwrap());
        fs::remove_dir(place).unwrap();
    }
    job.record(
        "mounts",
        &json!({ "groups": groups.len(), "alone_ns": alone_ns, "beside_ns": beside_ns }),
    );
}

/// How long each took, nanoseconds.
fn mount_all(place: &Path) -> Vec<u64> {
    let one = |_| {
        let begin = monotonic_ns();
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        monotonic_ns() - begin
    };
    (0..MOUNTS).map(one).collect()
}
