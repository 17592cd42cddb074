//! `completions`: a script that lets a shell complete commands and options.

use std::io::Write;

use anyhow::Result;
use clap::{Args, CommandFactory};

use super::{Cli, ExitStatus};

/// Print a completion script.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ssl-cluster", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitStatus::Done)
}
