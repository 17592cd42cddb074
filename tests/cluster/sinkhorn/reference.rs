//! The authors' algorithm (`sinkhornknopp.py: optimize_L_sk`) in f64, and the optimum by looking at every
//! assignment.

use super::log_softmax;
use crate::count;

/// What the authors' algorithm comes to.
pub struct Authors {
    pub labels: Vec<u32>,
    pub log_scalings: Vec<f64>,
}

/// The authors' algorithm, stopped where they stop.
pub fn authors(log_p: &[f32], k: usize, lambda: f64, tolerance: f64) -> Authors {
    let n = log_p.len() / k;
    let p: Vec<f64> = log_p
        .iter()
        .map(|&p| (lambda * f64::from(p)).exp())
        .collect();
    let (mut r, mut c) = (vec![1.0 / k as f64; k], vec![1.0 / n as f64; n]);
    let mut counter = 0;
    loop {
        for (j, r) in r.iter_mut().enumerate() {
            *r = 1.0 / k as f64 / (0..n).map(|i| p[i * k + j] * c[i]).sum::<f64>();
        }
        let new: Vec<f64> = (0..n)
            .map(|i| 1.0 / n as f64 / (0..k).map(|j| p[i * k + j] * r[j]).sum::<f64>())
            .collect();
        let error: f64 = c
            .iter()
            .zip(&new)
            .map(|(old, new)| (old / new - 1.0).abs())
            .sum();
        c = new;
        if counter % 10 == 0 && error <= tolerance {
            break;
        }
        counter += 1;
        assert!(counter < 100_000);
    }
    let score = |i: usize, j: usize| p[i * k + j] * r[j] * c[i];
    let best = |i| {
        (0..k)
            .max_by(|&a, &b| score(i, a).total_cmp(&score(i, b)))
            .unwrap() as u32
    };
    let logs: Vec<f64> = r.iter().map(|r| r.ln()).collect();
    let mean = logs.iter().sum::<f64>() / k as f64;
    Authors {
        labels: (0..n).map(best).collect(),
        log_scalings: logs.iter().map(|log| log - mean).collect(),
    }
}

/// The share of equal labels.
pub fn agreement(a: &[u32], b: &[u32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// The best assignment.
pub struct Optimum {
    pub labels: Vec<u32>,
    /// Mean cost for each point.
    pub cost: f64,
    /// How much the second best costs more, over all points.
    pub gap: f64,
}

/// The best assignment with these sizes, by looking at every one.
pub fn enumerate(log_p: &[f32], sizes: &[usize]) -> Optimum {
    let (k, n) = (sizes.len(), log_p.len() / sizes.len());
    let mut costs: Vec<(f64, Vec<u32>)> = (0..k.pow(n as u32))
        .map(|code| {
            (0..n)
                .map(|i| (code / k.pow(i as u32) % k) as u32)
                .collect()
        })
        .filter(|labels: &Vec<u32>| count(labels.iter().map(|&l| l as usize), k) == sizes)
        .map(|labels| {
            let costs = labels
                .iter()
                .enumerate()
                .map(|(i, &l)| log_p[i * k + l as usize]);
            (costs.map(|p| -f64::from(p)).sum(), labels)
        })
        .collect();
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    Optimum {
        labels: costs[0].1.clone(),
        cost: costs[0].0 / n as f64,
        gap: costs[1].0 - costs[0].0,
    }
}

/// Problems of six points, with the sizes asked for and the optimum.
pub fn small_problems() -> impl Iterator<Item = (Vec<f32>, Vec<usize>, Optimum)> {
    let sizes = [vec![3, 3], vec![2, 2, 2], vec![1, 2, 3], vec![4, 2]];
    sizes.into_iter().flat_map(|sizes| {
        (0..10).map(move |seed| {
            let log_p = log_softmax(100 + seed, 6, sizes.len(), 1.0);
            let optimum = enumerate(&log_p, &sizes);
            (log_p, sizes.clone(), optimum)
        })
    })
}

/// Sizes as column sums.
pub fn shares(sizes: &[usize]) -> Option<Vec<f64>> {
    Some(sizes.iter().map(|&size| size as f64 / 6.0).collect())
}
