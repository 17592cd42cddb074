//! Context prediction: where does one patch of an image lie from another one?
//!
//! Doersch, Gupta, Efros: Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015,
//! <https://arxiv.org/abs/1505.05192>. The second patch is one of the eight neighbours of the first in a
//! 3x3 grid with gaps; both are jittered, so that no line runs from one to the other, and some are coarse.
//! Lenses shift colours outwards, which tells where in the frame a patch lies without a look at what it
//! shows: hence the `cure`.

use anyhow::{Result, bail};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::{
    Batch, Build, Context, Flag, Loss, Method, MethodEntry, Module, Panel, Tile, as_they_are,
    method_options, option_table, parse_options,
};
use crate::config::defaults::Choice;
use crate::config::{Config, DataSettings, PlainView, Settings};
use crate::data::augment::{Crop, Operation, Recipe};
use crate::device::send;
use crate::model::{TwoLayerHead, store_on};
use crate::tensors::correct;

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "context",
    help: "predicts on which of eight sides of a patch another patch of the image lies; labels by k-means at the end",
    paper: "Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015, https://arxiv.org/abs/1505.05192",
    // A network that knows patches is asked for features of the whole.
    preset: |_| Settings {
        data: DataSettings {
            plain: Some(PlainView::Whole),
            ..DataSettings::default()
        },
        ..Settings::default()
    },
    first: |_| None,
    items: as_they_are,
    options: OPTIONS,
    defaults: option_table::<Options>,
    resolve,
    build: |build| Ok(Box::new(ContextPrediction::new(build)?)),
    pretext: true,
};

/// What keeps a lens's colour fringes from telling the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cure {
    /// Green and magenta are moved towards grey.
    Projection,
    /// Two of the three channels are noise.
    Dropping,
    None,
}

method_options! {
    /// against a lens's colour fringes, which tell the place: projection (of green and magenta to grey),
    /// dropping (of two channels) or none
    cure: Cure = Cure::Projection, Flag::None;
    /// neighbours of each patch that are asked for, of eight (published: 1)
    neighbours: usize = 4, Flag::None;
    /// gap between patches, as a share of their side
    gap: f64 = 0.5, Flag::None;
    /// how far patches are moved at random, as a share of their side (published: 7 of 96 pixels)
    jitter: f64 = 0.073, Flag::None;
    /// share of the patches that are made coarse, down to a tenth of their side
    coarse: f64 = 0.2, Flag::None;
    /// side of a patch for the network, in pixels; 0 leaves the choice to the program
    patch: usize = 0, Flag::None;
    /// width of the head's hidden layer (published: 4096)
    width: usize = 512, Flag::None;
}

impl Options {
    fn parse(table: &toml::Table) -> Result<Self> {
        let options: Self = parse_options(table)?;
        if !(1..=OFFSETS.len()).contains(&options.neighbours) {
            bail!(crate::error::usage("neighbours must lie between 1 and 8"));
        }
        let shares = [options.gap, options.jitter, options.coarse];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            bail!(crate::error::usage(
                "gap, jitter and coarse must lie between 0 and 1"
            ));
        }
        if options.width == 0 {
            bail!(crate::error::usage("width must be at least 1"));
        }
        Ok(options)
    }

    /// The largest side of a patch of which three fit with their gaps and jitter, as a share of the image's.
    fn largest(&self) -> f64 {
        1.0 / (3.0 + 2.0 * self.gap + 2.0 * self.jitter)
    }
}

/// Patches are three sevenths of the input (96 of 224 pixels), and no smaller than what networks see.
const PATCH: (usize, usize) = (3, 7);
const SMALLEST_PATCH: usize = 16;

fn resolve(config: &Config, table: &mut toml::Table) -> Result<Vec<Choice>> {
    let options = Options::parse(table)?;
    let least = SMALLEST_PATCH.min(config.data.size);
    if options.patch > 0 {
        if options.patch < least {
            bail!(crate::error::usage(format!(
                "patches of {} px are too small for a network: at least {least}",
                options.patch
            )));
        }
        return Ok(Vec::new());
    }
    let patch = (config.data.size * PATCH.0).div_ceil(PATCH.1).max(least);
    table.insert("patch".into(), (patch as i64).into());
    Ok(vec![Choice {
        name: "patch",
        value: format!("{patch} px"),
        reason: "what the network sees of each patch".into(),
    }])
}

/// Where the second patch lies: columns to the right, rows down.
const OFFSETS: [(f64, f64); 8] = [
    (-1.0, -1.0),
    (0.0, -1.0),
    (1.0, -1.0),
    (-1.0, 0.0),
    (1.0, 0.0),
    (-1.0, 1.0),
    (0.0, 1.0),
    (1.0, 1.0),
];
const NAMES: [&str; 8] = [
    "upper left",
    "above",
    "upper right",
    "left",
    "right",
    "lower left",
    "below",
    "lower right",
];
/// The smallest patch, of the largest.
const SMALLER: f64 = 0.75;
/// Side to which a coarse patch is averaged, at least, as a share of its own.
const COARSEST: f64 = 0.1;

struct ContextPrediction {
    options: Options,
    store: nn::VarStore,
    head: TwoLayerHead,
}

/// Patches of a batch with what is asked of them.
struct Patches {
    /// `[b · (1 + m), 3, p, p]`: of each image the centre, then its neighbours.
    views: Tensor,
    /// `[b · m] i64`
    targets: Tensor,
}

