//! `assign`: labels for images, by a trained run.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

use super::ExitStatus;
use super::inputs::{find_images, place, report_skipped};
use super::options::{Machine, Numbers, listed, machine};
use super::output::Output;
use crate::error::unknown;
use crate::labels::{self, FORMATS, Format, LabelRecord};
use crate::trained::{Extractor, assigner, items, none_readable, open_in};
use crate::ui::Ui;

/// Label images with a trained run.
#[derive(Debug, Args)]
#[command(after_help = ASSIGN_EXAMPLES)]
pub struct AssignArgs {
    /// The run that gives the labels
    pub run: PathBuf,
    /// Directories, images, .tar shards, lists of paths, or `-` for a list on stdin
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Write to a file instead of stdout; a .csv, .json or .jsonl name chooses the format
    #[arg(long, short)]
    pub out: Option<PathBuf>,
    #[arg(long, help = formats())]
    pub format: Option<String>,
    /// Use the backbone weights of this file instead of the run's
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<PathBuf>,
    /// Fail with exit code 3 where images cannot be read
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
}

const ASSIGN_EXAMPLES: &str = "\
Examples:
  ssl-cluster assign runs/photos new/ > labels.jsonl
  ssl-cluster assign runs/photos new/ | jq -r 'select(.label==17).path'
  find . -name '*.jpg' | ssl-cluster assign runs/photos - --format csv > labels.csv
  ssl-cluster assign runs/photos one.jpg";

pub fn run(args: AssignArgs, ui: &Ui) -> Result<ExitStatus> {
    let format = choose_format(args.format.as_deref(), args.out.as_deref())?;
    let device = machine(&args.machine)?;
    let (run, config) = open_in(&args.run, args.numbers.precision)?;
    let assigner = assigner(&run, device)?;
    let extractor = Extractor::of_run(&run, &config, device)?;
    if let Some(init) = &args.init {
        extractor.network.load(init)?;
    }
    let width = extractor.width(assigner.feature_kind());
    ensure!(
        assigner.dim() as i64 == width,
        "'{}' was made for features of {} numbers, the network gives {}",
        run.clustering().display(),
        assigner.dim(),
        width
    );
    let items = items(&config, find_images(&args.inputs)?)?;
    let mut output = Output::open(args.out.as_deref())?;
    let mut skipped = items.skipped().to_vec();
    let mut labelled = 0;
    {
        let mut writer = (format.writer)(output.writer());
        extractor.each_block(items.as_ref(), assigner.feature_kind(), ui, &mut |block| {
            labelled += block.rows.len();
            let assignments = assigner.assign(&block.features);
            for (index, &row) in block.rows.iter().enumerate() {
                writer.record(&LabelRecord::of(items.name(row), &assignments, index))?;
            }
            skipped.extend(block.skipped);
            Ok(())
        })?;
        writer.finish()?;
    }
    if labelled == 0 {
        return Err(none_readable(place(&args.inputs), &skipped).into());
    }
    output.close()?;
    report_skipped(
        &skipped,
        items.len() + items.skipped().len(),
        args.strict,
        ui,
    )?;
    Ok(ExitStatus::Done)
}

/// The format asked for, or that of the file's extension, or the first.
fn choose_format(name: Option<&str>, out: Option<&Path>) -> Result<&'static Format> {
    if let Some(name) = name {
        let known = FORMATS.iter().map(|format| format.name);
        return labels::format(name).ok_or_else(|| unknown("format", name, known));
    }
    let extension = out
        .and_then(Path::extension)
        .and_then(|extension| extension.to_str());
    Ok(extension.and_then(labels::format).unwrap_or(FORMATS[0]))
}

fn formats() -> String {
    listed(
        "Format, the first by default",
        FORMATS.iter().map(|format| format.name),
    )
}
