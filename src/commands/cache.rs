//! `cache`: the decoded images that runs have kept on disk.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::ExitStatus;
use crate::data::cache::store;

/// An unfinished file that nobody has written to for so long is left over from a run that was killed.
const ABANDONED: Duration = Duration::from_secs(600);

/// Decoded images on disk.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub action: Option<CacheAction>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum CacheAction {
    /// Remove them; runs decode anew
    Clear,
}

pub fn run(args: CacheArgs) -> Result<ExitStatus> {
    let directory = store::directory()
        .context("there is no cache directory: set SSL_CLUSTER_CACHE, XDG_CACHE_HOME or HOME")?;
    let cannot = |what: &str| format!("cannot {what} '{}'", directory.display());
    let files = store::files(&directory).with_context(|| cannot("read"))?;
    let mut out = std::io::stdout().lock();
    let Some(CacheAction::Clear) = args.action else {
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        writeln!(
            out,
            "{}: {} files, {:.1} MB",
            directory.display(),
            files.len(),
            bytes as f64 / 1e6
        )?;
        return Ok(ExitStatus::Done);
    };
    let (mut removed, mut bytes) = (0, 0);
    for (path, length) in files {
        let changed = path.metadata().and_then(|metadata| metadata.modified());
        let idle = changed.ok().and_then(|changed| changed.elapsed().ok());
        let finished = store::is_finished(&path);
        if !finished && idle.is_none_or(|idle| idle < ABANDONED) {
            continue;
        }
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot remove '{}'", path.display()))?;
        removed += 1;
        bytes += length;
    }
    writeln!(out, "removed {removed} files, {:.1} MB", bytes as f64 / 1e6)?;
    Ok(ExitStatus::Done)
}
