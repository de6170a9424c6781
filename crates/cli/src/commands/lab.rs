//! `compare lab exec`: a static program inside the emulated host, as the tests need it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use compare_lab::{Event, Lab as Machine, Request};
use tokio::time::timeout;

use crate::{
    args::Lab,
    exit::{Code, coded},
    output::print,
    prepare::prepare_files,
    progress::SetupProgress,
};

/// How long a program may say nothing: no test of ours works longer without a word.
const SILENCE: Duration = Duration::from_secs(180);

fn silent() -> anyhow::Error {
    coded(Code::Failure, format!("the emulated host has been silent for {SILENCE:?}: given up"))
}

pub fn run(command: Lab) -> Result<Code> {
    let Lab::Exec { files, env, workload, clock, command } = command;
    let files = files.iter().map(|text| named(text)).collect::<Result<Vec<_>>>()?;
    let mut variables = env.iter().map(|text| variable(text)).collect::<Result<Vec<_>>>()?;
    let workload = workload.map(|name| compare_image::load(&name)).transpose()?;
    let (machine, given) = prepare_files(&files, workload.as_ref(), &SetupProgress::new())?;
    variables.extend(given);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    runtime.block_on(async {
        let mut lab = Machine::boot(&machine, clock.into()).await?;
        lab.ask(&Request::Exec { command, env: variables }).await?;
        let code = loop {
            tokio::select! {
                event = timeout(SILENCE, lab.next()) => match event.map_err(|_| silent())?? {
                    Event::Output { text } => {
                        print(&text)?;
                    }
                    Event::Exited { code } => break code,
                    Event::Failed { message } => return Err(coded(Code::Failure, message)),
                    other => return Err(coded(Code::Failure, format!("the emulated host said {other:?}"))),
                },
                _ = tokio::signal::ctrl_c() => return Err(coded(Code::Interrupted, "interrupted")),
            }
        };
        lab.close().await;
        match code {
            0 => Ok(Code::Success),
            code => Err(coded(Code::Failure, format!("the program exited with {code}"))),
        }
    })
}

fn named(text: &str) -> Result<(String, PathBuf)> {
    if let Some((name, path)) = text.split_once('=') {
        return Ok((name.to_owned(), path.into()));
    }
    let path = PathBuf::from(text);
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| coded(Code::Usage, format!("--file {text}: has no name")))?.to_owned();
    Ok((name, path))
}

fn variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| coded(Code::Usage, format!("--env {text}: write NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}
