//! The rule of power iteration, whose clusters have no centre to speak of: the label of the nearest point
//! that was clustered.

use tch::{Device, Kind, Tensor};

use super::stored::KIND;
use super::{
    Assigner, AssignerEntry, Assignments, FeatureKind, Stored, fitting, squared_distances,
};
use crate::cluster::preprocess::Pca;
use crate::cluster::{CHUNK_BYTES, rows_per_chunk};
use crate::tensors::{l2_rows, to_f64, to_labels};

/// The registry entry.
pub const ENTRY: AssignerEntry = AssignerEntry {
    name: "points",
    load: |stored| {
        let rule = StoredPoints {
            pca: Pca::load(stored)?,
            points: stored.take("points", 2, Kind::Float)?,
            labels: stored.take("labels", 1, Kind::Int64)?,
            centroids: stored.take("centroids", 2, Kind::Float)?,
            sigma: stored.text("sigma")?,
        };
        if !(rule.sigma.is_finite() && rule.sigma * rule.sigma > 0.0) {
            return Err("its sigma is not positive".into());
        }
        let rank = rule.pca.rank() as i64;
        let clusters = rule.centroids.size()[0];
        let some = rule.points.numel() > 0 && rule.labels.numel() > 0;
        let shapes = rule.points.size() == [rule.labels.size()[0], rank]
            && rule.centroids.size() == [clusters, rank];
        fitting(some && shapes)?;
        let labels = &rule.labels;
        let inside = labels.min().int64_value(&[]) >= 0 && labels.max().int64_value(&[]) < clusters;
        fitting(inside)?;
        Ok(Box::new(rule))
    },
};

/// Neighbours whose votes make a score.
const VOTERS: i64 = 5;

/// The nearest of the points that were clustered.
#[derive(Debug)]
pub struct StoredPoints {
    pub pca: Pca,
    /// `[n, r] f32`
    pub points: Tensor,
    /// `[n] i64`
    pub labels: Tensor,
    /// `[k, r] f32`: the clusters' means, from which distances are taken.
    pub centroids: Tensor,
    /// Neighbours vote with exp(−squared distance / sigma²); scores are their shares.
    pub sigma: f64,
}

impl Assigner for StoredPoints {
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
            points: self.points.to_device(device),
            labels: self.labels.to_device(device),
            centroids: self.centroids.to_device(device),
            sigma: self.sigma,
        })
    }

    fn assign_block(&self, features: &Tensor) -> Assignments {
        let queries = l2_rows(&self.pca.apply(features, Kind::Double));
        let (squared, nearest) = nearest_points(&queries, &self.points);
        let theirs = self
            .labels
            .index_select(0, &nearest.flatten(0, -1))
            .view_as(&nearest);
        let own = theirs.narrow(1, 0, 1);
        let votes = (squared / -(self.sigma * self.sigma)).softmax(1, Kind::Double);
        let agreeing = votes * theirs.eq_tensor(&own).to_kind(Kind::Double);
        let own = own.squeeze_dim(1);
        let centres = self.centroids.index_select(0, &own).to_kind(Kind::Double);
        let distances = (queries - centres)
            .square()
            .sum_dim_intlist(1, false, Kind::Double)
            .sqrt();
        Assignments {
            labels: vec![to_labels(&own)],
            scores: to_f64(&agreeing.sum_dim_intlist(1, false, Kind::Double)),
            distances: Some(to_f64(&distances)),
        }
    }

    fn store(&self, stored: &mut Stored) {
        stored.put_text(KIND, ENTRY.name);
        self.pca.store(stored);
        stored.put("points", &self.points);
        stored.put("labels", &self.labels);
        stored.put("centroids", &self.centroids);
        stored.put_text("sigma", self.sigma);
    }
}

/// The [`VOTERS`] nearest of `points` `[n, r]` for each of `queries` `[m, r] f64`, the nearest first:
/// squared distances and indices `[m, v]`, by blocks of points.
fn nearest_points(queries: &Tensor, points: &Tensor) -> (Tensor, Tensor) {
    let mut best: Option<(Tensor, Tensor)> = None;
    let width = (queries.size()[0].max(points.size()[1])) as usize;
    let rows = rows_per_chunk(width, CHUNK_BYTES) as i64;
    for start in (0..points.size()[0]).step_by(rows as usize) {
        let block = points.narrow(0, start, rows.min(points.size()[0] - start));
        let squared = squared_distances(queries, &block);
        let (squared, index) = squared.topk(VOTERS.min(block.size()[0]), 1, false, true);
        let index = index + start;
        best = Some(match best.take() {
            None => (squared, index),
            Some((before, at)) => {
                let (all, places) = (
                    Tensor::cat(&[before, squared], 1),
                    Tensor::cat(&[at, index], 1),
                );
                let (squared, chosen) = all.topk(VOTERS.min(all.size()[1]), 1, false, true);
                (squared, places.gather(1, &chosen, false))
            }
        });
    }
    best.unwrap_or_default()
}
