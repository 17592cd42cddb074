//! What a run's network starts from: weights that others have published, a file, another run, or nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::open;
use crate::config::defaults::{Facts, Ready};
use crate::config::{DataSettings, Init, Settings, WeightsFile};
use crate::error::usage;
use crate::model::published::{Found, Place, Places};
use crate::model::{self, BackboneEntry};

/// Sides of the input of a network with published weights where images are as small as thumbnails: they were
/// trained on larger things, and see little in fewer pixels.
const THUMBNAIL_INPUT: usize = 192;

/// Products a second, in billions, of a thread (measured: MobileNetV2 in bf16, two cores of a Zen 5) and of a
/// GPU, and the seconds that a pass over all images may take where there is a choice.
const ON_A_THREAD: f64 = 40.0;
const ON_A_GPU: f64 = 20_000.0;
const PATIENCE: f64 = 180.0;

/// Products for an image, in billions, below which a network is small: what it misses is joined to its features.
const SMALL: f64 = 1.0;

/// What was decided.
#[derive(Debug)]
pub struct Start {
    pub init: Init,
    /// The backbone that the weights are for.
    pub arch: Option<&'static str>,
    pub weights: Option<WeightsFile>,
    /// What the images become for it.
    pub ready: Option<Ready>,
    /// Options of the run that it goes on from.
    pub data: DataSettings,
    /// Why, for people.
    pub reason: String,
}

impl Start {
    fn from_nothing(reason: &str) -> Self {
        Self {
            init: Init::None,
            arch: None,
            weights: None,
            ready: None,
            data: DataSettings::default(),
            reason: reason.into(),
        }
    }

    /// Hand-made descriptors, where no backbone is asked for: a network that has learned nothing gives worse
    /// features.
    fn described(arch: Option<&str>, reason: &str) -> Self {
        let entry = model::find(arch.unwrap_or(model::unlearned_backbone()));
        let described = entry.filter(|entry| !model::learns(entry.name));
        Self {
            arch: described.map(|entry| entry.name),
            ready: described.map(|entry| Ready {
                size: entry.input.size,
                interpolation: entry.input.interpolation,
                beside: None,
            }),
            ..Self::from_nothing(reason)
        }
    }
}

/// Decides what the run that `settings` ask for starts from: what `--init` says; where it says nothing, published
/// weights, unless something is to be learned.
///
/// # Errors
/// Weights that are not there, cannot be read, or are for another backbone.
pub fn choose(settings: &Settings, facts: &Facts) -> Result<Start> {
    let arch = settings
        .model
        .arch
        .as_deref()
        .filter(|arch| *arch != "auto");
    let learns = settings.train.asks_to_learn();
    match settings.model.init.clone().unwrap_or(Init::Auto) {
        Init::None if learns => Ok(Start::from_nothing("--init none")),
        Init::None => Ok(Start::described(arch, "--init none")),
        Init::From(path) if path.is_dir() => of_run(&path, arch),
        Init::From(path) => of_file(path, arch, facts),
        Init::ImageNet => match best(arch, facts) {
            Some(found) => of_published(found, facts),
            None => Err(no_published(arch)),
        },
        Init::Auto if learns => Ok(Start::from_nothing(
            "to learn was asked for (--init imagenet starts from published weights)",
        )),
        Init::Auto => match best(arch, facts) {
            Some(found) => of_published(found, facts),
            None => Ok(Start::described(
                arch,
                "no published weights are on this machine: scripts/weights.sh fetches some",
            )),
        },
    }
}

/// The published weights that are on this machine, for one backbone or any.
fn published(arch: Option<&str>) -> Vec<Found> {
    let mut found = Places::of_user().find();
    found.retain(|found| arch.is_none_or(|arch| arch == found.entry.name));
    found
}

/// The best published weights for a backbone that are on this machine.
pub fn best_published(entry: &BackboneEntry) -> Option<Found> {
    let all = published(Some(entry.name)).into_iter();
    all.max_by_key(|found| found.published.rank)
}

