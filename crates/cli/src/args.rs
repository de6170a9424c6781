//! The command line. Arguments become `spec` types at once.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use compare_spec::{Bytes, Clock, ContainerVariant, MemoryPages, RootDevice, Span, StartMode};

const ABOUT: &str = "Boots the same workload as a container and inside a microVM, and says what the difference costs";

const AFTER: &str = "\
Exit codes:
  0    everything was done, every trial went well (doctor: both backends run here)
  1    a trial failed, or something broke on the way
  2    wrong usage or input
  3    this host cannot run it, the emulated host can
  4    neither can
  130  interrupted; what was measured was kept

This is not ImageMagick's program of the same name.";

/// The arguments of `compare`.
#[derive(Debug, Parser)]
#[command(name = "compare", version = crate::tool::VERSION, about = ABOUT, after_help = AFTER)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a workload in every backend, measure, and report
    Run(Box<Run>),
    /// List the workloads that are built in, or show one as a start for your own
    Workloads {
        /// Which
        #[command(subcommand)]
        command: Workloads,
    },
    /// Check what this host can run, with evidence and remedies
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a saved record again, or in another form
    Report(Report),
    /// Print the JSON schema of the record
    Schema,
    /// Make everything a run needs, without running
    Setup {
        /// Workload to prepare, by name or file
        #[arg(long, default_value = "nginx")]
        workload: String,
    },
    /// Use the emulated host by itself
    Lab {
        /// What to do there
        #[command(subcommand)]
        command: Lab,
    },
    /// What keeps backends from running here, a line each: as an ordinary user would run them
    #[command(hide = true)]
    Obstacles {
        /// Names of backends
        backends: Vec<String>,
    },
    /// The first process of the emulated host
    #[command(hide = true)]
    Agent,
}

/// `compare run`
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// Workload: a built-in name, or a TOML file (see `compare workloads`)
    #[arg(long, short, required_unless_present = "plan", conflicts_with = "plan")]
    pub workload: Option<String>,
    /// Run the plan of a saved record, or a saved plan, again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trials", "warmup", "gap", "seed", "backend", "start", "microvm_root", "microvm_memory_pages", "memory", "timeout"])]
    pub plan: Option<PathBuf>,
    /// Measured trials of each backend in each start mode
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub trials: u32,
    /// Trials of each of them before the first measured one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub warmup: u32,
    /// Idle time before each trial, so that none pays for clearing away the one before; 0ms starts them
    /// in a row
    #[arg(long, value_name = "DURATION", default_value = "100ms")]
    pub gap: Span,
    /// Seed of the order of trials and of every resampling
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Backends to compare; the first is the base of every ratio
    #[arg(long, value_delimiter = ',', default_values = ["container", "microvm"])]
    pub backend: Vec<BackendName>,
    /// How microVMs start: `cold`, `restored`, or `cold,restored` for a column of each; a container
    /// always starts cold
    #[arg(long, value_name = "MODE", value_delimiter = ',', default_values = ["cold"])]
    pub start: Vec<StartChoice>,
    /// What the root disk is to a microVM: `blk`, a block device, or `pmem`, persistent memory used in
    /// place (DAX); such a one is called `microvm-pmem` in every table, and always starts cold
    #[arg(long, value_name = "DEVICE", default_value = "blk")]
    pub microvm_root: RootChoice,
    /// What pages the RAM of a microVM is made of: `normal`, of 4 KiB, or `thp`, of 2 MiB where the host
    /// has them (transparent huge pages, which it must allow); such a one is called `microvm-thp` in every
    /// table, and always starts cold
    #[arg(long, value_name = "PAGES", default_value = "normal")]
    pub microvm_memory_pages: PagesChoice,
    /// Where to run: `auto` takes this host where KVM can run Linux, else the emulated one
    #[arg(long, default_value = "auto")]
    pub host: HostChoice,
    /// What time is counted in on the emulated host: its instructions, which repeat, or real time
    #[arg(long, value_name = "CLOCK")]
    pub clock: Option<ClockChoice>,
    /// Memory of the container and RAM of the microVM, instead of the workload's own
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// How long a start may take, instead of the workload's own
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,
    /// Guest kernel, instead of the one built here: an x86-64 vmlinux, or a bzImage, which unpacks itself
    /// in the guest. It needs virtio-mmio, block and net, EROFS and overlayfs built in
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Where the reports go besides the terminal
    #[command(flatten)]
    pub exports: Exports,
}

/// `compare report`
#[derive(Debug, ClapArgs)]
pub struct Report {
    /// A record saved with --export-json
    pub file: PathBuf,
    /// Where else it goes
    #[command(flatten)]
    pub exports: Exports,
}

