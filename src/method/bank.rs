//! Features that the training pass leaves behind, in place of a pass of their own.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::room::room;
use super::{Batch, Build, Context, State, View};
use crate::cluster::assigner::FeatureKind;
use crate::device::send;

/// Where the features of a label step come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeaturesFrom {
    /// A pass over all images in evaluation mode (published).
    #[default]
    Extraction,
    /// The batches that were trained on (as DeepCluster-v2's memory bank): of random views, and of the
    /// network as it was then.
    Training,
}

/// Where a method has its features from: a bank, or nothing but extraction.
#[derive(Debug)]
pub struct FeatureSource(Option<FeatureBank>);

impl FeatureSource {
    /// A source for the images of a run, none of which has been seen.
    pub fn new(from: FeaturesFrom, build: &Build) -> Self {
        Self((from == FeaturesFrom::Training).then(|| {
            let shape = [build.images as i64, build.network.dim()];
            let mut features = room(shape, build.network.device());
            let seen = Tensor::zeros([shape[0]], (Kind::Bool, features.device()));
            let _ = features.zero_();
            FeatureBank { features, seen }
        }))
    }

    /// What a head sees `[b, d]` of a prepared input of `batch`, in training.
    pub fn activation(&mut self, context: &Context, batch: &Batch, input: &Tensor) -> Tensor {
        let hidden = context.network.hidden(input, true);
        if let Some(bank) = &mut self.0 {
            bank.keep(batch, &hidden);
        }
        context.network.backbone.activate(&hidden)
    }

    /// Features `[n, d]` of all images.
    ///
    /// # Errors
    /// As [`Context::features`].
    pub fn features(&self, context: &Context, kind: FeatureKind, view: View) -> Result<Tensor> {
        match &self.0 {
            Some(bank) => bank.features(context, kind, view),
            None => context.features(kind, view),
        }
    }

    /// Adds what is kept to what a checkpoint holds.
    pub fn save(&self, state: &mut State) {
        if let Some(bank) = &self.0 {
            bank.save(state);
        }
    }

    /// Takes over what [`Self::save`] added.
    pub fn restore(&mut self, state: &mut State) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |bank| bank.restore(state))
    }
}

/// The newest hidden features of each image `[n, d] f32`, on the network's device if it has room.
#[derive(Debug)]
struct FeatureBank {
    features: Tensor,
    /// `[n] bool`
    seen: Tensor,
}

impl FeatureBank {
    /// Keeps the hidden features `[b, d]` of a batch; of an image that is in it twice, the last.
    fn keep(&mut self, batch: &Batch, hidden: &Tensor) {
        // Were a row written twice, threads would decide whose numbers stay.
        let mut last: BTreeMap<u32, i64> = BTreeMap::new();
        for (place, &row) in (0..).zip(&batch.rows) {
            last.insert(row, place);
        }
        let places: Vec<i64> = last.into_values().collect();
        tch::no_grad(|| {
            let places = send(&places, hidden.device());
            let here = self.features.device();
            let index = batch.index.index_select(0, &places).to_device(here);
            let newest = hidden.detach().index_select(0, &places).to_device(here);
            let _ = self.features.index_copy_(0, &index, &newest);
            let _ = self.seen.index_fill_(0, &index, 1);
        });
    }

    /// Features `[n, d]` of all images. Those that have not been seen are extracted; all of them are
    /// where that is more than half.
    ///
    /// # Errors
    /// As [`Context::features`].
    fn features(&self, context: &Context, kind: FeatureKind, view: View) -> Result<Tensor> {
        let missing = self.seen.logical_not().nonzero().flatten(0, -1);
        let rows: Vec<i64> = Vec::try_from(&missing.to_device(Device::Cpu))?;
        if 2 * rows.len() > context.data.len() {
            return context.features(kind, view);
        }
        let mut features = self.features.copy();
        if !rows.is_empty() {
            let rows = rows.into_iter().map(|row| row as u32).collect();
            let extracted = context.features_of(FeatureKind::Hidden, view, rows)?;
            let extracted = extracted.to_device(features.device());
            let _ = features.index_copy_(0, &missing, &extracted);
        }
        Ok(match kind {
            FeatureKind::Hidden => features,
            FeatureKind::Activation => context.network.backbone.activate(&features),
        })
    }

    /// Adds the bank to what a checkpoint holds.
    fn save(&self, state: &mut State) {
        let seen = self.seen.to_kind(Kind::Int64);
        for (name, tensor) in [("bank", &self.features), ("bank_seen", &seen)] {
            let tensor = tensor.to_device(Device::Cpu);
            state.tensors.push((name.into(), tensor));
        }
    }

    /// Takes over what [`Self::save`] added.
    fn restore(&mut self, state: &mut State) -> Result<()> {
        let device = self.features.device();
        self.features = state.tensor("bank")?.to_device(device);
        let seen = state.tensor("bank_seen")?;
        self.seen = seen.to_kind(Kind::Bool).to_device(device);
        Ok(())
    }
}
