//! PCA, whitening and L2 normalisation of features, as DeepCluster does before k-means
//! (facebookresearch/deepcluster `clustering.py: preprocess_features`).
//!
//! Features after a ReLU often have dead or duplicated dimensions, where plain whitening divides
//! by an eigenvalue of zero. Only components above a relative threshold are kept, and their number
//! is the rank that is reported.

use tch::{Device, Kind, Tensor};

use super::assigner::Stored;
use super::{CHUNK_BYTES, ClusterError, agreed, check_finite, chunks, matrix_size, some};
use crate::comm::{Comm, OneProcess};
use crate::tensors::l2_rows;

/// A component is kept when its variance exceeds this share of the largest. Single precision
/// features carry rounding noise of about 1e-14 of the variance; what lies below 1e-6 is no
/// structure that whitening should blow up to unit variance.
const RELATIVE_THRESHOLD: f64 = 1e-6;

/// A projection to principal components, with or without whitening.
#[derive(Debug)]
pub struct Pca {
    /// `[d] f64`
    pub mean: Tensor,
    /// `[r, d] f64`, orthonormal rows, by falling variance; each row's largest entry is positive,
    /// so that the result does not depend on the solver's sign.
    pub components: Tensor,
    /// `[r] f64`: the variance along each component.
    pub eigenvalues: Tensor,
    pub whiten: bool,
    /// Whether rows are scaled to unit length first: directions are what is projected.
    pub unit: bool,
}

impl Pca {
    /// As [`Self::fit_on`], where the features are.
    ///
    /// # Errors
    /// As there.
    pub fn fit(features: &Tensor, most: usize, whiten: bool) -> Result<Self, ClusterError> {
        Self::fit_on(features.device(), &OneProcess, features, most, whiten)
    }

    /// Principal components of `features` `[n, d]` of all processes, which may lie elsewhere, on `device`: at
    /// most `most` of them, fewer where the rank is smaller. The covariance is summed in f64 by blocks in one
    /// pass, so that features may lie in a mapped file (memory: a few times d² doubles and 128 MiB); where
    /// there are fewer rows than columns the n x n matrix of inner products, which has the same eigenvalues,
    /// takes its place.
    ///
    /// # Errors
    /// Not a matrix, no rows, or a row with NaN or infinity.
    pub fn fit_on(
        device: Device,
        comm: &dyn Comm,
        features: &Tensor,
        most: usize,
        whiten: bool,
    ) -> Result<Self, ClusterError> {
        Self::fit_to(device, comm, features, most, whiten, false)
    }

    /// Whitened principal components of `features` `[n, d]` whose errors have a standard deviation of `rounding` of
    /// their size (0: none that counts): components that vary no more than they err are left out, for whitening
    /// would blow that up to unit variance.
    ///
    /// # Errors
    /// As [`Self::fit_on`].
    pub fn whitening(
        device: Device,
        comm: &dyn Comm,
        features: &Tensor,
        most: usize,
        rounding: f64,
    ) -> Result<Self, ClusterError> {
        let pca = Self::fit_on(device, comm, features, most, true)?;
        Ok(match rounding > 0.0 {
            true => pca.above_rounding(comm, features, rounding),
            false => pca,
        })
    }

    /// Principal components of the directions of `features` `[n, d]`, not whitened: what features of a trained
    /// network want, whose length tells little and whose small variances are small for a reason.
    ///
    /// # Errors
    /// As [`Self::fit_on`].
    pub fn of_directions(
        device: Device,
        comm: &dyn Comm,
        features: &Tensor,
        most: usize,
    ) -> Result<Self, ClusterError> {
        Self::fit_to(device, comm, features, most, false, true)
    }

    fn fit_to(
        device: Device,
        comm: &dyn Comm,
        features: &Tensor,
        most: usize,
        whiten: bool,
        unit: bool,
    ) -> Result<Self, ClusterError> {
        let (n, d) = matrix_size(features)?;
        agreed(comm, some(n))?;
        let all = comm.sum_of(n as f64) as usize;
        tch::no_grad(|| {
            let (mean, values, components) = if all < d {
                agreed(comm, check_finite(features))?;
                let rows = comm.gather(features).to_device(device);
                of_few_rows(&scaled(rows, unit), most)
            } else {
                of_covariance(device, comm, features, most, unit)?
            };
            let rank = components.size()[0];
            let largest = components.abs().argmax(1, true);
            let components = &components * components.gather(1, &largest, false).sign();
            Ok(Self {
                mean,
                components: components.contiguous(),
                eigenvalues: values.narrow(0, 0, rank).clamp_min(0.0).contiguous(),
                whiten,
                unit,
            })
        })
    }

