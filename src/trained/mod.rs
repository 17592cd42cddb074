//! A trained run put together again: its options, network, labelling rule and method, for whoever works with
//! what was learned (`assign`, `features`, `eval`, `preview`, the report).

mod panels;
pub mod start;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tch::{Device, Tensor};

use crate::cluster::assigner::{self, Assigner, FeatureKind, Stored};
use crate::config::{Config, Init, NOTHING, PlainView};
use crate::data::cache::decoding::decode_ahead;
use crate::data::cache::{Pixels, Read};
use crate::data::image_batch::ImageBatch;
use crate::data::items::Items;
use crate::data::source::{ImageSet, Skipped};
use crate::data::spread::Spread;
use crate::device::{PrecisionChoice, precision};
use crate::error::{Error, unknown};
use crate::method::{
    self, Archive, Build, DICTIONARY_IMAGES, METHODS, Method, MethodEntry, Seen, State,
    dictionary_input, extract, extract_size, learn_from,
};
use crate::model::beside::Beside;
use crate::model::network::{InferenceNetwork, Network};
use crate::model::weights::prefixed;
use crate::model::{self, weights};
use crate::monitor::{Interrupted, Monitor, Phase};
use crate::random::{Purpose, key};
use crate::run_dir::RunDir;
use crate::train::checkpoint::Checkpoint;
pub use panels::panels;

/// A network ready for extraction, and the sizes of its input.
#[derive(Debug)]
pub struct Extractor {
    pub network: Network,
    pub size: usize,
    pub store: usize,
    pub plain: PlainView,
}

/// The features of some images.
#[derive(Debug)]
pub struct Extracted {
    /// `[n, d] f32`
    pub features: Tensor,
    /// Those of the items that could be read.
    pub rows: Vec<usize>,
    pub skipped: Vec<Skipped>,
}

impl Extractor {
    /// The network of a run.
    pub fn of_run(run: &RunDir, config: &Config, device: Device) -> Result<Self> {
        let network = build(config, device)?;
        if !run.model().is_file() {
            bail!(Error::NotARun {
                path: run.path().into(),
                reason: "it has no model.safetensors yet".into()
            });
        }
        network.load(&run.model())?;
        Ok(Self {
            network,
            size: config.data.size,
            store: config.data.store,
            plain: config.data.plain,
        })
    }

    /// Lets the network learn what it has to know of the images, from a sample of `items`.
    pub fn learn_dictionary(&self, items: &dyn Items, monitor: &dyn Monitor) -> Result<()> {
        let Some(dictionary) = self.network.dictionary() else {
            return Ok(());
        };
        let sample = Spread::over(items, DICTIONARY_IMAGES);
        let size = extract_size(self.size, self.network.device());
        let mut parts = Vec::new();
        let mut block = |read: Read, _| -> Result<()> {
            if monitor.stopping() {
                return Err(Interrupted.into());
            }
            if !read.pixels.is_empty() {
                let kept = self.kept(&read.pixels)?;
                let input = dictionary_input(&self.network, &kept, self.size, self.plain);
                parts.push(input);
            }
            Ok(())
        };
        monitor.begin(Phase::Extract, "learning visual words", 0);
        let read = decode_ahead(&sample, self.store, size, &mut block);
        let learned = read.and_then(|()| match parts.is_empty() {
            // Whoever wants the features says so.
            true => Ok(()),
            false => learn_from(dictionary, &Tensor::cat(&parts, 0)),
        });
        monitor.end();
        learned
    }

    /// Features of all `items`, by blocks, each given to `take` as soon as it is there.
    pub fn each_block(
        &self,
        items: &dyn Items,
        kind: FeatureKind,
        monitor: &dyn Monitor,
        take: &mut dyn FnMut(Extracted) -> Result<()>,
    ) -> Result<()> {
        let size = extract_size(self.size, self.network.device());
        let network = self.network.for_inference();
        monitor.begin(Phase::Extract, "extracting", items.len() as u64);
        let mut block = |read: Read, rows: Range<usize>| -> Result<()> {
            if monitor.stopping() {
                return Err(Interrupted.into());
            }
            take(Extracted {
                features: self.features(&network, &read.pixels, size, kind)?,
                rows: read.kept.into_iter().map(|row| row as usize).collect(),
                skipped: read.skipped,
            })?;
            monitor.advance(rows.len() as u64);
            Ok(())
        };
        let done = decode_ahead(items, self.store, size, &mut block);
        monitor.end();
        done
    }

