//! `features`: the hidden features of images, as a matrix for other tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::ExitStatus;
use super::inputs::{find_images, report_skipped};
use super::options::{Machine, Numbers, init, machine};
use super::output::{Output, ends_in};
use crate::cluster::assigner::FeatureKind;
use crate::config::{Init, PlainView};
use crate::data::items::Items;
use crate::data::source::{ImageFile, ImageSet, Skipped};
use crate::device::precision;
use crate::error::usage;
use crate::matrix;
use crate::model;
use crate::model::network::Network;
use crate::monitor::Monitor;
use crate::trained::start::{best_published, no_published};
use crate::trained::{Extractor, items, open_in, unknown_arch};
use crate::ui::Ui;

/// Extract features of images.
#[derive(Debug, Args)]
#[command(after_help = FEATURES_EXAMPLES)]
pub struct FeaturesArgs {
    /// A run and inputs (as for assign); with --arch only inputs
    #[arg(required = true, num_args = 1.., value_names = ["RUN", "INPUT"])]
    pub places: Vec<PathBuf>,
    /// Where to write the features [n, d] f32; paths go to the same name with .paths.txt
    #[arg(long, short)]
    pub out: PathBuf,
    /// Backbone, in place of a run
    #[arg(long)]
    pub arch: Option<String>,
    /// Its weights: imagenet (published ones: see `weights`), none, or a file (.safetensors, .pth, .pt)
    /// [default: published ones where they are found]
    #[arg(long, value_name = "WEIGHTS", requires = "arch", value_parser = init())]
    pub init: Option<Init>,
    /// Side of the network's input in pixels, with --arch [default: what the backbone was made for]
    #[arg(long, requires = "arch")]
    pub size: Option<usize>,
    /// Fail with exit code 3 where images cannot be read
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
}

const FEATURES_EXAMPLES: &str = "\
Examples:
  ssl-cluster features runs/photos new/ -o new.npy
  ssl-cluster features --arch mobilenet_v2 photos/ -o photos.npy
  ssl-cluster features --arch resnet50 --init resnet50.safetensors photos/ -o photos.npy
  ssl-cluster cluster photos.npy --clusters 100 --pca 256 --whiten --l2";

pub fn run(args: FeaturesArgs, ui: &Ui) -> Result<ExitStatus> {
    let device = machine(&args.machine)?;
    ends_in(&args.out, "npy", "features are written in NumPy's format")?;
    let is_run = |place: &PathBuf| place.join("config.toml").is_file();
    if let (Some(_), Some(run)) = (&args.arch, args.places.iter().find(|place| is_run(place))) {
        return Err(usage(format!(
            "'{}' is a run and has its network: leave --arch out, or give images alone",
            run.display()
        )));
    }
    let (extractor, config, inputs) = match (&args.arch, &args.places[..]) {
        (None, [run, inputs @ ..]) if !inputs.is_empty() => {
            let (run, config) = open_in(run, args.numbers.precision)?;
            (
                Extractor::of_run(&run, &config, device)?,
                Some(config),
                inputs,
            )
        }
        (Some(arch), inputs) => (pretrained(arch, &args, device, ui)?, None, inputs),
        (None, _) => {
            return Err(usage(
                "give a run and inputs, or --arch with --init and inputs",
            ));
        }
    };
    let mut set = find_images(inputs)?;
    if let Some(entry) = args.arch.as_deref().and_then(model::find) {
        set.interpolation = entry.input.interpolation;
    }
    leave_out_broken_lines(&mut set);
    let items: Arc<dyn Items> = match &config {
        Some(config) => items(config, set)?,
        None => Arc::new(set),
    };
    if config.is_none() {
        extractor.learn_dictionary(items.as_ref(), ui)?;
    }
    let paths = args.out.with_extension("paths.txt");
    let (of_features, of_paths) = (Output::file(&args.out)?, Output::file(&paths)?);
    let mut extracted = extractor.all(items.as_ref(), FeatureKind::Hidden, ui)?;
    of_features.finish(&matrix::to_npy(&extracted.features)?)?;
    let names: String = extracted
        .rows
        .iter()
        .map(|&row| format!("{}\n", items.name(row)))
        .collect();
    of_paths.finish(names.as_bytes())?;
    ui.note(&format!(
        "features {:?} in {}, their paths in {}",
        extracted.features.size(),
        args.out.display(),
        paths.display()
    ));
    extracted
        .skipped
        .splice(0..0, items.skipped().iter().cloned());
    report_skipped(
        &extracted.skipped,
        items.len() + items.skipped().len(),
        args.strict,
        ui,
    )?;
    Ok(ExitStatus::Done)
}

/// Paths are written one a line: names that hold a line break would shift all that follow.
fn leave_out_broken_lines(set: &mut ImageSet) {
    let broken = |file: &ImageFile| file.name.contains(['\n', '\r']);
    for file in set.files.extract_if(.., |file| broken(file)) {
        set.skipped.push(Skipped {
            path: file.name.into(),
            reason: "its name holds a line break: rename it".into(),
        });
    }
}

/// A backbone with weights from a file, at torchvision's sizes (resize 256, centre 224).
fn pretrained(arch: &str, args: &FeaturesArgs, device: tch::Device, ui: &Ui) -> Result<Extractor> {
    let entry = model::find(arch).ok_or_else(|| unknown_arch(arch))?;
    tch::manual_seed(0);
    let size = args.size.unwrap_or(entry.input.size);
    let precision = precision(args.numbers.precision.unwrap_or_default(), device);
    let network = Network::new(entry, size, false, device, precision)?;
    let of_published = || best_published(entry).map(|found| found.path);
    let weights = match args.init.clone().unwrap_or(Init::Auto) {
        Init::From(path) => Some(path),
        Init::None => None,
        Init::Auto => of_published(),
        Init::ImageNet => Some(of_published().ok_or_else(|| no_published(Some(arch)))?),
    };
    match weights {
        Some(weights) => report_loaded(&network, &weights, ui)?,
        None if !model::learns(entry.name) => {}
        None => ui.warn("without weights (--init) these are the features of an untrained network"),
    }
    Ok(Extractor {
        network,
        size,
        store: entry.input.kept(size),
        plain: PlainView::Centre,
    })
}

fn report_loaded(network: &Network, init: &Path, ui: &Ui) -> Result<()> {
    let report = network.load(init)?;
    ui.note(&format!(
        "{} tensors from {}",
        report.loaded,
        init.display()
    ));
    if !report.unexpected.is_empty() {
        ui.note(&format!("not used: {}", report.unused()));
    }
    Ok(())
}
