//! A backend that starts nothing: it plays a script, so that whoever drives backends can be tested
//! for every way an instance may behave, on any machine that lets it make a cgroup.

use std::{
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    ops::Range,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use compare_cgroup::{Leaf, Limits};
use compare_spec::{Exit, GuestFacts, Phase};
use nix::{fcntl::OFlag, unistd::pipe2};

use crate::{
    Backend, Instance, Output, StartError, StartRequest, Template, Timeline, monotonic_ns,
};

/// What fakes were asked, in order, a line each: `microvm restored: start t3`, `microvm: save template`.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    /// What it says so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, side: &str, what: &str, instance: &str) {
        let line = format!("{side}: {what} {instance}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// What an instance of the fake does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Writes this line and lives until it is stopped or, once ready, saved.
    Say(String),
    /// Ends at once.
    End(Exit),
    /// Writes nothing, never ends.
    Hang,
    /// Cannot be started.
    Refuse(String),
    /// Like `Say`, but leaves a descriptor open behind.
    Leak(String),
    /// Like `Say`, but there is no room to save it.
    Bulky(String),
}

/// The file of a saved fake.
const SAVED: &str = "instance";

/// Plays its scripts one after the other, the last one for ever.
#[derive(Debug)]
pub struct FakeBackend {
    name: String,
    scripts: Vec<Script>,
    started: usize,
    journal: Journal,
    restores: Option<(Box<FakeBackend>, PathBuf)>,
}

impl FakeBackend {
    /// A backend called `name`.
    ///
    /// # Panics
    /// There is no script.
    pub fn new(name: &str, scripts: Vec<Script>) -> Self {
        assert!(!scripts.is_empty(), "a fake needs a script");
        Self {
            name: name.to_owned(),
            scripts,
            started: 0,
            journal: Journal::default(),
            restores: None,
        }
    }

    /// A backend of the same name that restores what `self` starts from `directory`, and then plays
    /// these scripts.
    ///
    /// # Panics
    /// There is no script.
    pub fn restored(self, directory: PathBuf, scripts: Vec<Script>) -> Self {
        let restored = Self::new(&self.name, scripts).telling(&self.journal);
        Self { restores: Some((Box::new(self), directory)), ..restored }
    }

    /// The same, telling a journal what it is asked.
    pub fn telling(self, journal: &Journal) -> Self {
        Self { journal: journal.clone(), ..self }
    }

    fn side(&self) -> String {
        if self.restores.is_some() { format!("{} restored", self.name) } else { self.name.clone() }
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn start_mode(&self) -> &str {
        if self.restores.is_some() { "restored" } else { "cold" }
    }

    fn template(&mut self) -> Option<Template<'_>> {
        let (backend, directory) = self.restores.as_mut()?;
        Some(Template { backend: &mut **backend, directory: directory.clone() })
    }

    fn start(
        &mut self,
        request: &StartRequest<'_>,
        mut timeline: Timeline,
    ) -> Result<Box<dyn Instance>, StartError> {
        let script = self.scripts[self.started.min(self.scripts.len() - 1)].clone();
        self.started += 1;
        self.journal.write(&self.side(), "start", request.name);
        if let Some((_, directory)) = &self.restores
            && !directory.join(SAVED).is_file()
        {
            let attempt = format!("restore from {}: nothing is there", directory.display());
            return Err(StartError { attempt, source: None, timeline });
        }
        if let Script::Refuse(why) = script {
            return Err(StartError { attempt: why, source: None, timeline });
        }
        let failed =
            |timeline: Timeline, error: Box<dyn std::error::Error + Send + Sync>| StartError {
                attempt: format!("start the fake {}", request.name),
                source: Some(error),
                timeline,
            };
        let leaf = match request.parent.create_leaf(request.name, &Limits::default()) {
            Ok(leaf) => leaf,
            Err(error) => return Err(failed(timeline, error.into())),
        };
        let (reader, writer) = match pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC) {
            Ok(pair) => pair,
            Err(error) => return Err(failed(timeline, error.into())),
        };
        timeline.reach(Phase::Created);
        if self.restores.is_some() {
            timeline.reach(Phase::Kernel);
            timeline.reach(Phase::Init);
        } else {
            timeline.reach(Phase::Init);
            timeline.reach(Phase::Exec);
        }
        let bulky = matches!(script, Script::Bulky(_));
        let mut writer = std::fs::File::from(writer);
        let mut exit = None;
        match script {
            Script::Say(line) | Script::Bulky(line) => writeln!(writer, "{line}")
                .map_err(|error| failed(timeline.clone(), error.into()))?,
            Script::Leak(line) => {
                writeln!(writer, "{line}")
                    .map_err(|error| failed(timeline.clone(), error.into()))?;
                std::mem::forget(writer.try_clone());
            }
            Script::End(how) => exit = Some((how, monotonic_ns())),
            Script::Hang | Script::Refuse(_) => {}
        }
        Ok(Box::new(FakeInstance {
            name: request.name.to_owned(),
            side: self.side(),
            journal: self.journal.clone(),
            bulky,
            timeline,
            output: Output::new(reader),
            writer: Some(writer),
            leaf,
            exit,
        }))
    }
}

#[derive(Debug)]
struct FakeInstance {
    name: String,
    side: String,
    journal: Journal,
    bulky: bool,
    timeline: Timeline,
    output: Output,
    writer: Option<std::fs::File>,
    leaf: Leaf,
    exit: Option<(Exit, u64)>,
}

impl Instance for FakeInstance {
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.output.fd().into_iter().collect()
    }

    fn pump(&mut self) -> io::Result<()> {
        self.output.pump()
    }

    fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    fn timeline_mut(&mut self) -> &mut Timeline {
        &mut self.timeline
    }

    fn may_answer(&self) -> bool {
        self.timeline.has(Phase::Init)
    }

    fn exit(&self) -> Option<(&Exit, u64)> {
        self.exit.as_ref().map(|(exit, ns)| (exit, *ns))
    }

    fn address(&self) -> Option<Ipv4Addr> {
        None
    }

    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    fn guest_ram(&self) -> &[Range<u64>] {
        &[]
    }

    fn kernel_release(&self) -> Option<&str> {
        None
    }

    fn guest_facts(&mut self, _: Duration) -> io::Result<Option<GuestFacts>> {
        Ok(None)
    }

    fn save(&mut self, directory: &Path) -> io::Result<()> {
        if !self.timeline.has(Phase::Ready) || self.exit.is_some() {
            return Err(io::Error::other("the fake is saved once, when it is ready"));
        }
        self.journal.write(&self.side, "save", &self.name);
        fs::write(directory.join(SAVED), self.output.tail())?;
        if self.bulky {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.writer = None;
        self.exit = Some((Exit::Code { code: 0 }, monotonic_ns()));
        Ok(())
    }

    fn stop(&mut self, _: Duration) -> io::Result<()> {
        if !self.timeline.has(Phase::Stopped) {
            self.journal.write(&self.side, "stop", &self.name);
        }
        self.timeline.stop_asked();
        self.writer = None;
        self.leaf.remove().map_err(io::Error::other)?;
        self.timeline.reach(Phase::Stopped);
        Ok(())
    }
}