    /// The same without components along which `features`, those that it was made of, vary no more than they err.
    fn above_rounding(self, comm: &dyn Comm, features: &Tensor, rounding: f64) -> Self {
        tch::no_grad(|| {
            let options = (Kind::Double, self.mean.device());
            let mut squares = Tensor::zeros([self.dim() as i64], options);
            for (_, rows) in chunks(features, CHUNK_BYTES) {
                let squared = rows
                    .to_device(self.mean.device())
                    .to_kind(Kind::Double)
                    .square();
                squares += squared.sum_dim_intlist(0, false, Kind::Double);
            }
            let n = comm.sum_of(features.size()[0] as f64);
            let noise = comm.sum_tensor(squares) * (rounding * rounding / n);
            let noise = self.components.square().matmul(&noise);
            let above = self.eigenvalues.gt_tensor(&noise).nonzero().flatten(0, -1);
            if above.size()[0] == 0 {
                return self;
            }
            Self {
                components: self.components.index_select(0, &above),
                eigenvalues: self.eigenvalues.index_select(0, &above),
                ..self
            }
        })
    }

    /// The same projection with its tensors on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            mean: self.mean.to_device(device),
            components: self.components.to_device(device),
            eigenvalues: self.eigenvalues.to_device(device),
            whiten: self.whiten,
            unit: self.unit,
        }
    }

    /// Puts it into what a rule stores.
    pub fn store(&self, stored: &mut Stored) {
        stored.put("pca.mean", &self.mean);
        stored.put("pca.components", &self.components);
        stored.put("pca.eigenvalues", &self.eigenvalues);
        stored.put_text("whiten", self.whiten);
        stored.put_text("unit", self.unit);
    }

    /// Takes back what [`Self::store`] put away.
    ///
    /// # Errors
    /// What is missing or does not fit, in words.
    pub fn load(stored: &mut Stored) -> Result<Self, String> {
        let pca = Self {
            mean: stored.take("pca.mean", 1, Kind::Double)?,
            components: stored.take("pca.components", 2, Kind::Double)?,
            eigenvalues: stored.take("pca.eigenvalues", 1, Kind::Double)?,
            whiten: stored.text("whiten")?,
            // Runs of earlier versions know no such thing.
            unit: stored.text("unit").unwrap_or(false),
        };
        if pca.components.size() != [pca.eigenvalues.size()[0], pca.mean.size()[0]] {
            return Err("its principal components do not fit together".into());
        }
        Ok(pca)
    }

    /// The number of features that a point must have.
    pub fn dim(&self) -> usize {
        self.mean.size()[0] as usize
    }

    /// The number of components that are kept.
    pub fn rank(&self) -> usize {
        self.components.size()[0] as usize
    }

    /// Projects `features` `[n, d]` from anywhere to `[n, r]` of `kind` on the device of the components,
    /// computed in f64 by blocks.
    pub fn apply(&self, features: &Tensor, kind: Kind) -> Tensor {
        tch::no_grad(|| {
            let device = self.components.device();
            // A new tensor: the transpose shares the components' memory.
            let projection = if self.whiten {
                self.components.transpose(0, 1) / (&self.eigenvalues + self.epsilon()).sqrt()
            } else {
                self.components.transpose(0, 1)
            };
            let shape = [features.size()[0], self.rank() as i64];
            let projected = Tensor::empty(shape, (kind, device));
            for (start, rows) in chunks(features, CHUNK_BYTES) {
                let count = rows.size()[0];
                let rows = scaled(rows.to_device(device), self.unit);
                let block = off(&rows, &self.mean).matmul(&projection);
                projected.narrow(0, start as i64, count).copy_(&block);
            }
            projected
        })
    }

    /// Far below any kept eigenvalue; 1 where every feature is constant, so that other points stay
    /// finite.
    fn epsilon(&self) -> f64 {
        let largest = self.eigenvalues.max().double_value(&[]);
        if largest > 0.0 {
            1e-3 * RELATIVE_THRESHOLD * largest
        } else {
            1.0
        }
    }
}

