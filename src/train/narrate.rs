//! What the loop says after an epoch.

use crate::config::Config;
use crate::monitor::Monitor;
use crate::record::{EpochRecord, LabelStepRecord};

/// The loss of a network that has learned nothing is at least this share of ln k.
const GUESSING: f64 = 0.99;

/// One line for the epoch, and a warning where nothing is learned.
pub fn narrate(
    config: &Config,
    epoch: &EpochRecord,
    step: Option<&LabelStepRecord>,
    monitor: &dyn Monitor,
) {
    let mut line = format!(
        "epoch {}/{}  loss {:.3}",
        epoch.epoch, config.train.epochs, epoch.loss
    );
    if let Some(accuracy) = epoch.accuracy {
        line += &format!("  accuracy {:.1} %", 100.0 * accuracy);
    }
    if let Some(nmi) = step.and_then(|step| step.nmi_previous) {
        line += &format!("  NMI to the labels before {nmi:.2}");
    }
    if let Some(reassigned @ 1..) = step.and_then(|step| step.reassigned) {
        line += &format!("  {reassigned} empty clusters reassigned");
    }
    line += &format!("  {:.0} images/s", epoch.images_per_second);
    monitor.note(&line);
    let clusters = step.map_or(config.cluster.clusters, |step| step.clusters);
    let guess = (clusters as f64).ln();
    // In the first epoch of a short run the loss is still near its start.
    if step.is_some() && epoch.epoch == 2 && epoch.loss > GUESSING * guess {
        monitor.warn(&format!(
            "the loss is still that of guessing (ln {clusters} = {guess:.2}): the network does not \
             learn its labels; try another --lr, fewer --clusters or a larger --crop-scale"
        ));
    }
}
