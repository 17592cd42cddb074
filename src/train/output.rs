//! What a session leaves for others: records of labels, and the model's file.

use anyhow::Result;

use crate::cluster::assigner::Assignments;
use crate::config::Config;
use crate::data::Dataset;
use crate::labels::LabelRecord;
use crate::method::Method;
use crate::model::network::Network;
use crate::model::weights::{self, prefixed};

/// The records of all images of `data`.
pub fn final_records(data: &Dataset, assignments: &Assignments) -> Vec<LabelRecord> {
    (0..data.len())
        .map(|image| LabelRecord::of(data.name(image), assignments, image))
        .collect()
}

/// `model.safetensors`: the backbone under its published names, modules under their own.
pub fn write_model(
    network: &Network,
    method: &dyn Method,
    config: &Config,
    out: &mut impl std::io::Write,
) -> Result<()> {
    let mut tensors = network.variables();
    for module in method.modules() {
        tensors.extend(prefixed(&module.name, module.store));
    }
    let about = serde_json::json!({
        "arch": config.model.arch,
        "method": config.train.method,
        "size": config.data.size,
        "sobel": config.data.sobel,
        "mean": network.spec.mean,
        "std": network.spec.deviation,
    });
    let metadata = [("ssl_cluster".to_string(), about.to_string())].into();
    Ok(weights::save(&tensors, &metadata, out)?)
}
