//! Labels for points, old and new, from what clustering learned: the content of
//! `clustering.safetensors`. The labels that a run writes come from the same code as those of
//! `assign`, in f64, so that a training image gets its own label back.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::preprocess::{Pca, l2_rows};
use super::rows_per_chunk;

/// Neighbours whose votes make a score.
const VOTERS: i64 = 5;

/// Which output of the backbone an assigner reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// The last hidden layer before its ReLU (DeepCluster clusters this).
    Hidden,
    /// What a head sees (SeLa's heads).
    Activation,
}

/// A labelling rule.
#[derive(Debug)]
pub enum Assigner {
    /// DeepCluster: the nearest centroid in the space of whitened principal components on the unit
    /// sphere.
    Centroids {
        pca: Pca,
        /// `[k, r] f32`
        centroids: Tensor,
        /// Mean squared distance to the nearest centroid for each of the r dimensions: scores are
        /// the posteriors of a mixture of equal Gaussians with this variance at the centroids.
        variance: f64,
    },
    /// Power iteration, whose clusters have no centre to speak of: the label of the nearest point that was
    /// clustered, in the same space.
    Points {
        pca: Pca,
        /// `[n, r] f32`
        points: Tensor,
        /// `[n] i64`
        labels: Tensor,
        /// `[k, r] f32`: the clusters' means, from which distances are taken.
        centroids: Tensor,
        /// Neighbours vote with exp(−squared distance / sigma²); scores are their shares.
        sigma: f64,
    },
    /// SeLa: `argmax_j (λ z_j + log r_j)` of the head's logits z (log-softmax shifts a row as a
    /// whole, so the logits serve).
    Heads {
        /// `[h, k, d] f32`
        weights: Tensor,
        /// `[h, k] f32`
        biases: Tensor,
        /// `[h, k] f64`: the column scalings of the label step.
        log_scalings: Tensor,
        lambda: f64,
    },
}

/// Labels of a block of points; one entry for each point.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    /// For each head, the labels of all points; the first head's are *the* labels.
    pub labels: Vec<Vec<u32>>,
    /// The probability, or soft assignment, of the first head's label.
    pub scores: Vec<f64>,
    /// Euclidean distance to the centroid, where there are centroids.
    pub distances: Option<Vec<f64>>,
}

impl Assigner {
    pub fn feature_kind(&self) -> FeatureKind {
        match self {
            Self::Centroids { .. } | Self::Points { .. } => FeatureKind::Hidden,
            Self::Heads { .. } => FeatureKind::Activation,
        }
    }

    /// The number of features that a point must have.
    pub fn dim(&self) -> usize {
        match self {
            Self::Centroids { pca, .. } | Self::Points { pca, .. } => pca.mean.size()[0] as usize,
            Self::Heads { weights, .. } => weights.size()[2] as usize,
        }
    }

    /// The number of clusters.
    pub fn clusters(&self) -> usize {
        match self {
            Self::Centroids { centroids, .. } | Self::Points { centroids, .. } => {
                centroids.size()[0] as usize
            }
            Self::Heads { weights, .. } => weights.size()[1] as usize,
        }
    }

    /// The same rule with its tensors on `device`, where it then does its work.
    pub fn to_device(&self, device: Device) -> Self {
        let here = |tensor: &Tensor| tensor.to_device(device);
        match self {
            Self::Centroids {
                pca,
                centroids,
                variance,
            } => Self::Centroids {
                pca: pca.to_device(device),
                centroids: here(centroids),
                variance: *variance,
            },
            Self::Points {
                pca,
                points,
                labels,
                centroids,
                sigma,
            } => Self::Points {
                pca: pca.to_device(device),
                points: here(points),
                labels: here(labels),
                centroids: here(centroids),
                sigma: *sigma,
            },
            Self::Heads {
                weights,
                biases,
                log_scalings,
                lambda,
            } => Self::Heads {
                weights: here(weights),
                biases: here(biases),
                log_scalings: here(log_scalings),
                lambda: *lambda,
            },
        }
    }

    fn device(&self) -> Device {
        match self {
            Self::Centroids { centroids, .. } | Self::Points { centroids, .. } => {
                centroids.device()
            }
            Self::Heads { weights, .. } => weights.device(),
        }
    }

