//! Images in: found ([`source`]), decoded ([`decode`]), kept at the working size ([`cache`]), served
//! in batches ([`loader`]) in the order that a sampler decides ([`sampler`]), and varied on the
//! device ([`augment`]).

pub mod augment;
pub mod cache;
pub mod decode;
pub mod image_batch;
pub mod items;
pub mod loader;
pub mod sampler;
pub mod source;
pub mod spread;
pub mod survey;

use std::path::PathBuf;
use std::sync::Arc;

use crate::monitor::{Interrupted, Monitor, Phase};
use cache::{Cache, Pixels, Read, Watch};
use items::Items;
use source::Skipped;

/// Items at the working size, with their names and, where folders tell, their classes.
#[derive(Debug)]
pub struct Dataset {
    items: Arc<dyn Items>,
    /// Those of them that could be read.
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
    /// Decodes all `items` to squares of `side` pixels, or finds them decoded. What cannot be
    /// read is left out and listed in `skipped`. What is decoded is shown to `watch`, while decoding goes
    /// on.
    pub fn load(
        items: Arc<dyn Items>,
        side: usize,
        cache: &Cache,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Self, DataError> {
        monitor.begin(Phase::Read, "reading images", items.len() as u64);
        let read = Pixels::open(&items, side, cache, watch, monitor);
        monitor.end();
        let Read {
            pixels,
            kept,
            skipped: mut unreadable,
            lasting: _,
        } = read?;
        let mut skipped = items.skipped().to_vec();
        skipped.append(&mut unreadable);
        let classes = kept.iter().map(|&row| items.class(row as usize));
        let class_of = classes.collect();
        Ok(Self {
            items,
            kept,
            class_of,
            pixels: Arc::new(pixels),
            skipped,
        })
    }

    /// Which of the items that it was read from the images are.
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
        self.items.name(self.kept[image] as usize)
    }

    /// What an image belongs to: see [`Items::group`].
    pub fn group(&self, image: usize) -> u32 {
        self.items.group(self.kept[image] as usize)
    }

    /// The paths of all images.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|image| self.name(image))
    }

    /// Names of the classes; empty where the folders tell none.
    pub fn classes(&self) -> &[String] {
        self.items.classes()
    }
}