/// Files to write; `-` is standard output.
#[derive(Debug, ClapArgs)]
pub struct Exports {
    /// Write the record as JSON
    #[arg(long, value_name = "FILE")]
    pub export_json: Option<PathBuf>,
    /// Write the report as Markdown
    #[arg(long, value_name = "FILE")]
    pub export_markdown: Option<PathBuf>,
    /// Write every trial as a line of CSV
    #[arg(long, value_name = "FILE")]
    pub export_csv: Option<PathBuf>,
}

/// `compare workloads`
#[derive(Debug, Subcommand)]
pub enum Workloads {
    /// List them
    List,
    /// Print one as TOML
    Show {
        /// Its name
        name: String,
    },
}

/// `compare lab`
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Run a static program inside it: `compare lab exec --file ./prog -- /lab/files/prog ARG`
    Exec {
        /// Files to take along, found at /lab/files/NAME inside; `NAME=PATH` renames one
        #[arg(long = "file", value_name = "[NAME=]PATH")]
        files: Vec<String>,
        /// Environment, `NAME=VALUE`
        #[arg(long = "env", value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Take along everything `compare run` would need for this workload, and tell its place in
        /// COMPARE_TEST_KERNEL, _INIT, _VMM, _TREE and _EROFS
        #[arg(long, value_name = "WORKLOAD")]
        workload: Option<String>,
        /// What time is counted in
        #[arg(long, default_value = "instructions")]
        clock: ClockChoice,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Names of the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// Namespaces and cgroups on the host's kernel
    Container,
    /// The same in a user namespace: root inside is nobody outside
    #[value(name = "container:userns")]
    ContainerUserns,
    /// The same in a network namespace that was made before, with its link
    #[value(name = "container:pooled")]
    ContainerPooled,
    /// A KVM virtual machine with a kernel of its own
    Microvm,
}

impl BackendName {
    /// As plans and records write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => ContainerVariant::Plain.name(),
            Self::ContainerUserns => ContainerVariant::Userns.name(),
            Self::ContainerPooled => ContainerVariant::Pooled.name(),
            Self::Microvm => "microvm",
        }
    }
}

/// How an instance starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StartChoice {
    /// Everything is booted anew
    Cold,
    /// From a snapshot of a microVM whose workload was ready, made once before the trials; for
    /// workloads whose readiness is `tcp` or `http`
    Restored,
}

/// What a microVM's root disk is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RootChoice {
    /// A virtio block device
    Blk,
    /// Virtio persistent memory, mapped from the host's page cache
    Pmem,
}

impl From<RootChoice> for RootDevice {
    fn from(choice: RootChoice) -> Self {
        match choice {
            RootChoice::Blk => Self::Blk,
            RootChoice::Pmem => Self::Pmem,
        }
    }
}

/// What pages a microVM's RAM is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PagesChoice {
    /// Of 4 KiB
    Normal,
    /// Transparent huge pages
    Thp,
}

impl From<PagesChoice> for MemoryPages {
    fn from(choice: PagesChoice) -> Self {
        match choice {
            PagesChoice::Normal => Self::Normal,
            PagesChoice::Thp => Self::Thp,
        }
    }
}

impl From<StartChoice> for StartMode {
    fn from(choice: StartChoice) -> Self {
        match choice {
            StartChoice::Cold => Self::Cold,
            StartChoice::Restored => Self::Restored,
        }
    }
}

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostChoice {
    /// This host where it can, else the emulated one; the first line says which and why
    Auto,
    /// This host, or not at all
    Local,
    /// The emulated host
    Lab,
}

/// What time is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClockChoice {
    /// Nanoseconds of the monotonic clock
    Real,
    /// Instructions of the emulated machine
    Instructions,
}

impl From<ClockChoice> for Clock {
    fn from(choice: ClockChoice) -> Self {
        match choice {
            ClockChoice::Real => Self::Real,
            ClockChoice::Instructions => Self::Instructions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn start_modes_are_listed() {
        let start =
            |modes: &str| Args::try_parse_from(["compare", "run", "-w", "nginx", "--start", modes]);
        let Command::Run(run) = start("restored,cold").unwrap().command else { panic!() };
        assert_eq!(run.start, [StartChoice::Restored, StartChoice::Cold]);
        let error = start("warm").unwrap_err().to_string();
        assert!(error.contains("'warm'") && error.contains("cold, restored"), "{error}");
        assert!(start("").is_err());
    }

    #[test]
    fn a_plan_excludes_what_it_decides() {
        assert!(Args::try_parse_from(["compare", "run", "--plan", "p", "--seed", "2"]).is_err());
        assert!(
            Args::try_parse_from(["compare", "run", "--plan", "p", "--start", "cold"]).is_err()
        );
        assert!(Args::try_parse_from(["compare", "run"]).is_err());
        assert!(
            Args::try_parse_from(["compare", "run", "-w", "nginx", "--memory", "12MB"]).is_err()
        );
        assert!(Args::try_parse_from(["compare", "run", "-w", "nginx", "--trials", "0"]).is_err());
    }
}