    /// Labels of `features` `[n, d]` from anywhere, on the device of the rule in f64, by blocks of 64 MiB.
    pub fn assign(&self, features: &Tensor) -> Assignments {
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

    fn assign_block(&self, features: &Tensor) -> Assignments {
        match self {
            Self::Centroids {
                pca,
                centroids,
                variance,
            } => {
                let points = l2_rows(&pca.apply(features, Kind::Double));
                let squared = squared_distances(&points, centroids);
                let (nearest, labels) = squared.min_dim(1, false);
                let soft =
                    (&squared * (-0.5 / variance.max(f64::MIN_POSITIVE))).softmax(1, Kind::Double);
                Assignments {
                    scores: to_f64(&soft.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)),
                    labels: vec![to_labels(&labels)],
                    distances: Some(to_f64(&nearest.clamp_min(0.0).sqrt())),
                }
            }
            Self::Points {
                pca,
                points,
                labels,
                centroids,
                sigma,
            } => {
                let queries = l2_rows(&pca.apply(features, Kind::Double));
                let (squared, nearest) = nearest_points(&queries, points);
                let theirs = labels
                    .index_select(0, &nearest.flatten(0, -1))
                    .view_as(&nearest);
                let own = theirs.narrow(1, 0, 1);
                let votes = (squared / -(sigma * sigma)).softmax(1, Kind::Double);
                let agreeing = votes * theirs.eq_tensor(&own).to_kind(Kind::Double);
                let own = own.squeeze_dim(1);
                let centres = centroids.index_select(0, &own).to_kind(Kind::Double);
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
            Self::Heads {
                weights,
                biases,
                log_scalings,
                lambda,
            } => {
                let mut result = Assignments::default();
                for head in 0..weights.size()[0] {
                    let logits = features
                        .matmul(&weights.get(head).to_kind(Kind::Double).transpose(0, 1))
                        + biases.get(head).to_kind(Kind::Double);
                    let labels = (&logits * *lambda + log_scalings.get(head)).argmax(1, true);
                    if head == 0 {
                        let p = logits.softmax(1, Kind::Double).gather(1, &labels, false);
                        result.scores = to_f64(&p.squeeze_dim(1));
                    }
                    result.labels.push(to_labels(&labels.squeeze_dim(1)));
                }
                result
            }
        }
    }

    /// Tensors and metadata for `clustering.safetensors`.
    pub fn to_tensors(&self) -> (Vec<(String, Tensor)>, BTreeMap<String, String>) {
        let named = |pairs: &[(&str, &Tensor)]| {
            pairs
                .iter()
                .map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()))
                .collect()
        };
        match self {
            Self::Centroids {
                pca,
                centroids,
                variance,
            } => (
                named(&[
                    ("pca.mean", &pca.mean),
                    ("pca.components", &pca.components),
                    ("pca.eigenvalues", &pca.eigenvalues),
                    ("centroids", centroids),
                ]),
                BTreeMap::from([
                    ("kind".into(), "centroids".into()),
                    ("whiten".into(), pca.whiten.to_string()),
                    ("variance".into(), variance.to_string()),
                ]),
            ),
            Self::Points {
                pca,
                points,
                labels,
                centroids,
                sigma,
            } => (
                named(&[
                    ("pca.mean", &pca.mean),
                    ("pca.components", &pca.components),
                    ("pca.eigenvalues", &pca.eigenvalues),
                    ("points", points),
                    ("labels", labels),
                    ("centroids", centroids),
                ]),
                BTreeMap::from([
                    ("kind".into(), "points".into()),
                    ("whiten".into(), pca.whiten.to_string()),
                    ("sigma".into(), sigma.to_string()),
                ]),
            ),
            Self::Heads {
                weights,
                biases,
                log_scalings,
                lambda,
            } => (
                named(&[
                    ("heads.weight", weights),
                    ("heads.bias", biases),
                    ("heads.log_scalings", log_scalings),
                ]),
                BTreeMap::from([
                    ("kind".into(), "heads".into()),
                    ("lambda".into(), lambda.to_string()),
                ]),
            ),
        }
    }

    /// The inverse of [`Self::to_tensors`].
    ///
    /// # Errors
    /// What is missing or does not fit, in words.
    pub fn from_tensors(
        mut tensors: BTreeMap<String, Tensor>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut take = |name: &str, dims: usize, kind: Kind| {
            let tensor = tensors
                .remove(name)
                .ok_or_else(|| format!("it has no '{name}'"))?;
            if tensor.dim() == dims {
                Ok(tensor.to_kind(kind))
            } else {
                Err(format!("'{name}' has shape {:?}", tensor.size()))
            }
        };
        let number = |name: &str| {
            let value = metadata
                .get(name)
                .and_then(|value| value.parse::<f64>().ok());
            value.ok_or_else(|| format!("it has no '{name}'"))
        };
        let kind = metadata.get("kind").map(String::as_str);
        let pca = |take: &mut dyn FnMut(&str, usize, Kind) -> Result<Tensor, String>| {
            let whiten = metadata.get("whiten").and_then(|value| value.parse().ok());
            Ok::<Pca, String>(Pca {
                mean: take("pca.mean", 1, Kind::Double)?,
                components: take("pca.components", 2, Kind::Double)?,
                eigenvalues: take("pca.eigenvalues", 1, Kind::Double)?,
                whiten: whiten.ok_or("it has no 'whiten'")?,
            })
        };
        let assigner = match kind {
            Some("points") => Self::Points {
                pca: pca(&mut take)?,
                points: take("points", 2, Kind::Float)?,
                labels: take("labels", 1, Kind::Int64)?,
                centroids: take("centroids", 2, Kind::Float)?,
                sigma: number("sigma")
                    .ok()
                    .filter(|sigma| sigma.is_finite() && sigma * sigma > 0.0)
                    .ok_or("its sigma is not positive")?,
            },
            Some("centroids") => Self::Centroids {
                pca: pca(&mut take)?,
                centroids: take("centroids", 2, Kind::Float)?,
                variance: number("variance")?,
            },
            Some("heads") => Self::Heads {
                weights: take("heads.weight", 3, Kind::Float)?,
                biases: take("heads.bias", 2, Kind::Float)?,
                log_scalings: take("heads.log_scalings", 2, Kind::Double)?,
                lambda: number("lambda")?,
            },
            other => return Err(format!("its kind is {other:?}")),
        };
        assigner.check_shapes()?;
        Ok(assigner)
    }

    fn check_shapes(&self) -> Result<(), String> {
        let fits = match self {
            Self::Centroids { pca, centroids, .. } => {
                let (rank, dim) = (pca.eigenvalues.size()[0], pca.mean.size()[0]);
                pca.components.size() == [rank, dim] && centroids.size()[1] == rank
            }
            Self::Points {
                pca,
                points,
                labels,
                centroids,
                ..
            } => {
                let (rank, dim) = (pca.eigenvalues.size()[0], pca.mean.size()[0]);
                let clusters = centroids.size()[0];
                let inside = |labels: &Tensor| {
                    labels.min().int64_value(&[]) >= 0 && labels.max().int64_value(&[]) < clusters
                };
                pca.components.size() == [rank, dim]
                    && points.size() == [labels.size()[0], rank]
                    && centroids.size() == [clusters, rank]
                    && (labels.numel() == 0 || inside(labels))
            }
            Self::Heads {
                weights,
                biases,
                log_scalings,
                ..
            } => biases.size() == weights.size()[..2] && log_scalings.size() == weights.size()[..2],
        };
        let empty = match self {
            Self::Centroids { centroids, .. } => centroids.numel() == 0,
            Self::Points { points, .. } => points.numel() == 0,
            Self::Heads { weights, .. } => weights.numel() == 0,
        };
        if fits && !empty {
            Ok(())
        } else {
            Err("its tensors do not fit together".into())
        }
    }
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

