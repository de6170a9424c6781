//! What the tests start guests from, and what they look for afterwards.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use compare_backend::{Backend, Instance, StartRequest, Timeline};
use compare_cgroup::{Hierarchy, Parent};
use compare_microvm::{MicrovmBackend, MicrovmConfig};
use compare_spec::{Digest, Exit, Image, Workload};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Where files come from: an environment variable, or a name beside the test program.
const FILES: [(&str, &str); 7] = [
    ("COMPARE_TEST_VMM", "compare-vmm"),
    ("COMPARE_TEST_KERNEL", "vmlinux"),
    ("COMPARE_TEST_INITRAMFS", "initramfs.cpio"),
    ("COMPARE_TEST_ROOT", "root.erofs"),
    ("COMPARE_TEST_KERNEL_SMP", "vmlinux-smp"),
    ("COMPARE_TEST_HOSTILE", "hostile"),
    ("COMPARE_TEST_BZIMAGE", "bzimage"),
];

/// Everything a test needs.
pub struct Fixture {
    /// The files guests are made from.
    pub config: MicrovmConfig,
    /// Guest kernel for more than one CPU.
    pub smp: PathBuf,
    /// A guest that does one misdeed, in place of a kernel (`guest/hostile`).
    pub hostile: PathBuf,
    /// A distribution's own kernel.
    pub bzimage: PathBuf,
    /// Image that holds this program as `/actor`.
    pub image: Image,
    /// Where leaves are made.
    pub parent: Parent,
    next: std::cell::Cell<u32>,
}

/// How a guest that was waited for ended.
pub struct Outcome {
    /// Its exit.
    pub exit: Exit,
    /// What it wrote.
    pub output: String,
}

impl Fixture {
    /// Finds everything; says what is missing.
    pub fn find() -> Result<Self, String> {
        let beside =
            std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
        let mut found = FILES.map(|(variable, name)| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .or_else(|| beside.as_ref().map(|directory| directory.join(name)))
                .filter(|path| path.exists())
                .ok_or(format!("{variable} is not set and there is no {name} beside the test"))
        });
        let mut take = |index: usize| std::mem::replace(&mut found[index], Err(String::new()));
        let config = MicrovmConfig {
            vmm: take(0)?,
            kernel: take(1)?,
            initramfs: take(2)?,
            kvm: "/dev/kvm".into(),
            append: std::env::var("COMPARE_TEST_APPEND").unwrap_or_default(),
        };
        let erofs = take(3)?;
        let smp = take(4)?;
        let hostile = take(5)?;
        let bzimage = take(6)?;
        if !nix::unistd::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        let verdict = compare_microvm::kvm_check(Path::new("/dev/kvm"));
        println!("{:?}: {}", verdict.kind, verdict.evidence.join("; "));
        if !verdict.runs_linux() {
            return Err(format!("KVM here cannot run Linux: {}", verdict.evidence.join("; ")));
        }
        compare_net::enter_private_netns().map_err(|error| error.to_string())?;
        let hierarchy =
            Hierarchy::detect(Path::new("/sys/fs/cgroup")).map_err(|error| error.to_string())?;
        let parent = Parent::create(&hierarchy).map_err(|error| error.to_string())?;
        let image = Image {
            digest: Digest::of(b"test"),
            tree: "/nonexistent".into(),
            erofs_digest: Digest::of(b"test"),
            erofs_bytes: std::fs::metadata(&erofs).map_err(|error| error.to_string())?.len(),
            erofs,
            uid: 0,
            gid: 0,
            groups: vec![],
        };
        Ok(Self { config, smp, hostile, bzimage, image, parent, next: std::cell::Cell::new(0) })
    }

    /// A workload that has the actor play this part.
    pub fn workload(&self, part: &[&str]) -> Workload {
        let mut command = vec!["/actor".to_owned(), "actor".to_owned()];
        command.extend(part.iter().map(|&word| word.to_owned()));
        let text = format!(
            "name = 'actor'\ncommand = {command:?}\nready = {{ exit = 0 }}\nimage = {{ directory = '/' }}\nmemory = '64MiB'"
        );
        Workload::parse("test", &text).expect("a workload of the tests")
    }

    /// Starts a workload.
    pub fn start(&self, workload: &Workload) -> Box<dyn Instance> {
        self.start_from(&self.config, &self.image, workload)
    }

    /// Starts a workload from other files.
    pub fn start_from(
        &self,
        config: &MicrovmConfig,
        image: &Image,
        workload: &Workload,
    ) -> Box<dyn Instance> {
        self.start_by(&mut MicrovmBackend::new(config.clone()), image, workload)
    }

    /// Starts a workload by this backend.
    pub fn start_by(
        &self,
        backend: &mut dyn Backend,
        image: &Image,
        workload: &Workload,
    ) -> Box<dyn Instance> {
        let slot = self.next.replace(self.next.get() + 1);
        let name = format!("t{slot}");
        let request = StartRequest { name: &name, slot, workload, image, parent: &self.parent };
        backend
            .start(&request, Timeline::start())
            .unwrap_or_else(|error| panic!("{error}: {:?}", error.source))
    }

    /// Starts a workload, waits for its end and releases it.
    pub fn run(&self, workload: &Workload) -> Outcome {
        self.run_from(&self.config, &self.image, workload)
    }

    /// The same from other files.
    pub fn run_from(&self, config: &MicrovmConfig, image: &Image, workload: &Workload) -> Outcome {
        let mut instance = self.start_from(config, image, workload);
        pump_until(instance.as_mut(), Duration::from_secs(60), |instance| {
            instance.exit().is_some()
        });
        instance.stop(Duration::from_secs(1)).expect("release");
        let (exit, _) = instance.exit().expect("it ended");
        Outcome { exit: exit.clone(), output: instance.output().tail() }
    }

    /// Fails if anything of any instance is left: links, leaves, children, descriptors.
    pub fn assert_nothing_left(&self, descriptors: usize) {
        let links = compare_net::links().expect("list links");
        assert_eq!(links, ["lo"], "links left");
        assert_eq!(self.parent.leaves(), Vec::<String>::new(), "leaves left");
        let waited = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        assert_eq!(waited, Err(nix::errno::Errno::ECHILD), "children left");
        assert_eq!(open_descriptors(), descriptors, "descriptors left");
    }
}

