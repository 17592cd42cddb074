//! `methods`: the registry, for people.

use std::io::Write;

use anyhow::Result;

use super::ExitStatus;
use crate::method::METHODS;

pub fn run() -> Result<ExitStatus> {
    let mut out = std::io::stdout().lock();
    for entry in METHODS {
        writeln!(out, "{}\n  {}\n  {}", entry.name, entry.help, entry.paper)?;
        for (key, value) in (entry.options)() {
            writeln!(out, "  --set {key}={}", value.to_string().trim_matches('"'))?;
        }
    }
    Ok(ExitStatus::Done)
}
