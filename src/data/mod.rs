//! Images in: found ([`source`]), decoded ([`decode`]), kept at the working size ([`cache`]), served
//! in batches ([`loader`]) in the order that a sampler decides ([`sampler`]), and varied on the
//! device ([`augment`]).

pub mod augment;
pub mod cache;
pub mod decode;
pub mod image_batch;
pub mod loader;
pub mod sampler;
pub mod source;
pub mod survey;

use std::path::PathBuf;
use std::sync::Arc;

use crate::monitor::{Interrupted, Monitor, Phase};
use cache::{Cache, Pixels, Read, Watch};
use source::{ImageSet, Skipped};

/// Images at the working size, with their names and, where folders tell, their classes.
#[derive(Debug)]
pub struct Dataset {
    set: Arc<ImageSet>,
    /// Rows of the set that could be read.
    kept: Vec<u32>,
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
        "cannot keep the decoded images in '{}': {error} (set SSL_CLUSTER_CACHE to a directory on a \
         larger disk, or use `--cache off`)",
        path.display()
    )]
    Cache {
        path: PathBuf,
        error: std::io::Error,
    },
}

impl Dataset {
    /// Decodes every image of `set` to squares of `side` pixels, or finds them decoded. What cannot be
    /// read is left out and listed in `skipped`. What is decoded is shown to `watch`, while decoding goes
    /// on.
    pub fn load(
        set: ImageSet,
        side: usize,
        cache: &Cache,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Self, DataError> {
        let set = Arc::new(set);
        monitor.begin(Phase::Read, "reading images", set.files.len() as u64);
        let read = Pixels::open(&set, side, cache, watch, monitor);
        monitor.end();
        let Read {
            pixels,
            kept,
            skipped: mut unreadable,
            lasting: _,
        } = read?;
        let mut skipped = set.skipped.clone();
        skipped.append(&mut unreadable);
        let classes = kept.iter().map(|&row| set.files[row as usize].class);
        let class_of = classes.collect();
        Ok(Self {
            set,
            kept,
            class_of,
            pixels: Arc::new(pixels),
            skipped,
        })
    }

    /// What it was read from.
    pub fn set(&self) -> &ImageSet {
        &self.set
    }

    /// The rows of [`Self::set`] that the images are.
    pub fn kept(&self) -> &[u32] {
        &self.kept
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Path of an image relative to the data root.
    pub fn name(&self, image: usize) -> &str {
        &self.set.files[self.kept[image] as usize].name
    }

    /// The paths of all images.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|image| self.name(image))
    }

    /// Names of the classes; empty where the folders tell none.
    pub fn classes(&self) -> &[String] {
        &self.set.classes
    }
}
