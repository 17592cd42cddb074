//! What a method sees of a run: the network, the images, the place in the run.

use std::sync::Arc;

use anyhow::Result;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::extraction::{Extraction, FeatureRequest, PrefetchedFeatures};
use crate::cluster::assigner::FeatureKind;
use crate::comm::{Comm, OneProcess};
use crate::config::{Config, DataConfig};
use crate::data::Dataset;
use crate::data::augment::{self, Augmentation, Recipe, ViewKey};
use crate::data::cache::Pixels;
use crate::data::image_batch::ImageBatch;
use crate::data::loader::{PixelBatch, batches, equal_lengths};
use crate::device::{send, within_memory};
use crate::model::network::Network;
use crate::monitor::{Interrupted, Monitor, Phase};
use crate::profile::{Part, Profile};
use crate::random::{Purpose, key, stream};
use crate::tensors::from_labels;

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
    pub prefetched: &'a PrefetchedFeatures,
    /// The processes that the data set is divided among.
    pub comm: &'static dyn Comm,
}

/// What stands around a method that is looked at outside of a training: nothing is measured, nothing is
/// extracted ahead, and there is one process.
#[derive(Debug)]
pub struct Aside {
    profile: Profile,
    prefetched: PrefetchedFeatures,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            profile: Profile::off(),
            prefetched: PrefetchedFeatures::default(),
        }
    }
}

impl Aside {
    /// The context of a method at the beginning of a run.
    pub fn context<'a>(
        &'a self,
        config: &'a Config,
        network: &'a Network,
        data: &'a Dataset,
        monitor: &'a dyn Monitor,
    ) -> Context<'a> {
        Context {
            config,
            network,
            data,
            position: Position::default(),
            monitor,
            profile: &self.profile,
            prefetched: &self.prefetched,
            comm: &OneProcess,
        }
    }
}

/// Some images on the device.
#[derive(Debug)]
pub struct Batch {
    pub images: ImageBatch,
    /// Which images of the data set they are.
    pub indices: Vec<u32>,
    /// `indices` as `[b] i64` on the device.
    pub index: Tensor,
    /// Where their other planes are, and in which rows.
    pixels: Arc<Pixels>,
    rows: Vec<u32>,
}

impl Batch {
    /// The images of `batch`, moved to the network's device.
    pub fn new(batch: PixelBatch, network: &Network) -> Self {
        let index: Vec<i64> = batch.indices.iter().map(|&row| i64::from(row)).collect();
        Self {
            images: batch.images.on(network.device()),
            index: send(&index, network.device()),
            indices: batch.indices,
            pixels: batch.pixels,
            rows: batch.rows,
        }
    }

    /// The same images under other numbers: those that they have in a run.
    pub fn numbered(self, indices: Vec<u32>) -> Self {
        Self {
            index: from_labels(&indices).to_device(self.index.device()),
            indices,
            ..self
        }
    }

    /// Random views `[b, 3, size, size] f32` in 0..1.
    pub(super) fn augmented(&self, config: &Config, profile: &Profile, key: ViewKey) -> Tensor {
        let augmentation = Augmentation::of(&config.data);
        let apply = || augmentation.apply(&self.images, &self.indices, key);
        profile.time(Part::Augment, || tch::no_grad(apply))
    }

    /// The unchanged images `[b, 3, size, size] f32` in 0..1, as features are taken of them.
    pub(super) fn plain(&self, config: &Config, profile: &Profile) -> Tensor {
        let DataConfig { size, plain, .. } = config.data;
        let make = || augment::plain(&self.images, size as i64, plain);
        profile.time(Part::Augment, || tch::no_grad(make))
    }

