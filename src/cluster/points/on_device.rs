//! Points on a device, or passing through it, by products of tensors.
//!
//! A block of rows is multiplied with all centroids, quickly and not quite exactly: see [`Scores`]. Where the
//! best score is ahead of the second by more than the products can be off, it names the nearest centroid;
//! the few other rows go through products in f64. The block's part of the clusters' sums is added up in f64
//! over its rows sorted by label, in a fixed order: CUDA's `index_add` would take the order in which its
//! threads arrive.
//!
//! Memory beside the points: some three times [`BYTES`], 16 bytes for each point, and the centroids some ten
//! times over. Points may lie in the CPU's memory: their blocks come over one by one.

use tch::{Device, Kind, Tensor};

use super::{Found, LARGEST, Points, Sums};
use crate::cluster::{Assignment, ClusterError, agreed, chunks, rows_per_chunk};
use crate::comm::Comm;
use crate::tensors::to_labels;

/// For the scores of a block.
const BYTES: usize = 512 << 20;
/// Rows that one thread adds up at most, so that a large cluster keeps no device waiting.
const PIECE: i64 = 256;

pub(super) struct OnDevice<'a> {
    points: &'a Tensor,
    device: Device,
    /// `[1, d] f32`: what all points have in common is taken off before they are multiplied.
    centre: Tensor,
    /// `[n] f64` on the device, where there are some.
    weights: Option<Tensor>,
    /// `[n] i64` on the device.
    labels: Tensor,
    /// Points in each cluster `[k] i64`, their weight `[k, 1] f64`, and the sum of what they are off the
    /// centre, by weight, `[k, d] f64`.
    counts: Tensor,
    masses: Tensor,
    sums: Tensor,
    /// Σ w ‖x − centre‖²
    energy: f64,
    /// The centroids of the last assignment.
    centroids: Tensor,
    precision: ScorePrecision,
    k: usize,
}

impl<'a> OnDevice<'a> {
    /// `points` `[n, d] f32` with their `weights` `[n]`, for `k` clusters, worked on at `device`.
    ///
    /// # Errors
    /// Rows whose squares leave the range of single precision.
    pub fn new(
        points: &'a Tensor,
        weights: Option<&Tensor>,
        k: usize,
        device: Device,
        comm: &dyn Comm,
    ) -> Result<Self, ClusterError> {
        let (n, d) = (points.size()[0], points.size()[1]);
        let double = (Kind::Double, device);
        let mut sum = Tensor::zeros([d], double);
        let mut sound = Ok(());
        for (start, rows) in chunks(points, BYTES) {
            let rows = rows.to_device(device).to_kind(Kind::Double);
            let long = squares(&rows).gt(LARGEST * LARGEST);
            if long.any().int64_value(&[]) != 0 {
                let row = long.to_kind(Kind::Int).argmax(0, false).int64_value(&[]);
                sound = Err(ClusterError::TooLarge {
                    row: start + row as usize,
                });
                break;
            }
            sum += rows.sum_dim_intlist(0, false, Kind::Double);
        }
        agreed(comm, sound)?;
        let (sum, all_points) = (comm.sum_tensor(sum), comm.sum_of(n as f64));
        let mut all = Self {
            centre: (sum / all_points).to_kind(Kind::Float).unsqueeze(0),
            points,
            device,
            weights: weights.map(|weights| weights.to_device(device).to_kind(Kind::Double)),
            labels: Tensor::full([n], -1, (Kind::Int64, device)),
            counts: Tensor::zeros([k as i64], (Kind::Int64, device)),
            masses: Tensor::zeros([k as i64, 1], double),
            sums: Tensor::zeros([k as i64, d], double),
            energy: 0.0,
            centroids: Tensor::new(),
            precision: ScorePrecision::of(device),
            k,
        };
        let mut energy = Tensor::zeros([1], double);
        for (start, rows) in all.blocks() {
            let squared = squares(&all.centred(&rows).to_kind(Kind::Double));
            energy += match Self::part(&all.weights, start, &rows) {
                Some(weights) => (squared * weights).sum(Kind::Double),
                None => squared.sum(Kind::Double),
            };
        }
        all.energy = energy.double_value(&[0]);
        Ok(all)
    }

