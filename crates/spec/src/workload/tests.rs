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
