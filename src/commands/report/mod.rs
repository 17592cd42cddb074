//! `report`: gathers what a run left and renders it.

mod sheets;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use tch::Device;

use super::inputs::{images_of_run, place_of_run, thinned};
use super::{ExitStatus, panic_text};
use crate::config::{CacheChoice, Config};
use crate::data::Dataset;
use crate::data::cache::Cache;
use crate::labels::LabelRecord;
use crate::method;
use crate::model;
use crate::monitor::{Monitor, Silent};
use crate::picture::Panel;
use crate::record::{EpochRecord, LabelStepRecord, Record};
use crate::report::{
    Curve, Figure, MAX_CLUSTERS, Note, Report, Series, Sheet, contact_sheet, render,
};
use crate::run_dir::{RunDir, replace};
use crate::train::Session;
use crate::trained::{items, open, panels};
use crate::ui::Ui;
use sheets::{Thumbs, sheets};

/// Images that the method is shown, and rows of pictures that are taken of what it makes of them.
const SEEN: usize = 8;
const MOST_PANELS: usize = 24;
/// Clusters, images and pixels in the one-picture contact sheet.
const SHEET: (usize, usize, u32) = (16, 16, 48);

/// Write a run's HTML report.
#[derive(Debug, Args)]
pub struct ReportArgs {
    pub run: PathBuf,
    /// Where to write it [default: RUN/report.html]
    #[arg(long, short)]
    pub out: Option<PathBuf>,
    /// Also write the clusters as one picture (.png)
    #[arg(long, value_name = "FILE")]
    pub contact_sheet: Option<PathBuf>,
}

pub fn run(args: ReportArgs, ui: &Ui) -> Result<ExitStatus> {
    let (run, config) = open(&args.run)?;
    let out = args.out.unwrap_or_else(|| run.report());
    let seen = pictures(&config, ui, || seen_again(&run, &config, ui));
    let sheet = args.contact_sheet.as_deref();
    let shown = write(&run, &config, &out, sheet, None, seen)?;
    if shown == 0 && run.read_labels()?.is_empty() {
        ui.warn("the run has no labels yet: the report shows no clusters");
    } else if shown == 0 {
        ui.warn(&format!(
            "the report has no pictures: the images are no longer where the run read them ('{}')",
            place_of_run(&config).display()
        ));
    }
    ui.note(&format!("report {}", out.display()));
    Ok(ExitStatus::Done)
}

/// Writes the report of a training that has just ended.
pub fn of_session(
    run: &RunDir,
    config: &Config,
    data: &Dataset,
    session: &Session,
    ui: &Ui,
) -> Result<()> {
    let panels = pictures(config, ui, || session.preview(&some_of(data.len())));
    write(run, config, &run.report(), None, Some(data), panels).map(|_| ())
}

/// Writes the report of `run`. Thumbnails come from `data` where it is at hand, else from the
/// images' files. Gives the number of pictures.
fn write(
    run: &RunDir,
    config: &Config,
    out: &Path,
    picture: Option<&Path>,
    data: Option<&Dataset>,
    panels: Vec<Panel>,
) -> Result<usize> {
    let records = run.read_metrics()?;
    let labels = run.read_labels()?;
    let thumbs = Thumbs::new(config, data);
    let sheets = sheets(&labels, &thumbs);
    if let Some(picture) = picture {
        let (clusters, columns, cell) = SHEET;
        let image = contact_sheet(&sheets[..sheets.len().min(clusters)], columns, cell);
        let mut png = Vec::new();
        image.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png)?;
        replace(picture, &png)?;
    }
    let pictures = sheets.iter().map(|sheet| sheet.thumbs.len()).sum();
    let skipped = run.read_skipped()?.len();
    let page = describe(run, config, &records, &labels, (sheets, panels), skipped)?;
    let page = render(&page)?;
    replace(out, page.as_bytes())?;
    Ok(pictures)
}

/// Which of so many images the method is shown.
fn some_of(images: usize) -> Vec<u32> {
    let count = SEEN.min(images);
    (0..count).map(|at| (at * images / count) as u32).collect()
}