    /// The points in blocks of which scores for all centroids stay within bounds, each with its first row.
    fn blocks(&self) -> impl Iterator<Item = (i64, Tensor)> + use<'a> {
        let (points, device) = (self.points, self.device);
        let (n, d) = (points.size()[0], points.size()[1] as usize);
        // In doubles, which a block's rows are as well.
        let step = rows_per_chunk(self.k.max(4 * d).div_ceil(2), BYTES) as i64;
        (0..n).step_by(step as usize).map(move |start| {
            let rows = points.narrow(0, start, step.min(n - start));
            (start, rows.to_device(device))
        })
    }

    fn centred(&self, rows: &Tensor) -> Tensor {
        rows - &self.centre
    }

    /// What belongs to the block `rows` that begins at `start`.
    fn part(of: &Option<Tensor>, start: i64, rows: &Tensor) -> Option<Tensor> {
        of.as_ref().map(|all| all.narrow(0, start, rows.size()[0]))
    }

    /// Counts, weights and sums of a block `centred` `[b, d] f32` with its `labels` `[b]`.
    fn add(&mut self, centred: &Tensor, labels: &Tensor, weights: Option<&Tensor>) {
        let (b, k) = (labels.size()[0], self.k as i64);
        let (sorted, order) = labels.sort_stable(true, 0, false);
        let long = (Kind::Int64, self.device);
        let search = |among: &Tensor, what: &Tensor| {
            what.searchsorted(among, false, false, "left", None::<&Tensor>)
        };
        // Where each cluster begins among the sorted rows, and where the last one ends.
        let starts = search(&sorted, &Tensor::arange(k + 1, long));
        // Cut there and after every so many rows; cluster j then has the pieces from first[j] on.
        let cuts = Tensor::arange_start_step(0, b, PIECE, long);
        let pieces = Tensor::cat(&[&starts, &cuts], 0).sort(0, false).0;
        let first = search(&pieces, &starts);
        let counts = starts.narrow(0, 1, k) - starts.narrow(0, 0, k);
        let mut rows = centred.index_select(0, &order).to_kind(Kind::Double);
        let mass = match weights {
            Some(weights) => {
                let weights = weights.index_select(0, &order).unsqueeze(1);
                rows *= &weights;
                segment_sums(&segment_sums(&weights, &pieces), &first)
            }
            None => counts.to_kind(Kind::Double).unsqueeze(1),
        };
        self.sums += segment_sums(&segment_sums(&rows, &pieces), &first);
        self.masses += mass;
        self.counts += counts;
    }

    /// Σ w ‖x − c‖² = Σ w ‖x‖² − 2 Σ_j c_j·S_j + Σ_j m_j ‖c_j‖², all off the centre.
    fn objective(&self, centroids: &Tensor) -> f64 {
        let off = (centroids - &self.centre).to_kind(Kind::Double);
        let rest = (&off * (&self.masses * &off - &self.sums * 2.0)).sum(Kind::Double);
        (self.energy + rest.double_value(&[])).max(0.0)
    }
}

/// `[b]`: the squared lengths of rows `[b, d]`, in their kind.
fn squares(rows: &Tensor) -> Tensor {
    rows.square().sum_dim_intlist(1, false, rows.kind())
}

/// `[s, d]`: the sums of rows `[b, d]` from `bounds[i]` to `bounds[i + 1]`, one after the other.
fn segment_sums(rows: &Tensor, bounds: &Tensor) -> Tensor {
    let none = None::<&Tensor>;
    Tensor::segment_reduce(rows, "sum", none, none, Some(bounds), 0, true, 0.0)
}

/// What scores are multiplied in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ScorePrecision {
    F32,
    /// Each number as the sum of two in bf16, whose products are summed in f32: on tensor cores three times
    /// as fast as f32 (H100: 14.5 ms in place of 47 for 10⁶ x 256 x 4,096).
    TwoBf16,
}

impl ScorePrecision {
    /// The faster one that `device` has.
    fn of(device: Device) -> Self {
        let one = Tensor::zeros([16, 16], (Kind::BFloat16, device));
        let products = device != Device::Cpu && one.f_mm_dtype(&one, Kind::Float).is_ok();
        if products { Self::TwoBf16 } else { Self::F32 }
    }
}

/// Scores x·c − ‖c‖²/2 of points for centroids, of which the largest is that of the nearest, and how far
/// they can be off.
struct Scores {
    precision: ScorePrecision,
    /// What points are multiplied with: `[d, k] f32`, or `[3 d + 8, k] bf16`.
    factors: Tensor,
    /// −‖c‖²/2 `[k] f32`
    half_norms: Tensor,
    /// The largest ‖c‖ `[1] f32`.
    longest: Tensor,
    /// A score is off by this times ‖x‖ C + C²/2 at most, with C the longest centroid.
    epsilon: f64,
}

