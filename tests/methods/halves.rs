//! A method with items of its own: the two halves of each image that lie on its diagonal, with a plane that
//! tells which of them an item is, from which the target is taken.

use std::sync::Arc;

use anyhow::Result;
use image::{Rgb, RgbImage};
use ssl_cluster::config::Settings;
use ssl_cluster::data::augment::{Crop, Recipe};
use ssl_cluster::data::decode::DecodeError;
use ssl_cluster::data::items::{Depth, Items, Layout, Plane};
use ssl_cluster::data::source::ImageSet;
use ssl_cluster::method::{Batch, Context, Loss, Method, MethodEntry, Module, Panel, Tile};
use ssl_cluster::model::{LinearHead, store_on};
use ssl_cluster::record::Record;
use ssl_cluster::run_dir::RunDir;
use ssl_cluster::train::Outcome;
use tch::{Kind, Reduction, Tensor, nn};
use tempfile::TempDir;

use crate::harness::{config, dataset, run};

pub const ENTRY: MethodEntry = MethodEntry {
    name: "halves",
    help: "",
    paper: "",
    preset: |_| Settings::default(),
    first: |_| None,
    items: |_, images| Arc::new(Halves::new(images)),
    options: &[],
    defaults: toml::Table::new,
    resolve: |_, _| Ok(Vec::new()),
    build: |build| {
        let (store, head) = store_on(build.network.device(), |root| {
            LinearHead::new(root, build.network.dim(), 1)
        });
        Ok(Box::new(Which { store, head }))
    },
    pretext: false,
};

#[derive(Debug)]
struct Halves {
    images: Arc<ImageSet>,
    names: Vec<String>,
}

const PLANES: &[Plane] = &[
    Plane::RGB,
    Plane {
        name: "which",
        channels: 1,
        depth: Depth::U8,
        discrete: true,
    },
];

impl Halves {
    fn new(images: Arc<ImageSet>) -> Self {
        let halves = (0..2 * images.len()).map(|item| (images.name(item / 2), item % 2));
        let names = halves
            .map(|(name, half)| format!("{name}#{half}"))
            .collect();
        Self { images, names }
    }
}

impl Items for Halves {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn name(&self, item: usize) -> &str {
        &self.names[item]
    }

    fn group(&self, item: usize) -> u32 {
        item as u32 / 2
    }

    fn planes(&self) -> &[Plane] {
        PLANES
    }

    fn read(&self, item: usize, side: usize, out: &mut [u8]) -> Result<(), DecodeError> {
        let mut whole = vec![0; 12 * side * side];
        self.images.read(item / 2, 2 * side, &mut whole)?;
        let layout = Layout::of(self, side);
        let (half, row) = (item % 2, 6 * side);
        let colours = out[layout.range(0)].chunks_exact_mut(3 * side);
        for (y, colours) in colours.enumerate() {
            let from = (half * side + y) * row + half * 3 * side;
            colours.copy_from_slice(&whole[from..from + 3 * side]);
        }
        out[layout.range(1)].fill(255 * half as u8);
        Ok(())
    }

    fn kind(&self) -> &str {
        "halves"
    }

    fn stamp(&self, item: usize) -> Option<String> {
        self.images.stamp(item / 2)
    }
}

struct Which {
    store: nn::VarStore,
    head: LinearHead,
}

impl Which {
    /// Scores `[b, 1]` of which half each item is, and the truth from its plane.
    fn judge(&self, context: &Context, batch: &Batch) -> Result<(Tensor, Tensor)> {
        let (side, size) = (batch.images.side() as f64, context.config.data.size);
        let recipe = Recipe {
            crop: Crop::upright(0.0, 0.0, side, side),
            operations: Vec::new(),
        };
        let recipes = vec![recipe; batch.indices.len()];
        let views = context.render(batch, &recipes, size);
        let truth = context.render_plane(batch, 1, &recipes, size)?;
        let activation = context
            .network
            .activation(&context.network.prepare(&views), true);
        let truth = truth.flatten(1, -1).mean_dim(1, true, Kind::Float);
        Ok((self.head.forward(&activation), truth))
    }
}

impl Method for Which {
    fn loss(&self, context: &Context, batch: &Batch, _update: usize) -> Result<Loss> {
        let (scores, truth) = self.judge(context, batch)?;
        let right = scores.gt(0.0).eq_tensor(&truth.gt(0.5)).sum(Kind::Int64);
        let value =
            scores.binary_cross_entropy_with_logits::<Tensor>(&truth, None, None, Reduction::Mean);
        Ok(Loss {
            correct: Some((right, batch.indices.len() as i64)),
            ..Loss::of(value)
        })
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![Module::new("which", &self.store)]
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let (scores, truth) = self.judge(context, batch)?;
        let plain = context.plain(batch);
        let panel = |at: i64| {
            let [said, half] = [&scores, &truth].map(|of| of.double_value(&[at, 0]));
            let tile = Tile::new(&plain.get(at), format!("half {half}"));
            Panel(vec![tile.answered((said > 0.0) == (half > 0.5))])
        };
        Ok((0..scores.size()[0]).map(panel).collect())
    }
}

#[test]
fn a_method_learns_from_items_of_its_own_and_labels_them() {
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    // They grow brighter to the right, so that a half tells which one it is.
    for number in 0..60 {
        let ground = 20 + 2 * (number % 30);
        let image = RgbImage::from_fn(32, 32, |x, _| Rgb([(ground + 3 * x) as u8; 3]));
        image.save(images.join(format!("{number:02}.png"))).unwrap();
    }
    let mut config = config(&ENTRY, 60, |config| {
        config.data.size = 16;
        config.data.store = 16;
        config.train.epochs = 6;
    });
    let data = dataset(&ENTRY, &images, &config);
    config.run.images = data.len();
    assert_eq!((data.len(), data.group(5)), (120, 2));
    let place = folder.path().join("run");
    let outcome = run(&ENTRY, &config, &data, &place, None);
    assert_eq!(outcome, Outcome::Finished);
    let directory = RunDir::open(&place).unwrap();
    let labels = directory.read_labels().unwrap();
    let names: Vec<&str> = labels.iter().map(|label| label.path.as_str()).collect();
    assert_eq!(names, data.names().collect::<Vec<_>>());
    assert!(names[1].ends_with("#1"));
    let records = directory.read_metrics().unwrap();
    let accuracy = records.iter().rev().find_map(|record| match record {
        Record::Epoch(epoch) => epoch.accuracy,
        Record::Labels(_) => None,
    });
    assert!(accuracy.unwrap() > 0.8, "{accuracy:?}");
}
