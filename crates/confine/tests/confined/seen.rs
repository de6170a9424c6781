//! A child, and what can be seen of it and of its surroundings from outside.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use compare_confine::Confinement;

/// A child that plays a part; it waits for the end of its input where the part says so.
pub struct Seen {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Seen {
    /// Starts it, as the user with this id if given.
    pub fn start(part: &str, user: Option<u32>) -> Self {
        // The link leads to the program even where its path is closed to that user.
        let mut command = Command::new("/proc/self/exe");
        command.arg(format!("child:{part}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it prints of its confinement.
    pub fn confinement(&mut self) -> Confinement {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// A file of its directory in `/proc`.
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A field of its status.
    pub fn status(&self, field: &str) -> String {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().replace('\t', " ")
    }

    /// The namespace of a kind it is in.
    pub fn namespace(&self, kind: &str) -> String {
        namespace(&self.pid().to_string(), kind)
    }

    /// The soft and hard limit of a kind.
    pub fn limit(&self, name: &str) -> (String, String) {
        let limits = self.proc("limits");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    /// Waits for its end; says how it ended and what else it printed.
    pub fn end(mut self) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// Waits for its end, which must be a success.
    pub fn end_well(self) {
        let (status, rest) = self.end();
        assert!(status.success(), "{status}: {rest}");
    }

    /// Waits for its end, which must be the filter's doing. That is all a parent can learn.
    pub fn end_killed(self) {
        let (status, rest) = self.end();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}: {rest}");
        assert!(!rest.contains("survived"), "{rest}");
    }
}

/// The namespace of a kind a process is in.
pub fn namespace(process: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap().display().to_string()
}

/// What a case must leave as it was: mounts, descriptors, namespaces, files where it ran.
pub fn surroundings() -> (String, usize, Vec<String>, Vec<String>) {
    let names = |path: &str| {
        let mut names: Vec<String> = fs::read_dir(path)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()))
            .map_or_else(|_| Vec::new(), Iterator::collect);
        names.sort();
        names
    };
    let namespaces = ["mnt", "ipc", "uts", "net", "user"].map(|kind| namespace("self", kind));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    (mounts, names("/proc/self/fd").len(), namespaces.to_vec(), names("."))
}
