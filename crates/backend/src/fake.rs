//! A backend that starts nothing: it plays a script, so that whoever drives backends can be tested
//! for every way an instance may behave, on any machine that lets it make a cgroup.

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    ops::Range,
    os::fd::BorrowedFd,
    time::Duration,
};

use compare_cgroup::{Leaf, Limits};
use compare_spec::{Exit, GuestFacts, Phase};
use nix::{fcntl::OFlag, unistd::pipe2};

use crate::{Backend, Instance, Output, StartError, StartRequest, Timeline, monotonic_ns};

/// What an instance of the fake does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Writes this line and lives until it is stopped.
    Say(String),
    /// Ends at once.
    End(Exit),
    /// Writes nothing, never ends.
    Hang,
    /// Cannot be started.
    Refuse(String),
    /// Like `Say`, but leaves a descriptor open behind.
    Leak(String),
}

/// Plays its scripts one after the other, the last one for ever.
#[derive(Debug)]
pub struct FakeBackend {
    name: String,
    scripts: Vec<Script>,
    started: usize,
}

impl FakeBackend {
    /// A backend called `name`.
    ///
    /// # Panics
    /// There is no script.
    pub fn new(name: &str, scripts: Vec<Script>) -> Self {
        assert!(!scripts.is_empty(), "a fake needs a script");
        Self { name: name.to_owned(), scripts, started: 0 }
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(
        &mut self,
        request: &StartRequest<'_>,
        mut timeline: Timeline,
    ) -> Result<Box<dyn Instance>, StartError> {
        let script = self.scripts[self.started.min(self.scripts.len() - 1)].clone();
        self.started += 1;
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
        timeline.reach(Phase::Init);
        timeline.reach(Phase::Exec);
        let mut writer = std::fs::File::from(writer);
        let mut exit = None;
        match script {
            Script::Say(line) => writeln!(writer, "{line}")
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

    fn stop(&mut self, _: Duration) -> io::Result<()> {
        self.timeline.stop_asked();
        self.writer = None;
        self.leaf.remove().map_err(io::Error::other)?;
        self.timeline.reach(Phase::Stopped);
        Ok(())
    }
}