/// The usage error where published weights were asked for and there are none.
pub fn no_published(arch: Option<&str>) -> anyhow::Error {
    usage(format!(
        "no published weights were found for {}: `ssl-cluster weights` tells where they are looked for, \
         scripts/weights.sh fetches some",
        arch.unwrap_or("any backbone")
    ))
}

/// The weights that give the best features of those which get through the images in time; where none do, the
/// fastest.
fn best(arch: Option<&str>, facts: &Facts) -> Option<Found> {
    let rate = match facts.device {
        tch::Device::Cpu => ON_A_THREAD * facts.threads as f64,
        _ => ON_A_GPU,
    };
    let fitting = published(arch);
    let seconds = |found: &Found| {
        let side = side(found.entry, facts) as f64 / found.entry.input.size as f64;
        facts.images as f64 * found.entry.billion_products * side * side / rate
    };
    let in_time = fitting.iter().filter(|found| seconds(found) <= PATIENCE);
    let best = in_time.max_by_key(|found| found.published.rank);
    let fastest = || {
        let all = fitting.iter();
        all.min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
    };
    best.or_else(fastest).cloned()
}

/// Side of the input of `entry` for these images, in pixels.
fn side(entry: &BackboneEntry, facts: &Facts) -> usize {
    match facts.thumbnails() {
        true => entry.size_from(THUMBNAIL_INPUT),
        false => entry.input.size,
    }
}

fn ready(entry: &BackboneEntry, facts: &Facts) -> Ready {
    Ready {
        size: side(entry, facts),
        interpolation: entry.input.interpolation,
        beside: (entry.billion_products < SMALL).then(model::unlearned_backbone),
    }
}

fn of_published(found: Found, facts: &Facts) -> Result<Start> {
    let Found {
        path,
        entry,
        published,
        place,
    } = found;
    let place = match place {
        Place::Own => String::new(),
        place => format!(", found in the cache of {}", place.name()),
    };
    Ok(Start {
        init: Init::ImageNet,
        arch: Some(entry.name),
        weights: Some(described(&path, published.about.into())?),
        ready: Some(ready(entry, facts)),
        data: DataSettings::default(),
        reason: format!("{}{place}", published.about),
    })
}

fn of_file(path: PathBuf, arch: Option<&str>, facts: &Facts) -> Result<Start> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let entry = match arch {
        Some(arch) => model::find(arch),
        None => model::published::entry_of(&name),
    };
    Ok(Start {
        arch: entry.map(|entry| entry.name),
        weights: Some(described(&path, name)?),
        ready: entry.map(|entry| ready(entry, facts)),
        data: DataSettings::default(),
        reason: path.display().to_string(),
        init: Init::From(path),
    })
}

/// A run's network, with the images prepared as the run had them.
fn of_run(path: &Path, arch: Option<&str>) -> Result<Start> {
    let (run, config) = open(path)?;
    let entry =
        model::find(&config.model.arch).ok_or_else(|| super::unknown_arch(&config.model.arch))?;
    if let Some(arch) = arch.filter(|arch| *arch != entry.name) {
        return Err(usage(format!(
            "the run '{}' has the backbone {}, not {arch}: leave --arch out",
            path.display(),
            entry.name
        )));
    }
    let data = config.data;
    Ok(Start {
        init: Init::From(path.into()),
        arch: Some(entry.name),
        weights: Some(described(&run.model(), path.display().to_string())?),
        ready: Some(Ready {
            size: data.size,
            interpolation: data.interpolation,
            beside: model::find(&config.model.beside).map(|entry| entry.name),
        }),
        data: DataSettings {
            size: Some(data.size),
            store: Some(data.store),
            plain: Some(data.plain),
            sobel: Some(data.sobel),
            grey: Some(data.grey),
            ..DataSettings::default()
        },
        reason: path.display().to_string(),
    })
}

fn described(path: &Path, name: String) -> Result<WeightsFile> {
    let failed = || format!("cannot read '{}'", path.display());
    let mut file = std::fs::File::open(path).with_context(failed)?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest).with_context(failed)?;
    let sha256 = digest.finalize();
    Ok(WeightsFile {
        name,
        sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        path: path.canonicalize().with_context(failed)?,
    })
}
