//! A pass of all images through the network as it is, for the features of a label step; the first one
//! while the images are still being decoded.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Tensor};

use super::room::room;
use super::{Batch, Position, View};
use crate::cluster::assigner::FeatureKind;
use crate::config::{Config, PlainView};
use crate::data::augment::{self, ViewKey};
use crate::data::cache::Pixels;
use crate::data::image_batch::ImageBatch;
use crate::data::loader::{PixelBatch, equal_lengths};
use crate::device::within_memory;
use crate::model::network::{InferenceNetwork, Network};
use crate::profile::{Part, Profile};
use crate::random::{Purpose, key};

/// Pixels of one channel in a batch for extraction, and images in it at most: see [`extract_size`]. A
/// device is only busy with more of them: ResNet-50 at 224 px gets through three times as many images a
/// second in batches of 256 as in batches of 20 on an H100.
const ON_CPU: (usize, usize) = (1 << 20, 512);
const ON_DEVICE: (usize, usize) = (256 * 224 * 224, 2_048);

/// Which features of which view of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureRequest {
    pub kind: FeatureKind,
    pub view: View,
}

/// A pass through the network.
#[derive(Debug)]
pub struct Extraction<'a> {
    config: &'a Config,
    network: &'a Network,
    profile: &'a Profile,
    wanted: FeatureRequest,
    /// Of random views: apart from those that are trained on.
    seed: u64,
    inference: InferenceNetwork,
}

impl<'a> Extraction<'a> {
    /// A pass at this place of a run, through `network` as it is now.
    pub fn new(
        config: &'a Config,
        network: &'a Network,
        profile: &'a Profile,
        position: Position,
        wanted: FeatureRequest,
    ) -> Self {
        let purpose = Purpose::Augmentation;
        Self {
            config,
            network,
            profile,
            wanted,
            seed: key(config.train.seed, purpose, position.label_steps, 0),
            inference: network.for_inference(),
        }
    }

    /// Images of a batch.
    pub fn size(&self) -> usize {
        extract_size(self.config.data.size, self.network.device())
    }

    /// Room for the features of `n` images.
    pub fn room(&self, n: usize) -> Features {
        let shape = [n as i64, self.network.features_dim()];
        Features {
            rows: room(shape, self.network.device()),
            count: 0,
        }
    }

    /// Puts the features of a batch behind the others; returns how many images there were.
    pub fn append(&self, batch: PixelBatch, features: &mut Features) -> usize {
        let batch = self
            .profile
            .time(Part::Copy, || Batch::new(batch, self.network));
        let images = match self.wanted.view {
            View::Plain => batch.plain(self.config, self.profile),
            View::Augmented => {
                let seen = batch.indices.first().map_or(0, |&row| u64::from(row));
                let key = ViewKey {
                    seed: self.seed,
                    seen,
                    view: 0,
                };
                batch.augmented(self.config, self.profile, key)
            }
        };
        let seen = || Seen::of(self.network, images, &batch.images);
        let seen = self.profile.time(Part::Augment, seen);
        let extract = || extract(&self.inference, &seen, self.size(), self.wanted.kind);
        let extracted = self.profile.time(Part::Extract, extract);
        let count = batch.indices.len();
        let mut place = features.rows.narrow(0, features.count as i64, count as i64);
        place.copy_(&extracted);
        features.count += count;
        count
    }
}

/// Features of the images that a pass has come to.
#[derive(Debug)]
pub struct Features {
    /// `[n, d] f32`
    rows: Tensor,
    count: usize,
}

impl Features {
    /// Those that are there.
    pub fn all(&self) -> Tensor {
        self.rows.narrow(0, 0, self.count as i64)
    }
}

/// The first pass, made while images are decoded.
#[derive(Debug)]
pub struct FeaturePrefetch<'a> {
    extraction: Extraction<'a>,
    features: Features,
}

