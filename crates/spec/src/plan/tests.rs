//! Plans, their sides and their schedules.

use super::*;

fn plan(seed: u64) -> Plan {
    let workload = Workload::parse(
        "w",
        "name = \"w\"\ncommand = [\"/w\"]\nready = { exit = 0 }\n[image]\nprogram = \"hello\"\n",
    )
    .unwrap();
    Plan {
        workload,
        backends: vec!["container".into(), "microvm".into()],
        starts: vec![StartMode::Cold],
        microvm_root: RootDevice::default(),
        microvm_memory_pages: MemoryPages::default(),
        trials: 8,
        warmup: 1,
        gap: Span::default(),
        seed,
        host: HostKind::Lab,
        clock: Clock::Instructions,
    }
}

#[test]
fn a_plan_from_a_file_is_checked() {
    plan(1).validate("p").unwrap();
    let wrong = |change: fn(&mut Plan)| {
        let mut plan = plan(1);
        change(&mut plan);
        plan.validate("p.json").unwrap_err().to_string()
    };
    assert!(wrong(|plan| plan.trials = 4_000_000_000).contains("`trials`"));
    assert!(wrong(|plan| plan.backends.clear()).contains("`backends`"));
    assert!(wrong(|plan| plan.backends[1] = "container".into()).contains("`backends`"));
    assert!(wrong(|plan| plan.workload.vcpus = 0).contains("`vcpus`"));
    assert!(wrong(|plan| plan.starts.clear()).contains("`starts`"));
    assert!(wrong(|plan| plan.starts = vec![StartMode::Cold; 2]).contains("`starts`"));
}

#[test]
fn what_cannot_be_restored_is_refused_with_the_remedy() {
    let restored = |ready: &str, backends: &[&str]| {
        let mut plan = plan(1);
        plan.starts = vec![StartMode::Cold, StartMode::Restored];
        plan.backends = backends.iter().map(|name| (*name).to_owned()).collect();
        let text = format!(
            "name = \"w\"\ncommand = [\"/w\"]\nport = 1\nready = {ready}\n[image]\nprogram = \"hello\"\n"
        );
        plan.workload = Workload::parse("w", &text).unwrap();
        plan.validate("p").map_err(|error| error.to_string())
    };
    restored("{ tcp = {} }", &["container", "microvm"]).unwrap();
    restored("{ http = {} }", &["microvm"]).unwrap();
    for (ready, field) in
        [("{ exit = 0 }", "`ready.exit`"), ("{ log = { contains = \"up\" } }", "`ready.log`")]
    {
        let error = restored(ready, &["microvm"]).unwrap_err();
        assert!(error.contains(field) && error.contains("use `tcp` or `http`"), "{error}");
    }
    let error = restored("{ tcp = {} }", &["container"]).unwrap_err();
    assert!(error.contains("`starts`") && error.contains("`microvm`"), "{error}");
}

/// Plans saved before there were start modes are cold, and so is their digest.
#[test]
fn a_plan_without_start_modes_is_cold() {
    let cold = plan(1);
    let text = serde_json::to_string(&cold).unwrap();
    assert!(!text.contains("starts"), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), cold);
    let both = Plan { starts: vec![StartMode::Cold, StartMode::Restored], ..cold.clone() };
    assert_ne!(both.digest(), cold.digest());
    let text = serde_json::to_string(&both).unwrap();
    assert!(text.contains("\"starts\":[\"cold\",\"restored\"]"), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), both);
    let text = text.replace("restored", "warm");
    let error = serde_json::from_str::<Plan>(&text).unwrap_err().to_string();
    assert!(error.contains("`cold` or `restored`"), "{error}");
}

#[test]
fn a_container_has_one_side_and_a_microvm_one_for_each_mode() {
    let labels = |starts: &[StartMode]| {
        let plan = Plan { starts: starts.to_vec(), ..plan(1) };
        plan.sides().iter().map(Side::label).collect::<Vec<_>>()
    };
    use StartMode::{Cold, Restored};
    assert_eq!(labels(&[Cold]), ["container", "microvm"]);
    assert_eq!(labels(&[Cold, Restored]), ["container", "microvm", "microvm restored"]);
    assert_eq!(labels(&[Restored]), ["container", "microvm restored"]);
}