/// What the method of a run that is not in memory shows of some images.
fn seen_again(run: &RunDir, config: &Config, ui: &Ui) -> Result<Vec<Panel>> {
    let items = items(config, thinned(images_of_run(config)?, SEEN))?;
    let cache = Cache::of_user(CacheChoice::Ram);
    let data = Dataset::load(items, config.data.store, &cache, None, &Silent)?;
    if data.is_empty() {
        return Ok(Vec::new());
    }
    panels(
        Some(run),
        config,
        Device::Cpu,
        &data,
        &some_of(data.len()),
        ui,
    )
}

/// The pictures that `look` makes; a report of labels alone is better than none, so that a failure is told
/// and no more.
fn pictures(config: &Config, ui: &Ui, look: impl FnOnce() -> Result<Vec<Panel>>) -> Vec<Panel> {
    if config.train.epochs == 0 {
        // Nothing was predicted.
        return Vec::new();
    }
    // libtorch's exceptions arrive as panics.
    let looked = catch_unwind(AssertUnwindSafe(look));
    let reason = match looked {
        Ok(Ok(mut panels)) => {
            panels.truncate(MOST_PANELS);
            return panels;
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => panic_text(panic.as_ref()),
    };
    ui.note(&format!(
        "the report does not show what the method sees: {reason}"
    ));
    Vec::new()
}

fn describe(
    run: &RunDir,
    config: &Config,
    records: &[Record],
    labels: &[LabelRecord],
    (mut sheets, panels): (Vec<Sheet>, Vec<Panel>),
    skipped: usize,
) -> Result<Report> {
    let entry = method::method(&config.train.method);
    let learned = config.train.epochs > 0;
    let backbone = model::find(&config.model.arch);
    let (name, help, paper) = match (learned, entry, backbone) {
        (false, _, Some(backbone)) => (backbone.name, unlearned(config), backbone.paper),
        (_, Some(entry), _) => (entry.name, entry.help.into(), entry.paper),
        _ => (&*config.train.method, String::new(), ""),
    };
    let (epochs, steps) = split(records);
    let asked = steps
        .last()
        .map_or(config.cluster.clusters, |step| step.clusters);
    let sizes = cluster_sizes(labels, asked);
    let mut notes = notes(learned, &epochs, &steps, skipped);
    if sheets.len() > MAX_CLUSTERS {
        notes.push(Note::info(format!(
            "The {MAX_CLUSTERS} largest of {} clusters are shown.",
            sheets.len()
        )));
        sheets.truncate(MAX_CLUSTERS);
    }
    let title = run
        .path()
        .canonicalize()
        .unwrap_or_else(|_| run.path().into());
    Ok(Report {
        title: title
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        method: name.into(),
        method_help: help,
        paper: paper.into(),
        figures: figures(config, &epochs, &steps, &sizes),
        notes,
        curves: match learned {
            true => curves(&epochs, &steps),
            false => Vec::new(),
        },
        sizes,
        panels,
        clusters: sheets,
        config_toml: config.to_toml()?,
        command: config.run.command.clone(),
        version: config.run.version.clone(),
    })
}

/// What the clusters of a run without epochs are made of.
fn unlearned(config: &Config) -> String {
    let weights = config.model.weights.as_ref();
    let from = weights.map_or(String::new(), |weights| {
        format!(", which learned from {}", weights.name)
    });
    format!("nothing was learned from these images; they are grouped by its features{from}")
}

fn split(records: &[Record]) -> (Vec<&EpochRecord>, Vec<&LabelStepRecord>) {
    let mut parts = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Epoch(epoch) => parts.0.push(epoch),
            Record::Labels(step) => parts.1.push(step),
        }
    }
    parts
}

fn figures(
    config: &Config,
    epochs: &[&EpochRecord],
    steps: &[&LabelStepRecord],
    sizes: &[usize],
) -> Vec<Figure> {
    let figure = |label: &str, value: String, hint: &str| Figure {
        label: label.into(),
        value,
        hint: hint.into(),
    };
    let mut figures = vec![
        figure("images", config.run.images.to_string(), ""),
        figure(
            "clusters",
            sizes.iter().filter(|&&size| size > 0).count().to_string(),
            &format!("of {}", sizes.len()),
        ),
        figure(
            "epochs",
            epochs.last().map_or(0, |epoch| epoch.epoch).to_string(),
            &format!("{}, {} px", config.model.arch, config.data.size),
        ),
    ];
    if let Some(loss) = epochs.last().map(|epoch| epoch.loss) {
        figures.push(figure("loss", format!("{loss:.3}"), "in the last epoch"));
    }
    if let Some(step) = steps.last() {
        if let Some(nmi) = step.nmi_previous {
            figures.push(figure(
                "label stability",
                format!("{nmi:.2}"),
                "NMI to the labels before",
            ));
        }
        if let Some(agreement) = step.agreement {
            figures.push(figure(
                "neighbours agree",
                format!("{agreement:.2}"),
                "0 as by chance, 1 always",
            ));
        }
        if let Some(nmi) = step.nmi_classes {
            figures.push(figure(
                "NMI with folders",
                format!("{nmi:.3}"),
                "1 is the same division",
            ));
        }
    }
    figures
}

