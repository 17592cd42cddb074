//! The images that a command works on: found, looked at, decoded, and those left out named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tch::Device;

use crate::config::defaults::Facts;
use crate::config::{Config, Inputs, RunInfo};
use crate::data::cache::{Cache, Watch};
use crate::data::items::Items;
use crate::data::source::{EXTENSIONS, ImageSet, Skipped};
use crate::data::{DataError, Dataset, decode};
use crate::error::{Error, usage};
use crate::method::REGISTRY;
use crate::monitor::Monitor;
use crate::trained::none_readable;
use crate::ui::Ui;

/// Images whose size is looked at to choose defaults.
const SAMPLE: usize = 64;

/// Finds the images of `inputs` (`-`, alone, is a list on stdin).
pub(super) fn find_images(inputs: &[impl AsRef<Path>]) -> Result<ImageSet> {
    let stdin = |input: &&_| AsRef::<Path>::as_ref(*input) == Path::new("-");
    let set = match inputs {
        [only] if stdin(&only) => ImageSet::from_list(std::io::stdin().lock())?,
        _ if inputs.iter().any(|input| stdin(&input)) => {
            return Err(usage("`-` reads a list from stdin and stands alone"));
        }
        _ => ImageSet::find_from(inputs, Path::new(""))?,
    };
    some(set, inputs)
}

/// Refuses a set without images.
fn some(set: ImageSet, inputs: &[impl AsRef<Path>]) -> Result<ImageSet> {
    if set.files.is_empty() {
        let extensions = EXTENSIONS.join(", ");
        let reason = match set.others {
            0 => "it is empty".into(),
            others => format!("none of its {others} files has an image's name ({extensions})"),
        };
        return Err(Error::NoImages {
            path: place(inputs),
            reason,
        }
        .into());
    }
    Ok(set)
}

/// Several inputs in messages.
pub(super) fn place(inputs: &[impl AsRef<Path>]) -> PathBuf {
    let names: Vec<_> = inputs
        .iter()
        .map(|input| input.as_ref().to_string_lossy())
        .collect();
    names.join("', '").into()
}

/// Where the images lie that a run was trained on.
pub(super) fn place_of_run(config: &Config) -> PathBuf {
    let directory = config.run.directory.clone().unwrap_or_default();
    match &config.run.input.0[..] {
        [only] => directory.join(only),
        several => place(several),
    }
}

/// The images that a run was trained on, found from anywhere.
pub(super) fn images_of_run(config: &Config) -> Result<ImageSet> {
    let directory = config.run.directory.as_deref();
    let inputs = &config.run.input.0;
    some(
        ImageSet::find_from(inputs, directory.unwrap_or(Path::new("")))?,
        inputs,
    )
}

/// What the defaults look at.
pub(super) fn facts(set: &ImageSet, device: Device, threads: usize) -> Facts {
    let (width, height) = median_size(set);
    Facts {
        images: set.files.len(),
        width,
        height,
        device,
        threads,
        registry: REGISTRY,
        ready: None,
    }
}

/// Where a run comes from.
pub(super) fn run_info(input: Inputs, set: &ImageSet) -> RunInfo {
    RunInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        command: std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" "),
        directory: std::env::current_dir().ok(),
        input,
        images: set.files.len(),
    }
}

/// Decodes the items as the options say.
pub(super) fn load(
    items: Arc<dyn Items>,
    config: &Config,
    watch: Option<&mut Watch>,
    ui: &Ui,
) -> Result<Dataset> {
    let data = Dataset::load(
        items,
        config.data.store,
        &Cache::of_user(config.data.cache),
        watch,
        ui,
    )
    .map_err(|error| match error {
        DataError::Interrupted(interrupted) => anyhow::Error::from(interrupted),
        other => other.into(),
    })?;
    if data.is_empty() {
        return Err(none_readable(place(&config.run.input.0), &data.skipped).into());
    }
    Ok(data)
}

/// The inputs as they were typed: names of images may begin with them. A run also knows the directory
/// that they are relative to.
pub(super) fn typed_inputs(inputs: &[PathBuf]) -> Result<Inputs> {
    let text = |path: &PathBuf| match path.to_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(usage(format!(
            "the path '{}' is not UTF-8, and a run could not be resumed from it: rename it",
            path.display()
        ))),
    };
    Ok(Inputs(inputs.iter().map(text).collect::<Result<_>>()?))
}

/// So many images of a set, spread over it.
pub(super) fn thinned(mut set: ImageSet, count: usize) -> ImageSet {
    let all = set.files.len();
    let count = count.clamp(1, all.max(1));
    let mut number = 0;
    set.files.retain(|_| {
        number += 1;
        (number - 1) * count / all != number * count / all || count == all
    });
    set
}

/// Median width and height of a sample of the images; those that cannot be read are left out.
fn median_size(set: &ImageSet) -> (u32, u32) {
    let step = (set.files.len() / SAMPLE).max(1);
    let sizes: Vec<(u32, u32)> = (0..set.files.len())
        .step_by(step)
        .filter_map(|row| decode::dimensions(&set.bytes(row).ok()?).ok())
        .collect();
    let median = |mut values: Vec<u32>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(224)
    };
    (
        median(sizes.iter().map(|size| size.0).collect()),
        median(sizes.iter().map(|size| size.1).collect()),
    )
}

/// Names the first unreadable inputs and counts them; with `strict` they are a failure.
pub(super) fn report_skipped(
    skipped: &[Skipped],
    total: usize,
    strict: bool,
    ui: &Ui,
) -> Result<()> {
    const NAMED: usize = 10;
    for skip in skipped.iter().take(NAMED) {
        ui.warn(&format!("cannot read '{}': {}", skip.path, skip.reason));
    }
    if skipped.len() > NAMED {
        ui.warn(&format!("... and {} more", skipped.len() - NAMED));
    }
    if !skipped.is_empty() {
        ui.warn(&format!("{} of {total} inputs were skipped", skipped.len()));
    }
    if strict && !skipped.is_empty() {
        return Err(Error::Skipped {
            count: skipped.len(),
            total,
        }
        .into());
    }
    Ok(())
}
