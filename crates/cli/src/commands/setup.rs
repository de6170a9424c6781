//! `compare setup`

use anyhow::Result;
use compare_spec::{Clock, HostKind, Plan};

use crate::{exit::Code, output::print, prepare::prepare, progress::SetupProgress};

pub fn run(workload: &str) -> Result<Code> {
    let plan = Plan {
        workload: compare_image::load(workload)?,
        backends: vec!["container".to_owned(), "microvm".to_owned()],
        starts: vec![compare_spec::StartMode::Cold],
        microvm_root: compare_spec::RootDevice::default(),
        microvm_memory_pages: compare_spec::MemoryPages::default(),
        trials: 1,
        warmup: 0,
        gap: compare_spec::Span::default(),
        seed: 1,
        host: HostKind::Lab,
        clock: Clock::Instructions,
    };
    let prepared = prepare(&plan, None, &SetupProgress::new())?;
    let image = &prepared.image;
    let mut text = format!(
        "root file system: {} ({} bytes as EROFS)\n  {}\n  {}\n",
        image.digest,
        image.erofs_bytes,
        image.tree.display(),
        image.erofs.display()
    );
    text += &format!("guest kernel: {}\n", prepared.paths.kernel.display());
    if let Some(lab) = &prepared.lab {
        let (kernel, disk) = (lab.files.kernel.display(), lab.files.disk.display());
        text += &format!("emulated host: {kernel}\n  {disk}\n");
    }
    print(&text)?;
    Ok(Code::Success)
}