/// Three sides: each round holds each once, each pair of rounds weighs all alike, and no side
/// keeps one place.
#[test]
fn three_sides_are_interleaved() {
    let starts = vec![StartMode::Cold, StartMode::Restored];
    let plan = Plan { starts, trials: 40, ..plan(3) };
    let schedule = plan.schedule();
    let measured = &schedule[3..];
    assert_eq!(measured.len(), 120);
    let mut first = [0; 3];
    for pair in measured.chunks(6) {
        let mut places = [0; 3];
        for (place, slot) in pair.iter().enumerate() {
            places[slot.side] += place;
        }
        assert_eq!(places, [5; 3], "{pair:?}");
        first[pair[0].side] += 1;
    }
    assert!(first.iter().all(|count| *count > 2), "{first:?}");
}

#[test]
fn a_schedule_is_fixed_by_its_seed() {
    assert_eq!(plan(1).schedule(), plan(1).schedule());
    assert_eq!(plan(1).digest(), plan(1).digest());
    assert_ne!(plan(1).digest(), plan(2).digest());
    let differs = (2..40).any(|seed| plan(seed).schedule() != plan(1).schedule());
    assert!(differs, "the seed must matter");
}

#[test]
fn rounds_are_balanced_and_mirrored() {
    let schedule = plan(7).schedule();
    assert!(schedule[..2].iter().all(|slot| slot.warmup));
    let measured = &schedule[2..];
    assert_eq!(measured.len(), 16);
    for pair in measured.chunks(4) {
        let order: Vec<usize> = pair.iter().map(|slot| slot.side).collect();
        assert_eq!((order[0], order[1]), (order[3], order[2]), "ABBA");
        assert_ne!(order[0], order[1]);
    }
}

#[test]
fn another_root_disk_is_another_side() {
    let plan = Plan { microvm_root: RootDevice::Pmem, ..plan(1) };
    plan.validate("p").unwrap();
    let labels: Vec<String> = plan.sides().iter().map(Side::label).collect();
    assert_eq!(labels, ["container", "microvm-pmem"]);
    let text = serde_json::to_string(&plan).unwrap();
    assert!(text.contains("\"microvm_root\":\"pmem\""), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);

    let wrong = |plan: Plan| plan.validate("p").unwrap_err().to_string();
    let text = wrong(Plan { backends: vec!["container".into()], ..plan.clone() });
    assert!(
        text.contains("`microvm_root`") && text.contains("name the backend `microvm`"),
        "{text}"
    );
    let workload = Workload::parse(
        "w",
        "name = \"w\"\ncommand = [\"/w\"]\nport = 1\nready = { tcp = {} }\n[image]\nprogram = \"hello\"\n",
    );
    let starts = vec![StartMode::Cold, StartMode::Restored];
    let text = wrong(Plan { workload: workload.unwrap(), starts, ..plan });
    assert!(text.contains("`microvm_root`") && text.contains("cannot be saved"), "{text}");
}

#[test]
fn other_memory_is_another_side() {
    let plan = Plan { microvm_memory_pages: MemoryPages::Thp, ..plan(1) };
    plan.validate("p").unwrap();
    let labels: Vec<String> = plan.sides().iter().map(Side::label).collect();
    assert_eq!(labels, ["container", "microvm-thp"]);
    let text = serde_json::to_string(&plan).unwrap();
    assert!(text.contains("\"microvm_memory_pages\":\"thp\""), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    let wrong = |plan: Plan| plan.validate("p").unwrap_err().to_string();
    let text = wrong(Plan { microvm_root: RootDevice::Pmem, ..plan.clone() });
    assert!(text.contains("leave `microvm_root` out"), "{text}");
    let text = wrong(Plan { backends: vec!["container".into()], ..plan });
    assert!(text.contains("`microvm_memory_pages`"), "{text}");
}

/// A plan of before reads as it did, and keeps its digest.
#[test]
fn the_default_machine_is_not_written() {
    let text = serde_json::to_string(&plan(1)).unwrap();
    assert!(!text.contains("microvm_root") && !text.contains("pages"), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan(1));
}
