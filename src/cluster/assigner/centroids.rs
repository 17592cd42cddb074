//! DeepCluster's rule: the nearest centroid in the space of principal components, whitened or not, on the unit
//! sphere.

use tch::{Device, Kind, Tensor};

use super::stored::KIND;
use super::{
    Assigner, AssignerEntry, Assignments, FeatureKind, Fit, Stored, fitting, squared_distances,
};
use crate::cluster::preprocess::Pca;
use crate::tensors::{l2_rows, to_f64, to_labels};

/// The registry entry.
pub const ENTRY: AssignerEntry = AssignerEntry {
    name: "centroids",
    load: |stored| {
        let pca = Pca::load(stored)?;
        let centroids = stored.take("centroids", 2, Kind::Float)?;
        let rule = Centroids {
            fit: Fit::load(stored, centroids.size()[0], pca.dim() as i64)?,
            pca,
            centroids,
            variance: stored.text("variance")?,
        };
        let width = rule.centroids.size()[1] == rule.pca.rank() as i64;
        fitting(width && rule.centroids.numel() > 0)?;
        Ok(Box::new(rule))
    },
};

/// The nearest centroid.
#[derive(Debug)]
pub struct Centroids {
    pub pca: Pca,
    /// `[k, r] f32`
    pub centroids: Tensor,
    /// Mean squared distance to the nearest centroid for each of the r dimensions: scores are
    /// the posteriors of a mixture of equal Gaussians with this variance at the centroids.
    pub variance: f64,
    /// How well points fit their clusters; unknown to runs of earlier versions.
    pub fit: Option<Fit>,
}

impl Assigner for Centroids {
    fn feature_kind(&self) -> FeatureKind {
        FeatureKind::Hidden
    }

    fn dim(&self) -> usize {
        self.pca.dim()
    }

    fn clusters(&self) -> usize {
        self.centroids.size()[0] as usize
    }

    fn device(&self) -> Device {
        self.centroids.device()
    }

    fn to_device(&self, device: Device) -> Box<dyn Assigner> {
        Box::new(Self {
            pca: self.pca.to_device(device),
            centroids: self.centroids.to_device(device),
            variance: self.variance,
            fit: self.fit.as_ref().map(|fit| fit.to_device(device)),
        })
    }

    fn assign_block(&self, features: &Tensor) -> Assignments {
        let points = l2_rows(&self.pca.apply(features, Kind::Double));
        let squared = squared_distances(&points, &self.centroids);
        let (nearest, labels) = squared.min_dim(1, false);
        let sharpness = -0.5 / self.variance.max(f64::MIN_POSITIVE);
        let soft = (&squared * sharpness).softmax(1, Kind::Double);
        let score = soft.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
        let (score, distance) = match &self.fit {
            Some(fit) => {
                let distance = fit.distances(features, &labels);
                (score * fit.shares(&distance), distance)
            }
            None => (score, nearest.clamp_min(0.0).sqrt()),
        };
        Assignments {
            scores: to_f64(&score),
            labels: vec![to_labels(&labels)],
            distances: Some(to_f64(&distance)),
        }
    }

    fn store(&self, stored: &mut Stored) {
        stored.put_text(KIND, ENTRY.name);
        self.pca.store(stored);
        stored.put("centroids", &self.centroids);
        stored.put_text("variance", self.variance);
        if let Some(fit) = &self.fit {
            fit.store(stored);
        }
    }
}
