//! `compare agent`: the first process of the emulated host. It takes one request, carries it out
//! and powers the machine off.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};
use compare_lab::{
    Event, Request,
    inside::{Events, Port, become_init, power_off},
};
use compare_runner::Cancel;

use crate::{
    conduct::conduct,
    exit::{Code, chain_text, coded},
};

pub fn run() -> Result<Code> {
    if std::process::id() != 1 {
        let message = "`compare agent` is the first process of the emulated host; `compare run` starts it there";
        return Err(coded(Code::Usage, message));
    }
    if let Err(error) = serve() {
        // The kernel's console is all that is left to speak to.
        eprintln!("compare agent: {}", chain_text(&error));
    }
    power_off()?;
    Ok(Code::Failure)
}

fn serve() -> Result<()> {
    become_init().context("cannot set up the emulated host")?;
    let port = Port::open().context("cannot open the virtio console port")?;
    let (mut requests, mut events) = port.split();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    events.tell(&Event::Up { kernel })?;
    let Some(request) = requests.take()? else { return Ok(()) };
    let cancel = Cancel::new()?;
    let wish = cancel.clone();
    // Whatever comes next, another request or the end of the other side, ends the run.
    thread::spawn(move || {
        let _ = requests.take();
        wish.cancel();
    });
    let done = match request {
        Request::Run { plan, image, paths } => {
            conduct(&plan, &image, &paths, &cancel, &mut |run| {
                // If nobody listens any more, the other thread has seen it and cancels.
                let _ = events.tell(&Event::Run { run });
            })
        }
        Request::Exec { command, env } => exec(&command, &env, &mut events),
        Request::Cancel => Ok(()),
    };
    if let Err(error) = done {
        events.tell(&Event::Failed { message: chain_text(&error) })?;
    }
    Ok(())
}

/// Runs a program and passes its output on as it comes.
fn exec(command: &[String], env: &[(String, String)], events: &mut Events) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program was named")?;
    let (mut reader, writer) = std::io::pipe()?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| {
            format!("cannot execute {program} (inside, files lie below /lab/files)")
        })?;
    let mut buffer = [0; 4096];
    let mut pending = Vec::new();
    loop {
        let count = reader.read(&mut buffer)?;
        pending.extend_from_slice(&buffer[..count]);
        // Cut at a line's end, so that no character is torn apart.
        let end = if count == 0 {
            pending.len()
        } else {
            pending.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
        };
        if end > 0 {
            let text = String::from_utf8_lossy(&pending[..end]).into_owned();
            events.tell(&Event::Output { text })?;
            pending.drain(..end);
        }
        if count == 0 {
            break;
        }
    }
    let status = child.wait()?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1);
    events.tell(&Event::Exited { code })?;
    Ok(())
}
