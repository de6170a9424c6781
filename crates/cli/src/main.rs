//! `compare`: boots one workload as a container and inside a microVM, and says what the difference
//! costs. This crate wires the others together; it holds the command line, the progress display and
//! the one place where an error is printed.

mod args;
mod commands;
mod conduct;
mod exit;
mod output;
mod place;
mod prepare;
mod progress;
mod record;
mod tool;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The emulated host's kernel starts this program as its first process and passes its own
    // arguments along; the two words that matter are always these.
    let args = args::Args::parse();
    match commands::dispatch(args) {
        Ok(code) => code.into(),
        Err(error) => {
            exit::print_chain(&error);
            exit::code_of(&error).into()
        }
    }
}