/// Columns of bf16 behind the products: ‖c‖²/2 in three parts, filled up to a multiple of eight.
const TAIL: i64 = 8;

impl Scores {
    /// For `centroids` `[k, d] f32`, off the centre.
    fn new(centroids: &Tensor, precision: ScorePrecision) -> Self {
        let squared = squares(centroids);
        let half_norms = &squared * -0.5;
        let d = centroids.size()[1] as f64;
        let unit = f64::powi(2.0, -23);
        let (factors, epsilon) = match precision {
            ScorePrecision::F32 => (centroids.transpose(0, 1), (d + 8.0) * unit),
            ScorePrecision::TwoBf16 => {
                let (high, low) = halves(centroids);
                let column = half_norms.unsqueeze(1);
                let (first, second) = halves(&column);
                let rest = column - first.to_kind(Kind::Float) - second.to_kind(Kind::Float);
                let third = rest.to_kind(Kind::BFloat16);
                let tail = first.new_zeros(
                    [first.size()[0], TAIL - 3],
                    (Kind::BFloat16, first.device()),
                );
                let all = Tensor::cat(&[&high, &low, &high, &first, &second, &third, &tail], 1);
                // What the two halves leave out of a product is 3 · 2⁻¹⁸ of it at most, and as many f32
                // sums are made as there are columns.
                let left_out = 3.0 * f64::powi(2.0, -18);
                (all.transpose(0, 1), left_out + (3.0 * d + 16.0) * unit)
            }
        };
        Self {
            precision,
            factors,
            half_norms,
            longest: squared.max().sqrt().view([1]),
            epsilon,
        }
    }

    /// `[b, k] f32` of rows `[b, d] f32`, off the centre.
    fn of(&self, rows: &Tensor) -> Tensor {
        match self.precision {
            ScorePrecision::F32 => self.half_norms.addmm(rows, &self.factors),
            ScorePrecision::TwoBf16 => {
                let (high, low) = halves(rows);
                let ones = high.new_ones([high.size()[0], TAIL], (Kind::BFloat16, high.device()));
                let all = Tensor::cat(&[&high, &high, &low, &ones], 1);
                all.mm_dtype(&self.factors, Kind::Float)
            }
        }
    }

    /// The column of the largest score of each row `[b] i64`, and whether another one may be larger `[b]`.
    fn best(&self, rows: &Tensor) -> (Tensor, Tensor) {
        let mut scores = self.of(rows);
        let (first, label) = scores.max_dim(1, true);
        // To find the second, twice as fast as `topk`, which sorts.
        let _ = scores.scatter_value_(1, &label, f64::NEG_INFINITY);
        let (second, _) = scores.max_dim(1, true);
        let off = (squares(rows).sqrt().unsqueeze(1) + &self.longest * 0.5) * &self.longest;
        let doubt = (first - second).le_tensor(&(off * (2.0 * self.epsilon)));
        (label.squeeze_dim(1), doubt.squeeze_dim(1))
    }
}

/// Numbers as the sum of two in bf16, to within 2⁻¹⁸ of each.
fn halves(numbers: &Tensor) -> (Tensor, Tensor) {
    let high = numbers.to_kind(Kind::BFloat16);
    let low = (numbers - high.to_kind(Kind::Float)).to_kind(Kind::BFloat16);
    (high, low)
}

/// The nearest of `centroids` `[k, d] f64` for each of `rows` `[m, d] f64`, ties to the smaller index: `[m]`.
fn nearest_precisely(rows: &Tensor, centroids: &Tensor) -> Tensor {
    let half_norms = squares(centroids) * -0.5;
    let transposed = centroids.transpose(0, 1);
    let step = rows_per_chunk(centroids.size()[0] as usize, BYTES) as i64;
    let labels: Vec<Tensor> = rows
        .split(step, 0)
        .iter()
        .map(|rows| half_norms.addmm(rows, &transposed).argmax(1, false))
        .collect();
    Tensor::cat(&labels, 0)
}