/// The [`VOTERS`] nearest of `points` `[n, r]` for each of `queries` `[m, r] f64`, the nearest first:
/// squared distances and indices `[m, v]`, by blocks of points.
fn nearest_points(queries: &Tensor, points: &Tensor) -> (Tensor, Tensor) {
    let mut best: Option<(Tensor, Tensor)> = None;
    let width = (queries.size()[0].max(points.size()[1])) as usize;
    let rows = rows_per_chunk(width, super::CHUNK_BYTES) as i64;
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

/// `[m, n] f64` between rows of `points` `[m, r] f64` and `others` `[n, r]`.
fn squared_distances(points: &Tensor, others: &Tensor) -> Tensor {
    let others = others.to_kind(Kind::Double);
    points.square().sum_dim_intlist(1, true, Kind::Double)
        + others.square().sum_dim_intlist(1, false, Kind::Double)
        - points.matmul(&others.transpose(0, 1)) * 2.0
}

fn to_labels(labels: &Tensor) -> Vec<u32> {
    let labels: Vec<i64> = Vec::try_from(&labels.to_device(Device::Cpu)).unwrap_or_default();
    labels.into_iter().map(|label| label as u32).collect()
}

fn to_f64(values: &Tensor) -> Vec<f64> {
    Vec::try_from(&values.to_device(Device::Cpu)).unwrap_or_default()
}
