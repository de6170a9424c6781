//! Machines that are saved and go on, and snapshots that must be refused.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use compare_backend::{Backend, Instance};
use compare_microvm::{
    MicrovmBackend, MicrovmConfig,
    snapshot::{Files, Saved},
};
use compare_spec::{Exit, Phase, Workload};

use crate::{
    fixture::{Fixture, pump_until},
    scenarios::Scenario,
};

/// All of them.
pub const ALL: &[(&str, Scenario)] = &[
    ("a_saved_machine_goes_on_as_somebody_else", goes_on),
    ("every_cpu_of_a_saved_machine_goes_on", cpus),
    ("a_broken_snapshot_is_refused", refused),
    ("a_machine_that_was_not_built_for_it_is_not_saved", not_built),
];

/// What the actor tells of its machine.
#[derive(Debug)]
struct Identity {
    count: u32,
    host: String,
    random: String,
    time_ms: u128,
    cpus: u32,
}

fn served(fixture: &Fixture) -> Workload {
    Workload { port: Some(80), ..fixture.workload(&["identity"]) }
}

/// Asks until there is an answer.
fn ask(instance: &mut dyn Instance) -> Identity {
    let address = SocketAddr::from((instance.address().expect("an address"), 80));
    let mut text = String::new();
    pump_until(instance, Duration::from_secs(60), |instance| {
        let Some(exit) = instance.exit().map(|(exit, _)| exit.clone()) else {
            let answer = TcpStream::connect_timeout(&address, Duration::from_millis(200))
                .and_then(|mut stream| stream.read_to_string(&mut text));
            return answer.is_ok() && !text.is_empty();
        };
        panic!("it ended: {exit:?}\n{}", instance.output().tail());
    });
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    };
    Identity {
        count: field("count").parse().expect("a number"),
        host: field("host"),
        random: field("random"),
        time_ms: field("time").parse().expect("a number"),
        cpus: field("cpus").parse().expect("a number"),
    }
}

/// Saves a machine that has answered once to `directory`.
fn save(fixture: &Fixture, backend: &mut MicrovmBackend, workload: &Workload) {
    let template = backend.template().expect("restoring needs a template");
    let mut instance = fixture.start_by(template.backend, &fixture.image, workload);
    assert_eq!(ask(instance.as_mut()).count, 1);
    if let Err(error) = instance.save(&template.directory) {
        panic!("{error}\n{}", instance.output().tail());
    }
    instance.stop(Duration::ZERO).expect("stop");
}

fn restoring(
    fixture: &Fixture,
    config: &MicrovmConfig,
    workload: &Workload,
) -> (MicrovmBackend, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut backend = MicrovmBackend::restoring(config.clone(), directory.path().to_owned());
    save(fixture, &mut backend, workload);
    (backend, directory)
}

