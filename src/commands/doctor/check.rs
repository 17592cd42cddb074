//! `doctor --check`: whether a device computes what the CPU computes, part by part. On the CPU itself the
//! two ways of doing a thing (image by image and by batches, search and products) are compared.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

use crate::cluster::assigner::{Assigner, Heads};
use crate::cluster::kmeans::TensorKMeans;
use crate::cluster::preprocess::Pca;
use crate::cluster::{self, Clusterer, Empty, Engine, Init, KMeansOptions, kmeans};
use crate::comm::OneProcess;
use crate::config::defaults::{Facts, complete};
use crate::config::{CacheChoice, Config, Inputs, RunInfo, Settings};
use crate::data::Dataset;
use crate::data::augment::{Augmentation, ViewKey, cook, cook_batch};
use crate::data::cache::Cache;
use crate::data::image_batch::ImageBatch;
use crate::data::loader::PixelBatch;
use crate::data::source::ImageSet;
use crate::device::{Precision, PrecisionChoice};
use crate::method::{
    Archive, Aside, Batch, Build, METHODS, Method, MethodEntry, REGISTRY, State, learn_dictionary,
};
use crate::model::network::Network;
use crate::model::weights::{load_into, named_variables};
use crate::model::{BACKBONES, BackboneEntry};
use crate::monitor::Silent;
use crate::trained::beside;

/// What a part came to.
#[derive(Debug)]
pub struct Verdict {
    pub name: String,
    pub ok: bool,
    /// What was measured, and what is allowed.
    pub figures: String,
}

impl Verdict {
    /// Of a difference that should not exceed `allowed`; NaN exceeds everything.
    fn of(name: impl Into<String>, what: &str, difference: f64, allowed: f64) -> Self {
        Self {
            name: name.into(),
            ok: difference <= allowed,
            figures: format!("{what} {difference:.1e} (allowed {allowed:.0e})"),
        }
    }
}

/// Networks of more products for an image, in billions, are left out: their layers are those of others.
const QUICK: f64 = 5.0;

/// Every part on `device`; each verdict is given to `tell` as soon as it is there.
pub fn check(device: Device, tell: &mut dyn FnMut(Verdict) -> Result<()>) -> Result<()> {
    tch::manual_seed(0);
    tell(views(device))?;
    let quick = |entry: &&BackboneEntry| entry.smaller.is_none() && entry.billion_products < QUICK;
    for entry in BACKBONES.iter().filter(quick) {
        for precision in [Precision::F32, Precision::Bf16] {
            tell(features(device, entry, precision)?)?;
        }
    }
    let folder = tempfile::tempdir()?;
    draw_images(folder.path())?;
    for entry in METHODS {
        for verdict in losses(device, entry, folder.path())? {
            tell(verdict)?;
        }
    }
    tell(components(device)?)?;
    for case in CASES {
        tell(clusters(device, case)?)?;
    }
    tell(labels_of_heads(device))
}

/// `‖a − b‖ / ‖b‖` in f64.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|t| t.detach().to_device(Device::Cpu).to_kind(Kind::Double));
    (&a - &b).norm().double_value(&[]) / b.norm().double_value(&[]).max(f64::MIN_POSITIVE)
}

fn views(device: Device) -> Verdict {
    const IMAGES: i64 = 64;
    let squares = Tensor::randint(256, [IMAGES, 40, 40, 3], (Kind::Uint8, Device::Cpu));
    let augmentation = Augmentation {
        size: 32,
        crop_scale: [0.2, 1.0],
        crop_ratio: [0.75, 4.0 / 3.0],
        flip: true,
        jitter: Some([0.4, 0.4, 0.4, 0.1]),
        greyscale: 0.2,
        blur: 0.5,
        // It jumps, so that rounding would show.
        solarise: 0.0,
    };
    let recipes: Vec<_> = (0..IMAGES as u32)
        .map(|row| {
            let key = ViewKey {
                seed: 0,
                seen: 0,
                view: 0,
            };
            augmentation.draw(row, key, 40.0)
        })
        .collect();
    let here = cook(&ImageBatch::from(&squares), &recipes, augmentation.size);
    let there = cook_batch(&squares.to_device(device), &recipes, augmentation.size);
    let difference = (there.to_device(Device::Cpu) - here).abs().max();
    let what = "random views, largest difference of a number in 0..1";
    Verdict::of("views", what, difference.double_value(&[]), 2e-3)
}

/// A network with the weights of `like` on `device`.
fn moved(
    like: &Network,
    entry: &BackboneEntry,
    size: usize,
    to: (Device, Precision),
) -> Result<Network> {
    let network = Network::new(entry, size, false, to.0, to.1)?;
    let weights = named_variables(&like.store).into_iter().collect();
    load_into(
        &named_variables(&network.store),
        &weights,
        Path::new("memory"),
    )?;
    Ok(network)
}