/// The mean, the eigenvalues of the covariance, falling, and the first eigenvectors `[r, d]`.
fn of_covariance(
    device: Device,
    comm: &dyn Comm,
    features: &Tensor,
    most: usize,
    unit: bool,
) -> Result<(Tensor, Tensor, Tensor), ClusterError> {
    let (n, d) = (comm.sum_of(features.size()[0] as f64), features.size()[1]);
    let options = (Kind::Double, device);
    let (mut sum, mut products) = (Tensor::zeros([d], options), Tensor::zeros([d, d], options));
    let there = |(_, rows): (usize, Tensor)| scaled(rows.to_device(device), unit);
    let mut blocks = chunks(features, CHUNK_BYTES).map(there);
    // Near the mean, so that little is lost when its square is taken off at the end: the mean of the first
    // block, of which the first process speaks for all.
    let first = blocks.next();
    let origin = match &first {
        Some(rows) => mean_of(&rows.to_kind(Kind::Double)),
        None => Tensor::zeros([d], options),
    };
    let origin = comm.gather(&origin.unsqueeze(0)).get(0);
    for rows in first.into_iter().chain(blocks) {
        let centred = off(&rows, &origin);
        sum += centred.sum_dim_intlist(0, false, Kind::Double);
        products += centred.transpose(0, 1).matmul(&centred);
    }
    let (sum, products) = (comm.sum_tensor(sum), comm.sum_tensor(products));
    if sum.isfinite().all().int64_value(&[]) == 0 {
        agreed(comm, check_finite(features))?;
    }
    let shift = sum / n;
    let covariance = products / n - shift.outer(&shift);
    let (values, vectors) = falling(covariance);
    let rank = rank(&values).min(most).max(1);
    Ok((origin + &shift, values, vectors.narrow(0, 0, rank as i64)))
}

/// `rows`, of unit length in f64 where that is wanted.
fn scaled(rows: Tensor, unit: bool) -> Tensor {
    match unit {
        true => l2_rows(&rows.to_kind(Kind::Double)),
        false => rows,
    }
}

/// `rows` less `mean` `[d] f64`, in f64.
fn off(rows: &Tensor, mean: &Tensor) -> Tensor {
    match rows.kind() {
        Kind::Double => rows - mean,
        _ => {
            // The copy is ours: what is taken off needs no second one.
            let mut copy = rows.to_kind(Kind::Double);
            copy -= mean;
            copy
        }
    }
}

fn mean_of(rows: &Tensor) -> Tensor {
    rows.mean_dim(0, false, Kind::Double)
}

/// The same from the inner products of rows: with `XXᵀ/n = U diag(λ) Uᵀ` the eigenvectors are the
/// rows of `diag(nλ)^-1/2 Uᵀ X`.
fn of_few_rows(features: &Tensor, most: usize) -> (Tensor, Tensor, Tensor) {
    let (n, d) = (features.size()[0], features.size()[1]);
    let parts: Vec<Tensor> = chunks(features, CHUNK_BYTES)
        .map(|(_, rows)| rows.sum_dim_intlist(0, false, Kind::Double))
        .collect();
    let mean = Tensor::stack(&parts, 0).sum_dim_intlist(0, false, Kind::Double) / n as f64;
    let columns = super::rows_per_chunk(n as usize, CHUNK_BYTES) as i64;
    let blocks = || {
        (0..d).step_by(columns as usize).map(|start| {
            let count = columns.min(d - start);
            features.narrow(1, start, count).to_kind(Kind::Double) - mean.narrow(0, start, count)
        })
    };
    let mut products = Tensor::zeros([n, n], (Kind::Double, mean.device()));
    for block in blocks() {
        products += block.matmul(&block.transpose(0, 1));
    }
    let (values, vectors) = falling(products / n as f64);
    let rank = rank(&values).min(most).max(1) as i64;
    let scale = (values.narrow(0, 0, rank).clamp_min(0.0) * n as f64).sqrt();
    if scale.get(0).double_value(&[]) == 0.0 {
        // All rows are equal: any direction will do.
        let first = Tensor::zeros([1, d], (Kind::Double, mean.device()));
        let _ = first.narrow(1, 0, 1).fill_(1.0);
        return (mean, values, first);
    }
    let rows = vectors.narrow(0, 0, rank) / scale.unsqueeze(1);
    let parts: Vec<Tensor> = blocks().map(|block| rows.matmul(&block)).collect();
    (mean, values, Tensor::cat(&parts, 1))
}

/// Eigenvalues of a symmetric matrix, falling, and its eigenvectors as rows.
fn falling(symmetric: Tensor) -> (Tensor, Tensor) {
    let (values, vectors) = symmetric.linalg_eigh("L");
    (values.flip([0]), vectors.flip([1]).transpose(0, 1))
}

fn rank(descending: &Tensor) -> usize {
    let largest = descending.get(0).double_value(&[]);
    descending
        .gt((largest * RELATIVE_THRESHOLD).max(0.0))
        .sum(Kind::Int64)
        .int64_value(&[]) as usize
}
