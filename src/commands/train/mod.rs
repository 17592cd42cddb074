//! `train`: from options and images to a finished run.

mod args;
mod method_flags;
mod settings;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tch::Device;

use super::inputs::{
    facts, find_images, images_of_run, load, report_skipped, run_info, typed_inputs,
};
use super::{ExitStatus, report};
use crate::cluster::ENGINES;
use crate::comm::OneProcess;
use crate::config::defaults::{Choice, complete};
use crate::config::{Config, Init, NOTHING, Settings};
use crate::data::Dataset;
use crate::data::cache::Watch;
use crate::data::items::Items;
use crate::data::source::ImageSet;
use crate::device::{self, Precision, describe, precision};
use crate::error::{unknown, usage};
use crate::method::{FeaturePrefetch, METHODS, PrefetchedFeatures};
use crate::model::weights::shapes;
use crate::model::{self, Shape};
use crate::monitor::{Monitor, duration};
use crate::profile::{Part, Profile};
use crate::run_dir::RunDir;
use crate::train::{Outcome, RunEnv, Session, train};
use crate::trained::start::choose;
use crate::trained::{build, build_method, find_method, initial, items, unknown_arch};
use crate::ui::Ui;
pub use args::TrainArgs;
use settings::settings;
pub(super) use settings::settings_of_pairs;

pub fn run(args: TrainArgs, ui: &Ui) -> Result<ExitStatus> {
    match &args.resume {
        Some(run) => resume(&args, run, ui),
        None => start(&args, ui),
    }
}

fn start(args: &TrainArgs, ui: &Ui) -> Result<ExitStatus> {
    let inputs = &args.inputs;
    if inputs.iter().any(|input| input == Path::new("-")) {
        return Err(usage(
            "train reads its images again on --resume and cannot do so from stdin: \
             write the list to a file and give that",
        ));
    }
    let out = args.out.clone().unwrap_or_else(|| default_out(&inputs[0]));
    if !args.print_config {
        RunDir::check_free(&out)?;
    }
    let mut settings = settings(args)?;
    if let Some(Init::From(path)) = &settings.model.init
        && !path.is_dir()
    {
        // What can go wrong at once does so before the images are looked for.
        shapes(path)?;
    }
    let device = device::select(settings.train.device.unwrap_or_default())?;
    let threads = device::set_threads(settings.train.threads);
    let set = find_images(inputs)?;
    let name = settings
        .train
        .method
        .clone()
        .unwrap_or_else(|| METHODS[0].name.into());
    let entry = find_method(&name)?;
    let mut facts = facts(&set, device, threads);
    let start = choose(&settings, &facts)?;
    facts.ready = start.ready;
    settings.model.init = Some(start.init);
    settings.model.weights = Some(start.weights);
    if let Some(arch) = start.arch {
        settings.model.arch = Some(arch.into());
    }
    settings.data = settings.data.over(start.data);
    let info = run_info(typed_inputs(inputs)?, &set);
    let (mut config, mut choices) = complete(settings.over((entry.preset)(&facts)), &facts, info);
    config.train.method = name;
    config.train.threads = threads;
    let numbers = precision(config.train.precision, device);
    config.train.precision = numbers.into();
    check(&config)?;
    for choice in entry.complete_in(&mut config)? {
        if choice.name == "clusters" && args.clusters.is_some() {
            return Err(usage(format!("{}: leave --clusters out", choice.reason)));
        }
        // The method knows better.
        choices.retain(|before| before.name != choice.name);
        choices.push(choice);
    }
    if args.init.is_none() {
        let (name, value) = match start.arch {
            Some(arch) => ("arch", arch),
            None => ("weights", "none"),
        };
        let told = Choice {
            name,
            value: value.into(),
            reason: start.reason,
        };
        choices.insert(0, told);
    }
    if args.print_config {
        std::io::stdout().write_all(config.to_toml()?.as_bytes())?;
        return Ok(ExitStatus::Done);
    }
    if config.train.epochs == 0 {
        choices.retain(|choice| !OF_LEARNING.contains(&choice.name));
    }
    let what = match config.train.epochs {
        0 => "clustering",
        _ => entry.name,
    };
    announce(what, &set, &choices, device, numbers, ui);

    // What can go wrong at once does so before the images are read.
    let network = build(&config, device)?;
    if let Some(weights) = &config.model.weights {
        let loaded = network.load(&weights.path)?;
        if !loaded.unexpected.is_empty() {
            ui.note(&format!("  not used of the weights: {}", loaded.unused()));
        }
    }
    let items = items(&config, set)?;
    let run = RunDir::create(&out)?;
    let profile = profile_of(args, device);
    // On a CPU decoding and the network would be in each other's way.
    let knows = network.dictionary().is_none();
    let first = (entry.first)(&config.method).filter(|_| device != Device::Cpu && knows);
    let before = config.clone();
    let ahead =
        first.map(|wanted| FeaturePrefetch::new(&before, &network, &profile, items.len(), wanted));
    let read = || read(items, &mut config, ahead, args.strict, ui);
    let (data, prefetched) = match profile.time(Part::Decode, read) {
        Ok(read) => read,
        Err(error) => {
            run.discard();
            return Err(error);
        }
    };
    run.write_config(&config)?;
    run.write_skipped(&data.skipped)?;
    let training = Training {
        run,
        config,
        data,
        network,
        profile,
        prefetched,
    };
    fit(&training, false, ui)
}