impl Points for OnDevice<'_> {
    fn assign(&mut self, centroids: &Tensor) -> Found {
        let off = centroids.to_device(self.device) - &self.centre;
        let scores = Scores::new(&off, self.precision);
        let precise = off.to_kind(Kind::Double);
        let _ = self.counts.zero_();
        let _ = self.masses.zero_();
        let _ = self.sums.zero_();
        let mut moved = Tensor::zeros([1], (Kind::Int64, self.device));
        for (start, rows) in self.blocks() {
            let centred = self.centred(&rows);
            let (mut label, doubt) = scores.best(&centred);
            let doubtful = doubt.nonzero().squeeze_dim(1);
            if doubtful.numel() > 0 {
                let those = centred.index_select(0, &doubtful).to_kind(Kind::Double);
                let _ = label.index_copy_(0, &doubtful, &nearest_precisely(&those, &precise));
            }
            let mut before = self.labels.narrow(0, start, rows.size()[0]);
            moved += label.not_equal_tensor(&before).sum(Kind::Int64);
            before.copy_(&label);
            let weights = Self::part(&self.weights, start, &rows);
            self.add(&centred, &label, weights.as_ref());
        }
        self.centroids = centroids.to_device(self.device);
        Found {
            assignment: Assignment {
                moved: moved.int64_value(&[0]) as usize,
                objective: self.objective(&self.centroids),
                ..Assignment::default()
            },
            empty: self.counts.eq(0).sum(Kind::Int64).int64_value(&[]) as usize,
        }
    }

    fn sums(&self) -> Sums {
        Sums {
            sums: self.sums.shallow_clone(),
            masses: self.masses.shallow_clone(),
            origin: Some(self.centre.shallow_clone()),
        }
    }

    fn sizes(&self) -> Vec<usize> {
        let counts: Vec<i64> =
            Vec::try_from(&self.counts.to_device(Device::Cpu)).unwrap_or_default();
        counts.into_iter().map(|count| count as usize).collect()
    }

    fn labels(&self) -> Tensor {
        self.labels.to_device(self.points.device())
    }

    fn squared_distances(&self) -> (Vec<f64>, Vec<u32>) {
        let mut squared = Vec::new();
        for (start, rows) in self.blocks() {
            let labels = self.labels.narrow(0, start, rows.size()[0]);
            let own = self.centroids.index_select(0, &labels);
            let off = rows.to_kind(Kind::Double) - own;
            let part = squares(&off).to_device(Device::Cpu);
            squared.extend(Vec::<f64>::try_from(&part).unwrap_or_default());
        }
        (squared, to_labels(&self.labels))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::{ScorePrecision, Scores, halves};

    /// Scores in two halves as a tensor core computes them, on a CPU: products of bf16, sums in f32.
    fn emulated(scores: &Scores, rows: &Tensor) -> Tensor {
        let (high, low) = halves(rows);
        let ones = Tensor::ones([rows.size()[0], super::TAIL], (Kind::BFloat16, Device::Cpu));
        let all = Tensor::cat(&[&high, &high, &low, &ones], 1).to_kind(Kind::Float);
        all.matmul(&scores.factors.to_kind(Kind::Float))
    }

    #[test]
    fn scores_are_off_by_no_more_than_they_say() {
        tch::manual_seed(3);
        let options = (Kind::Float, Device::Cpu);
        for (d, scale) in [(3, 1.0), (64, 1e-12), (256, 30.0), (700, 1e6)] {
            let centroids = Tensor::randn([50, d], options) * scale;
            let rows = Tensor::randn([200, d], options) * scale;
            let (c, x) = (centroids.to_kind(Kind::Double), rows.to_kind(Kind::Double));
            let half = c.square().sum_dim_intlist(1, false, Kind::Double) * 0.5;
            let exact = x.matmul(&c.transpose(0, 1)) - half;
            for precision in [ScorePrecision::F32, ScorePrecision::TwoBf16] {
                let scores = Scores::new(&centroids, precision);
                let found = match precision {
                    ScorePrecision::F32 => scores.of(&rows),
                    ScorePrecision::TwoBf16 => emulated(&scores, &rows),
                };
                let longest = scores.longest.double_value(&[0]);
                let lengths = x.square().sum_dim_intlist(1, true, Kind::Double).sqrt();
                let bound = (lengths + longest / 2.0) * longest * scores.epsilon;
                let share = ((found.to_kind(Kind::Double) - &exact).abs() / bound).max();
                let share = share.double_value(&[]);
                assert!(share < 1.0, "d = {d}, {precision:?}: {share} of the bound");
            }
        }
    }
}