/// Number of descriptors this process has.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("list descriptors").count()
}

/// How [`pump_until`] begins what it says when it fails.
pub const GIVEN_UP: &str = "not within";

/// Follows an instance until `done` says so; fails after a while.
pub fn pump_until(
    instance: &mut dyn Instance,
    limit: Duration,
    mut done: impl FnMut(&mut dyn Instance) -> bool,
) {
    let deadline = Instant::now() + limit;
    loop {
        instance.pump().expect("pump");
        if done(instance) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{GIVEN_UP} {limit:?}; {:?}; threads:\n{}output:\n{}",
            instance.timeline().events(),
            threads(instance),
            instance.output().tail()
        );
        let fds = instance.fds();
        let mut polled: Vec<_> =
            fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut polled, PollTimeout::from(100_u8));
    }
}

/// Where the threads of an instance are: name, state and CPU time, place in the kernel.
fn threads(instance: &dyn Instance) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let mut text = String::new();
    for process in instance.leaf().procs().unwrap_or_default() {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
        for task in tasks.into_iter().flatten().flatten().map(|task| task.path()) {
            let (stat, syscall) = (read(task.join("stat")), read(task.join("syscall")));
            let stack = read(task.join("stack"));
            text += &format!("{}{}{stack}", stat, syscall);
        }
    }
    text
}

/// Makes the files that the tests need and that cannot be made in the emulated host: the image and
/// the initramfs.
pub fn prepare(directory: &Path, init: &Path) -> io::Result<()> {
    let tree = directory.join("tree");
    for path in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(tree.join(path))?;
    }
    std::fs::copy(std::env::current_exe()?, tree.join("actor"))?;
    // Every file in blocks of its own, so that each can be used in place (persistent memory).
    run(Command::new("mkfs.erofs")
        .args(["--quiet", "-Enoinline_data"])
        .arg(directory.join("root.erofs"))
        .arg(&tree))?;
    std::fs::remove_dir_all(tree)?;
    let archive = compare_image::init_archive(&std::fs::read(init)?);
    std::fs::write(directory.join("initramfs.cpio"), archive)
}

fn run(command: &mut Command) -> io::Result<()> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}
