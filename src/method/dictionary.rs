//! Backbones that learn something of the images before they see them.

use anyhow::Result;
use tch::Tensor;

use super::{Context, extract_size};
use crate::cluster::copies::without_copies;
use crate::cluster::preprocess::Pca;
use crate::cluster::{self, Empty, Init, KMeansOptions, kmeans};
use crate::config::{DataConfig, PlainView};
use crate::data::augment;
use crate::data::image_batch::ImageBatch;
use crate::data::loader::{batches, equal_lengths};
use crate::data::spread::spread;
use crate::model::network::Network;
use crate::model::{Dictionary, Quantiser};
use crate::monitor::Phase;
use crate::tensors::from_labels;

/// Images that a dictionary is learned from.
pub const DICTIONARY_IMAGES: usize = 1_024;

/// Lets the network learn what it has to know of the images of a run, from a sample that is spread over them.
///
/// # Errors
/// Images that cannot be read any more.
pub fn learn_dictionary(context: &Context) -> Result<()> {
    let network = context.network;
    let Some(dictionary) = network.dictionary() else {
        return Ok(());
    };
    let rows = spread(context.data.len(), DICTIONARY_IMAGES);
    let device = network.device();
    let lengths = equal_lengths(rows.len(), extract_size(context.config.data.size, device));
    context
        .monitor
        .begin(Phase::Extract, "learning visual words", 0);
    let sample = batches(&context.data.pixels, rows, lengths, device).map(|batch| {
        let images = batch?.images.on(device);
        let DataConfig { size, plain, .. } = context.config.data;
        Ok(dictionary_input(network, &images, size, plain))
    });
    let learned = sample.collect::<Result<Vec<Tensor>>>().and_then(|sample| {
        let sample = context.comm.gather(&Tensor::cat(&sample, 0));
        learn_from(dictionary, &sample)
    });
    context.monitor.end();
    learned
}

/// Lets `dictionary` learn from a sample of images, prepared, of which copies count once.
pub fn learn_from(dictionary: &dyn Dictionary, sample: &Tensor) -> Result<()> {
    tch::no_grad(|| match without_copies(&sample.flatten(1, -1)) {
        Some(first) => {
            let first = from_labels(&first).to_device(sample.device());
            dictionary.learn(&sample.index_select(0, &first), &Clusters)
        }
        None => dictionary.learn(sample, &Clusters),
    })
}

/// Principal components and k-means of this crate.
struct Clusters;

impl Quantiser for Clusters {
    fn components(&self, rows: &Tensor, most: usize) -> Result<(Tensor, Tensor)> {
        let pca = Pca::fit(rows, most, false)?;
        Ok((pca.mean, pca.components))
    }

    fn centroids(&self, rows: &Tensor, clusters: usize) -> Result<Tensor> {
        let options = KMeansOptions {
            clusters,
            init: Init::PlusPlus,
            // Of two words that are all but the same, rounding would choose.
            empty: Empty::Keep,
            ..KMeansOptions::default()
        };
        Ok(cluster::cluster(&kmeans::ENGINE, rows, &options)?.centroids)
    }
}

/// What the network's dictionary is learned from, of images that are kept so.
pub fn dictionary_input(
    network: &Network,
    kept: &ImageBatch,
    size: usize,
    view: PlainView,
) -> Tensor {
    match (network.backbone.dictionary(), &network.beside) {
        (None, Some(beside)) => augment::reduced(kept, beside.size),
        _ => network.prepare(&augment::plain(kept, size as i64, view)),
    }
}
