//! How well points fit the clusters that they are given: what lies far from everything has a nearest cluster
//! too.

use tch::{Device, Kind, Tensor};

use super::{Stored, fitting};
use crate::cluster::{CHUNK_BYTES, chunks};
use crate::comm::Comm;
use crate::tensors::{from_labels, l2_rows, to_f64};

/// The share of the points that were clustered which the reach takes in.
const REACHED: f64 = 0.99;
/// The fit falls from nearly 1 at the median distance to 1/2 at the reach, by a logistic curve so steep that so
/// many of its units lie between the two.
const UNITS: f64 = 5.0;
/// Between the median and the reach at least: of copies of one image all distances are equal.
const LEAST: f64 = 1e-5;

/// Means of clusters in the space of the features themselves, of unit length: components that were left out when
/// points were clustered tell most of what does not belong.
#[derive(Debug)]
pub struct Fit {
    /// `[k, d] f32`
    means: Tensor,
    /// Of the distances of the points that were clustered.
    median: f64,
    /// The distance within which 99 % of them lie.
    reach: f64,
}

impl Fit {
    /// From the features `[n, d]` that were clustered, and their labels; of all processes.
    pub fn of(comm: &dyn Comm, features: &Tensor, labels: &[u32], clusters: usize) -> Self {
        let labels = from_labels(labels);
        let shape = [clusters as i64, features.size()[1]];
        let mut sums = Tensor::zeros(shape, (Kind::Double, Device::Cpu));
        for (start, rows) in units(features) {
            let labels = labels.narrow(0, start, rows.size()[0]);
            sums = sums.index_add(0, &labels, &rows.to_device(Device::Cpu));
        }
        let counts = labels.bincount(None::<Tensor>, clusters as i64);
        let (sums, counts) = (comm.sum_tensor(sums), comm.sum_tensor(counts));
        let means = sums / counts.to_kind(Kind::Double).clamp_min(1.0).unsqueeze(1);
        let mut fit = Self {
            means: means.to_kind(Kind::Float),
            median: 0.0,
            reach: 0.0,
        };
        let here = units(features).map(|(start, rows)| {
            let labels = labels.narrow(0, start, rows.size()[0]);
            fit.distances_of_units(&rows.to_device(Device::Cpu), &labels)
        });
        let here = Tensor::cat(&here.collect::<Vec<_>>(), 0);
        let mut distances = to_f64(&comm.gather(&here));
        distances.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * distances.len() as f64) as usize;
            distances[place.min(distances.len() - 1)]
        };
        fit.median = at(0.5);
        fit.reach = at(REACHED).max(fit.median + LEAST);
        fit
    }

    pub fn to_device(&self, device: Device) -> Self {
        Self {
            means: self.means.to_device(device),
            ..*self
        }
    }

    /// Euclidean distances `[b] f64` of features `[b, d] f64`, scaled to unit length, to the means of the clusters
    /// `labels` `[b]`.
    pub fn distances(&self, features: &Tensor, labels: &Tensor) -> Tensor {
        self.distances_of_units(&l2_rows(features), labels)
    }

    fn distances_of_units(&self, units: &Tensor, labels: &Tensor) -> Tensor {
        let means = self.means.index_select(0, labels).to_kind(Kind::Double);
        let squared = (units - means).square();
        squared.sum_dim_intlist(1, false, Kind::Double).sqrt()
    }

    /// What scores are multiplied by, for these distances: 0 to 1, and 1/2 where 99 % of the points that were
    /// clustered are nearer.
    pub fn shares(&self, distances: &Tensor) -> Tensor {
        let unit = (self.reach - self.median) / UNITS;
        ((distances - self.reach) / -unit).sigmoid()
    }

    /// Puts it into what a rule stores.
    pub fn store(&self, stored: &mut Stored) {
        stored.put("fit.means", &self.means);
        stored.put_text("fit.median", self.median);
        stored.put_text("fit.reach", self.reach);
    }

    /// Takes back what [`Self::store`] put away, for rules of so many clusters and features; None where nothing
    /// was, as in runs of earlier versions.
    ///
    /// # Errors
    /// What is missing or does not fit, in words.
    pub fn load(stored: &mut Stored, clusters: i64, dim: i64) -> Result<Option<Self>, String> {
        if !stored.metadata.contains_key("fit.reach") {
            return Ok(None);
        }
        let fit = Self {
            means: stored.take("fit.means", 2, Kind::Float)?,
            median: stored.text("fit.median")?,
            reach: stored.text("fit.reach")?,
        };
        fitting(fit.means.size() == [clusters, dim])?;
        match fit.reach > fit.median {
            true => Ok(Some(fit)),
            false => Err("its reach is not beyond its median".into()),
        }
    }
}

/// Blocks of rows of unit length in f64, with the first row's index.
fn units(features: &Tensor) -> impl Iterator<Item = (i64, Tensor)> + '_ {
    chunks(features, CHUNK_BYTES)
        .map(|(start, rows)| (start as i64, l2_rows(&rows.to_kind(Kind::Double))))
}
