//! `inspect`: what `train` would see, and how fast it comes in.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::ExitStatus;
use super::inputs::{facts, find_images, load, report_skipped, run_info, typed_inputs};
use super::named::named;
use super::options::{Machine, at_least_one, machine};
use crate::config::CacheChoice;
use crate::config::defaults::complete;
use crate::config::{Config, DataSettings, Settings};
use crate::data::Dataset;
use crate::data::augment::{Augmentation, ViewKey, centre};
use crate::data::loader::{batches, equal_lengths};
use crate::data::sampler::shuffled;
use crate::data::source::{ImageSet, Skipped};
use crate::data::survey::{Survey, survey};
use crate::device::wait_for;
use crate::error::usage;
use crate::monitor::{Interrupted, Monitor, Phase};
use crate::random::{Purpose, stream};
use crate::ui::Ui;

/// Copies and unreadable files that the table names.
const NAMED: usize = 5;

/// The answer, as JSON gives it.
#[derive(Debug, Serialize)]
struct Report {
    /// Images that can be read.
    images: usize,
    /// Inputs that cannot.
    skipped: usize,
    unreadable: Vec<Skipped>,
    /// Files that are no images by their names.
    others: usize,
    bytes: u64,
    formats: std::collections::BTreeMap<String, usize>,
    /// Pixels: smallest, median and largest.
    width: [u32; 3],
    height: [u32; 3],
    classes: Vec<Class>,
    /// Paths of files with the same content, each group by itself.
    duplicates: Vec<Vec<String>>,
    /// Side of the network's input, and that at which images are kept, in pixels.
    size: usize,
    store: usize,
    epochs: Vec<Epoch>,
}

#[derive(Debug, Serialize)]
struct Class {
    name: String,
    images: usize,
}

#[derive(Debug, Serialize)]
struct Epoch {
    images_per_second: f64,
    seconds: f64,
}

/// See what train would see, before a night is spent on it.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct InspectArgs {
    /// Directories, images, .tar shards, lists of paths, or `-` for a list on stdin
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Side of the network's input in pixels [default: train's]
    #[arg(long, value_parser = at_least_one)]
    pub size: Option<usize>,
    /// Passes of the loader, without a network, whose speed is measured; the first one decodes
    #[arg(long, default_value_t = 1)]
    pub epochs: usize,
    /// Make random views, as training does
    #[arg(long)]
    pub augment: bool,
    /// Strength of random brightness, contrast, saturation and hue, 0 to 1
    #[arg(long, requires = "augment")]
    pub jitter: Option<f64>,
    /// Where decoded images are kept: auto, ram, disk, off
    #[arg(long, value_parser = named::<CacheChoice>())]
    pub cache: Option<CacheChoice>,
    /// JSON on a terminal too
    #[arg(long)]
    pub json: bool,
    /// Fail with exit code 3 where images cannot be read
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub machine: Machine,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  ssl-cluster inspect photos/
  ssl-cluster inspect photos/ --json | jq -r '.unreadable[].path'
  ssl-cluster inspect photos/ --json | jq -r '.duplicates[][1:][]'      all copies but the first
  ssl-cluster inspect shards/ --size 224 --epochs 3 --augment           how fast images come in";

pub fn run(args: InspectArgs, ui: &Ui) -> Result<ExitStatus> {
    let device = machine(&args.machine)?;
    let set = find_images(&args.inputs)?;
    let others = set.others;
    let facts = facts(&set, device, crate::device::cores());
    let settings = Settings {
        data: DataSettings {
            size: args.size,
            cache: args.cache,
            jitter: args.jitter,
            ..DataSettings::default()
        },
        ..Settings::default()
    };
    let info = run_info(typed_inputs(&args.inputs)?, &set);
    let (config, _) = complete(settings, &facts, info);
    config.data.validate().map_err(usage)?;

    let started = Instant::now();
    let set = Arc::new(set);
    let data = load(set.clone(), &config, None, ui)?;
    let mut epochs = Vec::new();
    for epoch in 0..args.epochs {
        // The first decodes as well.
        let since = if epoch == 0 { started } else { Instant::now() };
        serve(&data, &config, device, epoch as u64, args.augment, ui)?;
        let seconds = since.elapsed().as_secs_f64();
        epochs.push(Epoch {
            images_per_second: data.len() as f64 / seconds,
            seconds,
        });
    }
    // Afterwards, so that the first epoch finds the files where training would.
    let survey = survey(&set, data.kept(), ui)?;
    let duplicates = paths_of(&survey, &set);
    let report = Report {
        images: data.len(),
        skipped: data.skipped.len(),
        unreadable: data.skipped.clone(),
        others,
        bytes: survey.bytes,
        width: range(&survey.widths),
        height: range(&survey.heights),
        formats: survey.formats,
        classes: classes_of(&data),
        duplicates,
        size: config.data.size,
        store: config.data.store,
        epochs,
    };
    let mut out = std::io::stdout().lock();
    if out.is_terminal() && !args.json {
        table(&report, &mut out)?;
    } else {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    }
    report_skipped(
        &data.skipped,
        data.len() + data.skipped.len(),
        args.strict,
        ui,
    )?;
    Ok(ExitStatus::Done)
}

