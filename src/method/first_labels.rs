//! What the first pseudo-labels come from: a network that has learned nothing yet, or clusters of hand-made
//! descriptors, which mean something (Christlein's lecture begins so).

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::features::points;
use super::{
    Beginning, Clustered, Context, FeatureRequest, PrefetchedFeatures, View, cluster_features,
    learn_dictionary,
};
use crate::cluster::assigner::FeatureKind;
use crate::cluster::preprocess::Pca;
use crate::cluster::{Clustering, Empty};
use crate::config::defaults::READY_COMPONENTS;
use crate::config::{Config, PlainView};
use crate::device::Precision;
use crate::model;
use crate::model::network::Network;

/// What the first pseudo-labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstLabels {
    /// The network's features, as published.
    #[default]
    Network,
    /// Visual words, and histograms of colours and gradients.
    Descriptors,
}

impl FirstLabels {
    /// What the first label step asks of the network, if it asks it.
    pub fn of_network(self, request: FeatureRequest) -> Option<FeatureRequest> {
        (self == Self::Network).then_some(request)
    }
}

/// Visual words and hand-made descriptors of all images, to be clustered in place of a network's features.
#[derive(Debug)]
pub struct Descriptors {
    /// `[n, d] f32`
    features: Tensor,
    config: Config,
}

impl Descriptors {
    /// Those of the images of a run.
    ///
    /// # Errors
    /// Images that are too small to be described.
    pub fn of(context: &Context) -> Result<Self> {
        let entry = model::find(model::unlearned_backbone()).context("there are no descriptors")?;
        let size = entry.input.size;
        let device = context.network.device();
        let network = Network::new(entry, size, false, device, Precision::F32)?;
        let mut config = context.config.clone();
        (config.data.size, config.data.plain) = (size, PlainView::Whole);
        config.cluster.whiten = false;
        config.cluster.components = READY_COMPONENTS;
        let nothing = PrefetchedFeatures::default();
        let context = Context {
            config: &config,
            network: &network,
            prefetched: &nothing,
            ..*context
        };
        learn_dictionary(&context)?;
        let features = context.features(FeatureKind::Hidden, View::Plain)?;
        Ok(Self { features, config })
    }

    /// Their clusters: the best for the first of several labelings, such as k-means finds from starts of its own for
    /// each other one.
    ///
    /// # Errors
    /// As [`cluster_features`].
    pub fn cluster(
        &self,
        context: &Context,
        empty: Empty,
        labelling: u64,
    ) -> Result<Clustered<Clustering>> {
        let mut config = self.config.clone();
        config.train.seed = config.train.seed.wrapping_add(labelling);
        let context = Context {
            config: &config,
            ..*context
        };
        let beginning = match labelling {
            0 => Beginning::for_last_labels(&context),
            _ => Beginning::Best,
        };
        cluster_features(&context, &self.features, beginning, empty)
    }

    /// The points `[n, r] f32` that clusters were found among, by their `pca`.
    pub fn points(&self, pca: &Pca) -> Tensor {
        points(pca, &self.features)
    }
}
