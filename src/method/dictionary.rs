//! Backbones that learn something of the images before they see them.

use anyhow::Result;
use tch::Tensor;

use super::{Batch, Context, extract_size};
use crate::data::loader::{batches, equal_lengths};
use crate::data::spread::spread;
use crate::monitor::Phase;

/// Images that a dictionary is learned from.
pub const DICTIONARY_IMAGES: usize = 1_024;

/// Lets the network learn what it has to know of the images of a run, from a sample that is spread over them.
///
/// # Errors
/// Images that cannot be read any more.
pub fn learn_dictionary(context: &Context) -> Result<()> {
    let Some(dictionary) = context.network.backbone.dictionary() else {
        return Ok(());
    };
    let rows = spread(context.data.len(), DICTIONARY_IMAGES);
    let device = context.network.device();
    let lengths = equal_lengths(rows.len(), extract_size(context.config.data.size, device));
    context
        .monitor
        .begin(Phase::Extract, "learning visual words", 0);
    let sample = batches(&context.data.pixels, rows, lengths, device).map(|batch| {
        let batch = Batch::new(batch?, context.network);
        Ok(context.network.prepare(&context.plain(&batch)))
    });
    let learned = sample.collect::<Result<Vec<Tensor>>>().and_then(|sample| {
        let sample = context.comm.gather(&Tensor::cat(&sample, 0));
        Ok(tch::no_grad(|| dictionary.learn(&sample))?)
    });
    context.monitor.end();
    learned
}