fn features(device: Device, entry: &BackboneEntry, precision: Precision) -> Result<Verdict> {
    let size = entry.size_from(32);
    let like = Network::new(entry, size, false, Device::Cpu, Precision::F32)?;
    let network = moved(&like, entry, size, (device, precision))?;
    let images = Tensor::rand([8, 3, size as i64, size as i64], (Kind::Float, Device::Cpu));
    let here = like.for_inference().hidden(&images);
    let there = network.for_inference().hidden(&images.to_device(device));
    // CUDA's convolutions take TF32 for f32, as PyTorch's do.
    let allowed = match precision {
        Precision::F32 => 5e-3,
        Precision::Bf16 => 5e-2,
    };
    let name = format!("features {} {precision}", entry.name);
    let what = "relative difference to f32 on the CPU";
    Ok(Verdict::of(name, what, relative(&there, &here), allowed))
}

const IMAGES: u32 = 96;

/// Small pictures of stripes and gradients.
fn draw_images(folder: &Path) -> Result<()> {
    for number in 0..IMAGES {
        let image = RgbImage::from_fn(32, 32, |x, y| {
            let stripe = (x * (1 + number % 7) + y * (number % 5)) % 32;
            Rgb([8 * stripe, 255 - 6 * y, (number * 37 + 3 * x) % 256].map(|value| value as u8))
        });
        image.save(folder.join(format!("{number:03}.png")))?;
    }
    Ok(())
}

/// The options with which `entry` would train on the drawn images, in f32.
fn options(entry: &MethodEntry, images: usize) -> Result<Config> {
    let facts = Facts {
        images,
        width: 32,
        height: 32,
        // The same options on all devices.
        device: Device::Cpu,
        threads: 1,
        registry: REGISTRY,
        ready: None,
    };
    let info = RunInfo {
        version: String::new(),
        command: String::new(),
        directory: None,
        input: Inputs(Vec::new()),
        images,
    };
    let (mut config, _) = complete(
        Settings::default().over((entry.preset)(&facts)),
        &facts,
        info,
    );
    config.train.method = entry.name.into();
    config.train.precision = PrecisionChoice::F32;
    config.model.arch = BACKBONES[0].name.into();
    config.data.cache = CacheChoice::Ram;
    entry.complete_in(&mut config)?;
    Ok(config)
}

/// A method in the middle of a run.
struct Bench {
    network: Network,
    method: Box<dyn Method>,
}

impl Bench {
    fn new(config: &Config, entry: &MethodEntry, network: Network) -> Result<Self> {
        tch::manual_seed(1);
        let build = Build {
            config,
            options: &config.method,
            network: &network,
            images: config.run.images,
        };
        Ok(Self {
            method: (entry.build)(&build)?,
            network,
        })
    }

    /// The loss of all images and its gradient by the backbone.
    fn loss(&mut self, config: &Config, data: &Dataset) -> Result<(f64, Tensor)> {
        let aside = Aside::default();
        let Self { network, method } = self;
        let context = aside.context(config, network, data, &Silent);
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let pixels = PixelBatch::new(&data.pixels, &rows, network.device())?;
        let batch = Batch::new(pixels, network);
        let loss = method.loss(&context, &batch, 0)?.value;
        loss.backward();
        let gradients: Vec<Tensor> = named_variables(&network.store)
            .into_iter()
            .filter(|(_, variable)| variable.requires_grad() && variable.grad().defined())
            .map(|(_, variable)| variable.grad().flatten(0, -1))
            .collect();
        Ok((loss.double_value(&[]), Tensor::cat(&gradients, 0)))
    }
}

/// The loss of a method and its gradient, for the same weights, labels and images.
fn losses(device: Device, entry: &MethodEntry, folder: &Path) -> Result<[Verdict; 2]> {
    let set = ImageSet::find(folder)?;
    let config = options(entry, set.files.len())?;
    let cache = Cache::of_user(CacheChoice::Ram);
    let data = Dataset::load(Arc::new(set), config.data.store, &cache, None, &Silent)?;
    let backbone = &BACKBONES[0];
    let size = config.data.size;
    let network = Network::new(backbone, size, false, Device::Cpu, Precision::F32)?
        .beside(beside(&config, Device::Cpu)?);
    let there = moved(&network, backbone, size, (device, Precision::F32))?;
    let mut here = Bench::new(&config, entry, network)?;
    let mut there = Bench::new(&config, entry, there)?;
    if here.method.next_label_step().is_some() {
        let aside = Aside::default();
        let context = aside.context(&config, &here.network, &data, &Silent);
        learn_dictionary(&context)?;
        here.method.label_step(&context)?;
        let mut state = State::default();
        here.method.archive(&mut Archive::saving(&mut state))?;
        there.method.archive(&mut Archive::restoring(&mut state))?;
    }
    for (own, other) in there.method.modules().iter().zip(here.method.modules()) {
        let weights = named_variables(other.store).into_iter().collect();
        load_into(&named_variables(own.store), &weights, Path::new("memory"))?;
    }
    let (loss, gradient) = here.loss(&config, &data)?;
    let (other_loss, other_gradient) = there.loss(&config, &data)?;
    let name = |what: &str| format!("{what} {}", entry.name);
    let off = (other_loss - loss).abs() / loss.abs().max(f64::MIN_POSITIVE);
    let of_gradient = relative(&other_gradient, &gradient);
    let what = "relative difference";
    Ok([
        Verdict::of(name("loss"), what, off, 2e-3),
        Verdict::of(name("gradient"), what, of_gradient, 5e-2),
    ])
}

