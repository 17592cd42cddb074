//! Features that the training pass leaves behind, in place of a pass of their own.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::room::room;
use super::{Archive, Build, Context, Kept, View};
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

    /// What a head sees `[b, d]` of a prepared input, in training, and what is to be kept of it once the
    /// update is made: see [`Self::keep`].
    pub fn activation(
        &self,
        context: &Context,
        input: &Tensor,
    ) -> (Tensor, BTreeMap<String, Tensor>) {
        let hidden = context.network.hidden(input, true);
        let mut kept = BTreeMap::new();
        if self.0.is_some() {
            kept.insert(HIDDEN.into(), hidden.detach());
        }
        (context.network.backbone.activate(&hidden), kept)
    }

    /// Takes over what [`Self::activation`] has kept.
    pub fn keep(&mut self, part: &Kept) {
        if let (Some(bank), Some(hidden)) = (&mut self.0, part.tensors.get(HIDDEN)) {
            bank.keep(&part.indices, hidden);
        }
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

    /// What a resumed run needs of it.
    pub fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        match &mut self.0 {
            None => Ok(()),
            Some(bank) => {
                archive.tensor("bank", &mut bank.features)?;
                let mut seen = bank.seen.to_kind(Kind::Int64);
                archive.tensor("bank_seen", &mut seen)?;
                bank.seen = seen.to_kind(Kind::Bool);
                Ok(())
            }
        }
    }
}

/// Hidden features of a batch.
const HIDDEN: &str = "hidden";

/// The newest hidden features of each image `[n, d] f32`, on the network's device if it has room.
#[derive(Debug)]
struct FeatureBank {
    features: Tensor,
    /// `[n] bool`
    seen: Tensor,
}

impl FeatureBank {
    /// Keeps the hidden features `[b, d]` of these images; of one that is in it twice, the last.
    fn keep(&mut self, indices: &[u32], hidden: &Tensor) {
        // Were a row written twice, threads would decide whose numbers stay.
        let mut last: BTreeMap<u32, i64> = BTreeMap::new();
        for (place, &index) in (0..).zip(indices) {
            last.insert(index, place);
        }
        let (images, places): (Vec<i64>, Vec<i64>) = last
            .into_iter()
            .map(|(index, place)| (i64::from(index), place))
            .unzip();
        tch::no_grad(|| {
            let here = self.features.device();
            let index = send(&images, here);
            let places = send(&places, hidden.device());
            let newest = hidden.index_select(0, &places).to_device(here);
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
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::{FeatureBank, FeatureSource};
    use crate::method::{Archive, State};

    fn empty() -> FeatureBank {
        FeatureBank {
            features: Tensor::zeros([5, 2], (Kind::Float, Device::Cpu)),
            seen: Tensor::zeros([5], (Kind::Bool, Device::Cpu)),
        }
    }

    fn rows(bank: &FeatureBank) -> Vec<f32> {
        Vec::try_from(&bank.features.flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_bank_keeps_the_newest_features_of_each_image() {
        let mut bank = empty();
        let hidden = Tensor::arange(8, (Kind::Float, Device::Cpu)).view([4, 2]);
        // Image 3 twice: the last counts.
        bank.keep(&[3, 1, 3, 0], &hidden);
        assert_eq!(rows(&bank), [6., 7., 2., 3., 0., 0., 4., 5., 0., 0.]);
        let seen: Vec<bool> = Vec::try_from(&bank.seen).unwrap();
        assert_eq!(seen, [true, true, false, true, false]);
        bank.keep(&[1], &(hidden.narrow(0, 0, 1) + 50.0));
        assert_eq!(rows(&bank)[2..4], [50.0, 51.0]);
    }

    #[test]
    fn a_bank_comes_back_with_what_it_has_seen() {
        let mut bank = empty();
        bank.keep(&[2], &Tensor::from_slice(&[0.1_f32, -4.5]).view([1, 2]));
        let mut kept = FeatureSource(Some(bank));
        let mut state = State::default();
        kept.archive(&mut Archive::saving(&mut state)).unwrap();
        let mut restored = FeatureSource(Some(empty()));
        restored
            .archive(&mut Archive::restoring(&mut state))
            .unwrap();
        let (kept, restored) = (kept.0.unwrap(), restored.0.unwrap());
        assert_eq!(rows(&kept), rows(&restored));
        assert_eq!(kept.seen, restored.seen);
        // A run without a bank neither saves nor wants one.
        let mut none = State::default();
        FeatureSource(None)
            .archive(&mut Archive::restoring(&mut none))
            .unwrap();
    }
}
