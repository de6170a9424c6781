//! Puts a record together from the events of a run, wherever the run happened.

use std::collections::BTreeSet;

use compare_spec::{
    Artefacts, HostFacts, Image, ImageRecord, Plan, PlanRecord, ProbeRecord, Record, RunEvent,
    SCHEMA, Trial, Unavailable,
};

/// Collects events.
#[derive(Debug, Default)]
pub struct Collector {
    host: Option<HostFacts>,
    artefacts: Artefacts,
    trials: Vec<Trial>,
    unavailable: BTreeSet<Unavailable>,
    failed_warmups: u32,
    interrupted: bool,
    ended: bool,
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
                    self.failed_warmups += u32::from(trial.outcome != compare_spec::Outcome::Ok);
                } else {
                    self.unavailable.extend(unavailable);
                    self.trials.push(*trial);
                }
            }
            RunEvent::GivenUp { backend, left } => {
                self.unavailable.insert(Unavailable {
                    figure: "trials".to_owned(),
                    backend: Some(backend),
                    reason: format!(
                        "several trials in a row failed; the remaining {left} were not run"
                    ),
                });
            }
            RunEvent::End { interrupted } => {
                self.interrupted |= interrupted;
                self.ended = true;
            }
            RunEvent::Reclaimed { .. } | RunEvent::Trial { .. } | RunEvent::Failed { .. } => {}
        }
    }

    /// The run ended without saying so.
    pub fn cut_short(&mut self) {
        self.interrupted |= !self.ended;
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
            summary,
            comparisons,
            unavailable: self.unavailable.into_iter().collect(),
            interrupted: self.interrupted,
        })
    }
}