    /// The same images in `count` parts, or fewer where a part would be smaller than two images.
    pub fn split(&self, count: usize) -> Vec<Self> {
        let n = self.indices.len();
        let count = count.clamp(1, (n / 2).max(1));
        let part = |at: usize| {
            let (start, end) = (at * n / count, (at + 1) * n / count);
            let length = end - start;
            Self {
                images: self.images.narrow(start, length),
                indices: self.indices[start..end].to_vec(),
                index: self.index.narrow(0, start as i64, length as i64),
                pixels: Arc::clone(&self.pixels),
                rows: self.rows[start..end].to_vec(),
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

    /// For each image of a batch the generator of its view of that number: a function of the seed, the images
    /// seen so far, the image and the view.
    pub fn generators(&self, batch: &Batch, view: u64) -> Vec<Xoshiro256PlusPlus> {
        let seed = self.config.train.seed;
        let images = batch.indices.iter().zip(self.position.images..);
        images
            .map(|(&image, seen)| {
                let image = (view << 32) | u64::from(image);
                stream(seed, Purpose::Augmentation, seen, image)
            })
            .collect()
    }

    /// Views by recipes of the method's own: m for each image, those of an image one after the other;
    /// `[b · m, 3, size, size] f32` in 0..1.
    pub fn render(&self, batch: &Batch, recipes: &[Recipe], size: usize) -> Tensor {
        let make = || augment::cook(&batch.images, recipes, size as i64).contiguous();
        self.profile.time(Part::Augment, || tch::no_grad(make))
    }

    /// The same views of another plane of the items (depth, the next frame): `[b · m, c, size, size] f32` in
    /// 0..1. Crop, angle and mirror are those of the recipes; colours do not concern it.
    ///
    /// # Errors
    /// An item that cannot be read any more.
    ///
    /// # Panics
    /// If the items have no plane of that number.
    pub fn render_plane(
        &self,
        batch: &Batch,
        plane: usize,
        recipes: &[Recipe],
        size: usize,
    ) -> Result<Tensor> {
        let make = || -> Result<Tensor> {
            let there = batch.pixels.plane(plane, &batch.rows)?;
            let there = there.to_device(self.network.device());
            let discrete = batch.pixels.is_discrete(plane);
            Ok(augment::crops(&there, recipes, size as i64, discrete))
        };
        self.profile.time(Part::Augment, || tch::no_grad(make))
    }

    fn augmented(&self, batch: &Batch, key: ViewKey) -> Tensor {
        batch.augmented(self.config, self.profile, key)
    }

    /// The unchanged images of a batch, as features are taken of them: `[b, 3, size, size] f32` in 0..1.
    pub fn plain(&self, batch: &Batch) -> Tensor {
        batch.plain(self.config, self.profile)
    }

    /// Features `[n, d] f32` of all images in evaluation mode, on the network's device.
    ///
    /// # Errors
    /// [`Interrupted`] when the user asks to stop.
    pub fn features(&self, kind: FeatureKind, view: View) -> Result<Tensor> {
        if let Some(features) = self
            .prefetched
            .take(self.position, FeatureRequest { kind, view })
        {
            return Ok(features);
        }
        self.features_of(kind, view, (0..self.data.len() as u32).collect())
    }

    /// The same of the images `rows` alone, in their order; there is at least one.
    pub fn features_of(&self, kind: FeatureKind, view: View, rows: Vec<u32>) -> Result<Tensor> {
        let n = rows.len();
        let extraction = Extraction::new(
            self.config,
            self.network,
            self.profile,
            self.position,
            FeatureRequest { kind, view },
        );
        let mut features = extraction.room(n);
        self.monitor
            .begin(Phase::Extract, "extracting features", n as u64);
        let lengths = equal_lengths(n, extraction.size());
        let mut served = batches(&self.data.pixels, rows, lengths, self.network.device());
        while let Some(batch) = self.profile.time(Part::Wait, || served.next()) {
            if self.monitor.stopping() {
                self.monitor.end();
                return Err(Interrupted.into());
            }
            let batch = batch?;
            let append = || extraction.append(batch, &mut features);
            let doing = || {
                format!(
                    "while features of {} images at a time were extracted (with room for all, {:.1} GB)",
                    extraction.size(),
                    4e-9 * (n as i64 * self.network.features_dim()) as f64
                )
            };
            let cure = "a smaller --size or --arch takes less, and so does --device cpu";
            let count = within_memory(self.network.device(), doing, cure, append)?;
            self.monitor.advance(count as u64);
        }
        self.monitor.end();
        Ok(features.all())
    }
}
