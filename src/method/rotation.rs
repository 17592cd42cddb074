//! Rotation: predict by which multiple of 90 degrees an image was turned.
//!
//! Gidaris, Singh, Komodakis: Unsupervised Representation Learning by Predicting Image Rotations,
//! ICLR 2018, <https://arxiv.org/abs/1803.07728>. Images are turned by transposing and mirroring,
//! never by resampling, whose traces would give the answer away. Labels for users come from k-means
//! on the finished features.

use anyhow::Result;
use tch::{Kind, Tensor, nn};

use super::{
    Batch, Build, Context, LabelStep, Labelling, Loss, Method, MethodEntry, Module, State,
    label_by_clusters,
};
use crate::cluster::Empty;
use crate::config::{DataSettings, Schedule, Settings, TrainSettings};
use crate::model::{LinearHead, store_on};

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
    options: toml::Table::new,
    option_help: &[],
    resolve: |_| Ok(Vec::new()),
    build: |build| Ok(Box::new(Rotation::new(build))),
    pretext: true,
};

const TURNS: i64 = 4;

struct Rotation {
    store: nn::VarStore,
    head: LinearHead,
}

impl Rotation {
    fn new(build: &Build) -> Self {
        let (store, head) = store_on(build.network.device(), |root| {
            LinearHead::new(root, build.network.dim(), TURNS)
        });
        Self { store, head }
    }

    /// Scores `[4 b, 4]` of all turns of images `[b, 3, s, s]`, and the right answers `[4 b]`.
    fn predict(&self, context: &Context, images: &Tensor, train: bool) -> (Tensor, Tensor) {
        let turned: Vec<Tensor> = (0..TURNS).map(|turn| images.rot90(turn, [2, 3])).collect();
        let input = context.network.prepare(&Tensor::cat(&turned, 0));
        let logits = self
            .head
            .forward(&context.network.activation(&input, train));
        let targets = Tensor::arange(TURNS, (Kind::Int64, images.device()))
            .repeat_interleave_self_int(images.size()[0], None, None);
        (logits, targets)
    }
}

impl Method for Rotation {
    fn next_label_step(&self) -> Option<u64> {
        None
    }

    fn label_step(&mut self, _context: &Context) -> Result<LabelStep> {
        anyhow::bail!("rotation has no label step")
    }

    fn loss(&mut self, context: &Context, batch: &Batch, _phase: usize) -> Result<Loss> {
        let (logits, targets) = self.predict(context, &context.view(batch, 0), true);
        let correct = logits.argmax(1, false).eq_tensor(&targets).sum(Kind::Int64);
        Ok(Loss {
            value: logits.cross_entropy_for_logits(&targets),
            trains: &[],
            correct: Some((correct, targets.size()[0])),
        })
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module {
            name: "head",
            store: &self.store,
            momentum: None,
        }]
    }

    fn last_labels(&mut self, context: &Context) -> Result<Labelling> {
        label_by_clusters(context, Empty::default())
    }

    fn pretext_accuracy(&self, context: &Context, batch: &Batch) -> Option<(i64, i64)> {
        tch::no_grad(|| {
            let (logits, targets) = self.predict(context, &context.plain(batch), false);
            let correct = logits.argmax(1, false).eq_tensor(&targets).sum(Kind::Int64);
            Some((correct.int64_value(&[]), targets.size()[0]))
        })
    }

    fn state(&self) -> State {
        State::default()
    }

    fn restore(&mut self, _state: State) -> Result<()> {
        Ok(())
    }
}
