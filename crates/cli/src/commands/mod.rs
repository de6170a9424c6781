//! One file a command.

mod agent;
mod doctor;
mod lab;
mod report;
mod run;
mod schema;
mod setup;
mod workloads;

use anyhow::Result;

use crate::{
    args::{Args, Command},
    exit::Code,
};

/// Carries out the command.
///
/// # Errors
/// Whatever the command could not do.
pub fn dispatch(args: Args) -> Result<Code> {
    match args.command {
        Command::Run(run) => run::run(*run),
        Command::Workloads { command } => workloads::run(command),
        Command::Doctor { json } => doctor::run(json),
        Command::Obstacles { backends } => doctor::obstacles(&backends),
        Command::Report(report) => report::run(report),
        Command::Schema => schema::run(),
        Command::Setup { workload } => setup::run(&workload),
        Command::Lab { command } => lab::run(command),
        Command::Agent => agent::run(),
    }
}
