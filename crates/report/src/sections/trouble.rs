//! What went wrong or stands out: failed trials, outliers, figures that could not be taken.

use std::collections::BTreeMap;

use compare_spec::{Outcome, Trial};

use crate::{
    document::Block,
    figure,
    text::{clip, last_lines, list},
    units,
    view::View,
};

/// The most failed trials told one by one, and lines of output of each.
const MAX_FAILURES: usize = 10;
const MAX_LINES: usize = 15;
/// The most outlying trials and missing figures listed.
const MAX_ITEMS: usize = 20;
/// The longest text of somebody else's that is shown whole.
const MAX_DETAIL: usize = 400;
/// An outlier nearer to the median than this share of it is only counted.
const NOTABLE: f64 = 0.01;

/// Failures, refusals, outliers and gaps, each under a heading of its own where there are any.
pub(super) fn section(view: &View) -> Vec<Block> {
    let mut blocks = failures(view);
    blocks.extend(refusals(view));
    blocks.extend(outliers(view));
    blocks.extend(unavailable(view));
    blocks
}

fn failures(view: &View) -> Vec<Block> {
    let failed: Vec<&Trial> =
        view.record.trials.iter().filter(|trial| trial.outcome != Outcome::Ok).collect();
    if failed.is_empty() {
        return Vec::new();
    }
    let (count, all) = (failed.len(), view.record.trials.len());
    let mut blocks =
        vec![Block::Heading(format!("Failed trials: {count} of {all}, in no figure above"))];
    for trial in failed.iter().take(MAX_FAILURES) {
        let detail =
            trial.detail.as_deref().map(|detail| format!(": {}", clip(detail, MAX_DETAIL)));
        let quote = trial.output_tail.as_deref().map(|tail| last_lines(tail, MAX_LINES));
        blocks.push(Block::Item {
            text: format!(
                "{} trial {}: {}{}",
                trial.side().label(),
                trial.index,
                outcome(trial.outcome),
                detail.unwrap_or_default()
            ),
            quote: quote.unwrap_or_default(),
        });
    }
    if count > MAX_FAILURES {
        blocks.push(Block::Note(format!("And {} more, in the JSON.", count - MAX_FAILURES)));
    }
    blocks
}

/// An outcome as the record spells it, with what it means.
fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Timeout => "timeout (not ready in time)",
        Outcome::Exited => "exited (before it was ready, or with the wrong code)",
        Outcome::ExecFailed => "exec-failed (the program could not be executed)",
        Outcome::Oom => "oom (killed for want of memory)",
        Outcome::BackendFailed => "backend-failed (could not start or run it)",
        Outcome::GuestCrashed => "guest-crashed (its kernel panicked, reset or halted)",
        Outcome::Leaked => "leaked (something was left behind)",
        Outcome::Interrupted => "interrupted (by a signal)",
    }
}

/// System calls that a side's workload was refused, with the trial that was refused most.
fn refusals(view: &View) -> Vec<Block> {
    let mut blocks = Vec::new();
    for side in &view.sides {
        let mut most: BTreeMap<&str, u64> = BTreeMap::new();
        for refused in view.trials(side).flat_map(|trial| &trial.refused) {
            let times = most.entry(&refused.call).or_default();
            *times = refused.times.max(*times);
        }
        if most.is_empty() {
            continue;
        }
        let calls: Vec<String> = most
            .iter()
            .take(MAX_ITEMS)
            .map(|(call, times)| match times {
                1 => clip(call, MAX_DETAIL),
                _ => format!("{} ({times} times)", clip(call, MAX_DETAIL)),
            })
            .collect();
        if blocks.is_empty() {
            blocks.push(Block::Heading("System calls refused (EPERM)".to_owned()));
        }
        blocks.push(Block::Item {
            text: format!("{}: {}", side.label(), list(&calls)),
            quote: Vec::new(),
        });
    }
    blocks
}

fn outliers(view: &View) -> Vec<Block> {
    let mut notable: BTreeMap<(usize, u32), Vec<String>> = BTreeMap::new();
    let mut slight = 0_usize;
    for (place, side) in view.sides.iter().enumerate() {
        let trials: BTreeMap<u32, &Trial> =
            view.trials(side).map(|trial| (trial.index, trial)).collect();
        for figure in figure::all() {
            let Some(summary) = view.summary(side, figure.name) else { continue };
            for &index in &summary.outliers {
                let trial = trials.get(&index);
                let Some(value) = trial.and_then(|trial| (figure.value)(trial)) else { continue };
                let away = (value as f64 - summary.median) / summary.median;
                if away.is_finite() && away.abs() < NOTABLE {
                    slight += 1;
                    continue;
                }
                let percent = if away.is_finite() {
                    format!(" ({})", units::percent(away))
                } else {
                    String::new()
                };
                let told = format!(
                    "{} {}{percent}",
                    figure.name,
                    view.quantity(figure.unit, value as f64)
                );
                notable.entry((place, index)).or_default().push(told);
            }
        }
    }
    if notable.is_empty() && slight == 0 {
        return Vec::new();
    }
    let mut blocks = vec![Block::Heading(
        "Outliers: modified z-score above 3.5, kept in every figure".to_owned(),
    )];
    let hidden = notable.len().saturating_sub(MAX_ITEMS);
    for ((place, index), told) in notable.into_iter().take(MAX_ITEMS) {
        let text = format!("{} trial {index}: {}", view.sides[place].label(), told.join(", "));
        blocks.push(Block::Item { text, quote: Vec::new() });
    }
    if hidden > 0 {
        blocks.push(Block::Note(format!("And {hidden} more trials, in the JSON.")));
    }
    if slight > 0 {
        let (values, stand) = if slight == 1 { ("value", "stands") } else { ("values", "stand") };
        blocks.push(Block::Note(format!(
            "{slight} {values} {stand} out by less than 1 % of the median."
        )));
    }
    blocks
}

/// Figures of one backend that are missing for one reason, which stand together.
struct Gap<'a> {
    backend: Option<&'a str>,
    reason: &'a str,
    figures: Vec<String>,
}

fn unavailable(view: &View) -> Vec<Block> {
    let mut reasons: Vec<Gap> = Vec::new();
    let mut hidden = 0_usize;
    for gap in &view.record.unavailable {
        let (backend, reason) = (gap.backend.as_deref(), gap.reason.as_str());
        let same = |known: &Gap| known.backend == backend && known.reason == reason;
        let place = match reasons.iter().position(same) {
            Some(place) => place,
            None if reasons.len() < MAX_ITEMS => {
                reasons.push(Gap { backend, reason, figures: Vec::new() });
                reasons.len() - 1
            }
            None => {
                hidden += 1;
                continue;
            }
        };
        let figures = &mut reasons[place].figures;
        if figures.len() == MAX_ITEMS {
            hidden += 1;
        } else if !figures.contains(&gap.figure) {
            figures.push(gap.figure.clone());
        }
    }
    if reasons.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Heading("Unavailable".to_owned())];
    for Gap { backend, reason, figures } in reasons {
        let whose = backend.map(|backend| format!(" of {backend}")).unwrap_or_default();
        blocks.push(Block::Item {
            text: format!("{}{whose}: {}", list(&figures), clip(reason, MAX_DETAIL)),
            quote: Vec::new(),
        });
    }
    if hidden > 0 {
        blocks.push(Block::Note(format!("And {hidden} more, in the JSON.")));
    }
    blocks
}
