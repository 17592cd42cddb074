//! Rotation: predict by which multiple of 90 degrees an image was turned.
//!
//! Gidaris, Singh, Komodakis: Unsupervised Representation Learning by Predicting Image Rotations,
//! ICLR 2018, <https://arxiv.org/abs/1803.07728>. Images are turned by transposing and mirroring,
//! never by resampling, whose traces would give the answer away. Labels for users come from k-means
//! on the finished features.

use anyhow::Result;
use tch::{Kind, Tensor, nn};

use super::{Batch, Build, Context, Loss, Method, MethodEntry, Module, Panel, Tile, as_they_are};
use crate::config::{DataSettings, Schedule, Settings, TrainSettings};
use crate::model::{LinearHead, store_on};
use crate::tensors::correct;

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "rotation",
    help: "predicts how an image was turned (0, 90, 180 or 270 degrees); labels by k-means at the end",
    paper: "Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018, https://arxiv.org/abs/1803.07728",
    first: |_| None,
    preset: |_| Settings {
        data: DataSettings {
            crop_scale: Some([0.8, 1.0]),
            ..DataSettings::default()
        },
        train: TrainSettings {
            lr: Some(0.1),
            weight_decay: Some(5e-4),
            schedule: Some(Schedule::Steps),
            ..TrainSettings::default()
        },
        ..Settings::default()
    },
    items: as_they_are,
    options: &[],
    defaults: toml::Table::new,
    resolve: |_, _| Ok(Vec::new()),
    build: |build| Ok(Box::new(Rotation::new(build))),
    pretext: true,
};

const ROTATIONS: i64 = 4;

struct Rotation {
    store: nn::VarStore,
    head: LinearHead,
}

impl Rotation {
    fn new(build: &Build) -> Self {
        let (store, head) = store_on(build.network.device(), |root| {
            LinearHead::new(root, build.network.dim(), ROTATIONS)
        });
        Self { store, head }
    }

    /// Scores `[4 b, 4]` of all turns of images `[b, 3, s, s]`, and the right answers `[4 b]`.
    fn predict(&self, context: &Context, images: &Tensor, train: bool) -> (Tensor, Tensor) {
        let turned: Vec<Tensor> = (0..ROTATIONS)
            .map(|turn| images.rot90(turn, [2, 3]))
            .collect();
        let input = context.network.prepare(&Tensor::cat(&turned, 0));
        let logits = self
            .head
            .forward(&context.network.activation(&input, train));
        let targets = Tensor::arange(ROTATIONS, (Kind::Int64, images.device()))
            .repeat_interleave_self_int(images.size()[0], None, None);
        (logits, targets)
    }
}

impl Method for Rotation {
    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let (logits, targets) = self.predict(context, &context.view(batch, 0), true);
        Ok(Loss {
            correct: Some((correct(&logits, &targets), targets.size()[0])),
            ..Loss::of(logits.cross_entropy_for_logits(&targets))
        })
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module::new("head", &self.store)]
    }

    fn pretext_accuracy(&self, context: &Context, batch: &Batch) -> Option<(i64, i64)> {
        tch::no_grad(|| {
            let (logits, targets) = self.predict(context, &context.plain(batch), false);
            let right = correct(&logits, &targets).int64_value(&[]);
            Some((right, targets.size()[0]))
        })
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let images = context.plain(batch);
        let (logits, _) = self.predict(context, &images, false);
        let count = images.size()[0];
        let predicted = logits.argmax(1, false).view([ROTATIONS, count]);
        let panel = |at| {
            let tile = |turn| {
                let turned = images.get(at).rot90(turn, [1, 2]);
                let answer = predicted.int64_value(&[turn, at]);
                let caption = format!("{} degrees, predicted {}", 90 * turn, 90 * answer);
                Tile::new(&turned, caption).answered(answer == turn)
            };
            Panel((0..ROTATIONS).map(tile).collect())
        };
        Ok((0..count).map(panel).collect())
    }
}