/// Choices that say nothing where nothing is learned.
const OF_LEARNING: &[&str] = &["batch-size", "crop-scale", "reassign"];

fn profile_of(args: &TrainArgs, device: Device) -> Profile {
    match args.profile {
        true => Profile::of(device),
        false => Profile::off(),
    }
}

/// Reads the images and checks that there are enough; `ahead` is given them meanwhile.
fn read(
    items: Arc<dyn Items>,
    config: &mut Config,
    mut ahead: Option<FeaturePrefetch>,
    strict: bool,
    ui: &Ui,
) -> Result<(Dataset, PrefetchedFeatures)> {
    let mut see = ahead
        .as_mut()
        .map(|ahead| |pixels, rows| ahead.see(pixels, rows));
    let watch = see.as_mut().map(|see| see as &mut Watch);
    let data = load(items, config, watch, ui)?;
    report_skipped(&data.skipped, data.len() + data.skipped.len(), strict, ui)?;
    config.run.images = data.len();
    check(config)?;
    let prefetched = ahead.map_or_else(PrefetchedFeatures::default, |ahead| {
        ahead.finish(data.len())
    });
    Ok((data, prefetched))
}

fn resume(args: &TrainArgs, path: &Path, ui: &Ui) -> Result<ExitStatus> {
    let mut typed = settings(args)?;
    (typed.train.device, typed.train.threads) = (None, None);
    typed.train.precision = None;
    if typed != Settings::default() {
        return Err(usage(
            "--resume goes on with the run's own options: only --device, --threads, --precision and \
             --strict can be given with it (other options need a new run)",
        ));
    }
    let run = RunDir::open(path)?.locked()?;
    let mut config = run.config()?;
    if let Some(precision) = args.numbers.precision {
        config.train.precision = precision;
    }
    find_method(&config.train.method)?;
    let device = device::select(args.machine.device.unwrap_or(config.train.device))?;
    device::set_threads(Some(args.machine.threads.unwrap_or(config.train.threads)));
    let items = items(&config, images_of_run(&config)?)?;
    let profile = profile_of(args, device);
    let data = profile.time(Part::Decode, || load(items, &config, None, ui))?;
    report_skipped(
        &data.skipped,
        config.run.images + data.skipped.len(),
        args.strict,
        ui,
    )?;
    if data.len() != config.run.images {
        anyhow::bail!(
            "'{}' holds {} readable images, the run began with {}: put them back, or start a new run",
            config.run.input,
            data.len(),
            config.run.images
        );
    }
    let begun = run.checkpoint().is_file();
    let network = match begun {
        true => build(&config, device)?,
        false => initial(&config, device)?,
    };
    ui.heading(&format!(
        "{} {} on {}",
        if begun {
            "going on with"
        } else {
            "it stopped before its first checkpoint; beginning again with"
        },
        path.display(),
        describe(device)
    ));
    let training = Training {
        run,
        config,
        data,
        network,
        profile,
        prefetched: PrefetchedFeatures::default(),
    };
    fit(&training, begun, ui)
}

/// All that a training needs.
struct Training {
    run: RunDir,
    config: Config,
    data: Dataset,
    network: model::network::Network,
    profile: Profile,
    prefetched: PrefetchedFeatures,
}

