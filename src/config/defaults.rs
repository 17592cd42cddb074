//! Defaults that fit the data and the device: a folder of 300 photographs, one of 2,000 thumbnails
//! and one of 60,000 each give a sensible run with no option, on two cores as on a GPU.

use tch::Device;

use super::{
    CacheChoice, ClusterConfig, Config, DataConfig, Init, Interpolation, Keep, ModelConfig,
    NOTHING, OutputConfig, PlainView, RunInfo, Schedule, Settings, TrainConfig,
};
use crate::device::{DeviceChoice, PrecisionChoice, describe};

/// What the defaults look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub images: usize,
    /// Median width and height of a sample of the images, in pixels.
    pub width: u32,
    pub height: u32,
    pub device: Device,
    pub threads: usize,
    pub registry: Registry,
    /// What the backbone wants, where its features are ready.
    pub ready: Option<Ready>,
}

/// A backbone whose features are ready without learning (a network that has learned before, or hand-made
/// descriptors): what its images are.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Side of the input, in pixels.
    pub size: usize,
    pub interpolation: Interpolation,
    /// What is joined to them, unless something is to be learned.
    pub beside: Option<&'static str>,
}

/// What the registries offer where nothing is said: their entries are named in their own files.
#[derive(Debug, Clone, Copy)]
pub struct Registry {
    pub method: &'static str,
    pub engine: &'static str,
    /// The backbone for small images (or others), on a CPU (or not), and so many of them.
    pub arch: fn(small: bool, on_cpu: bool, images: usize) -> &'static str,
    /// Whether a backbone is so small that a CPU gets through many images.
    pub light: fn(arch: &str) -> bool,
}

impl Facts {
    /// The short side of the median image.
    fn short(&self) -> usize {
        self.width.min(self.height) as usize
    }

    /// Whether the images are as small as CIFAR's or a little larger.
    pub fn thumbnails(&self) -> bool {
        self.short() <= SMALL
    }
}

/// A default that was chosen, for the user to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub name: &'static str,
    pub value: String,
    pub reason: String,
}

/// Images of up to this short side are taken as they are and seen by `conv4` on a CPU.
const SMALL: usize = 64;
/// Published input of ImageNet networks, and the square that it is the centre of.
const PHOTO: (usize, usize) = (224, 256);
/// What a CPU is spared: photographs at this size.
const CPU_PHOTO: usize = 96;
/// The batch size that the published learning rates belong to.
const BATCH: usize = 256;

