//! What a person may get wrong in a workload file, and what they are told.

use super::*;

const GOOD: &str = r#"
name = "web"
command = ["/bin/web", "--now"]
memory = "64MiB"
port = 80
[image]
packages = ["web"]
[ready.http]
path = "/"
body = "hi"
"#;

fn error(text: &str) -> String {
    Workload::parse("web.toml", text).unwrap_err().to_string()
}

#[test]
fn defaults_fill_in() {
    let workload = Workload::parse("web.toml", GOOD).unwrap();
    assert_eq!(workload.user, "root");
    assert_eq!(workload.vcpus, 1);
    assert_eq!(workload.memory, Bytes::mib(64));
    assert_eq!(workload.timeout.start.0, Duration::from_secs(30));
    assert_eq!(workload.stop_signal.number(), 15);
    let ready = HttpReady { path: "/".into(), status: 200, body: Some("hi".into()) };
    assert_eq!(workload.ready, Readiness::Http(ready));
}

#[test]
fn every_readiness_can_be_written() {
    for (text, ready) in [
        ("ready = { exit = 0 }", Readiness::Exit(0)),
        ("ready = { tcp = {} }", Readiness::Tcp {}),
        (
            "ready = { log = { contains = \"up\" } }",
            Readiness::Log(LogReady { contains: "up".into() }),
        ),
    ] {
        let text = format!(
            "name = \"w\"\ncommand = [\"/w\"]\nport = 1\n{text}\n[image]\nprogram = \"hello\"\n"
        );
        assert_eq!(Workload::parse("w", &text).unwrap().ready, ready);
    }
}

#[test]
fn a_workload_survives_its_own_json() {
    let workload = Workload::parse("web.toml", GOOD).unwrap();
    let json = serde_json::to_string(&workload).unwrap();
    assert_eq!(serde_json::from_str::<Workload>(&json).unwrap(), workload);
}

#[test]
fn errors_name_file_line_and_field() {
    let unknown = error(&GOOD.replace("memory", "memroy"));
    assert!(unknown.contains("web.toml") && unknown.contains("line 4"), "{unknown}");
    assert!(unknown.contains("memroy") && unknown.contains("`memory`"), "{unknown}");

    let unit = error(&GOOD.replace("64MiB", "64MB"));
    assert!(unit.contains("line 4") && unit.contains("128MiB"), "{unit}");

    let syntax = error("name = ");
    assert!(syntax.contains("line 1"), "{syntax}");

    let missing = error(&GOOD.replace("command = [\"/bin/web\", \"--now\"]", ""));
    assert!(missing.contains("`command`"), "{missing}");

    let kind = error(&GOOD.replace("[ready.http]", "[ready.htpt]"));
    assert!(kind.contains("htpt") && kind.contains("`http`"), "{kind}");
}

