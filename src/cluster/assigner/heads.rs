//! SeLa's rule: `argmax_j (λ z_j + log r_j)` of a head's logits z (log-softmax shifts a row as a whole, so the
//! logits serve).

use tch::{Device, Kind, Tensor};

use super::stored::KIND;
use super::{Assigner, AssignerEntry, Assignments, FeatureKind, Stored, fitting};
use crate::tensors::{to_f64, to_labels};

/// The registry entry.
pub const ENTRY: AssignerEntry = AssignerEntry {
    name: "heads",
    load: |stored| {
        let rule = Heads {
            weights: stored.take("heads.weight", 3, Kind::Float)?,
            biases: stored.take("heads.bias", 2, Kind::Float)?,
            log_scalings: stored.take("heads.log_scalings", 2, Kind::Double)?,
            lambda: stored.text("lambda")?,
        };
        let shape = &rule.weights.size()[..2];
        let shapes = rule.biases.size() == shape && rule.log_scalings.size() == shape;
        fitting(shapes && rule.weights.numel() > 0)?;
        Ok(Box::new(rule))
    },
};

/// The labels of heads, balanced as in the label step.
#[derive(Debug)]
pub struct Heads {
    /// `[h, k, d] f32`
    pub weights: Tensor,
    /// `[h, k] f32`
    pub biases: Tensor,
    /// `[h, k] f64`: the column scalings of the label step.
    pub log_scalings: Tensor,
    pub lambda: f64,
}

impl Assigner for Heads {
    fn feature_kind(&self) -> FeatureKind {
        FeatureKind::Activation
    }

    fn dim(&self) -> usize {
        self.weights.size()[2] as usize
    }

    fn clusters(&self) -> usize {
        self.weights.size()[1] as usize
    }

    fn device(&self) -> Device {
        self.weights.device()
    }

    fn to_device(&self, device: Device) -> Box<dyn Assigner> {
        Box::new(Self {
            weights: self.weights.to_device(device),
            biases: self.biases.to_device(device),
            log_scalings: self.log_scalings.to_device(device),
            lambda: self.lambda,
        })
    }

    fn assign_block(&self, features: &Tensor) -> Assignments {
        let mut result = Assignments::default();
        for head in 0..self.weights.size()[0] {
            let weight = self.weights.get(head).to_kind(Kind::Double);
            let bias = self.biases.get(head).to_kind(Kind::Double);
            let logits = features.matmul(&weight.transpose(0, 1)) + bias;
            let balanced = &logits * self.lambda + self.log_scalings.get(head);
            let labels = balanced.argmax(1, true);
            if head == 0 {
                let p = logits.softmax(1, Kind::Double).gather(1, &labels, false);
                result.scores = to_f64(&p.squeeze_dim(1));
            }
            result.labels.push(to_labels(&labels.squeeze_dim(1)));
        }
        result
    }

    fn store(&self, stored: &mut Stored) {
        stored.put_text(KIND, ENTRY.name);
        stored.put("heads.weight", &self.weights);
        stored.put("heads.bias", &self.biases);
        stored.put("heads.log_scalings", &self.log_scalings);
        stored.put_text("lambda", self.lambda);
    }
}
