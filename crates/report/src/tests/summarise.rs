//! Known answers of the statistics in a record.

use compare_spec::{Outcome, Summary, Unit};

use super::record::{container, crashed, microvm, plan, sample};
use crate::summarise;

fn one<'a>(summary: &'a [Summary], backend: &str, figure: &str) -> Option<&'a Summary> {
    summary.iter().find(|one| one.backend == backend && one.figure == figure)
}

#[test]
fn known_answers() {
    let record = sample();
    let ready = one(&record.summary, "container", "ready").unwrap();
    assert_eq!((ready.n, ready.median, ready.mad), (3, 17_051_300.0, 31_000.0));
    assert_eq!((ready.p5, ready.unit), (17_023_400.0, Unit::Ns));
    assert!(ready.ci95[0] <= ready.median && ready.median <= ready.ci95[1]);
    let release = one(&record.summary, "microvm", "release").unwrap();
    assert_eq!((release.n, release.median), (2, 17_416_000.0));
    let charge = one(&record.summary, "container", "cgroup_current").unwrap();
    assert_eq!((charge.median, charge.unit), (4_882_432.0, Unit::Bytes));

    let compared =
        record.comparisons.iter().find(|one| one.figure == "ready").expect("both became ready");
    assert_eq!((compared.base.as_str(), compared.other.as_str()), ("container", "microvm"));
    assert_eq!(compared.difference, 78_422_600.0 - 17_051_300.0);
    assert_eq!(compared.ratio, 78_422_600.0 / 17_051_300.0);
}

#[test]
fn a_figure_one_side_lacks_is_not_compared() {
    let record = sample();
    for figure in ["kernel", "vmm_overhead", "guest_used"] {
        assert!(one(&record.summary, "microvm", figure).is_some());
        assert!(one(&record.summary, "container", figure).is_none());
        assert!(!record.comparisons.iter().any(|one| one.figure == figure));
    }
}

#[test]
fn only_ok_trials_count() {
    let (summary, comparisons) =
        summarise(&[container(0), crashed(0)], &plan(&["container", "microvm"], 1));
    assert!(summary.iter().all(|one| one.backend == "container" && one.n == 1));
    assert!(summary.iter().all(|one| one.ci95 == [one.median, one.median]));
    assert_eq!(comparisons, []);
    let mut leaked = microvm(0);
    leaked.outcome = Outcome::Leaked;
    assert_eq!(summarise(&[leaked], &plan(&["microvm"], 1)).0, []);
    assert_eq!(summarise(&[], &plan(&[], 0)), (Vec::new(), Vec::new()));
}

#[test]
fn equal_trials_and_seed_give_equal_intervals_and_the_seed_matters() {
    let trials: Vec<_> = (0..8).flat_map(|index| [container(index), microvm(index)]).collect();
    let mut plan = plan(&["container", "microvm"], 8);
    let first = summarise(&trials, &plan);
    assert_eq!(first, summarise(&trials, &plan));
    plan.seed = 2;
    let (other, _) = summarise(&trials, &plan);
    assert!(first.0.iter().zip(&other).all(|(a, b)| a.median == b.median));
}

#[test]
fn outliers_are_named_by_the_index_of_their_trial() {
    let mut trials: Vec<_> = (0..8).map(container).collect();
    trials[5].events_ns.ready = Some(90_000_000);
    trials.swap(0, 5);
    let (summary, _) = summarise(&trials, &plan(&["container"], 8));
    assert_eq!(one(&summary, "container", "ready").unwrap().outliers, [5]);
    assert_eq!(one(&summary, "container", "ready").unwrap().n, 8, "flagged, not dropped");
}

#[test]
fn nothing_is_compared_with_a_base_of_zero() {
    let mut base = container(0);
    base.memory.uss_bytes = Some(0);
    let (_, comparisons) = summarise(&[base, microvm(0)], &plan(&["container", "microvm"], 1));
    assert!(!comparisons.iter().any(|one| one.figure == "uss"));
    assert!(comparisons.iter().any(|one| one.figure == "rss"));
}
