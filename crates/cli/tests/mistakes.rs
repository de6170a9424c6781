//! Mistakes a person makes before anything runs: each ends with a code of its own and says what to
//! do about it.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use support::{run, run_with, scratch};

fn error(arguments: &[&str], code: i32) -> String {
    let run = run(arguments);
    run.expect(code);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run.stderr
}

#[test]
fn version_says_which_compare_it_is() {
    let run = run(&["--version"]);
    run.expect(0);
    assert!(run.stdout.contains("container against microVM"), "{}", run.stdout);
    let help = support::run(&["--help"]);
    assert!(help.stdout.contains("ImageMagick") && help.stdout.contains("130"), "{}", help.stdout);
}

#[test]
fn an_unknown_workload_lists_what_there_is() {
    let said = error(&["run", "--workload", "ngnix"], 2);
    assert!(said.contains("ngnix") && said.contains("nginx") && said.contains("hello"), "{said}");
    let said = error(&["workloads", "show", "ngnix"], 2);
    assert!(said.contains("nginx"), "{said}");
}

#[test]
fn a_broken_file_is_told_by_line() {
    let directory = scratch();
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, "name = \"x\"\ncommand = 3\n").unwrap();
    let said = error(&["run", "--workload", file.to_str().unwrap()], 2);
    assert!(said.contains("bad.toml") && said.contains("line 2"), "{said}");
    let said = error(&["run", "--workload", "./no-such-file.toml"], 2);
    assert!(said.contains("no-such-file.toml"), "{said}");
}

#[test]
fn wrong_options_are_usage_errors() {
    for arguments in [
        &["run"][..],
        &["run", "--workload", "nginx", "--backend", "docker"],
        &["run", "--workload", "nginx", "--memory", "12MB"],
        &["run", "--workload", "nginx", "--trials", "0"],
        &["run", "--plan", "x", "--seed", "2"],
        &["run", "--plan", "x", "--start", "restored"],
        &["run", "--workload", "nginx", "--start", "cold,"],
        &["run", "--workload", "nginx", "--microvm-root", "nvme"],
        &["run", "--plan", "x", "--microvm-root", "pmem"],
        &["agent"],
        &["run", "--plan", "Cargo.toml"],
    ] {
        let said = error(arguments, 2);
        assert!(said.starts_with("error:"), "{said}");
    }
}

#[test]
fn start_modes_that_make_no_sense_name_the_remedy() {
    let said = error(&["run", "--workload", "nginx", "--start", "warm"], 2);
    assert!(said.contains("'warm'") && said.contains("cold, restored"), "{said}");
    let said = error(&["run", "--workload", "hello", "--start", "cold,restored"], 2);
    assert!(said.contains("`ready.exit`") && said.contains("use `tcp` or `http`"), "{said}");
    let contained = ["run", "--workload", "nginx", "--backend", "container", "--start", "restored"];
    let said = error(&contained, 2);
    assert!(said.contains("always starts cold") && said.contains("`microvm`"), "{said}");
    let help = support::run(&["run", "--help"]);
    assert!(help.stdout.contains("`cold,restored` for a column of each"), "{}", help.stdout);
}

#[test]
fn root_disks_that_cannot_be_are_refused_with_the_reason() {
    let pmem = ["run", "--workload", "nginx", "--microvm-root", "pmem"];
    let said = error(&[&pmem[..], &["--start", "cold,restored"]].concat(), 2);
    assert!(said.contains("`microvm_root`") && said.contains("`cold` only"), "{said}");
    let said = error(&[&pmem[..], &["--backend", "container"]].concat(), 2);
    assert!(said.contains("`microvm_root`") && said.contains("`microvm`"), "{said}");
}

#[test]
fn pages_that_cannot_be_are_refused_with_the_reason() {
    let thp = ["run", "--workload", "nginx", "--microvm-memory-pages", "thp"];
    for (more, why) in [
        (["--start", "cold,restored"], "`cold` only"),
        (["--backend", "container"], "`microvm`"),
        (["--microvm-root", "pmem"], "`microvm_root`"),
    ] {
        let said = error(&[&thp[..], &more].concat(), 2);
        assert!(said.contains("`microvm_memory_pages`") && said.contains(why), "{said}");
    }
    let said = error(&["run", "--workload", "nginx", "--microvm-memory-pages", "1g"], 2);
    assert!(said.contains("'1g'") && said.contains("normal, thp"), "{said}");
}

