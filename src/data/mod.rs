//! Images in: found ([`source`]), decoded ([`decode`]), kept at the working size ([`cache`]), served
//! in batches ([`loader`]) in the order that a sampler decides ([`sampler`]), and varied on the
//! device ([`augment`]).

pub mod augment;
pub mod cache;
pub mod decode;
mod jpeg;
pub mod loader;
pub mod resize;
pub mod sampler;
pub mod source;

use std::sync::Arc;

use crate::monitor::{Interrupted, Monitor, Phase};
use cache::Pixels;
use source::{ImageSet, Skipped};

/// Images at the working size, with their names and, where folders tell, their classes.
#[derive(Debug)]
pub struct Dataset {
    /// Path of each image relative to the data root.
    pub names: Vec<String>,
    /// Class names, empty where the folders tell none.
    pub classes: Vec<String>,
    /// For each image the index of its class; `None` where the folders tell none.
    pub class_of: Option<Vec<u32>>,
    pub pixels: Arc<Pixels>,
    /// Inputs that could not be read.
    pub skipped: Vec<Skipped>,
}

/// Why images could not be brought in as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    #[error(
        "cannot keep the decoded images in a temporary file: {0} (set TMPDIR to a larger disk)"
    )]
    Spill(#[from] std::io::Error),
}

impl Dataset {
    /// Decodes every image of `set` to squares of `side` pixels. What cannot be read is left out
    /// and listed in `skipped`.
    pub fn load(set: ImageSet, side: usize, monitor: &dyn Monitor) -> Result<Self, DataError> {
        monitor.begin(Phase::Read, "reading images", set.files.len() as u64);
        let read = Pixels::read(&set, side, monitor);
        monitor.end();
        let (pixels, kept, mut unreadable) = read?;
        let mut skipped = set.skipped;
        skipped.append(&mut unreadable);
        let class_of = (!set.classes.is_empty())
            .then(|| {
                kept.iter()
                    .map(|&row| set.files[row].class)
                    .collect::<Option<Vec<u32>>>()
            })
            .flatten();
        Ok(Self {
            names: kept
                .iter()
                .map(|&row| set.files[row].name.clone())
                .collect(),
            classes: if class_of.is_some() {
                set.classes
            } else {
                Vec::new()
            },
            class_of,
            pixels: Arc::new(pixels),
            skipped,
        })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