impl<'a> FeaturePrefetch<'a> {
    /// A pass over up to `images` images at the beginning of a run.
    pub fn new(
        config: &'a Config,
        network: &'a Network,
        profile: &'a Profile,
        images: usize,
        wanted: FeatureRequest,
    ) -> Self {
        let extraction = Extraction::new(config, network, profile, Position::default(), wanted);
        Self {
            features: extraction.room(images),
            extraction,
        }
    }

    /// Takes the next images, whose numbers are `rows`.
    pub fn see(&mut self, pixels: Pixels, rows: Range<u32>) {
        let pixels = Arc::new(pixels);
        let device = self.extraction.network.device();
        let mut first = 0;
        for length in equal_lengths(rows.len(), self.extraction.size()) {
            let places: Vec<u32> = (first..first + length as u32).collect();
            first += length as u32;
            // What cannot be had now leaves a gap, for which the pass is made again, and says why it fails.
            let Ok(mut batch) = PixelBatch::new(&pixels, &places, device) else {
                continue;
            };
            batch.indices.iter_mut().for_each(|row| *row += rows.start);
            let append = || self.extraction.append(batch, &mut self.features);
            let _ = within_memory(device, String::new, "", append);
        }
    }

    /// The features, where they are those of all `images`.
    pub fn finish(self, images: usize) -> PrefetchedFeatures {
        let complete = images > 0 && self.features.count == images;
        let features = complete.then(|| (self.extraction.wanted, self.features.all()));
        PrefetchedFeatures(RefCell::new(features))
    }
}

/// Features for the first label step that are there already, or none.
#[derive(Debug, Default)]
pub struct PrefetchedFeatures(RefCell<Option<(FeatureRequest, Tensor)>>);

impl PrefetchedFeatures {
    /// The features, if they are those `wanted` at this place of the run; they are kept no longer.
    pub fn take(&self, position: Position, wanted: FeatureRequest) -> Option<Tensor> {
        let (what, features) = self.0.take()?;
        (position == Position::default() && what == wanted).then_some(features)
    }
}

/// Images in a batch for extraction at an input of `size` pixels on `device`.
pub fn extract_size(size: usize, device: Device) -> usize {
    let (pixels, most) = match device {
        Device::Cpu => ON_CPU,
        _ => ON_DEVICE,
    };
    (pixels / (size * size)).clamp(16, most)
}

/// What a network sees of some images, in 0..1.
#[derive(Debug)]
pub struct Seen {
    /// `[b, 3, s, s] f32`
    pub images: Tensor,
    /// As what stands beside it sees them.
    pub beside: Option<Tensor>,
}

impl Seen {
    /// Unchanged images.
    pub fn plain(network: &Network, kept: &ImageBatch, size: usize, view: PlainView) -> Self {
        Self::of(network, augment::plain(kept, size as i64, view), kept)
    }

    /// `images` as the network sees those that are `kept`.
    fn of(network: &Network, images: Tensor, kept: &ImageBatch) -> Self {
        let beside = network.beside.as_ref();
        Self {
            images,
            beside: beside.map(|beside| augment::reduced(kept, beside.size)),
        }
    }
}

/// Features `[b, d] f32` of images. The batch is filled up to `size` images, so
/// that an image's features do not depend on how many come with it: libtorch may choose another
/// kernel for another shape, and labels must be the same in `train` and `assign`.
pub fn extract(network: &InferenceNetwork, seen: &Seen, size: usize, kind: FeatureKind) -> Tensor {
    let count = seen.images.size()[0];
    let missing = (size as i64 - count).max(0);
    let filled = |images: &Tensor| match missing {
        0 => images.shallow_clone(),
        _ => images.constant_pad_nd([0, 0, 0, 0, 0, 0, 0, missing]),
    };
    let images = filled(&seen.images);
    let features = match kind {
        FeatureKind::Hidden => network.features(&images, seen.beside.as_ref().map(filled).as_ref()),
        FeatureKind::Activation => network.activation(&images),
    };
    features.narrow(0, 0, count).copy()
}
