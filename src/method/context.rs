//! What a method sees of a run: the network, the images, the place in the run.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::cluster::assigner::FeatureKind;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::augment::{self, Augmentation, ViewKey};
use crate::data::loader::{PixelBatch, batches, equal_lengths};
use crate::data::scratch;
use crate::data::squares::Squares;
use crate::model::network::{Frozen, Network};
use crate::monitor::{Interrupted, Monitor, Phase};
use crate::profile::{Part, Profile};
use crate::random::{Purpose, key};

/// Pixels of one channel in a batch for extraction: see [`extract_size`].
const EXTRACT_PIXELS: usize = 1 << 20;

/// The place in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Images seen: the unit of progress, since labels may change in the middle of an epoch.
    pub images: u64,
    /// Batches done.
    pub batches: u64,
    /// Label steps done.
    pub label_steps: u64,
}

/// How images are shown to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The centre, unchanged.
    Plain,
    /// A random view, as in training.
    Augmented,
}

/// Everything around a method.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub config: &'a Config,
    pub network: &'a Network,
    pub data: &'a Dataset,
    pub position: Position,
    pub monitor: &'a dyn Monitor,
    pub profile: &'a Profile,
}

/// Some images on the device.
#[derive(Debug)]
pub struct Batch {
    pub squares: Squares,
    pub rows: Vec<u32>,
    /// `rows` as `[b] i64` on the device.
    pub index: Tensor,
}

impl Batch {
    /// The images of `batch`, moved to the network's device.
    pub fn new(batch: PixelBatch, network: &Network) -> Self {
        let index: Vec<i64> = batch.rows.iter().map(|&row| i64::from(row)).collect();
        Self {
            squares: batch.squares.on(network.device()),
            index: Tensor::from_slice(&index).to_device(network.device()),
            rows: batch.rows,
        }
    }

    /// The same images in `count` parts, or fewer where a part would be smaller than two images.
    pub fn split(&self, count: usize) -> Vec<Self> {
        let n = self.rows.len();
        let count = count.clamp(1, (n / 2).max(1));
        let part = |at: usize| {
            let (start, end) = (at * n / count, (at + 1) * n / count);
            let length = end - start;
            Self {
                squares: self.squares.narrow(start, length),
                rows: self.rows[start..end].to_vec(),
                index: self.index.narrow(0, start as i64, length as i64),
            }
        };
        (0..count).map(part).collect()
    }
}

impl Context<'_> {
    /// Epochs done, with fractions.
    pub fn epoch(&self) -> f64 {
        self.position.images as f64 / self.data.len().max(1) as f64
    }

    /// The seed of this run for `purpose` at this label step.
    pub fn step_seed(&self, purpose: Purpose) -> u64 {
        key(
            self.config.train.seed,
            purpose,
            self.position.label_steps,
            0,
        )
    }

    /// Random view number `view` of a batch: `[b, 3, size, size] f32` in 0..1. The same (seed,
    /// images seen, image, view) gives the same pixels.
    pub fn view(&self, batch: &Batch, view: u64) -> Tensor {
        let key = ViewKey {
            seed: self.config.train.seed,
            seen: self.position.images,
            view,
        };
        self.augmented(batch, key)
    }

    fn augmented(&self, batch: &Batch, key: ViewKey) -> Tensor {
        let augmentation = Augmentation::of(&self.config.data);
        let apply = || augmentation.apply(&batch.squares, &batch.rows, key);
        self.profile.time(Part::Augment, || tch::no_grad(apply))
    }

    /// A random view for a label step, apart from those that are trained on.
    fn extraction_view(&self, batch: &Batch) -> Tensor {
        let seen = batch.rows.first().map_or(0, |&row| u64::from(row));
        let key = ViewKey {
            seed: self.step_seed(Purpose::Augmentation),
            seen,
            view: 0,
        };
        self.augmented(batch, key)
    }

    /// The unchanged centre of a batch's images: `[b, 3, size, size] f32` in 0..1.
    pub fn plain(&self, batch: &Batch) -> Tensor {
        let centre = || augment::centre(&batch.squares, self.config.data.size as i64);
        self.profile.time(Part::Augment, || tch::no_grad(centre))
    }

    /// Features `[n, d] f32` of all images in evaluation mode, on the network's device.
    ///
    /// # Errors
    /// [`Interrupted`] when the user asks to stop.
    pub fn features(&self, kind: FeatureKind, view: View) -> Result<Tensor> {
        self.features_of(kind, view, (0..self.data.len() as u32).collect())
    }

    /// The same of the images `rows` alone, in their order; there is at least one.
    pub fn features_of(&self, kind: FeatureKind, view: View, rows: Vec<u32>) -> Result<Tensor> {
        let n = rows.len();
        let shape = [n as i64, self.network.dim()];
        let features = scratch::room(shape, self.network.device());
        let mut done = 0;
        self.monitor
            .begin(Phase::Extract, "extracting features", n as u64);
        let size = extract_size(self.config.data.size);
        let frozen = self.network.frozen();
        let device = self.network.device();
        let mut served = batches(&self.data.pixels, rows, equal_lengths(n, size), device);
        while let Some(batch) = self.profile.time(Part::Wait, || served.next()) {
            if self.monitor.stopping() {
                self.monitor.end();
                return Err(Interrupted.into());
            }
            let batch = batch?;
            let batch = self
                .profile
                .time(Part::Copy, || Batch::new(batch, self.network));
            let count = batch.rows.len();
            let images = match view {
                View::Plain => self.plain(&batch),
                View::Augmented => self.extraction_view(&batch),
            };
            let extract = || extract(&frozen, &images, size, kind);
            let extracted = self.profile.time(Part::Extract, extract);
            features.narrow(0, done, count as i64).copy_(&extracted);
            done += count as i64;
            self.monitor.advance(count as u64);
        }
        self.monitor.end();
        Ok(features)
    }
}

/// Images in a batch for extraction at an input of `size` pixels.
pub fn extract_size(size: usize) -> usize {
    (EXTRACT_PIXELS / (size * size)).clamp(16, 512)
}

/// Features `[b, d] f32` of images `[b, 3, s, s]` in 0..1. The batch is filled up to `size` images, so
/// that an image's features do not depend on how many come with it: libtorch may choose another
/// kernel for another shape, and labels must be the same in `train` and `assign`.
pub fn extract(network: &Frozen, images: &Tensor, size: usize, kind: FeatureKind) -> Tensor {
    let count = images.size()[0];
    let missing = (size as i64 - count).max(0);
    let filled = images.constant_pad_nd([0, 0, 0, 0, 0, 0, 0, missing]);
    let features = match kind {
        FeatureKind::Hidden => network.hidden(&filled),
        FeatureKind::Activation => network.activation(&filled),
    };
    features.narrow(0, 0, count).copy()
}
