//! Endurance and density: a few containers of the test's own, or, where `COMPARE_SOAK` names a
//! workload's file, `COMPARE_SOAK_COUNT` of that workload's from the tree in `COMPARE_TEST_TREE`.
//! That takes minutes and wants a host of its own; `benches/container-soak` sets it up.
//!
//! Each measurement prints one line, `record NAME {json}`, before it decides whether it passed: what
//! falls short is a figure too.

pub mod crowd;
mod host;
pub mod mounts;
pub mod starts;

use std::{
    env,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use compare_backend::Instance;
use compare_probe::until_ready;
use compare_spec::{Phase, Workload};
use nix::sys::eventfd::EventFd;
use serde_json::{Value, json};

use crate::{
    network::ask,
    world::{World, pump_until},
};

/// How long the kernel may take to start a program, or to give up a network namespace.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is started, how often, and from where.
struct Job {
    workload: Workload,
    /// The workload's own; none for the test's.
    tree: Option<PathBuf>,
    count: usize,
}

impl Job {
    /// The one that is asked for, else so many of the test's own server.
    fn find(world: &World, usual: usize) -> Self {
        let Some(path) = env::var_os("COMPARE_SOAK") else {
            let mut workload = world.workload("serve", &["80"]);
            workload.port = Some(80);
            return Self { workload, tree: None, count: usual };
        };
        let workload = Workload::read(Path::new(&path)).expect("a workload");
        let tree = PathBuf::from(env::var_os("COMPARE_TEST_TREE").expect("COMPARE_TEST_TREE"));
        warm_up(&tree).expect("read the tree");
        let count = env::var("COMPARE_SOAK_COUNT")
            .map_or(usual, |text| text.parse().expect("a number of containers"));
        Self { workload, tree: Some(tree), count }
    }

    /// Whether it is the long one, on a host of its own.
    fn is_long(&self) -> bool {
        self.tree.is_some()
    }

    /// Prints what was measured, if this host is for that.
    fn record(&self, name: &str, value: &Value) {
        if self.is_long() {
            println!("record {name} {value}");
        }
    }

    /// Starts one and waits until it is ready.
    fn start(&self, world: &mut World) -> Box<dyn Instance> {
        let usual = world.image.tree.clone();
        world.image.tree.clone_from(self.tree.as_ref().unwrap_or(&usual));
        let mut instance = world.start(&self.workload);
        world.image.tree = usual;
        if self.is_long() {
            let never = EventFd::new().unwrap();
            until_ready(&mut *instance, &self.workload, never.as_fd())
                .unwrap_or_else(|why| panic!("{why:?}: {}", instance.output().tail()));
        } else {
            // The test's server ends when somebody connects and is gone, as a probe is.
            pump_until(&mut *instance, PATIENCE, |instance| instance.may_answer());
            ask(&*instance);
            instance.timeline_mut().reach(Phase::Ready);
        }
        instance
    }
}

/// Reads every file, so that it is in the host's page cache: while the emulated host waits for its
/// disk, its clock of instructions has none to count and leaps from timer to timer.
fn warm_up(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| warm_up(&entry?.path()));
    }
    if kind.is_file() {
        io::copy(&mut File::open(path)?, &mut io::sink())?;
    }
    Ok(())
}

/// The straight line through the points, in the unit of `y` for one more `x`.
fn line(x: &[f64], y: &[f64]) -> Value {
    compare_stats::linear_fit(x, y).map_or(Value::Null, |fit| {
        json!({ "slope": fit.slope, "slope_ci95": fit.slope_ci95, "intercept": fit.intercept, "points": fit.n })
    })
}
