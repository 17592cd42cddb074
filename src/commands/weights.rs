//! `weights`: the published weights that lie on this machine.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::ExitStatus;
use crate::model::published::{Found, Places};
use crate::model::weights::shapes;
use crate::monitor::Monitor;
use crate::ui::Ui;

/// A line of the list.
#[derive(Debug, Serialize)]
struct Line<'a> {
    arch: &'a str,
    trained_on: &'a str,
    place: &'a str,
    path: &'a Path,
    /// Why they cannot be used, where they cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn run(ui: &Ui) -> Result<ExitStatus> {
    let places = Places::of_user();
    let found = places.find();
    let mut out = std::io::stdout().lock();
    let table = out.is_terminal();
    for found in &found {
        let line = line(found);
        if table {
            let Line {
                arch,
                trained_on,
                place,
                path,
                error,
            } = line;
            let error = error.map_or(String::new(), |error| format!("\n    {error}"));
            writeln!(
                out,
                "{arch:<34} {trained_on:<42} {place:<12} {}{error}",
                path.display()
            )?;
        } else {
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
    }
    if found.is_empty() {
        ui.note("no published weights were found; these directories were looked at:");
        for (place, directory) in places.named() {
            ui.note(&format!("  {:<13} {}", place.name(), directory.display()));
        }
        ui.note("scripts/weights.sh fetches those of mobilenet_v2; `--init FILE` takes any file");
    }
    Ok(ExitStatus::Done)
}

fn line(found: &Found) -> Line<'_> {
    Line {
        arch: found.entry.name,
        trained_on: found.published.about,
        place: found.place.name(),
        path: &found.path,
        error: shapes(&found.path).err().map(|error| error.to_string()),
    }
}
