//! The clusters of a report: their most typical images, and which folders these come from.

use std::collections::HashMap;

use image::RgbImage;

use crate::commands::inputs::images_of_run;
use crate::config::{Config, Interpolation};
use crate::data::Dataset;
use crate::data::decode::{self, centre_square};
use crate::data::source::ImageSet;
use crate::labels::LabelRecord;
use crate::report::{ClassShare, MAX_CLUSTERS, MAX_THUMBS, Sheet, Thumb};

/// Side of thumbnails of photographs, in pixels.
const THUMB: u32 = 144;
/// Classes named for a cluster.
const NAMED_CLASSES: usize = 3;

/// One sheet for each cluster that has images, the largest first.
pub fn sheets(labels: &[LabelRecord], thumbs: &Thumbs) -> Vec<Sheet> {
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

/// Where the images are.
enum Images<'a> {
    Memory(&'a Dataset),
    Files(ImageSet),
}

/// Where small pictures come from.
pub struct Thumbs<'a> {
    images: Images<'a>,
    rows: HashMap<String, usize>,
}

impl<'a> Thumbs<'a> {
    pub fn new(config: &Config, data: Option<&'a Dataset>) -> Self {
        let images = match data {
            Some(data) => Images::Memory(data),
            // A report of labels alone is better than none.
            None => Images::Files(images_of_run(config).unwrap_or_default()),
        };
        let rows = match &images {
            Images::Memory(data) => data.names().map(String::from).zip(0..).collect(),
            Images::Files(set) => {
                let names = set.files.iter().map(|file| file.name.to_string());
                names.zip(0..).collect()
            }
        };
        Self { images, rows }
    }

    /// The picture of a record; `None` where the file is gone.
    fn thumb(&self, record: &LabelRecord) -> Option<Thumb> {
        let row = *self.rows.get(&record.path)?;
        let image = match &self.images {
            Images::Memory(data) => {
                let side = data.pixels.side() as u32;
                let square = data.pixels.gather(&[row as u32]).ok()?;
                let bytes = Vec::try_from(&square.flatten(0, -1)).ok()?;
                shrink(&RgbImage::from_raw(side, side, bytes)?)
            }
            Images::Files(set) => shrink(&decode::decode(&set.bytes(row).ok()?).ok()?),
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
    centre_square(image, short.min(THUMB), Interpolation::Bilinear).ok()
}
