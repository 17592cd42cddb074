//! Labels for points, old and new, from what clustering learned: the content of
//! `clustering.safetensors`. The labels that a run writes come from the same code as those of
//! `assign`, in f64, so that a training image gets its own label back.
//!
//! A rule is one file that implements [`Assigner`] and exports an [`AssignerEntry`], and its line in
//! [`ASSIGNERS`].

mod centroids;
mod fit;
mod heads;
mod points;
mod stored;

use tch::{Device, Kind, Tensor};

use super::rows_per_chunk;
pub use centroids::Centroids;
pub use fit::Fit;
pub use heads::Heads;
pub use points::StoredPoints;
pub use stored::Stored;

/// Which output of the backbone an assigner reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// The last hidden layer before its ReLU (DeepCluster clusters this).
    Hidden,
    /// What a head sees (SeLa's heads).
    Activation,
}

/// A labelling rule with its tensors.
pub trait Assigner: std::fmt::Debug {
    /// Which features it reads.
    fn feature_kind(&self) -> FeatureKind;

    /// The number of features that a point must have.
    fn dim(&self) -> usize;

    /// The number of clusters.
    fn clusters(&self) -> usize;

    /// Where its tensors are, and so where it works.
    fn device(&self) -> Device;

    /// The same rule with its tensors on `device`.
    fn to_device(&self, device: Device) -> Box<dyn Assigner>;

    /// Labels of a block of features `[b, d] f64` on its device.
    fn assign_block(&self, features: &Tensor) -> Assignments;

    /// Puts its tensors and values, and the name of its entry, into what is stored.
    fn store(&self, stored: &mut Stored);

    /// Labels of `features` `[n, d]` from anywhere, on the device of the rule in f64, by blocks of 64 MiB.
    fn assign(&self, features: &Tensor) -> Assignments {
        tch::no_grad(|| {
            let n = features.size()[0];
            let rows = rows_per_chunk(self.clusters().max(self.dim()), super::CHUNK_BYTES) as i64;
            let mut all = Assignments::default();
            for start in (0..n).step_by(rows as usize) {
                let block = features
                    .narrow(0, start, rows.min(n - start))
                    .to_device(self.device())
                    .to_kind(Kind::Double);
                all.append(self.assign_block(&block));
            }
            all
        })
    }
}

/// One rule of the registry.
#[derive(Debug)]
pub struct AssignerEntry {
    /// As `kind` in the file's metadata.
    pub name: &'static str,
    /// Takes back what [`Assigner::store`] put away.
    pub load: fn(&mut Stored) -> Result<Box<dyn Assigner>, String>,
}

/// All rules.
pub const ASSIGNERS: &[&AssignerEntry] = &[&centroids::ENTRY, &heads::ENTRY, &points::ENTRY];

/// The rule that is stored.
///
/// # Errors
/// What is missing or does not fit, in words.
pub fn load(mut stored: Stored) -> Result<Box<dyn Assigner>, String> {
    let kind: String = stored.text(stored::KIND)?;
    let entry = ASSIGNERS.iter().find(|entry| entry.name == kind);
    let entry = entry.ok_or_else(|| format!("its kind is '{kind}'"))?;
    (entry.load)(&mut stored)
}

/// Labels of a block of points; one entry for each point.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    /// For each head, the labels of all points; the first head's are *the* labels.
    pub labels: Vec<Vec<u32>>,
    /// The probability, or soft assignment, of the first head's label; where the rule knows how well points fit,
    /// times that.
    pub scores: Vec<f64>,
    /// Euclidean distance to the centroid, where there are centroids; to the mean of the features, where the rule
    /// knows it.
    pub distances: Option<Vec<f64>>,
}

impl Assignments {
    /// Puts the labels of further points behind these.
    pub fn append(&mut self, more: Self) {
        if self.labels.is_empty() {
            *self = more;
            return;
        }
        for (labels, further) in self.labels.iter_mut().zip(more.labels) {
            labels.extend(further);
        }
        self.scores.extend(more.scores);
        if let (Some(distances), Some(further)) = (&mut self.distances, more.distances) {
            distances.extend(further);
        }
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }
}

/// `[m, n] f64` between rows of `points` `[m, r] f64` and `others` `[n, r]`.
fn squared_distances(points: &Tensor, others: &Tensor) -> Tensor {
    let others = others.to_kind(Kind::Double);
    points.square().sum_dim_intlist(1, true, Kind::Double)
        + others.square().sum_dim_intlist(1, false, Kind::Double)
        - points.matmul(&others.transpose(0, 1)) * 2.0
}

/// Where tensors do not fit together.
fn fitting(fits: bool) -> Result<(), String> {
    match fits {
        true => Ok(()),
        false => Err("its tensors do not fit together".into()),
    }
}
