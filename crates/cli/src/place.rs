//! Chooses the host of a run, never silently: the choice and its reason are the first thing said.

use std::path::Path;

use anyhow::{Context, Result};
use compare_cgroup::Finding;
use compare_image::Purpose;
use compare_microvm::KvmVerdict;
use compare_runner::Scratch;
use compare_spec::{Bytes, ContainerVariant, HostKind, KvmKind};

use crate::{
    args::HostChoice,
    exit::{Code, coded},
};

/// What this host can do.
pub struct Abilities {
    /// What stands behind `/dev/kvm`.
    pub kvm: KvmVerdict,
    /// What a container needs, the cgroup included.
    pub container: Vec<Finding>,
    /// What the microVM needs beyond KVM and what a container needs.
    pub microvm: Vec<Finding>,
    /// The programs and files that each part of the set-up needs.
    pub setup: Vec<(Purpose, Finding)>,
}

impl Abilities {
    /// Finds out; takes well under a second.
    pub fn probe() -> Self {
        let mut container =
            match compare_cgroup::Hierarchy::detect(Path::new(crate::conduct::CGROUP_ROOT)) {
                Ok(hierarchy) => hierarchy.check(),
                Err(error) => vec![Finding {
                    name: "cgroup",
                    ok: false,
                    evidence: crate::exit::chain_text(&error.into()),
                    remedy: Some("mount cgroup v2 on /sys/fs/cgroup".to_owned()),
                }],
            };
        container.extend(compare_container::ContainerBackend::check());
        Self {
            kvm: compare_microvm::kvm_check(Path::new("/dev/kvm")),
            container,
            microvm: vec![tap_finding()],
            setup: setup_findings(),
        }
    }

    /// The same as whoever runs this program would run it: an ordinary user as root of a user
    /// namespace, which this process then is.
    pub fn of_this_user() -> Self {
        let rootless = enter_rootless();
        let mut found = Self::probe();
        found.container.splice(0..0, rootless);
        found
    }

    /// Whether KVM runs Linux guests here.
    pub fn has_kvm(&self) -> bool {
        !matches!(self.kvm.kind, KvmKind::Software | KvmKind::None)
    }

    /// Whether the emulated host can be started here.
    pub fn has_lab(&self) -> bool {
        self.missing_for_lab().is_empty()
    }

    /// What is missing for it. A guest kernel may be cached or given, so that the programs that
    /// build one are not among it.
    fn missing_for_lab(&self) -> Vec<&Finding> {
        let needed = self.setup.iter().filter(|(purpose, _)| *purpose != Purpose::GuestKernel);
        needed.map(|(_, finding)| finding).filter(|finding| !finding.ok).collect()
    }

    /// Why this host cannot run these backends; empty if it can.
    pub fn obstacles(&self, backends: &[String]) -> Vec<String> {
        let mut obstacles = Vec::new();
        // A microVM's tap, cgroup and namespaces ask for what a container asks for.
        for finding in self.container.iter().filter(|finding| !finding.ok) {
            obstacles.push(format!("{}: {}", finding.name, finding.evidence));
        }
        let rootless = self.container.iter().any(|finding| finding.name == "rootless");
        if rootless && backends.iter().any(|name| name == ContainerVariant::Userns.name()) {
            obstacles.push(
                "container:userns: an ordinary user's containers are in a user namespace anyway, use \
                 --backend container"
                    .to_owned(),
            );
        }
        if backends.iter().any(|name| name == "microvm") {
            if !self.has_kvm() {
                let evidence = self.kvm.evidence.last().cloned().unwrap_or_default();
                obstacles.push(format!("/dev/kvm: {evidence}"));
            }
            for finding in self.microvm.iter().filter(|finding| !finding.ok) {
                obstacles.push(format!("{}: {}", finding.name, finding.evidence));
            }
        }
        obstacles
    }
}

fn tap_finding() -> Finding {
    const TUN: &str = "/dev/net/tun";
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(TUN);
    Finding {
        name: "tap",
        ok: opened.is_ok(),
        evidence: opened.map_or_else(|error| format!("{TUN}: {error}"), |_| format!("{TUN} opens")),
        remedy: Some("load the module (modprobe tun) and run as root".to_owned()),
    }
}