#[test]
fn a_report_needs_a_record() {
    let directory = scratch();
    let file = directory.path().join("not.json");
    std::fs::write(&file, "{\"schema\": \"compare/9\"}").unwrap();
    let said = error(&["report", file.to_str().unwrap()], 2);
    assert!(said.contains("not.json") && said.contains("compare/9"), "{said}");
}

#[test]
fn an_export_that_cannot_be_written_is_told_before_the_run() {
    let said =
        error(&["run", "--workload", "hello", "--export-json", "/no/such/directory/a.json"], 1);
    assert!(said.contains("/no/such/directory/a.json"), "{said}");
}

#[test]
fn a_file_that_is_no_kernel_is_refused() {
    let directory = scratch();
    let file = directory.path().join("vmlinux");
    std::fs::write(&file, "not a kernel").unwrap();
    let file = file.to_str().unwrap();
    let said = error(&["run", "--workload", "hello", "--host", "lab", "--kernel", file], 2);
    assert!(said.contains(file) && said.contains("vmlinux"), "{said}");
    let said = error(&["run", "--workload", "hello", "--host", "lab", "--kernel", "/no/kernel"], 2);
    assert!(said.contains("/no/kernel"), "{said}");
}

#[test]
fn the_schema_is_json() {
    let run = run(&["schema"]);
    run.expect(0);
    let schema: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(schema["properties"]["trials"].is_object());
    assert!(schema["properties"]["snapshots"].is_object());
    let required = |of: &serde_json::Value, name: &str| {
        of["required"].as_array().unwrap().iter().any(|one| one == name)
    };
    // Records and plans of earlier versions have neither.
    assert!(!required(&schema, "snapshots"));
    let plan = &schema["$defs"]["Plan"];
    for later in ["starts", "microvm_root", "microvm_memory_pages"] {
        assert!(!plan["properties"][later].is_null() && !required(plan, later), "{plan}");
    }
}

/// The doctor's verdict is its exit code, and both forms agree.
#[test]
fn the_doctor_gives_evidence() {
    let begin = std::time::Instant::now();
    let text = run(&["doctor"]);
    assert!(begin.elapsed().as_secs() < 5, "it hangs");
    let json = run(&["doctor", "--json"]);
    assert_eq!(text.code, json.code);
    assert!([Some(0), Some(3), Some(4)].contains(&text.code), "{text:?}");
    let whole: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(whole["exit_code"].as_i64().map(|code| code as i32), json.code);
    assert!(!whole["kvm"]["checks"][0]["evidence"].as_str().unwrap().is_empty());
    assert!(whole["snapshots"][0]["evidence"].as_str().unwrap().contains("room"), "{whole}");
    for check in whole["container"].as_array().unwrap() {
        assert!(check["ok"] == true || check["remedy"].is_string(), "no remedy: {check}");
    }
}

/// `compare … | head -1`: nobody reads the rest, and nobody is told so.
#[test]
fn a_reader_may_leave_early() {
    for arguments in [&["doctor"][..], &["doctor", "--json"], &["workloads", "list"], &["schema"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = std::process::Command::new(support::program())
            .args(arguments)
            .stdout(writer)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert!([Some(0), Some(3), Some(4)].contains(&output.status.code()), "{arguments:?}");
    }
}

/// Without the means the verdict is clear, and nothing falls back in silence.
#[test]
fn a_host_that_cannot_refuses() {
    let doctor = run(&["doctor", "--json"]);
    if doctor.code == Some(0) {
        println!("SKIP: this host can run both backends");
        return;
    }
    let said = error(&["run", "--workload", "hello", "--host", "local"], 3);
    assert!(said.contains("cannot run") && said.contains("--host lab"), "{said}");
    let without = run_with(&["run", "--workload", "hello"], &[("PATH", "/nonexistent")]);
    without.expect(4);
    assert!(without.stderr.contains("apt-get install"), "{}", without.stderr);
}
