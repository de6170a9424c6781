//! What a person sees while it works: on a terminal one line that moves, elsewhere one line for
//! each thing done, both on standard error.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use compare_spec::{Outcome, Phase, Plan, RunEvent, Side, Snapshot, Stage, Trial};
use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a run.
#[derive(Debug)]
pub struct RunProgress {
    bar: ProgressBar,
    total: usize,
    done: usize,
    quiet: bool,
}

impl RunProgress {
    /// Begins to show the progress of `plan`.
    pub fn start(plan: &Plan) -> Self {
        let total = plan.schedule().len();
        let bar = spinner();
        bar.set_message("starting");
        Self { quiet: bar.is_hidden(), bar, total, done: 0 }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Reclaimed { what } => {
                self.line(&format!("removed what an earlier run left behind: {what}"))
            }
            RunEvent::Template { backend, .. } => {
                self.bar.set_message(format!("{backend}: making the snapshot to restore from"));
            }
            RunEvent::Saved { snapshot } => {
                let Snapshot { backend, ready_ns, save_ns, bytes, .. } = snapshot;
                let ms = |ns: &u64| *ns as f64 / 1e6;
                self.line(&format!(
                    "{backend} snapshot: ready {:.1}, saved in {:.1} ms, {:.1} MiB",
                    ms(ready_ns),
                    ms(save_ns),
                    *bytes as f64 / f64::from(1 << 20),
                ));
            }
            RunEvent::Trial { backend, start, index, warmup, stage } => {
                let stage = match stage {
                    Stage::Starting => "starting",
                    Stage::Measuring => "ready, reading memory",
                    Stage::Stopping => "stopping",
                };
                let number = self.done + 1;
                let name = label(side(backend, start), *index, *warmup);
                self.bar.set_message(format!("[{number}/{}] {name}: {stage}", self.total));
            }
            RunEvent::Done { trial, warmup, .. } => {
                self.done += 1;
                let number = format!("[{}/{}]", self.done, self.total);
                let name = label(trial.side(), trial.index, *warmup);
                let how = outcome(trial);
                if self.quiet || trial.outcome != Outcome::Ok {
                    self.line(&format!("{number} {name}: {how}"));
                }
                self.bar.set_message(format!("{number} {name}: {how}"));
            }
            RunEvent::GivenUp { backend, start, left, reason } => {
                let name = side(backend, start).label();
                let trials = if *left == 1 { "trial is" } else { "trials are" };
                self.line(&format!("{name}: {reason}; its remaining {left} {trials} left out"));
            }
            RunEvent::Begin { .. } | RunEvent::End { .. } | RunEvent::Failed { .. } => {}
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Ends the display and leaves one line.
    pub fn finish(self, begin: Instant) {
        self.bar.finish_and_clear();
        eprintln!("{} of {} trials done in {}", self.done, self.total, seconds(begin.elapsed()));
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
        .expect("the template is fixed and sound");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn side(backend: &str, start: &str) -> Side {
    Side { backend: backend.to_owned(), start: start.to_owned() }
}

fn label(side: Side, index: u32, warmup: bool) -> String {
    let kind = if warmup { "warm-up" } else { "trial" };
    format!("{} {kind} {}", side.label(), index + 1)
}

/// A trial's end in a few words: its phases, or what went wrong.
fn outcome(trial: &Trial) -> String {
    if trial.outcome != Outcome::Ok {
        let detail = trial.detail.as_deref().unwrap_or_default();
        let outcome = serde_json::to_value(trial.outcome).unwrap_or_default();
        return format!("{}: {detail}", outcome.as_str().unwrap_or_default());
    }
    let phases = [
        (Phase::Init, "init"),
        (Phase::Exec, "exec"),
        (Phase::Ready, "ready"),
        (Phase::Stopped, "gone"),
    ];
    let reached = phases.iter().filter_map(|(phase, name)| {
        let ns = trial.events_ns.get(*phase)?;
        Some(format!("{name} {:.1}", ns as f64 / 1e6))
    });
    format!("{} ms", reached.collect::<Vec<_>>().join(", "))
}

/// A duration as people say it: `12.3 s`, `3 min 05 s`.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// The progress of the set-up: each step is announced, moves on a terminal, and leaves a line with
/// its time. Steps that had nothing to do leave none.
#[derive(Debug)]
pub struct SetupProgress {
    bar: std::cell::RefCell<Option<(String, ProgressBar, Instant)>>,
    last: std::cell::Cell<Option<Instant>>,
}

impl SetupProgress {
    /// Shows nothing until a step is announced.
    pub fn new() -> Self {
        Self { bar: std::cell::RefCell::new(None), last: std::cell::Cell::new(None) }
    }
}

impl compare_image::Progress for SetupProgress {
    fn step(&self, name: &str) {
        let bar = spinner();
        bar.set_message(name.to_owned());
        if bar.is_hidden() {
            eprintln!("==> {name}");
        }
        self.bar.replace(Some((name.to_owned(), bar, Instant::now())));
    }

    fn detail(&self, text: &str) {
        let Some((name, bar, begin)) = &*self.bar.borrow() else { return };
        bar.set_message(format!("{name}: {text}"));
        // Where no line can move, one every ten seconds shows that it still works.
        let due = self.last.get().is_none_or(|last| last.elapsed() >= Duration::from_secs(10));
        if bar.is_hidden() && due {
            eprintln!("    {text} ({})", seconds(begin.elapsed()));
            self.last.set(Some(Instant::now()));
        }
    }

    fn done(&self, name: &str, elapsed: Duration, cached: bool) {
        if let Some((_, bar, _)) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !cached {
            let _ = writeln!(std::io::stderr(), "==> {name}: done in {}", seconds(elapsed));
        }
    }

    fn note(&self, text: &str) {
        match &*self.bar.borrow() {
            Some((_, bar, _)) => bar.suspend(|| eprintln!("    {text}")),
            None => eprintln!("    {text}"),
        }
    }
}
