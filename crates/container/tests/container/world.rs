//! What every case needs: an image with this very program in it, a parent group, a backend, and
//! the means to see that nothing is left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use compare_backend::{Backend, Instance, StartRequest, Timeline};
use compare_cgroup::{Hierarchy, Parent};
use compare_container::{ContainerBackend, enter_private_mounts};
use compare_net::{Interface, enter_private_netns, links, until_gone};
use compare_spec::{Bytes, Digest, EventsNs, Exit, Image, Refused, Workload};
use nix::poll::{PollFd, PollFlags, poll};

pub struct World {
    pub backend: ContainerBackend,
    pub parent: Option<Parent>,
    pub hierarchy: Hierarchy,
    pub image: Image,
    root: PathBuf,
    slot: u32,
    before: Traces,
}

/// What could be left behind.
#[derive(Debug, PartialEq)]
struct Traces {
    leaves: Vec<String>,
    links: Vec<String>,
    mounts: usize,
    fds: usize,
    tree: Vec<PathBuf>,
}

/// How a container ended.
pub struct Finished {
    pub exit: Exit,
    pub output: String,
    pub events: EventsNs,
    pub refused: Vec<Refused>,
}

impl World {
    /// Makes it, or says why this machine cannot.
    pub fn new() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("containers need root".to_owned());
        }
        enter_private_netns().map_err(|error| error.to_string())?;
        enter_private_mounts().map_err(|error| error.to_string())?;
        if let Some(finding) = ContainerBackend::check().into_iter().find(|finding| !finding.ok) {
            return Err(format!("{}: {}", finding.name, finding.evidence));
        }
        let hierarchy =
            Hierarchy::detect(Path::new("/sys/fs/cgroup")).map_err(|error| error.to_string())?;
        for line in Parent::reclaim(&hierarchy) {
            println!("reclaimed: {line}");
        }
        let parent = Parent::create(&hierarchy).map_err(|error| error.to_string())?;
        let root =
            std::env::temp_dir().join(format!("compare container,test:{}", std::process::id()));
        let tree = root.join("tree");
        fs::create_dir_all(&tree).map_err(|error| error.to_string())?;
        fs::copy("/proc/self/exe", tree.join("w")).map_err(|error| error.to_string())?;
        let digest = Digest::of(b"test");
        let image = Image {
            digest: digest.clone(),
            tree,
            erofs: PathBuf::new(),
            erofs_digest: digest,
            erofs_bytes: 0,
            uid: 0,
            gid: 0,
            groups: vec![],
        };
        let traces = Traces { leaves: vec![], links: vec![], mounts: 0, fds: 0, tree: vec![] };
        let backend = ContainerBackend::new();
        let mut world =
            Self { backend, parent: Some(parent), hierarchy, image, root, slot: 0, before: traces };
        world.before = world.traces();
        Ok(world)
    }

    /// A workload: this program with `workload:MODE` and more arguments.
    pub fn workload(&self, mode: &str, args: &[&str]) -> Workload {
        let text = "name = \"test\"\ncommand = [\"/w\"]\nready = { exit = 0 }\n[image]\nprogram = \"hello\"\n";
        let mut workload = Workload::parse("test", text).unwrap();
        workload.command.push(format!("workload:{mode}"));
        workload.command.extend(args.iter().map(|&arg| arg.to_owned()));
        workload.memory = Bytes::mib(64);
        workload
    }

    pub fn start(&mut self, workload: &Workload) -> Box<dyn Instance> {
        self.slot += 1;
        let name = format!("t{}", self.slot);
        let parent = self.parent.as_ref().unwrap();
        let request =
            StartRequest { name: &name, slot: self.slot, workload, image: &self.image, parent };
        self.backend.start(&request, Timeline::start()).unwrap_or_else(|error| {
            panic!("{error}: {:?}", error.source);
        })
    }

    /// Starts it, waits for its end and stops it.
    pub fn run(&mut self, workload: &Workload) -> Finished {
        let mut instance = self.start(workload);
        wait_exit(&mut *instance, Duration::from_secs(60));
        let exit = instance.exit().unwrap().0.clone();
        instance.stop(Duration::ZERO).unwrap();
        let events = instance.timeline().events();
        assert!(events.stopped.is_some());
        let refused = instance.refused();
        Finished { exit, output: instance.output().tail(), events, refused }
    }

    /// As [`World::run`], for a workload that ends well; its output.
    pub fn output(&mut self, workload: &Workload) -> String {
        let finished = self.run(workload);
        assert_eq!(finished.exit, Exit::Code { code: 0 }, "{}", finished.output);
        finished.output
    }

    /// Fails if anything is there that was not before the first case, or does not go by itself.
    pub fn assert_clean(&self) {
        for link in links().unwrap() {
            if !self.before.links.contains(&link) {
                until_gone(&Interface::new(&link).unwrap(), Duration::from_secs(10)).unwrap();
            }
        }
        assert_eq!(self.traces(), self.before, "left behind");
        let none = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        assert_eq!(none, Err(nix::errno::Errno::ECHILD), "a child is left");
    }

    fn traces(&self) -> Traces {
        let names = |path: &Path| -> Vec<PathBuf> {
            let mut names: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        Traces {
            leaves: self.parent.as_ref().unwrap().leaves(),
            links: links().unwrap(),
            mounts: fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines().count(),
            fds: names(Path::new("/proc/self/fd")).len(),
            tree: names(&self.image.tree),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Pumps until `done` holds, or fails after `deadline`.
pub fn pump_until(
    instance: &mut dyn Instance,
    deadline: Duration,
    mut done: impl FnMut(&mut dyn Instance) -> bool,
) {
    let started = Instant::now();
    loop {
        instance.pump().unwrap();
        if done(instance) {
            return;
        }
        assert!(
            started.elapsed() < deadline,
            "waited too long; output: {}",
            instance.output().tail()
        );
        let mut fds: Vec<_> =
            instance.fds().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut fds, 1000_u16).unwrap();
    }
}

pub fn wait_exit(instance: &mut dyn Instance, deadline: Duration) {
    pump_until(instance, deadline, |instance| instance.exit().is_some());
}

/// Waits for the workload to write a line that contains `text`.
pub fn wait_line(instance: &mut dyn Instance, text: &str) {
    pump_until(instance, Duration::from_secs(60), |instance| {
        let exit = instance.exit().map(|(exit, _)| exit.clone());
        assert!(exit.is_none(), "{exit:?}: {}", instance.output().tail());
        instance.output().tail().contains(text)
    });
}
