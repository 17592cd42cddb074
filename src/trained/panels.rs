//! What a method shows of images, for `preview` and the report.

use anyhow::{Result, bail};
use tch::Device;

use super::{build, build_method, method_of_run};
use crate::config::Config;
use crate::data::Dataset;
use crate::data::loader::PixelBatch;
use crate::method::{Aside, Batch};
use crate::monitor::Monitor;
use crate::picture::Panel;
use crate::run_dir::RunDir;

/// The pictures of the images `rows` of `data`, by the network and the method of `run`, or by untrained ones
/// where there is none.
///
/// # Errors
/// A run without a checkpoint, or whose files do not fit; images that cannot be read any more.
pub fn panels(
    run: Option<&RunDir>,
    config: &Config,
    device: Device,
    data: &Dataset,
    rows: &[u32],
    monitor: &dyn Monitor,
) -> Result<Vec<Panel>> {
    if run.is_some() && config.train.epochs == 0 {
        bail!("nothing was learned in this run, so that there are no predictions to show");
    }
    let network = build(config, device)?;
    let (method, names) = match run {
        None => (build_method(config, &network)?, Vec::new()),
        Some(run) => {
            network.load(&run.model())?;
            let labels = run.read_labels()?.into_iter();
            let names: Vec<String> = labels.map(|record| record.path).collect();
            (method_of_run(run, config, &network)?, names)
        }
    };
    // The numbers that the images have in the run, by which a method knows their labels.
    let number = |&row: &u32| {
        let known = names
            .iter()
            .position(|name| name == data.name(row as usize));
        known.map_or(u32::MAX, |known| known as u32)
    };
    let numbers = rows.iter().map(number).collect();
    let batch = Batch::new(PixelBatch::new(&data.pixels, rows, device)?, &network);
    let aside = Aside::default();
    let context = aside.context(config, &network, data, monitor);
    tch::no_grad(|| method.preview(&context, &batch.numbered(numbers)))
}
