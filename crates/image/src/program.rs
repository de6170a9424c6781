//! Runs external programs: one place that names the command, its exit status and its last words,
//! and the package to install where the program is missing. Never through a shell.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{At, Error, Result},
    requirement::{install, requirement_of},
};

/// Lines of standard error that an error message carries.
const TAIL_LINES: usize = 15;
/// How often a program that says nothing is reported on.
const TICK: Duration = Duration::from_millis(250);

/// A command in an environment in which its output is the same for everyone.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Runs it to its end and returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().map_err(|error| cannot_start(command, error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed(command, output.status, &String::from_utf8_lossy(&output.stderr)))
}

/// Runs it to its end, calling `tick` a few times a second meanwhile.
pub(crate) fn run_watched(command: &mut Command, mut tick: impl FnMut()) -> Result<Vec<u8>> {
    thread::scope(|scope| {
        let runner = scope.spawn(|| run(command));
        let mut last = Instant::now();
        while !runner.is_finished() {
            thread::sleep(Duration::from_millis(10));
            if last.elapsed() >= TICK {
                tick();
                last = Instant::now();
            }
        }
        runner.join().expect("running a program does not panic")
    })
}

/// Runs it to its end with all output in `log`, calling `watch` with each line of standard output,
/// and with none a few times a second while there is no output.
pub(crate) fn run_logged(
    command: &mut Command,
    log: &Path,
    mut watch: impl FnMut(Option<&str>),
) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(log).at("create", log)?;
    command.stdout(Stdio::piped()).stderr(file.try_clone().at("open", log)?);
    let mut child = command.spawn().map_err(|error| cannot_start(command, error))?;
    let output = child.stdout.take().expect("it was asked for");
    let (sender, lines) = mpsc::channel::<Vec<u8>>();
    let copied = thread::scope(|scope| {
        let copier = scope.spawn(move || {
            let mut copied = Ok(());
            for mut line in BufReader::new(output).split(b'\n').map_while(io::Result::ok) {
                line.push(b'\n');
                // A log that cannot be written must not make the program fail: it is read on.
                copied = copied.and_then(|()| file.write_all(&line));
                let _ = sender.send(line);
            }
            copied
        });
        loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => watch(Some(String::from_utf8_lossy(&line).trim_end())),
                Err(RecvTimeoutError::Timeout) => watch(None),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        copier.join().expect("copying lines does not panic")
    });
    let status = child.wait().at("wait for the program that writes", log)?;
    if !status.success() {
        let text = std::fs::read(log).unwrap_or_default();
        return Err(failed(command, status, &String::from_utf8_lossy(&text)));
    }
    copied.at("write", log)
}

fn cannot_start(command: &Command, error: io::Error) -> Error {
    let name = command.get_program();
    match requirement_of(name) {
        Some(requirement) if error.kind() == io::ErrorKind::NotFound => Error::ProgramMissing {
            program: requirement.program.to_owned(),
            why: requirement.why,
            remedy: install(requirement.package),
        },
        _ => Error::Io { attempt: "start", path: name.into(), source: error },
    }
}

fn failed(command: &Command, status: ExitStatus, stderr: &str) -> Error {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut text = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
        text.push('…');
    }
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    Error::Program { command: text, status: status.to_string(), stderr: tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_command_status_and_last_words() {
        let error = run(command("ls").arg("/no/such/place")).unwrap_err().to_string();
        assert!(
            error.starts_with("`ls /no/such/place` failed (exit status: 2):\nls: cannot access"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_told() {
        let error = run(&mut command("no-such-program")).unwrap_err();
        assert!(matches!(error, Error::Io { attempt: "start", .. }));
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let text = cannot_start(&command("mkfs.erofs"), missing).to_string();
        assert!(
            text.starts_with("mkfs.erofs is not installed")
                && text.contains("apt-get install erofs-utils"),
            "{text}"
        );
    }

    #[test]
    fn lines_are_seen_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut seen = Vec::new();
        run_logged(command("printf").arg("a\\nb\\n"), &log, |line| {
            seen.extend(line.map(str::to_owned))
        })
        .unwrap();
        assert_eq!(seen, ["a", "b"]);
        assert_eq!(std::fs::read(&log).unwrap(), b"a\nb\n");
        let error = run_logged(command("ls").arg("/no/such/place"), &log, |_| {}).unwrap_err();
        assert!(error.to_string().contains("cannot access"));
    }
}