impl ContextPrediction {
    fn new(build: &Build) -> Result<Self> {
        let options = Options::parse(build.options)?;
        let (store, head) = store_on(build.network.device(), |root| {
            let dim = 2 * build.network.dim();
            TwoLayerHead::new(root, dim, options.width as i64, OFFSETS.len() as i64)
        });
        Ok(Self {
            options,
            store,
            head,
        })
    }

    /// Recipes for a patch and its neighbours in a square of `side` pixels, and where these lie. The centre
    /// lies where all eight fit, so that its place does not tell which of them is asked for.
    fn draw(&self, side: f64, rng: &mut Xoshiro256PlusPlus) -> (Vec<Recipe>, Vec<i64>) {
        let Options { gap, jitter, .. } = self.options;
        let patch = side * self.options.largest() * rng.gen_range(SMALLER..=1.0);
        let step = patch * (1.0 + gap);
        let margin = step + patch * jitter;
        let room = (side - patch - 2.0 * margin).max(0.0);
        let (left, top) = (
            margin + rng.gen_range(0.0..=room),
            margin + rng.gen_range(0.0..=room),
        );
        let mut places: Vec<usize> = (0..OFFSETS.len()).collect();
        places.shuffle(rng);
        places.truncate(self.options.neighbours);
        let mut recipes = vec![self.recipe(left, top, patch, rng)];
        for &place in &places {
            let (across, down) = OFFSETS[place];
            let mut moved = || patch * rng.gen_range(-jitter..=jitter);
            let at = (left + across * step + moved(), top + down * step + moved());
            recipes.push(self.recipe(at.0, at.1, patch, rng));
        }
        (
            recipes,
            places.into_iter().map(|place| place as i64).collect(),
        )
    }

    fn recipe(&self, left: f64, top: f64, patch: f64, rng: &mut Xoshiro256PlusPlus) -> Recipe {
        let size = self.options.patch;
        let mut operations = Vec::new();
        if rng.gen_range(0.0..1.0) < self.options.coarse {
            let least = ((COARSEST * size as f64).round() as usize).max(4).min(size);
            operations.push(Operation::Coarse(rng.gen_range(least..=size)));
        }
        match self.options.cure {
            Cure::Projection => operations.push(Operation::Projection),
            Cure::Dropping => operations.push(Operation::DropColours {
                keep: rng.gen_range(0..3),
                seed: rng.r#gen(),
            }),
            Cure::None => {}
        }
        Recipe {
            crop: Crop::upright(left, top, patch, patch),
            operations,
        }
    }

    /// Patches of all images of a batch. The view number tells those for training from others.
    fn patches(&self, context: &Context, batch: &Batch, view: u64) -> Patches {
        let side = batch.images.side() as f64;
        let (mut recipes, mut targets) = (Vec::new(), Vec::new());
        for mut rng in context.generators(batch, view) {
            let (own, places) = self.draw(side, &mut rng);
            recipes.extend(own);
            targets.extend(places);
        }
        Patches {
            views: context.render(batch, &recipes, self.options.patch),
            targets: send(&targets, context.network.device()),
        }
    }

    /// Scores `[b · m, 8]` of the places of all neighbours.
    fn predict(&self, context: &Context, patches: &Patches, train: bool) -> Tensor {
        let input = context.network.prepare(&patches.views);
        let features = context.network.activation(&input, train);
        let neighbours = self.options.neighbours as i64;
        let features = features.view([-1, 1 + neighbours, features.size()[1]]);
        let (centre, others) = (
            features.narrow(1, 0, 1).expand([-1, neighbours, -1], false),
            features.narrow(1, 1, neighbours),
        );
        let pairs = Tensor::cat(&[centre, others], 2);
        self.head.forward(&pairs.flatten(0, 1))
    }
}

impl Method for ContextPrediction {
    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let patches = self.patches(context, batch, 0);
        let scores = self.predict(context, &patches, true);
        let asked = patches.targets.size()[0];
        Ok(Loss {
            correct: Some((correct(&scores, &patches.targets), asked)),
            ..Loss::of(scores.cross_entropy_for_logits(&patches.targets))
        })
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module::new("head", &self.store)]
    }

    fn pretext_accuracy(&self, context: &Context, batch: &Batch) -> Option<(i64, i64)> {
        tch::no_grad(|| {
            let patches = self.patches(context, batch, 1);
            let scores = self.predict(context, &patches, false);
            let right = correct(&scores, &patches.targets).int64_value(&[]);
            Some((right, patches.targets.size()[0]))
        })
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let patches = self.patches(context, batch, 1);
        let predicted = self.predict(context, &patches, false).argmax(1, false);
        let images = context.plain(batch);
        let neighbours = self.options.neighbours as i64;
        let panel = |image: i64| {
            let first = image * (1 + neighbours);
            let mut tiles = vec![
                Tile::new(&images.get(image), "image"),
                Tile::new(&patches.views.get(first), "from this patch"),
            ];
            for number in 0..neighbours {
                let at = image * neighbours + number;
                let truth = patches.targets.int64_value(&[at]);
                let answer = predicted.int64_value(&[at]);
                let words = format!(
                    "{}; said: {}",
                    NAMES[truth as usize], NAMES[answer as usize]
                );
                let tile = Tile::new(&patches.views.get(first + 1 + number), words);
                tiles.push(tile.answered(truth == answer));
            }
            Panel(tiles)
        };
        Ok((0..images.size()[0]).map(panel).collect())
    }
}
