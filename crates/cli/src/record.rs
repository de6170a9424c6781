//! Puts a record together from the events of a run, wherever the run happened.

use std::collections::BTreeSet;

use compare_spec::{
    Artefacts, HostFacts, Image, ImageRecord, Plan, PlanRecord, ProbeRecord, Record, RunEvent,
    SCHEMA, Side, Snapshot, Trial, Unavailable,
};

/// Collects events.
#[derive(Debug, Default)]
pub struct Collector {
    host: Option<HostFacts>,
    artefacts: Artefacts,
    trials: Vec<Trial>,
    snapshots: Vec<Snapshot>,
    unavailable: BTreeSet<Unavailable>,
    interrupted: bool,
}

impl Collector {
    /// Takes one event.
    pub fn take(&mut self, event: RunEvent) {
        match event {
            RunEvent::Begin { host, artefacts, unavailable } => {
                self.host = Some(*host);
                self.artefacts = artefacts;
                self.unavailable.extend(unavailable);
            }
            RunEvent::Done { trial, warmup, unavailable } => {
                if warmup {
                    if trial.outcome != compare_spec::Outcome::Ok {
                        let side = trial.side();
                        self.miss("warm-up", Some(side), trial.detail.unwrap_or_default());
                    }
                } else {
                    self.unavailable.extend(unavailable);
                    self.trials.push(*trial);
                }
            }
            RunEvent::Saved { snapshot } => self.snapshots.push(snapshot),
            RunEvent::GivenUp { backend, start, left, reason } => {
                let reason = format!("{reason}; the remaining {left} were not run");
                self.miss("trials", Some(Side { backend, start }), reason);
            }
            RunEvent::End { interrupted } => {
                self.interrupted |= interrupted;
            }
            RunEvent::Reclaimed { .. }
            | RunEvent::Template { .. }
            | RunEvent::Trial { .. }
            | RunEvent::Failed { .. } => {}
        }
    }

    /// The run was cut short by a signal.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// The run broke: what was measured until then stays.
    pub fn broke(&mut self, reason: String) {
        self.miss("run", None, reason);
    }

    fn miss(&mut self, figure: &str, side: Option<Side>, reason: String) {
        let backend = side.map(|side| side.label());
        self.unavailable.insert(Unavailable { figure: figure.to_owned(), backend, reason });
    }

    /// The record; none if the run never began.
    pub fn finish(self, plan: Plan, image: &Image) -> Option<Record> {
        let (summary, comparisons) = compare_report::summarise(&self.trials, &plan);
        Some(Record {
            schema: SCHEMA.to_owned(),
            tool: crate::tool::record(),
            host: self.host?,
            image: ImageRecord {
                digest: image.digest.clone(),
                erofs_digest: image.erofs_digest.clone(),
                erofs_bytes: image.erofs_bytes,
            },
            artefacts: self.artefacts,
            probe: ProbeRecord {
                resolution_ns: compare_probe::resolution_ns(&plan.workload.ready),
            },
            plan: PlanRecord {
                workload: plan.workload.name.clone(),
                seed: plan.seed,
                trials: plan.trials,
                digest: plan.digest(),
                spec: plan,
            },
            trials: self.trials,
            snapshots: self.snapshots,
            summary,
            comparisons,
            unavailable: self.unavailable.into_iter().collect(),
            interrupted: self.interrupted,
        })
    }
}