#[test]
fn values_that_cannot_work_are_refused() {
    for (from, to, field) in [
        ("\"web\"\ncommand", "\"Web!\"\ncommand", "name"),
        ("/bin/web", "web", "command"),
        ("64MiB", "1MiB", "memory"),
        ("port = 80", "", "port"),
        ("port = 80", "port = 80\nvcpus = 64", "vcpus"),
        ("port = 80", "port = 80\npids = 0", "pids"),
        ("port = 80", "port = 80\ncpus = 0.0", "cpus"),
        ("port = 80", "port = 80\nworking_dir = \"x\"", "working_dir"),
        ("packages = [\"web\"]", "packages = [\"web\"]\nprogram = \"hello\"", "image"),
        ("packages = [\"web\"]", "", "image"),
        ("path = \"/\"", "path = \"x\"", "ready.http.path"),
        ("path = \"/\"", "path = \"/\"\nstatus = 7", "ready.http.status"),
        (
            "[ready.http]",
            "[[image.file]]\npath = \"/a/../../b\"\ncontent = \"\"\n[ready.http]",
            "image.file.path",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let message = error(&GOOD.replacen(from, to, 1));
        assert!(message.contains(&format!("field `{field}`")), "{to}: {message}");
    }
}

/// Every limit there is.
const LIMITED: &str = r#"
name = "web"
command = ["/bin/web"]
memory = "64MiB"
oom_score_adj = -5
ready = { exit = 0 }
[image]
packages = ["web"]
[limits]
memory_high = "48MiB"
swap = "8MiB"
cpu_weight = 200
cpuset = "1,0"
[rlimits]
nofile = [1024, 1048576]
core = [0, "unlimited"]
[sysctls]
"net.core.somaxconn" = "1024"
"kernel.sem" = "250\t32000 100 128"
"#;

#[test]
fn limits_are_read_and_written() {
    let workload = Workload::parse("web.toml", LIMITED).unwrap();
    assert_eq!(workload.limits.memory_high, Some(Bytes::mib(48)));
    assert_eq!(workload.limits.swap, Some(Bytes::mib(8)));
    assert_eq!(workload.limits.cpuset.as_ref().unwrap().to_string(), "0-1");
    assert_eq!(workload.rlimits(), [(4, 0, u64::MAX), (7, 1024, 1 << 20)]);
    let [sem, backlog] = &workload.sysctl_files()[..] else { panic!("two") };
    assert_eq!(*sem, ("/proc/sys/kernel/sem".to_owned(), "250\t32000 100 128".to_owned()));
    assert_eq!(*backlog, ("/proc/sys/net/core/somaxconn".to_owned(), "1024".to_owned()));
    let json = serde_json::to_string(&workload).unwrap();
    assert_eq!(serde_json::from_str::<Workload>(&json).unwrap(), workload);

    let without = serde_json::to_string(&Workload::parse("web.toml", GOOD).unwrap()).unwrap();
    for field in ["limits", "oom_score_adj", "sysctls"] {
        assert!(json.contains(field) && !without.contains(field), "{field}: {without}");
    }
}

#[test]
fn resources_have_the_kernels_numbers() {
    for (resource, number) in [
        (Resource::Cpu, 0),
        (Resource::Stack, 3),
        (Resource::Nofile, 7),
        (Resource::As, 9),
        (Resource::Rttime, 15),
    ] {
        assert_eq!(resource.number(), number, "{resource:?}");
    }
}

#[test]
fn limits_that_cannot_work_are_refused_with_the_remedy() {
    for (from, to, words) in [
        ("48MiB", "65MiB", ["field `limits.memory_high`", "at most `memory`"]),
        ("48MiB", "0B", ["field `limits.memory_high`", "more than 0"]),
        ("= 200", "= 0", ["field `limits.cpu_weight`", "1 to 10000"]),
        ("\"1,0\"", "\"3-1\"", ["line 13", "0-3,8"]),
        ("-5", "-1001", ["field `oom_score_adj`", "-1000"]),
        ("nofile =", "nofiles =", ["line 15", "`nofile`"]),
        ("[1024, 1048576]", "[1024]", ["line 15", "array of length 2"]),
        ("[1024, 1048576]", "[2, 1]", ["field `rlimits`", "`nofile`: the soft limit is above"]),
        ("1048576]", "\"unlimited\"]", ["field `rlimits`", "fs.nr_open"]),
        ("\"unlimited\"", "-1", ["line 16", "a whole number or \"unlimited\""]),
        ("net.core.somaxconn", "vm.swappiness", ["field `sysctls`", "shares with its host"]),
        ("net.core.somaxconn", "kernel.hostname", ["field `sysctls`", "net.*"]),
        ("net.core.somaxconn", "net..core", ["field `sysctls`", "net.core.somaxconn"]),
        ("net.core.somaxconn", "net.a/../b", ["field `sysctls`", "sysctl(8)"]),
        ("\"1024\"", "\"1\\n2\"", ["field `sysctls`", "one line"]),
        ("cpu_weight", "cpu_shares", ["line 12", "`cpu_weight`"]),
    ] {
        assert!(LIMITED.contains(from), "{from}");
        let message = error(&LIMITED.replacen(from, to, 1));
        assert!(words.iter().all(|word| message.contains(word)), "{to}: {message}");
    }
}
