//! `report`: gathers what a run left and renders it.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use anyhow::Result;
use image::RgbImage;

use super::ExitStatus;
use super::inputs::{images_of_run, place_of_run};
use crate::cli;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::decode::{self, centre_square};
use crate::data::source::ImageSet;
use crate::labels::LabelRecord;
use crate::method;
use crate::monitor::Monitor;
use crate::record::{EpochRecord, LabelStepRecord, Record};
use crate::report::{
    ClassShare, Curve, Figure, MAX_CLUSTERS, MAX_THUMBS, Note, Report, Series, Sheet, Thumb,
    contact_sheet, render,
};
use crate::run_dir::{RunDir, replace};
use crate::trained::open;
use crate::ui::Ui;

/// Side of thumbnails of photographs, in pixels.
const THUMB: u32 = 144;
/// Clusters, images and pixels in the one-picture contact sheet.
const SHEET: (usize, usize, u32) = (16, 16, 48);
/// Classes named for a cluster.
const NAMED_CLASSES: usize = 3;

pub fn run(args: cli::Report, ui: &Ui) -> Result<ExitStatus> {
    let (run, config) = open(&args.run)?;
    let out = args.out.unwrap_or_else(|| run.report());
    let pictures = write(&run, &config, &out, args.contact_sheet.as_deref(), None)?;
    if pictures == 0 {
        ui.warn(&format!(
            "the report has no pictures: the images are no longer where the run read them ('{}')",
            place_of_run(&config).display()
        ));
    }
    ui.note(&format!("report {}", out.display()));
    Ok(ExitStatus::Done)
}

/// Writes the report of `run`. Thumbnails come from `data` where it is at hand, else from the
/// images' files. Gives the number of pictures.
pub fn write(
    run: &RunDir,
    config: &Config,
    out: &Path,
    picture: Option<&Path>,
    data: Option<&Dataset>,
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
    let page = render(&describe(run, config, &records, &labels, sheets, skipped)?)?;
    replace(out, page.as_bytes())?;
    Ok(pictures)
}

fn describe(
    run: &RunDir,
    config: &Config,
    records: &[Record],
    labels: &[LabelRecord],
    mut sheets: Vec<Sheet>,
    skipped: usize,
) -> Result<Report> {
    let entry = method::method(&config.train.method);
    let (epochs, steps) = split(records);
    let asked = steps
        .last()
        .map_or(config.cluster.clusters, |step| step.clusters);
    let sizes = cluster_sizes(labels, asked);
    let mut notes = notes(&epochs, &steps, skipped);
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
        method: config.train.method.clone(),
        method_help: entry.map_or("", |entry| entry.help).into(),
        paper: entry.map_or("", |entry| entry.paper).into(),
        figures: figures(config, &epochs, &steps, &sizes),
        notes,
        curves: curves(&epochs, &steps),
        sizes,
        clusters: sheets,
        config_toml: config.to_toml()?,
        command: config.run.command.clone(),
        version: config.run.version.clone(),
    })
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

fn notes(epochs: &[&EpochRecord], steps: &[&LabelStepRecord], skipped: usize) -> Vec<Note> {
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
    if epochs.is_empty() {
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

/// One sheet for each cluster that has images, the largest first.
fn sheets(labels: &[LabelRecord], thumbs: &Thumbs) -> Vec<Sheet> {
    let mut members: HashMap<u32, Vec<&LabelRecord>> = HashMap::new();
    labels
        .iter()
        .for_each(|record| members.entry(record.label).or_default().push(record));
    let mut clusters: Vec<(u32, Vec<&LabelRecord>)> = members.into_iter().collect();
    clusters.sort_by_key(|(label, members)| (std::cmp::Reverse(members.len()), *label));
    clusters.truncate(MAX_CLUSTERS + 1);
    clusters
        .into_iter()
        .map(|(label, mut members)| {
            // The nearest to the centroid are the most typical; without centroids, the surest.
            members.sort_by(|a, b| typicality(a).total_cmp(&typicality(b)));
            let scores: Vec<f64> = members.iter().filter_map(|record| record.score).collect();
            Sheet {
                label: label as usize,
                size: members.len(),
                mean_score: (!scores.is_empty())
                    .then(|| scores.iter().sum::<f64>() / scores.len() as f64),
                classes: class_shares(&members),
                thumbs: members
                    .iter()
                    .filter_map(|record| thumbs.thumb(record))
                    .take(MAX_THUMBS)
                    .collect(),
            }
        })
        .collect()
}

fn typicality(record: &LabelRecord) -> f64 {
    record
        .distance
        .or(record.score.map(|score| -score))
        .unwrap_or(0.0)
}

/// The commonest parent folders of a cluster's images; none where all lie in one.
fn class_shares(members: &[&LabelRecord]) -> Vec<ClassShare> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for record in members {
        let Some((parent, _)) = record.path.rsplit_once('/') else {
            return Vec::new();
        };
        *counts
            .entry(parent.rsplit('/').next().unwrap_or(parent))
            .or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    counts
        .into_iter()
        .take(NAMED_CLASSES)
        .map(|(name, count)| ClassShare {
            name: name.into(),
            share: count as f64 / members.len() as f64,
        })
        .collect()
}

/// Where images are.
enum Place<'a> {
    Memory(&'a Dataset),
    Files(ImageSet),
}

/// Where small pictures come from.
struct Thumbs<'a> {
    place: Place<'a>,
    rows: HashMap<String, usize>,
}

impl<'a> Thumbs<'a> {
    fn new(config: &Config, data: Option<&'a Dataset>) -> Self {
        let place = match data {
            Some(data) => Place::Memory(data),
            // A report of labels alone is better than none.
            None => Place::Files(images_of_run(config).unwrap_or_default()),
        };
        let rows = match &place {
            Place::Memory(data) => data.names().map(String::from).zip(0..).collect(),
            Place::Files(set) => {
                let names = set.files.iter().map(|file| file.name.to_string());
                names.zip(0..).collect()
            }
        };
        Self { place, rows }
    }

    /// The picture of a record; `None` where the file is gone.
    fn thumb(&self, record: &LabelRecord) -> Option<Thumb> {
        let row = *self.rows.get(&record.path)?;
        let image = match &self.place {
            Place::Memory(data) => {
                let side = data.pixels.side() as u32;
                let square = data.pixels.gather(&[row as u32]).ok()?;
                let bytes = Vec::try_from(&square.flatten(0, -1)).ok()?;
                shrink(&RgbImage::from_raw(side, side, bytes)?)
            }
            Place::Files(set) => shrink(&decode::decode(&set.bytes(row).ok()?).ok()?),
        }?;
        let caption = match (record.score, record.distance) {
            (Some(score), Some(distance)) => format!("score {score:.2}, distance {distance:.2}"),
            (Some(score), None) => format!("score {score:.2}"),
            _ => String::new(),
        };
        Some(Thumb {
            path: record.path.clone(),
            caption,
            image,
        })
    }
}

fn shrink(image: &RgbImage) -> Option<RgbImage> {
    let short = image.width().min(image.height());
    centre_square(image, short.min(THUMB)).ok()
}