/// Points in a few groups, some of them twice, `[n, d] f32`.
fn points(n: i64, d: i64) -> Tensor {
    tch::manual_seed(2);
    let options = (Kind::Float, Device::Cpu);
    let centres = Tensor::randn([40, d], options) * 2.0 + 3.0;
    let group = Tensor::randint(40, [n], (Kind::Int64, Device::Cpu));
    let points = centres.index_select(0, &group) + Tensor::randn([n, d], options);
    Tensor::cat(&[&points, &points.narrow(0, 0, n / 10)], 0)
}

fn components(device: Device) -> Result<Verdict> {
    let features = points(2_000, 48);
    let here = Pca::fit(&features, 20, true)?;
    let there = Pca::fit_on(device, &OneProcess, &features, 20, true)?;
    let off = relative(&there.eigenvalues, &here.eigenvalues).max(relative(
        &there.apply(&features, Kind::Double),
        &here.apply(&features, Kind::Double),
    ));
    let what = "whitened features that pass through the device, relative difference";
    Ok(Verdict::of("PCA", what, off, 1e-8))
}

/// A case of k-means.
struct Case {
    name: &'static str,
    spherical: bool,
    weighted: bool,
    /// The first centroids are the same point many times.
    empties: Option<Empty>,
}

const CASES: &[Case] = &[
    Case {
        name: "k-means",
        spherical: false,
        weighted: false,
        empties: None,
    },
    Case {
        name: "k-means, spherical",
        spherical: true,
        weighted: false,
        empties: None,
    },
    Case {
        name: "k-means, weights",
        spherical: false,
        weighted: true,
        empties: None,
    },
    Case {
        name: "k-means, empty clusters split",
        spherical: false,
        weighted: false,
        empties: Some(Empty::Split),
    },
    Case {
        name: "k-means, empty clusters farthest",
        spherical: false,
        weighted: false,
        empties: Some(Empty::Farthest),
    },
];

const CLUSTERS: i64 = 60;

fn clusters(device: Device, case: &Case) -> Result<Verdict> {
    let points = points(20_000, 32);
    let start = points.narrow(0, 0, CLUSTERS).copy();
    if case.empties.is_some() {
        let same = start.narrow(0, 0, 1).expand([20, -1], false);
        start.narrow(0, 0, 20).copy_(&same);
    }
    let n = points.size()[0];
    let weights = case
        .weighted
        .then(|| Tensor::rand([n], (Kind::Float, Device::Cpu)));
    let options = KMeansOptions {
        clusters: CLUSTERS as usize,
        iterations: 8,
        init: Init::Given(&start),
        spherical: case.spherical,
        empty: case.empties.unwrap_or_default(),
        weights: weights.as_ref(),
        ..KMeansOptions::default()
    };
    static PRODUCTS: TensorKMeans = TensorKMeans { products: true };
    let by_products = Engine {
        clusterer: &PRODUCTS as &dyn Clusterer,
        ..kmeans::ENGINE
    };
    let here = cluster::cluster(&kmeans::ENGINE, &points, &options)?;
    let options = KMeansOptions {
        device: Some(device),
        ..options
    };
    let there = cluster::cluster(&by_products, &points, &options)?;
    if case.empties.is_some() {
        // The halves of a divided cluster are so near to each other that rounding decides between them.
        let [ours, others] = [&there, &here].map(|clustering| clustering.statistics.objective());
        let what = "relative difference of the objective after eight iterations";
        let off = (ours - others).abs() / others;
        return Ok(Verdict::of(case.name, what, off, 1e-2));
    }
    let other = there.labels.not_equal_tensor(&here.labels).sum(Kind::Int64);
    let share = other.int64_value(&[]) as f64 / n as f64;
    let what = "share of points with another label after eight iterations";
    Ok(Verdict::of(case.name, what, share, 1e-3))
}

fn labels_of_heads(device: Device) -> Verdict {
    let options = (Kind::Float, Device::Cpu);
    let features = Tensor::randn([5_000, 64], options);
    let assigner = Heads {
        weights: Tensor::randn([3, 50, 64], options),
        biases: Tensor::randn([3, 50], options),
        log_scalings: Tensor::randn([3, 50], (Kind::Double, Device::Cpu)),
        lambda: 10.0,
    };
    let here = assigner.assign(&features);
    let there = assigner.to_device(device).assign(&features);
    let pairs = here.labels.concat().into_iter().zip(there.labels.concat());
    let other = pairs.filter(|(a, b)| a != b).count();
    let what = "share of other labels";
    Verdict::of("labels of heads", what, other as f64 / 15_000.0, 1e-4)
}
