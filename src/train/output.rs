//! What a session leaves for others: records of labels, and the model's file.

use anyhow::Result;
use tch::{Tensor, nn};

use crate::cluster::assigner::Assignments;
use crate::config::Config;
use crate::data::Dataset;
use crate::labels::LabelRecord;
use crate::method::Method;
use crate::model::network::{DEVIATION, MEAN, Network};
use crate::model::weights::{self, named_variables};

/// The records of all images of `data`.
pub fn final_records(data: &Dataset, assignments: &Assignments) -> Vec<LabelRecord> {
    (0..data.len())
        .map(|image| label_record(data.name(image), assignments, image))
        .collect()
}

/// The record of one labelled image.
pub fn label_record(name: &str, assignments: &Assignments, image: usize) -> LabelRecord {
    let labels = &assignments.labels;
    LabelRecord {
        path: name.into(),
        label: labels[0][image],
        score: Some(round(assignments.scores[image])),
        distance: assignments
            .distances
            .as_ref()
            .map(|distances| round(distances[image])),
        labels: (labels.len() > 1).then(|| labels.iter().map(|head| head[image]).collect()),
    }
}

/// Six decimals: more is noise, and makes files twice as large.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// `model.safetensors`: the backbone under torchvision's names, modules under their own.
pub fn write_model(
    network: &Network,
    method: &dyn Method,
    config: &Config,
    out: &mut impl std::io::Write,
) -> Result<()> {
    let mut tensors = named_variables(&network.store);
    for module in method.modules() {
        tensors.extend(prefixed(&module.name, module.store));
    }
    let about = serde_json::json!({
        "arch": config.model.arch,
        "method": config.train.method,
        "size": config.data.size,
        "sobel": config.data.sobel,
        "mean": MEAN,
        "std": DEVIATION,
    });
    let metadata = [("ssl_cluster".to_string(), about.to_string())].into();
    Ok(weights::save(&tensors, &metadata, out)?)
}

/// Variables under `module.`.
pub fn prefixed(module: &str, store: &nn::VarStore) -> Vec<(String, Tensor)> {
    named_variables(store)
        .into_iter()
        .map(|(name, tensor)| (format!("{module}.{name}"), tensor))
        .collect()
}