fn notes(
    learned: bool,
    epochs: &[&EpochRecord],
    steps: &[&LabelStepRecord],
    skipped: usize,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let collapsed = steps.last().is_some_and(|step| step.nonempty < 2);
    if collapsed {
        notes.push(Note::warning(
            "All images fell into one cluster: the features have collapsed, or the images are alike.",
        ));
    } else if let Some(nmi) = steps.last().and_then(|step| step.nmi_previous) {
        notes.push(Note::info(match nmi {
            nmi if nmi >= 0.8 => {
                format!("The labels have settled (NMI to the step before {nmi:.2}).")
            }
            nmi if nmi >= 0.6 => format!(
                "The labels still move a little (NMI to the step before {nmi:.2}); \
                 more epochs may help."
            ),
            nmi => format!(
                "The labels still change (NMI to the step before {nmi:.2}); more epochs would help."
            ),
        }));
    }
    if let Some(step) = steps.last().filter(|step| step.nonempty < step.clusters) {
        notes.push(Note::warning(format!(
            "{} of {} clusters are empty.",
            step.clusters - step.nonempty,
            step.clusters
        )));
    }
    if learned && epochs.is_empty() {
        notes.push(Note::warning("The training has not finished an epoch."));
    }
    if skipped > 0 {
        notes.push(Note::warning(format!(
            "{skipped} files could not be read; skipped.jsonl names them."
        )));
    }
    notes
}

fn curves(epochs: &[&EpochRecord], steps: &[&LabelStepRecord]) -> Vec<Curve> {
    let curve = |title: &str, unit: &str, series: Vec<(&str, Vec<(f64, f64)>)>| Curve {
        title: title.into(),
        unit: unit.into(),
        series: series
            .into_iter()
            .filter(|(_, points)| !points.is_empty())
            .map(|(name, points)| Series {
                name: name.into(),
                points,
            })
            .collect(),
    };
    let by_epoch = |value: &dyn Fn(&EpochRecord) -> Option<f64>| -> Vec<(f64, f64)> {
        epochs
            .iter()
            .filter_map(|epoch| Some((epoch.epoch as f64, value(epoch)?)))
            .collect()
    };
    let by_step = |value: &dyn Fn(&LabelStepRecord) -> Option<f64>| -> Vec<(f64, f64)> {
        steps
            .iter()
            .filter_map(|step| Some((step.epoch, value(step)?)))
            .collect()
    };
    vec![
        curve(
            "Loss",
            "cross-entropy",
            vec![("", by_epoch(&|epoch| Some(epoch.loss)))],
        ),
        curve(
            "Agreement of labels",
            "NMI",
            vec![
                ("with the step before", by_step(&|step| step.nmi_previous)),
                ("with the folder names", by_step(&|step| step.nmi_classes)),
            ],
        ),
        curve(
            "Pretext accuracy",
            "%",
            vec![(
                "",
                by_epoch(&|epoch| epoch.accuracy.map(|share| 100.0 * share)),
            )],
        ),
        curve(
            "Speed",
            "images / s",
            vec![("", by_epoch(&|epoch| Some(epoch.images_per_second)))],
        ),
    ]
}

fn cluster_sizes(labels: &[LabelRecord], clusters: usize) -> Vec<usize> {
    let most = labels
        .iter()
        .map(|record| record.label as usize + 1)
        .max()
        .unwrap_or(0);
    let mut sizes = vec![0; clusters.max(most)];
    labels
        .iter()
        .for_each(|record| sizes[record.label as usize] += 1);
    sizes
}
