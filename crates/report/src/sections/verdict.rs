//! The conclusion: one sentence for each side set against the base, made of measured figures only.

use compare_spec::{Comparison, Side, Unit};

use super::{
    compared::{difference, is_clear, ready_verb},
    head::own_kernel,
};
use crate::{document::Block, units, view::View};

/// The conclusion under its heading.
pub(super) fn section(view: &View) -> Vec<Block> {
    let mut blocks = vec![Block::Heading("Conclusion".to_owned())];
    blocks.extend(conclusions(view).into_iter().map(Block::Finding));
    blocks
}

fn conclusions(view: &View) -> Vec<String> {
    let Some((base, others)) = view.base_and_others() else {
        return vec!["The record names no backend, so there is nothing to say.".to_owned()];
    };
    if view.record.trials.is_empty() {
        return vec!["No trial was run, so there is nothing to say.".to_owned()];
    }
    if view.sides.iter().all(|side| view.counts(side).0 == 0) {
        return vec![
            "No trial succeeded, so there are no figures and nothing to compare.".to_owned(),
        ];
    }
    if others.is_empty() {
        return vec![alone(view, base)];
    }
    others.iter().map(|other| against(view, base, other)).collect()
}

fn place(view: &View) -> &'static str {
    if view.is_lab() { "On this emulated host" } else { "On this host" }
}

/// One side, nothing to compare it with.
fn alone(view: &View, side: &Side) -> String {
    let mut parts = Vec::new();
    if let Some(ready) = view.summary(side, "ready") {
        let verb = ready_verb(&view.record.plan.spec.workload.ready);
        let time = view.quantity(Unit::Ns, ready.median);
        parts.push(format!("takes {time} to {verb} (median, n = {})", ready.n));
    }
    if let Some((name, bytes)) =
        MEMORY_ORDER.iter().find_map(|(figure, name)| Some((name, view.median(side, figure)?)))
    {
        parts.push(format!("uses {} of memory ({name})", view.quantity(Unit::Bytes, bytes)));
    }
    let subject = format!("{} {}", place(view), side.label());
    match parts.as_slice() {
        [] => {
            format!("{subject} was run alone, and neither its time nor its memory could be taken.")
        }
        parts => {
            format!("{subject} {}; it was run alone, so nothing is compared.", parts.join(" and "))
        }
    }
}

/// Which memory figure a conclusion rests on: the first that both sides have.
const MEMORY_ORDER: [(&str, &str); 3] =
    [("cgroup_current", "cgroup charge"), ("pss", "PSS"), ("rss", "RSS")];

/// What a difference is shown to be goes into the main clause; what may be no difference, and
/// whose kernel runs, into clauses of their own.
fn against(view: &View, base: &Side, other: &Side) -> String {
    let (name, base_name) = (other.label(), base.label());
    if let Some(failed) = [base, other].into_iter().find(|side| view.counts(side).0 == 0) {
        let failed = failed.label();
        return format!(
            "No trial of {failed} succeeded, so {name} and {base_name} cannot be compared."
        );
    }
    let mut needs = Vec::new();
    let mut clauses = Vec::new();
    if let Some(ready) = view.comparison(other, "ready") {
        let verb = ready_verb(&view.record.plan.spec.workload.ready);
        let single = view.is_single(other, "ready");
        if single || is_clear(ready) {
            needs.push(format!(
                "{} ({} ×) to {verb}",
                amount(view, ready),
                units::ratio(ready.ratio)
            ));
        } else {
            clauses.push(format!(
                "no difference between {name} and {base_name} in the time to {verb} can be told: {}",
                difference(view, ready, single)
            ));
        }
    }
    let memory = MEMORY_ORDER.iter().find_map(|(figure, what)| {
        view.comparison(other, figure).map(|comparison| (figure, what, comparison))
    });
    if let Some((figure, what, comparison)) = memory {
        let single = view.is_single(other, figure);
        if single || is_clear(comparison) {
            let (amount, ratio) = (amount(view, comparison), units::ratio(comparison.ratio));
            needs.push(format!("{amount} memory ({ratio} ×, {what})"));
        } else {
            clauses.push(format!(
                "no difference in memory ({what}) can be told: {}",
                difference(view, comparison, single)
            ));
        }
    }
    if !needs.is_empty() {
        clauses.insert(0, format!("{name} needs {} than {base_name}", needs.join(" and ")));
    } else if clauses.is_empty() {
        clauses.push(format!("{name} and {base_name} have no figure in common"));
    }
    clauses.extend(kernels(view, base, other));
    format!("{} {}.", place(view), clauses.join("; "))
}

/// `61.3 ms more`.
fn amount(view: &View, comparison: &Comparison) -> String {
    let direction = if comparison.difference < 0.0 { "less" } else { "more" };
    format!("{} {direction}", view.quantity(comparison.unit, comparison.difference.abs()))
}

fn kernels(view: &View, base: &Side, other: &Side) -> Option<String> {
    let (base_release, base_own) = own_kernel(view, base)?;
    let (release, own) = own_kernel(view, other)?;
    let (name, base_name) = (other.label(), base.label());
    Some(match (own, base_own) {
        (true, false) => format!(
            "{name} runs its own kernel {release} where {base_name} shares the host's {base_release}"
        ),
        (false, true) => format!(
            "{name} shares the host's kernel {release} where {base_name} runs its own {base_release}"
        ),
        (false, false) => format!("both share the host's kernel {release}"),
        (true, true) => format!("each runs a kernel of its own, {release} and {base_release}"),
    })
}
