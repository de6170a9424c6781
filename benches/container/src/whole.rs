//! Whole containers, by the backend that `compare run` uses.

use std::{os::fd::AsFd, path::Path, thread, time::Duration};

use compare_backend::{Backend, StartRequest, Timeline};
use compare_cgroup::{Hierarchy, Parent};
use compare_container::ContainerBackend;
use compare_probe::until_ready;
use compare_spec::{Digest, EventsNs, Image, Workload};
use nix::sys::eventfd::EventFd;

use crate::{Failure, Settings};

/// What starts need.
pub struct World {
    backend: ContainerBackend,
    parent: Parent,
    image: Image,
    workload: Workload,
    started: u32,
    /// Never readable: nobody cuts a measurement short.
    never: EventFd,
}

const WORKLOAD: &str = "name = \"floor\"\ncommand = [\"/hello\"]\ncpus = 1.0\nready = { exit = 0 }\n\
                        [image]\nprogram = \"hello\"\n";

impl World {
    /// In namespaces of its own, as a run is.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        compare_net::enter_private_netns()?;
        compare_container::enter_private_mounts()?;
        Self::here(settings)
    }

    /// Where this process is: enough for a container without a link.
    fn here(settings: &Settings) -> Result<Self, Failure> {
        let hierarchy = Hierarchy::detect(Path::new("/sys/fs/cgroup"))?;
        let parent = Parent::create(&hierarchy)?;
        let digest = Digest::of(b"floor");
        let image = Image {
            digest: digest.clone(),
            tree: settings.tree.clone(),
            erofs: "/nonexistent".into(),
            erofs_digest: digest,
            erofs_bytes: 0,
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        let workload = match &settings.workload {
            Some(file) => Workload::read(file)?,
            None => {
                let mut workload = Workload::parse("floor", WORKLOAD)?;
                workload.command.clone_from(&settings.command);
                workload
            }
        };
        Ok(Self {
            backend: ContainerBackend::new(),
            parent,
            image,
            workload,
            started: 0,
            never: EventFd::new()?,
        })
    }

    /// Create, start, exit, delete. The times of its phases, nanoseconds.
    pub fn run(&mut self) -> Result<EventsNs, Failure> {
        self.started += 1;
        let name = format!("t{}", self.started);
        let request = StartRequest {
            name: &name,
            slot: self.started,
            workload: &self.workload,
            image: &self.image,
            parent: &self.parent,
        };
        let mut instance = self.backend.start(&request, Timeline::start())?;
        if let Err(why) = until_ready(&mut *instance, &self.workload, self.never.as_fd()) {
            return Err(format!("{why:?}: {}", instance.output().tail()).into());
        }
        instance.stop(self.workload.timeout.stop.0)?;
        instance.until_gone(Duration::from_secs(10))?;
        Ok(instance.timeline().events())
    }
}

/// One container and nothing else.
pub fn once(settings: &Settings) -> Result<(), Failure> {
    World::here(settings)?.run().map(drop)
}

/// A line of JSON for each run; the first one, which fills caches, is not told.
pub fn measure(settings: &Settings) -> Result<(), Failure> {
    let mut world = World::new(settings)?;
    for run in 0..=settings.runs {
        thread::sleep(settings.gap);
        let events = world.run()?;
        if run > 0 {
            println!("{}", serde_json::to_string(&events)?);
        }
    }
    Ok(())
}