/// Less room than this holds hardly any snapshot.
const ROOM: Bytes = Bytes::mib(256);

/// Whether snapshots of microVMs that are restored have a place.
pub fn snapshots() -> Finding {
    let place = std::env::temp_dir();
    let room = Scratch::create(&place).and_then(|scratch| scratch.room_bytes());
    let evidence = match &room {
        Ok(bytes) => format!("{} has {} MiB of room", place.display(), bytes >> 20),
        Err(error) => format!("no room in {}: {error}", place.display()),
    };
    Finding {
        name: "snapshots",
        ok: room.is_ok_and(|bytes| bytes >= ROOM.0),
        evidence,
        remedy: Some("set TMPDIR to a writable directory with room".to_owned()),
    }
}

fn setup_findings() -> Vec<(Purpose, Finding)> {
    let checked = compare_image::check_packages();
    checked
        .into_iter()
        .map(|(requirement, found)| {
            let finding = Finding {
                name: requirement.program,
                ok: found,
                evidence: format!("needed {}", requirement.why),
                remedy: Some(format!("apt-get install {}", requirement.package)),
            };
            (requirement.purpose, finding)
        })
        .collect()
}

/// Makes this process root of a user namespace, if it is an ordinary user's; how that went.
pub fn enter_rootless() -> Option<Finding> {
    if !compare_container::is_unprivileged() {
        return None;
    }
    let name = "rootless";
    let entered = compare_container::become_root_of_a_user_namespace();
    Some(match entered {
        Ok(ids) => {
            let evidence = format!("root of a user namespace with {ids}");
            Finding { name, ok: true, evidence, remedy: None }
        }
        Err(error) => {
            let remedy = Some("have user namespaces allowed, or run as root".to_owned());
            Finding { name, ok: false, evidence: error.to_string(), remedy }
        }
    })
}

/// As [`Abilities::obstacles`], once in a user namespace, which another process tries.
fn obstacles_for_a_user(backends: &[String]) -> Result<Vec<String>> {
    let tried = std::process::Command::new("/proc/self/exe")
        .arg("obstacles")
        .args(backends)
        .output()
        .context("cannot try a user namespace")?;
    let lines: Vec<String> =
        String::from_utf8_lossy(&tried.stdout).lines().map(str::to_owned).collect();
    if tried.status.success() {
        return Ok(lines);
    }
    Ok(vec![String::from_utf8_lossy(&tried.stderr).trim().to_owned()])
}

/// Where the backends run, and why.
///
/// # Errors
/// This host was asked for and cannot, or nothing can.
pub fn choose(choice: HostChoice, backends: &[String]) -> Result<(HostKind, String)> {
    let abilities = Abilities::probe();
    let no_lab = || -> String {
        let remedies = abilities.missing_for_lab();
        remedies.iter().filter_map(|finding| finding.remedy.clone()).collect::<Vec<_>>().join("; ")
    };
    if choice == HostChoice::Lab {
        if !abilities.has_lab() {
            let message = format!("the emulated host cannot be started: {}", no_lab());
            return Err(coded(Code::Nowhere, message));
        }
        return Ok((HostKind::Lab, "as asked".to_owned()));
    }
    let obstacles = match compare_container::is_unprivileged() {
        false => abilities.obstacles(backends),
        true => obstacles_for_a_user(backends)?,
    };
    if obstacles.is_empty() {
        let reason = if choice == HostChoice::Local { "as asked" } else { "it can run both" };
        let reason = if backends.len() == 1 && choice == HostChoice::Auto {
            "it can run it"
        } else {
            reason
        };
        return Ok((HostKind::Local, reason.to_owned()));
    }
    let what = backends.join(" and ");
    let why = obstacles.join("; ");
    if !abilities.has_lab() {
        let message = format!(
            "this host cannot run {what}: {why}\n  the emulated host cannot be started either: {}",
            no_lab()
        );
        return Err(coded(Code::Nowhere, message));
    }
    if choice == HostChoice::Local {
        let message = format!(
            "this host cannot run {what}: {why}\n  see `compare doctor`, or use --host lab"
        );
        return Err(coded(Code::LabOnly, message));
    }
    Ok((HostKind::Lab, format!("this host cannot: {why}")))
}