/// Completes `settings`; returns the choices that were made where they are silent.
pub fn complete(settings: Settings, facts: &Facts, run: RunInfo) -> (Config, Vec<Choice>) {
    let mut choices = Vec::new();
    let mut choose = |name, value: String, reason: String, silent: bool| {
        if silent {
            choices.push(Choice {
                name,
                value,
                reason,
            });
        }
    };
    let on_cpu = facts.device == Device::Cpu;
    let learns = settings.train.asks_to_learn();
    let short = facts.short();
    let beside = facts
        .ready
        .and_then(|ready| ready.beside)
        .filter(|_| !learns);

    let size = settings.data.size.unwrap_or_else(|| match short {
        _ if facts.ready.is_some() => facts.ready.map_or(0, |known| known.size),
        0..=SMALL => short.clamp(16, SMALL),
        _ if on_cpu => CPU_PHOTO.min(short),
        _ => PHOTO.0.min(short),
    });
    let median = format!("the images are about {}x{}", facts.width, facts.height);
    let why_size = match short {
        _ if facts.ready.is_some() => format!("{median}; seen as the features want them"),
        0..=SMALL => format!("{median}: taken as they are"),
        _ if on_cpu => format!(
            "{median}; kept small for a CPU, --size {} shows more",
            PHOTO.0
        ),
        _ => median.clone(),
    };
    choose(
        "size",
        format!("{size} px"),
        why_size,
        settings.data.size.is_none(),
    );

    let small = size <= SMALL;
    let arch = settings
        .model
        .arch
        .clone()
        .filter(|arch| arch != "auto")
        .unwrap_or_else(|| (facts.registry.arch)(small, on_cpu, facts.images).into());
    let why_arch = format!("for {size} px on {}", describe(facts.device));
    let silent = settings
        .model
        .arch
        .as_deref()
        .is_none_or(|arch| arch == "auto");
    choose("arch", arch.clone(), why_arch, silent);

    if let Some(beside) = beside {
        let why = "what a small network misses, joined to its features";
        choose(
            "beside",
            beside.into(),
            why.into(),
            settings.model.beside.is_none(),
        );
    }

    let clusters = settings
        .cluster
        .clusters
        .unwrap_or_else(|| default_clusters(facts.images));
    let why_clusters = format!(
        "about sqrt(n) for {} images, some for each group you see",
        facts.images
    );
    choose(
        "clusters",
        clusters.to_string(),
        why_clusters,
        settings.cluster.clusters.is_none(),
    );

    let batch_size = settings
        .train
        .batch_size
        .unwrap_or_else(|| default_batch(facts.images));
    let why_batch = if batch_size == BATCH {
        "the published one".into()
    } else {
        format!(
            "{} images give few steps an epoch with {BATCH}",
            facts.images
        )
    };
    choose(
        "batch-size",
        batch_size.to_string(),
        why_batch,
        settings.train.batch_size.is_none(),
    );

    let epochs = settings
        .train
        .epochs
        .unwrap_or_else(|| match facts.ready.is_some() && !learns {
            true => 0,
            false => default_epochs(facts, &arch),
        });
    let why_epochs = match epochs {
        0 => "the features are clustered as they are (--method transfer or another learns more)"
            .into(),
        _ => format!(
            "{} images on {} ({} threads)",
            facts.images,
            describe(facts.device),
            facts.threads
        ),
    };
    choose(
        "epochs",
        epochs.to_string(),
        why_epochs,
        settings.train.epochs.is_none(),
    );

    let low = if small { 0.3 } else { 0.08 };
    let why_crop = if small {
        "small images lose their content in smaller crops"
    } else {
        "the published one"
    };
    let silent = settings.data.crop_scale.is_none();
    choose("crop-scale", format!("{low}"), why_crop.into(), silent);

    let defaults = Config {
        data: DataConfig {
            size,
            store: match facts.ready {
                Some(_) if facts.thumbnails() => short.min(size),
                // The whole square is looked at: what lies at its border tells, too.
                Some(_) => size,
                None if small => size,
                None => size * PHOTO.1 / PHOTO.0,
            },
            cache: CacheChoice::Auto,
            crop_scale: [low, 1.0],
            flip: true,
            jitter: 0.0,
            greyscale: 0.0,
            blur: 0.0,
            solarise: 0.0,
            sobel: false,
            grey: false,
            plain: match facts.ready {
                Some(_) => PlainView::Whole,
                None => PlainView::Centre,
            },
            interpolation: facts
                .ready
                .map_or_else(Interpolation::default, |known| known.interpolation),
        },
        model: ModelConfig {
            arch: arch.clone(),
            init: Init::None,
            weights: None,
            beside: beside.unwrap_or(NOTHING).into(),
            beside_length: BESIDE_LENGTH,
        },
        train: TrainConfig {
            method: facts.registry.method.into(),
            epochs,
            batch_size,
            accumulate: 1,
            lr: 0.05,
            schedule: Schedule::Constant,
            warmup: 0.0,
            momentum: 0.9,
            weight_decay: 1e-5,
            seed: 0,
            device: DeviceChoice::Auto,
            precision: PrecisionChoice::Auto,
            threads: facts.threads,
        },
        cluster: ClusterConfig {
            clusters,
            engine: facts.registry.engine.into(),
            iterations: 20,
            components: match facts.ready {
                Some(_) => READY_COMPONENTS,
                None => default_components(facts.images),
            },
            whiten: facts.ready.is_none(),
        },
        output: OutputConfig {
            keep_labels: Keep::Newest(1),
        },
        method: toml::Table::new(),
        run,
    };
    let mut model = settings.model;
    model.arch = Some(arch);
    let config = Config {
        data: settings.data.complete(defaults.data),
        model: model.complete(defaults.model),
        train: settings.train.complete(defaults.train),
        cluster: settings.cluster.complete(defaults.cluster),
        output: settings.output.complete(defaults.output),
        method: settings.method,
        run: defaults.run,
    };
    (config, choices)
}

/// sqrt(n), at least 2 and at most n/4: clusters are a few times finer than what a person would
/// call a group, which gives better features than too few (DeepCluster, section 4.1.4: 10 times the
/// number of classes worked best).
fn default_clusters(images: usize) -> usize {
    let root = (images as f64).sqrt().round() as usize;
    root.min(images / 4).max(2)
}

/// DeepCluster's 256 where there are images enough to estimate as many variances, fewer for small
/// sets: whitening amplifies the directions that are noise (2,000 images of Fashion-MNIST, 15
/// epochs: NMI of held-out labels with the classes 0.50 with 256 components, 0.55 with 128).
fn default_components(images: usize) -> usize {
    (images / ROWS_FOR_A_COMPONENT).clamp(16, 256)
}

/// Points from which the variance of a component is known well enough to divide by it.
pub const ROWS_FOR_A_COMPONENT: usize = 16;

/// 256, halved for small sets so that an epoch has some 30 steps; at least 16.
fn default_batch(images: usize) -> usize {
    let mut batch = BATCH;
    while batch > 16 && images / batch < 30 {
        batch /= 2;
    }
    batch
}

/// Of the directions of features that are ready, which are not whitened.
pub const READY_COMPONENTS: usize = 128;

/// Of the features of visual words beside those of a small network that has learned of photographs, which have one of
/// 1. (Measured with MobileNetV2 on sixteen folders: docs/photographs.md.)
const BESIDE_LENGTH: f64 = 0.6;

/// As many epochs as a budget of images allows, between what teaches something and what the papers
/// run.
fn default_epochs(facts: &Facts, arch: &str) -> usize {
    let budget = match facts.device {
        Device::Cpu if (facts.registry.light)(arch) => 300_000 * facts.threads,
        Device::Cpu => 15_000 * facts.threads,
        _ => 20_000_000,
    };
    let (least, most) = if facts.device == Device::Cpu {
        (5, 15)
    } else {
        (20, 200)
    };
    (budget / facts.images.max(1)).clamp(least, most)
}