    /// Features of all `items` at once.
    pub fn all(
        &self,
        items: &dyn Items,
        kind: FeatureKind,
        monitor: &dyn Monitor,
    ) -> Result<Extracted> {
        let (mut blocks, mut rows, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        self.each_block(items, kind, monitor, &mut |block| {
            blocks.push(block.features);
            rows.extend(block.rows);
            skipped.extend(block.skipped);
            Ok(())
        })?;
        if rows.is_empty() {
            bail!(none_readable(items.origin(0).into(), &skipped));
        }
        Ok(Extracted {
            features: Tensor::cat(&blocks, 0),
            rows,
            skipped,
        })
    }

    fn features(
        &self,
        network: &InferenceNetwork,
        pixels: &Pixels,
        size: usize,
        kind: FeatureKind,
    ) -> Result<Tensor> {
        let device = network.device();
        if pixels.is_empty() {
            return Ok(Tensor::zeros(
                [0, self.width(kind)],
                (tch::Kind::Float, device),
            ));
        }
        let kept = self.kept(pixels)?;
        let seen = Seen::plain(&self.network, &kept, self.size, self.plain);
        Ok(extract(network, &seen, size, kind))
    }

    /// Width of the features of that kind.
    pub fn width(&self, kind: FeatureKind) -> i64 {
        match kind {
            FeatureKind::Hidden => self.network.features_dim(),
            FeatureKind::Activation => self.network.dim(),
        }
    }

    /// The images, on the network's device.
    fn kept(&self, pixels: &Pixels) -> Result<ImageBatch> {
        let rows: Vec<u32> = (0..pixels.len() as u32).collect();
        Ok(ImageBatch::Copied(pixels.gather(&rows)?).on(self.network.device()))
    }
}

/// The failure where no image of an input can be read.
pub fn none_readable(place: PathBuf, skipped: &[Skipped]) -> Error {
    let reason = match skipped.first() {
        Some(skip) => format!(
            "none can be read (the first: '{}': {})",
            skip.path, skip.reason
        ),
        None => "there are none".into(),
    };
    Error::NoImages {
        path: place,
        reason,
    }
}

/// The untrained network that `config` describes, with the run's own initial weights.
pub fn build(config: &Config, device: Device) -> Result<Network> {
    let entry = model::find(&config.model.arch).ok_or_else(|| unknown_arch(&config.model.arch))?;
    tch::manual_seed(key(config.train.seed, Purpose::Weights, u64::MAX, 0) as i64);
    Ok(Network::new(
        entry,
        config.data.size,
        config.data.sobel,
        device,
        precision(config.train.precision, device),
    )?
    .seeing_grey(config.data.grey)
    .beside(beside(config, device)?))
}

/// What stands beside the network that `config` describes.
pub fn beside(config: &Config, device: Device) -> Result<Option<Beside>> {
    let name = config.model.beside.as_str();
    if name == NOTHING {
        return Ok(None);
    }
    let entry = model::find(name).ok_or_else(|| unknown_arch(name))?;
    Ok(Some(Beside::new(
        entry,
        config.model.beside_length,
        device,
    )?))
}

/// The network that a run begins with: untrained, or with the weights that `config` names.
pub fn initial(config: &Config, device: Device) -> Result<Network> {
    let network = build(config, device)?;
    if let Some(path) = weights_of(config) {
        network.load(path)?;
    }
    Ok(network)
}

/// The file whose weights `config` begins with.
fn weights_of(config: &Config) -> Option<&Path> {
    match (&config.model.weights, &config.model.init) {
        (Some(weights), _) => Some(&weights.path),
        // As earlier versions wrote it.
        (None, Init::From(path)) => Some(path),
        (None, _) => None,
    }
}

/// The usage error for a backbone that does not exist.
pub fn unknown_arch(name: &str) -> anyhow::Error {
    let known = model::BACKBONES.iter().map(|entry| entry.name);
    unknown("backbone", name, std::iter::once("auto").chain(known))
}

/// The labelling rule of a run, on `device`.
pub fn assigner(run: &RunDir, device: Device) -> Result<Box<dyn Assigner>> {
    let path = run.clustering();
    if !path.is_file() {
        bail!(
            "the training of '{}' has not ended, and labels come at its end: go on with \
             `ssl-cluster train --resume {}`",
            run.path().display(),
            run.path().display()
        );
    }
    let file = weights::read(&path)?;
    let stored = Stored {
        tensors: file.tensors,
        metadata: file.metadata,
    };
    let assigner = assigner::load(stored)
        .map_err(|reason| anyhow::anyhow!("'{}' cannot be used: {reason}", path.display()))?;
    Ok(assigner.to_device(device))
}

/// The run at `path` with its options.
pub fn open(path: &Path) -> Result<(RunDir, Config)> {
    let run = RunDir::open(path)?;
    let config = run.config().context("the run's options cannot be read")?;
    Ok((run, config))
}

/// The same, but for the precision where one is asked for here.
pub fn open_in(path: &Path, precision: Option<PrecisionChoice>) -> Result<(RunDir, Config)> {
    let (run, mut config) = open(path)?;
    if let Some(precision) = precision {
        config.train.precision = precision;
    }
    Ok((run, config))
}

/// The method of that name.
pub fn find_method(name: &str) -> Result<&'static MethodEntry> {
    method::method(name)
        .ok_or_else(|| unknown("method", name, METHODS.iter().map(|entry| entry.name)))
}

/// What the method that `config` names learns from, made of the user's images.
pub fn items(config: &Config, mut images: ImageSet) -> Result<Arc<dyn Items>> {
    let entry = find_method(&config.train.method)?;
    images.interpolation = config.data.interpolation;
    Ok((entry.items)(&config.method, Arc::new(images)))
}

/// The method that `config` describes, untrained, around `network`.
pub fn build_method(config: &Config, network: &Network) -> Result<Box<dyn Method>> {
    // Heads draw their weights after the backbone; their own seed keeps them the same whatever the
    // backbone drew.
    tch::manual_seed(key(config.train.seed, Purpose::Weights, u64::MAX, 1) as i64);
    (find_method(&config.train.method)?.build)(&Build {
        config,
        options: &config.method,
        network,
        images: config.run.images,
    })
}

/// The method of a run as its checkpoint and model have it.
pub fn method_of_run(run: &RunDir, config: &Config, network: &Network) -> Result<Box<dyn Method>> {
    let mut method = build_method(config, network)?;
    let path = run.checkpoint();
    let mut saved = Checkpoint::read(&path).context("this run has no checkpoint to look at")?;
    let mut state = State {
        tensors: saved.take("method"),
        values: std::mem::take(&mut saved.meta.method),
    };
    method.archive(&mut Archive::restoring(&mut state))?;
    let file = weights::read(&run.model())?;
    for module in method.modules() {
        let variables = prefixed(&module.name, module.store);
        weights::load_into(&variables, &file.tensors, &run.model())?;
    }
    Ok(method)
}