/// Runs the loader over all images, in random order, as an epoch of training would.
fn serve(
    data: &Dataset,
    config: &Config,
    device: tch::Device,
    epoch: u64,
    augment: bool,
    ui: &Ui,
) -> Result<()> {
    let n = data.len();
    let mut rng = stream(config.train.seed, Purpose::Order, epoch, 0);
    let order = shuffled(n, &mut rng);
    let lengths = equal_lengths(n, config.train.batch_size);
    let augmentation = Augmentation::of(&config.data);
    ui.begin(Phase::Read, &format!("epoch {}", epoch + 1), n as u64);
    let mut key = ViewKey {
        seed: config.train.seed,
        seen: epoch * n as u64,
        view: 0,
    };
    for batch in batches(&data.pixels, order, lengths, device) {
        if ui.stopping() {
            ui.end();
            return Err(Interrupted.into());
        }
        let batch = batch.context("the images changed while they were read")?;
        let squares = batch.images.on(device);
        drop(tch::no_grad(|| match augment {
            true => augmentation.apply(&squares, &batch.indices, key),
            false => centre(&squares, config.data.size as i64),
        }));
        key.seen += batch.indices.len() as u64;
        ui.advance(batch.indices.len() as u64);
    }
    wait_for(device);
    ui.end();
    Ok(())
}

fn paths_of(survey: &Survey, set: &ImageSet) -> Vec<Vec<String>> {
    let name = |row: &usize| set.files[*row].name.to_string();
    let groups = survey.copies.iter();
    groups.map(|rows| rows.iter().map(name).collect()).collect()
}

/// Smallest, median and largest.
fn range(sorted: &[u32]) -> [u32; 3] {
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0);
    [0, sorted.len() / 2, sorted.len().saturating_sub(1)].map(at)
}

fn classes_of(data: &Dataset) -> Vec<Class> {
    let mut counts = vec![0; data.classes().len()];
    for &class in data.class_of.iter().flatten() {
        counts[class as usize] += 1;
    }
    let names = data.classes().iter().cloned();
    names
        .zip(counts)
        .map(|(name, images)| Class { name, images })
        .collect()
}

fn table(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let mut line = |name: &str, text: String| writeln!(out, "{name:<12} {text}");
    line(
        "images",
        format!("{}, {:.1} MB", report.images, report.bytes as f64 / 1e6),
    )?;
    let formats = report.formats.iter();
    let formats: Vec<String> = formats
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    line("formats", formats.join(", "))?;
    let [width, height] = [report.width, report.height];
    line(
        "sizes",
        format!(
            "{}x{} in the median; width {} to {}, height {} to {}",
            width[1], height[1], width[0], width[2], height[0], height[2]
        ),
    )?;
    let counts = || report.classes.iter().map(|class| class.images);
    line(
        "classes",
        match (counts().min(), counts().max()) {
            (Some(least), Some(most)) => format!(
                "{} folders of {least} to {most} images (used for evaluation only)",
                report.classes.len()
            ),
            _ => "none: the images are not in several folders".into(),
        },
    )?;
    if report.others > 0 {
        line("others", format!("{} files are no images", report.others))?;
    }
    line("unreadable", report.skipped.to_string())?;
    for skipped in report.unreadable.iter().take(NAMED) {
        line("", format!("{}: {}", skipped.path, skipped.reason))?;
    }
    let copies: usize = report.duplicates.iter().map(|group| group.len() - 1).sum();
    line("duplicates", format!("{copies} files are copies of others"))?;
    for group in report.duplicates.iter().take(NAMED) {
        line("", group[..group.len().min(NAMED)].join(" = "))?;
    }
    line(
        "size",
        format!("{} px, kept at {} px", report.size, report.store),
    )?;
    for (number, epoch) in (1..).zip(&report.epochs) {
        let how = if number == 1 { " (decoding)" } else { "" };
        line(
            &format!("epoch {number}"),
            format!("{:.0} images/s{how}", epoch.images_per_second),
        )?;
    }
    Ok(())
}