fn goes_on(fixture: &Fixture) {
    let workload = served(fixture);
    let (mut backend, directory) = restoring(fixture, &fixture.config, &workload);
    let stored = fs::metadata(directory.path().join("memory")).expect("the memory");
    let blocks = std::os::unix::fs::MetadataExt::blocks(&stored) * 512;
    assert!(blocks < stored.len() / 2, "{blocks} of {} bytes are stored", stored.len());
    // What the first notes, the others begin with.
    let mut first = fixture.start_by(&mut backend, &fixture.image, &workload);
    assert_eq!(ask(first.as_mut()).count, 2);
    let working_set = first.note_working_set().expect("readable").expect("it was restored");
    first.stop(Duration::from_secs(1)).expect("stop");
    let copied = (64 << 10)..(stored.len() / 4);
    assert!(copied.contains(&working_set.0), "{working_set}");
    let mut clones: Vec<_> =
        (0..3).map(|_| fixture.start_by(&mut backend, &fixture.image, &workload)).collect();
    let identities: Vec<_> = clones.iter_mut().map(|clone| ask(clone.as_mut())).collect();
    for (clone, identity) in clones.iter_mut().zip(&identities) {
        assert_eq!(identity.count, 2, "it goes on where it was saved: {identity:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        assert!(now.abs_diff(identity.time_ms) < 30_000, "{now}: {identity:?}");
        assert_eq!(ask(clone.as_mut()).count, 3);
        let facts = clone.guest_facts(Duration::from_secs(30)).expect("facts").expect("of a guest");
        assert!(facts.total_bytes > Some(20 << 20), "{facts:?}");
        let events = clone.timeline().events();
        let order = [Phase::Created, Phase::Kernel, Phase::Init].map(|phase| events.get(phase));
        assert!(order.is_sorted() && order[0].is_some(), "{events:?}");
        assert_eq!(events.get(Phase::Exec), None, "nothing was executed");
    }
    for (index, one) in identities.iter().enumerate() {
        for other in &identities[..index] {
            assert_ne!(one.random, other.random, "clones share random numbers");
            assert_ne!(one.host, other.host);
        }
    }
    for mut clone in clones {
        clone.stop(Duration::from_secs(5)).expect("stop");
        let exit = clone.exit().expect("it ended").0;
        assert_eq!(*exit, Exit::Signal { signal: libc::SIGTERM }, "it still listens");
    }
}

fn cpus(fixture: &Fixture) {
    let config = MicrovmConfig { kernel: fixture.smp.clone(), ..fixture.config.clone() };
    let workload = Workload { vcpus: 2, ..served(fixture) };
    let (mut backend, _directory) = restoring(fixture, &config, &workload);
    let mut clone = fixture.start_by(&mut backend, &fixture.image, &workload);
    let identity = ask(clone.as_mut());
    assert_eq!((identity.count, identity.cpus), (2, 2));
    clone.stop(Duration::from_secs(5)).expect("stop");
}

fn refused(fixture: &Fixture) {
    let workload = served(fixture);
    let (_, whole) = restoring(fixture, &fixture.config, &workload);
    let attempt = |what: &str, spoil: &dyn Fn(&Path), expected: &str| {
        let broken = tempfile::tempdir().expect("a directory");
        for name in ["state", "memory"] {
            fs::copy(whole.path().join(name), broken.path().join(name)).expect("copy");
        }
        spoil(broken.path());
        let mut backend =
            MicrovmBackend::restoring(fixture.config.clone(), broken.path().to_owned());
        let mut instance = fixture.start_by(&mut backend, &fixture.image, &workload);
        pump_until(instance.as_mut(), Duration::from_secs(30), |one| one.exit().is_some());
        let exit = instance.exit().expect("it ended").0.clone();
        instance.stop(Duration::ZERO).expect("stop");
        let Exit::MonitorFailed { reason } = &exit else { panic!("{what}: {exit:?}") };
        assert!(reason.contains(expected), "{what}: {reason}");
    };
    let file = |directory: &Path, name: &str| {
        fs::File::options().write(true).open(directory.join(name)).expect("open")
    };
    let truncate = |directory: &Path, name: &str, length| {
        file(directory, name).set_len(length).expect("truncate");
    };
    let flip = |directory: &Path, name: &str, at: u64| {
        file(directory, name).write_all_at(&[0x5a], at).expect("write");
    };
    attempt("no state", &|to| fs::remove_file(to.join("state")).expect("remove"), "No such file");
    attempt("empty state", &|to| truncate(to, "state", 0), "truncated");
    attempt("short state", &|to| truncate(to, "state", 3000), "truncated");
    attempt("other file", &|to| flip(to, "state", 0), "not a snapshot");
    attempt("other version", &|to| flip(to, "state", 8), "of version");
    attempt("corrupt state", &|to| flip(to, "state", 2000), "corrupt");
    attempt("short memory", &|to| truncate(to, "memory", 1 << 20), "truncated");
    let other_cpu = |to: &Path| {
        let mut snapshot = Saved::open(to).expect("open").snapshot;
        snapshot.vcpus[0].cpuid[0].ebx ^= 1;
        fs::remove_file(to.join("state")).expect("remove");
        fs::rename(to.join("memory"), to.join("kept")).expect("rename");
        Files::create(to).expect("create").finish(&snapshot).expect("write");
        fs::rename(to.join("kept"), to.join("memory")).expect("rename");
    };
    attempt("other CPU", &other_cpu, "save it anew");
    // What guest RAM holds is looked at once, by whoever saved it.
    let saved = Saved::open(whole.path()).expect("open");
    saved.verify().expect("verify");
    flip(whole.path(), "memory", 20 << 20);
    assert!(saved.verify().expect_err("corrupt").chain().contains("corrupt"));
}

fn not_built(fixture: &Fixture) {
    let workload = served(fixture);
    let mut instance = fixture.start(&workload);
    assert_eq!(ask(instance.as_mut()).count, 1);
    let directory = tempfile::tempdir().expect("a directory");
    let error = instance.save(directory.path()).expect_err("it cannot");
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert_eq!(ask(instance.as_mut()).count, 2, "no harm done");
    instance.stop(Duration::from_secs(5)).expect("stop");
}