/// Trains, from the run's checkpoint where `resume` says so, labels and reports.
fn fit(training: &Training, resume: bool, ui: &Ui) -> Result<ExitStatus> {
    let Training {
        run,
        config,
        data,
        network,
        profile,
        prefetched,
    } = training;
    let started = std::time::Instant::now();
    let method = build_method(config, network)?;
    let env = RunEnv {
        config,
        data,
        network,
        monitor: ui,
        profile,
        prefetched,
        comm: &OneProcess,
    };
    let mut session = Session::new(env, method, run);
    if resume {
        session.restore()?;
        if session.finished() && run.clustering().is_file() {
            ui.note("this run is complete: there is nothing to resume");
            return Ok(ExitStatus::Done);
        }
    }
    match train(&mut session)? {
        Outcome::Interrupted => {
            ui.note(&format!(
                "saved; go on with `ssl-cluster train --resume {}`",
                run.path().display()
            ));
            return Ok(ExitStatus::Interrupted);
        }
        Outcome::Finished => {}
    }
    if let Err(error) = report::of_session(run, config, data, &session, ui) {
        ui.warn(&format!(
            "the labels are written, the report is not: {error:#}"
        ));
    }
    tell_profile(profile, started.elapsed().as_secs_f64(), ui);
    ui.heading(&format!(
        "done in {}",
        duration(started.elapsed().as_secs_f64())
    ));
    ui.note(&format!("labels   {}", run.labels().display()));
    ui.note(&format!("report   {}", run.report().display()));
    ui.note(&format!(
        "label new images with `ssl-cluster assign {} DIR`",
        run.path().display()
    ));
    Ok(ExitStatus::Done)
}

/// Where the time went, as a table.
fn tell_profile(profile: &Profile, training: f64, ui: &Ui) {
    let parts = profile.total();
    if parts.is_empty() {
        return;
    }
    let decode = |part: &&(Part, f64)| part.0 == Part::Decode;
    let decoding: f64 = parts.iter().filter(decode).map(|part| part.1).sum();
    let all = training + decoding;
    let known: f64 = parts.iter().map(|part| part.1).sum();
    ui.heading("where the time went");
    let lines = parts.iter().map(|(part, seconds)| (part.name(), *seconds));
    for (name, seconds) in lines.chain([("other", (all - known).max(0.0))]) {
        ui.note(&format!(
            "  {name:<10} {seconds:>8.2} s {:>5.1} %",
            100.0 * seconds / all
        ));
    }
}

/// Refuses options that cannot work, before anything is done.
fn check(config: &Config) -> Result<()> {
    config.validate().map_err(usage)?;
    let backbone =
        model::find(&config.model.arch).ok_or_else(|| unknown_arch(&config.model.arch))?;
    if config.train.epochs > 0 && !model::learns(backbone.name) {
        return Err(usage(format!(
            "{} are computed, there is nothing to learn: leave --epochs and --method out, or take another --arch",
            backbone.name
        )));
    }
    let shape = Shape {
        size: config.data.size as i64,
        in_channels: 3,
    };
    backbone
        .check(&shape)
        .map_err(|error| usage(error.to_string()))?;
    if config.model.beside != NOTHING {
        let beside = &config.model.beside;
        let entry = model::find(beside).ok_or_else(|| unknown_arch(beside))?;
        if model::learns(entry.name) || entry.name == backbone.name {
            return Err(usage(format!(
                "--beside wants a backbone that has nothing to learn by gradients, and another than --arch: {}, or none",
                model::unlearned_backbone()
            )));
        }
    }
    if crate::cluster::engine(&config.cluster.engine).is_none() {
        let known = ENGINES.iter().map(|engine| engine.name);
        return Err(unknown("engine", &config.cluster.engine, known));
    }
    Ok(())
}

fn announce(
    what: &str,
    set: &ImageSet,
    choices: &[Choice],
    device: Device,
    numbers: Precision,
    ui: &Ui,
) {
    let classes = match set.classes.len() {
        0 => String::new(),
        count => format!(" in {count} folders (used for evaluation only)"),
    };
    ui.heading(&format!(
        "{what}: {} images{classes}, on {} in {numbers}",
        set.files.len(),
        describe(device)
    ));
    for choice in choices {
        ui.note(&format!(
            "  {:<11} {:<9} {}",
            choice.name, choice.value, choice.reason
        ));
    }
}

fn default_out(input: &Path) -> PathBuf {
    let name = input
        .canonicalize()
        .ok()
        .and_then(|path| path.file_stem().map(|stem| stem.to_os_string()));
    Path::new("runs").join(name.unwrap_or_else(|| "run".into()))
}
