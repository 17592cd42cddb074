//! Colorization: predict the colours of a grey image.
//!
//! Zhang, Isola, Efros: Colorful Image Colorization, ECCV 2016, <https://arxiv.org/abs/1603.08511>, in the
//! lecture's simple form: the input is the mean of the channels, the answer a and b of CIE Lab by
//! regression. The network never sees a colour, so features are taken of grey images as well
//! (`data.grey`).

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{
    Batch, Build, Context, Flag, Loss, Method, MethodEntry, Module, ModuleTraining, Panel, Rule,
    Tile, as_they_are, method_options, option_table, parse_options,
};
use crate::config::defaults::Choice;
use crate::config::{Config, DataSettings, Settings, TrainSettings};
use crate::model::decoder::Decoder;
use crate::model::lab::{lab_to_rgb, rgb_to_lab};
use crate::model::store_on;

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "colorization",
    help: "predicts the colours of images from their grey; labels by k-means at the end",
    paper: "Zhang et al., Colorful Image Colorization, ECCV 2016, https://arxiv.org/abs/1603.08511",
    preset: |_| Settings {
        data: DataSettings {
            grey: Some(true),
            ..DataSettings::default()
        },
        train: TrainSettings {
            lr: Some(LR),
            ..TrainSettings::default()
        },
        ..Settings::default()
    },
    first: |_| None,
    items: as_they_are,
    options: OPTIONS,
    defaults: option_table::<Options>,
    resolve,
    build: |build| Ok(Box::new(Colorization::new(build)?)),
    pretext: false,
};

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    /// The squared distance in the plane of a and b.
    Regression,
}

method_options! {
    /// what is predicted: regression (the two colour axes of CIE Lab)
    target: Target = Target::Regression, Flag::None;
}

fn resolve(config: &Config, table: &mut toml::Table) -> Result<Vec<Choice>> {
    parse_options::<Options>(table)?;
    if !config.data.grey {
        bail!(crate::error::usage(
            "colorization needs a network that sees no colours: set grey = true in [data] of --config"
        ));
    }
    Ok(Vec::new())
}

/// The answer has a quarter of the input's side, as in the paper.
const SHRINK: i64 = 4;
/// a and b are divided by this, so that they lie in about -1..1.
const RANGE: f64 = 110.0;
const ADAM: Rule = Rule::AdamW { betas: [0.9, 0.99] };
/// Images that are looked at for colours, and how far the channels of grey ones may lie apart, in levels.
const LOOKED_AT: usize = 256;
const GREY: i64 = 8;
/// What AdamW learns at.
const LR: f64 = 1e-3;

struct Colorization {
    store: nn::VarStore,
    decoder: Decoder,
    training: ModuleTraining,
}

impl Colorization {
    fn new(build: &Build) -> Result<Self> {
        let (store, decoder) = store_on(build.network.device(), |root| {
            Decoder::new(root, build.network.backbone.channels(), 2)
        });
        // As a task beside others it keeps to its own rate: the run's is made for SGD.
        let train = &build.config.train;
        let training = ModuleTraining {
            rule: Some(ADAM),
            lr: (train.method != ENTRY.name).then_some(LR / train.lr),
            ..ModuleTraining::default()
        };
        Ok(Self {
            store,
            decoder,
            training,
        })
    }

    /// Predicted and true colours `[b, 2, s / 4, s / 4]` of images `[b, 3, s, s]` in 0..1, in [`RANGE`]s.
    fn predict(&self, context: &Context, images: &Tensor, train: bool) -> (Tensor, Tensor) {
        let side = (images.size()[2] / SHRINK).max(1);
        let small = images.contiguous().adaptive_avg_pool2d([side; 2]);
        let truth = rgb_to_lab(&small).narrow(1, 1, 2) / RANGE;
        let input = context.network.prepare(images);
        let map = context.network.backbone.maps(&input, train).last;
        (self.decoder.forward(&map, side), truth)
    }
}

/// The mean distance in the plane of a and b, in units of CIE Lab.
fn distance(off: &Tensor) -> Tensor {
    let squared = off.detach().square().sum_dim_intlist(1, false, Kind::Float);
    squared.sqrt().mean(Kind::Float) * RANGE
}

/// The mean squared distance, which regression minimises.
fn square(off: &Tensor) -> Tensor {
    let squared = off.detach().square().sum_dim_intlist(1, false, Kind::Float);
    squared.mean(Kind::Float) * (RANGE * RANGE)
}

impl Method for Colorization {
    fn begin(&mut self, context: &Context) -> Result<()> {
        // Spread over the data set.
        let all = context.data.len();
        let rows: Vec<u32> = (0..all.min(LOOKED_AT))
            .map(|at| (at * all / all.min(LOOKED_AT)) as u32)
            .collect();
        let pixels = context.data.pixels.gather(&rows)?.to_kind(Kind::Int);
        let spread =
            pixels.amax([3_i64].as_slice(), false) - pixels.amin([3_i64].as_slice(), false);
        if spread.max().int64_value(&[]) <= GREY {
            context.monitor.warn(&format!(
                "the {} images that were looked at are grey: they leave colorization nothing to learn",
                rows.len()
            ));
        }
        Ok(())
    }

    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let (predicted, truth) = self.predict(context, &context.view(batch, 0), true);
        let off = &predicted - &truth;
        let metrics = [
            ("ab_error".to_string(), distance(&off)),
            ("ab_error_of_grey".to_string(), distance(&truth)),
            ("ab_square".to_string(), square(&off)),
            ("ab_square_of_grey".to_string(), square(&truth)),
        ];
        Ok(Loss {
            metrics: metrics.into(),
            ..Loss::of(off.square().mean(Kind::Float))
        })
    }

    fn backbone(&self) -> ModuleTraining {
        self.training
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module {
            training: self.training,
            ..Module::new("decoder", &self.store)
        }]
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let images = context.plain(batch).contiguous();
        let (predicted, truth) = self.predict(context, &images, false);
        let size = images.size()[2];
        let colours = predicted.upsample_bilinear2d([size, size], false, None, None) * RANGE;
        let lightness = rgb_to_lab(&images).narrow(1, 0, 1);
        let coloured = lab_to_rgb(&Tensor::cat(&[lightness, colours], 1));
        let grey = images.mean_dim(1, true, Kind::Float).expand_as(&images);
        let panel = |at: i64| {
            let error = |off: Tensor| distance(&off).double_value(&[]);
            let own = error(predicted.narrow(0, at, 1) - truth.narrow(0, at, 1));
            let none = error(truth.narrow(0, at, 1));
            Panel(vec![
                Tile::new(&grey.get(at), format!("grey: error {none:.1}")),
                Tile::new(&coloured.get(at), format!("predicted: error {own:.1}")),
                Tile::new(&images.get(at), "true colours"),
            ])
        };
        Ok((0..images.size()[0]).map(panel).collect())
    }
}
