//! Label records and the formats that they are written in: records in, bytes out.

mod csv;
mod json;
mod jsonl;

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::cluster::assigner::Assignments;

/// The label of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRecord {
    /// Relative to the data root, with `/`.
    pub path: String,
    pub label: u32,
    /// The probability, or soft assignment, of the label.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// Distance to the centroid, where there are centroids.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub distance: Option<f64>,
    /// The labels of all heads, where there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub labels: Option<Vec<u32>>,
}

impl LabelRecord {
    /// That of the image of this name and number.
    pub fn of(name: &str, assignments: &Assignments, image: usize) -> Self {
        let labels = &assignments.labels;
        Self {
            path: name.into(),
            label: labels[0][image],
            score: Some(significant(assignments.scores[image])),
            distance: assignments
                .distances
                .as_ref()
                .map(|distances| significant(distances[image])),
            labels: (labels.len() > 1).then(|| labels.iter().map(|head| head[image]).collect()),
        }
    }
}

/// Seven significant digits, as many as an f32 has: more is noise and makes files twice as large, and a number of
/// decimals would leave nothing of small numbers.
pub fn significant(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// Writes records one by one.
pub trait LabelWriter {
    fn record(&mut self, record: &LabelRecord) -> io::Result<()>;
    /// What stands after the last record; flushes.
    fn finish(&mut self) -> io::Result<()>;
}

/// One format of the registry.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub help: &'static str,
    pub writer: for<'a> fn(Box<dyn Write + 'a>) -> Box<dyn LabelWriter + 'a>,
}

/// The formats, the default first.
pub const FORMATS: &[&Format] = &[&jsonl::FORMAT, &json::FORMAT, &csv::FORMAT];

/// The format of that name.
pub fn format(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|format| format.name == name)
}

/// JSON Lines of `records`, as the files of a run hold them.
pub fn to_json_lines<T: Serialize>(records: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        // Writing to memory fails only for maps with keys that are no strings; records have none.
        if serde_json::to_writer(&mut bytes, record).is_ok() {
            bytes.push(b'\n');
        }
    }
    bytes
}
