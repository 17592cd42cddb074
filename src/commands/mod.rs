//! One file for each command, with what can be typed for it, and how a run of the program ends.

mod assign;
mod cache;
mod cli;
mod cluster;
mod completions;
mod doctor;
mod eval;
mod features;
mod inputs;
mod inspect;
mod methods;
mod named;
mod options;
mod output;
mod preview;
mod report;
mod train;
mod transport;
mod weights;

use std::ffi::OsString;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::Parser;

use crate::cluster::ClusterError;
use crate::device;
use crate::error::{Error, usage};
use crate::monitor::Interrupted;
use crate::ui::Ui;
pub use cli::{Cli, Command};

/// How the program ends, by exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Skipped = 3,
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// The program: parse, run, map the outcome to an exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout, where a closed pipe is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    device::keep_freed_memory();
    let ui = Ui::new(cli.quiet, on_interrupt());
    // libtorch's C++ exceptions (out of memory above all) arrive as panics: they get the same line
    // and exit code as any other failure.
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(|| run(cli, &ui)));
    let result = result.unwrap_or_else(|panic| Err(anyhow::anyhow!(panic_text(panic.as_ref()))));
    match result {
        Ok(status) => status.into(),
        Err(error) => fail(&error, &ui).into(),
    }
}

/// Runs a parsed command.
pub fn run(cli: Cli, ui: &Ui) -> Result<ExitStatus> {
    match cli.command {
        Command::Train(args) => train::run(*args, ui),
        Command::Assign(args) => assign::run(args, ui),
        Command::Features(args) => features::run(args, ui),
        Command::Cluster(args) => cluster::run(*args, ui),
        Command::Transport(args) => transport::run(args),
        Command::Inspect(args) => inspect::run(args, ui),
        Command::Cache(args) => cache::run(args),
        Command::Eval(args) => eval::run(args, ui),
        Command::Report(args) => report::run(args, ui),
        Command::Preview(args) => preview::run(args, ui),
        Command::Methods => methods::run(),
        Command::Weights => weights::run(ui),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// A flag that the first Ctrl-C raises; the second one ends the program at once.
fn on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    // Without a handler Ctrl-C still ends the program, only without saving.
    let _ = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            device::exit_at_once(ExitStatus::Interrupted as i32);
        }
        let _ = writeln!(
            std::io::stderr(),
            "\nstopping after this batch (Ctrl-C again stops at once)"
        );
    });
    stop
}

fn fail(error: &anyhow::Error, ui: &Ui) -> ExitStatus {
    if error.is::<Interrupted>() {
        return ExitStatus::Interrupted;
    }
    if is_closed_pipe(error) {
        return ExitStatus::Done;
    }
    ui.error(error);
    match error.downcast_ref() {
        Some(Error::Usage(_)) => ExitStatus::Usage,
        Some(Error::Skipped { .. }) => ExitStatus::Skipped,
        _ => ExitStatus::Failed,
    }
}

/// `| head` closes our stdout: a quiet end, not a failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |kind| kind == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| closed(e.kind()));
        let json = cause
            .downcast_ref::<serde_json::Error>()
            .and_then(serde_json::Error::io_error_kind);
        io || json.is_some_and(closed)
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if device::is_out_of_memory(panic) {
        return "out of memory: lower --batch-size or --size".into();
    }
    let text = device::panic_text(panic);
    // A C++ backtrace follows the first lines, escaped where `unwrap` printed it.
    let text = text.split("\\nException raised").next().unwrap_or(text);
    let first: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Exception raised"))
        .collect();
    format!("internal error: {}", first.join(" "))
}

/// What the user can mend by other options is wrong usage.
fn mended_by_options(error: ClusterError) -> anyhow::Error {
    match error {
        ClusterError::Options(_) | ClusterError::NoClusters | ClusterError::TooFewPoints { .. } => {
            usage(error.to_string())
        }
        other => other.or_interrupted(),
    }
}
