//! The state that `--resume` needs, as one safetensors file: tensors under `group/name`, the rest as
//! JSON in its metadata. One file, replaced as a whole, is never half of one state and half of
//! another.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::meter::MeterSums;
use crate::method::Position;
use crate::model::weights;

const KEY: &str = "ssl_cluster.checkpoint";

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    pub position: Position,
    /// Images seen when the present order of images began, and label steps done by then.
    pub order: (u64, u64),
    /// Sums of the unfinished epoch.
    pub meter: MeterSums,
    /// Parts in which a batch went through the network; unknown in checkpoints of earlier versions.
    #[serde(default, alias = "parts")]
    pub micro_batches: usize,
    /// Fingerprint of the images' names.
    pub images: u64,
    /// The method's values.
    pub method: BTreeMap<String, serde_json::Value>,
}

/// A saved state.
#[derive(Debug, Default)]
pub struct Checkpoint {
    pub meta: CheckpointMeta,
    tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    pub fn new(meta: CheckpointMeta) -> Self {
        Self {
            meta,
            tensors: BTreeMap::new(),
        }
    }

    /// Adds tensors under `group/`.
    pub fn add(&mut self, group: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) {
        self.tensors.extend(
            tensors
                .into_iter()
                .map(|(name, tensor)| (format!("{group}/{name}"), tensor)),
        );
    }

    /// The tensors of a group, without its name.
    pub fn take(&mut self, group: &str) -> BTreeMap<String, Tensor> {
        let prefix = format!("{group}/");
        let names: Vec<String> = self
            .tensors
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .cloned()
            .collect();
        names
            .into_iter()
            .filter_map(|name| {
                let tensor = self.tensors.remove(&name)?;
                Some((name[prefix.len()..].to_string(), tensor))
            })
            .collect()
    }

    /// Writes the file, one tensor after the other.
    pub fn write(&self, out: &mut impl std::io::Write) -> Result<()> {
        let metadata = BTreeMap::from([(KEY.to_string(), serde_json::to_string(&self.meta)?)]);
        let tensors: Vec<(String, Tensor)> = self
            .tensors
            .iter()
            .filter(|(_, tensor)| tensor.numel() > 0)
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        Ok(weights::save(&tensors, &metadata, out)?)
    }

    /// Reads a checkpoint.
    pub fn read(path: &Path) -> Result<Self> {
        let file = weights::read(path)?;
        let text = file
            .metadata
            .get(KEY)
            .with_context(|| format!("'{}' is no checkpoint", path.display()))?;
        let meta = serde_json::from_str(text)
            .with_context(|| format!("'{}' is from another version", path.display()))?;
        Ok(Self {
            meta,
            tensors: file.tensors,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use tch::{Kind, Tensor};

    use super::{Checkpoint, CheckpointMeta};
    use crate::random::{Purpose, stream};
    use crate::run_dir::replace;

    #[test]
    fn places_of_earlier_versions_are_read() {
        let mut saved = serde_json::to_value(CheckpointMeta::default()).unwrap();
        let fields = saved.as_object_mut().unwrap();
        fields.remove("micro_batches").unwrap();
        assert_eq!(
            serde_json::from_value::<CheckpointMeta>(saved.clone())
                .unwrap()
                .micro_batches,
            0
        );
        saved
            .as_object_mut()
            .unwrap()
            .insert("parts".into(), 4.into());
        assert_eq!(
            serde_json::from_value::<CheckpointMeta>(saved)
                .unwrap()
                .micro_batches,
            4
        );
    }

    #[test]
    fn numbers_come_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let mut random = stream(0, Purpose::Step, 0, 0);
        let numbers: Vec<f64> = (0..10_000)
            .map(|_| f64::from_bits(random.r#gen()))
            .filter(|number| number.is_finite())
            .collect();
        let mut meta = CheckpointMeta::default();
        meta.method.insert("kept".into(), numbers.clone().into());
        let mut saved = Checkpoint::new(meta);
        saved.add("bank", [("a".to_string(), Tensor::from_slice(&numbers))]);
        saved.add("banks", [("a".to_string(), Tensor::from_slice(&[1_i64]))]);
        let mut bytes = Vec::new();
        saved.write(&mut bytes).unwrap();
        replace(&path, &bytes).unwrap();
        let mut read = Checkpoint::read(&path).unwrap();
        assert_eq!(read.meta, saved.meta);
        let bank = read.take("bank");
        assert_eq!(bank.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(bank["a"].kind(), Kind::Double);
        assert_eq!(Vec::<f64>::try_from(&bank["a"]).unwrap(), numbers);
        assert!(read.take("bank").is_empty());
        assert_eq!(read.take("banks").len(), 1);
    }
}
