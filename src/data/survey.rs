//! What lies in a set of images, told from the files without decoding them.

use std::collections::{BTreeMap, HashMap};

use image::guess_format;
use rayon::prelude::*;

use super::decode;
use super::source::ImageSet;
use crate::monitor::{Interrupted, Monitor, Phase};

/// Files looked at between two looks at Ctrl-C and the progress bar.
const GROUP: usize = 256;

/// Formats, sizes and copies.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files of each format, by content.
    pub formats: BTreeMap<String, usize>,
    /// Widths and heights in pixels as they will be shown, each sorted.
    pub widths: Vec<u32>,
    pub heights: Vec<u32>,
    /// Of all files, in bytes.
    pub bytes: u64,
    /// Rows of files with the same bytes, two or more in each group.
    pub copies: Vec<Vec<usize>>,
}

/// What one file tells.
struct Look {
    format: Option<String>,
    size: Option<(u32, u32)>,
    bytes: u64,
    digest: blake3::Hash,
}

/// Looks at the files of `set` that are in `rows`. Those that cannot be opened are left out.
///
/// # Errors
/// [`Interrupted`] when the user asks to stop.
pub fn survey(set: &ImageSet, rows: &[u32], monitor: &dyn Monitor) -> Result<Survey, Interrupted> {
    let mut survey = Survey::default();
    let mut same: HashMap<blake3::Hash, Vec<usize>> = HashMap::new();
    monitor.begin(Phase::Read, "looking at files", rows.len() as u64);
    for group in rows.chunks(GROUP) {
        if monitor.stopping() {
            monitor.end();
            return Err(Interrupted);
        }
        let looks: Vec<Option<Look>> = group
            .par_iter()
            .map(|&row| look(set, row as usize))
            .collect();
        for (&row, look) in group.iter().zip(looks) {
            let Some(look) = look else { continue };
            survey.bytes += look.bytes;
            same.entry(look.digest).or_default().push(row as usize);
            if let Some(format) = look.format {
                *survey.formats.entry(format).or_default() += 1;
            }
            if let Some((width, height)) = look.size {
                survey.widths.push(width);
                survey.heights.push(height);
            }
        }
        monitor.advance(group.len() as u64);
    }
    monitor.end();
    survey.widths.sort_unstable();
    survey.heights.sort_unstable();
    survey.copies = same.into_values().filter(|rows| rows.len() > 1).collect();
    survey.copies.sort();
    Ok(survey)
}

fn look(set: &ImageSet, row: usize) -> Option<Look> {
    let bytes = set.bytes(row).ok()?;
    let format = guess_format(&bytes).ok();
    Some(Look {
        format: format.map(|format| format!("{format:?}").to_lowercase()),
        size: decode::dimensions(&bytes).ok(),
        bytes: bytes.len() as u64,
        digest: blake3::hash(&bytes),
    })
}
