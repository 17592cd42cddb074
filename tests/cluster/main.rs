//! Clustering against slow implementations straight from the definitions, against enumeration of
//! all solutions, and against scikit-learn's numbers (`tests/fixtures/make.py`).

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tch::{Kind, Tensor};

mod assigner;
mod comm;
mod kmeans;
mod metrics;
mod nearest;
mod newton;
mod pic;
mod preprocess;
mod sampler;
mod scores;
mod sinkhorn;
mod temi;
mod ward;

/// A matrix, row by row.
type Rows = Vec<Vec<f64>>;

fn generator(seed: u64) -> Xoshiro256PlusPlus {
    tch::set_num_threads(2);
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

/// Independent standard normal numbers (Box and Muller), each representable in f32.
fn normal(seed: u64, n: usize, d: usize) -> Rows {
    let mut rng = generator(seed);
    let mut draw = || {
        let radius = (-2.0 * (1.0 - rng.gen_range(0.0..1.0_f64)).ln()).sqrt();
        let value = radius * (std::f64::consts::TAU * rng.gen_range(0.0..1.0_f64)).cos();
        f64::from(value as f32)
    };
    (0..n).map(|_| (0..d).map(|_| draw()).collect()).collect()
}

/// `each` points around each centre, one blob after the other, and their blobs.
fn blobs(seed: u64, centres: &Rows, each: usize, spread: f64) -> (Rows, Vec<usize>) {
    let noise = normal(seed, centres.len() * each, centres[0].len());
    let blob: Vec<usize> = (0..noise.len()).map(|point| point / each).collect();
    let point = |(row, &blob): (&Vec<f64>, &usize)| {
        let shifted = row.iter().zip(&centres[blob]);
        shifted
            .map(|(x, c)| f64::from((x * spread + c) as f32))
            .collect()
    };
    (noise.iter().zip(&blob).map(point).collect(), blob)
}

/// `[n, d] f32`
fn tensor(rows: &Rows) -> Tensor {
    let flat: Vec<f32> = rows.iter().flatten().map(|&x| x as f32).collect();
    Tensor::from_slice(&flat).reshape([rows.len() as i64, -1])
}

fn rows(matrix: &Tensor) -> Rows {
    let flat: Vec<f64> = Vec::try_from(matrix.to_kind(Kind::Double).flatten(0, -1)).unwrap();
    let width = matrix.size()[1] as usize;
    flat.chunks_exact(width).map(<[f64]>::to_vec).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// The number of times that each of `k` labels occurs.
fn count(labels: impl IntoIterator<Item = usize>, k: usize) -> Vec<usize> {
    let mut counts = vec![0; k];
    labels.into_iter().for_each(|label| counts[label] += 1);
    counts
}

#[track_caller]
fn assert_close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} and {b}");
}
