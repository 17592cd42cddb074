//! `methods`: the registry, for people.

use std::io::Write;

use anyhow::Result;

use super::ExitStatus;
use crate::method::METHODS;

pub fn run() -> Result<ExitStatus> {
    let mut out = std::io::stdout().lock();
    for entry in METHODS {
        writeln!(out, "{}\n  {}\n  {}", entry.name, entry.help, entry.paper)?;
        let values = (entry.defaults)();
        for option in entry.options {
            let value = values.get(option.key).map(ToString::to_string);
            let value = value.unwrap_or_default();
            let setting = format!("--set {}={}", option.key, value.trim_matches('"'));
            writeln!(out, "    {setting:<27} {}", option.help)?;
        }
    }
    Ok(ExitStatus::Done)
}
