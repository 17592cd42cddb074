//! `preview`: what a method sees of images and what it predicts, as one picture.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tch::Device;

use super::ExitStatus;
use super::inputs::{facts, find_images, load, run_info, thinned, typed_inputs};
use super::options::{Machine, at_least_one, machine};
use super::output::{Output, ends_in};
use crate::config::defaults::complete;
use crate::config::{Config, Settings};
use crate::data::source::ImageSet;
use crate::error::usage;
use crate::monitor::Monitor;
use crate::picture::draw;
use crate::trained::{find_method, items, open, panels};
use crate::ui::Ui;

/// Draw what a method sees and predicts.
#[derive(Debug, Args)]
#[command(after_help = PREVIEW_EXAMPLES)]
pub struct PreviewArgs {
    /// A run, or a directory of images to see a method untrained
    #[arg(value_name = "RUN|DIR")]
    pub place: PathBuf,
    /// The method, for a directory
    #[arg(long, short)]
    pub method: Option<String>,
    /// Images for a run [default: those that it was trained on]
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Where to write the picture (.png)
    #[arg(long, short)]
    pub out: PathBuf,
    /// Images that are shown
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    pub count: usize,
    /// An option of the method, for a directory
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub machine: Machine,
}

const PREVIEW_EXAMPLES: &str = "\
Examples:
  ssl-cluster preview photos/ --method context -o patches.png        before a night is spent on it
  ssl-cluster preview runs/photos -o seen.png                        what it has learned
  ssl-cluster preview runs/photos --images new/ --count 20 -o new.png";

pub fn run(args: PreviewArgs, ui: &Ui) -> Result<ExitStatus> {
    ends_in(&args.out, "png", "preview writes PNG")?;
    let device = machine(&args.machine)?;
    let output = Output::file(&args.out)?;
    let is_run = args.place.join("config.toml").is_file();
    let (config, set, run) = if is_run {
        if args.method.is_some() {
            return Err(usage("a run has its method: leave --method out"));
        }
        if !args.set.is_empty() {
            return Err(usage("a run has its options: leave --set out"));
        }
        let (run, config) = open(&args.place)?;
        let place = super::inputs::place_of_run(&config);
        let set = match &args.images {
            Some(place) => find_images(&[place])?,
            None => find_images(&[&place])
                .context("the run's images are not where they were: name others with --images")?,
        };
        (config, set, Some(run))
    } else {
        if args.images.is_some() {
            return Err(usage(format!(
                "--images belongs to a run, and '{}' is none",
                args.place.display()
            )));
        }
        let set = find_images(&[&args.place])?;
        (untrained(&args, &set, device)?, set, None)
    };
    let items = items(&config, thinned(set, args.count))?;
    let data = load(items, &config, None, ui)?;
    let rows: Vec<u32> = (0..data.len() as u32).collect();
    let panels = panels(run.as_ref(), &config, device, &data, &rows, ui)?;
    let mut png = Vec::new();
    draw(&panels).write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png)?;
    output.finish(&png)?;
    ui.note(&format!("{} rows in {}", panels.len(), args.out.display()));
    Ok(ExitStatus::Done)
}

/// The options with which a training would begin.
fn untrained(args: &PreviewArgs, set: &ImageSet, device: Device) -> Result<Config> {
    let name = args.method.as_deref().ok_or_else(|| {
        usage(format!(
            "'{}' is no run: name a --method to see it untrained",
            args.place.display()
        ))
    })?;
    let entry = find_method(name)?;
    let facts = facts(set, device, crate::device::cores());
    let typed = Settings {
        method: super::train::settings_of_pairs(&args.set)?,
        ..Settings::default()
    };
    let info = run_info(typed_inputs(std::slice::from_ref(&args.place))?, set);
    let (mut config, _) = complete(typed.over((entry.preset)(&facts)), &facts, info);
    config.train.method = name.into();
    entry.complete_in(&mut config)?;
    Ok(config)
}
