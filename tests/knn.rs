//! Weighted kNN against votes counted by hand.

use proptest::prelude::*;
use ssl_cluster::eval::knn::{KnnOptions, accuracy, classify};
use tch::Tensor;

/// The definition, point by point, in f64.
fn by_hand(
    known: &[[f32; 3]],
    classes: &[u32],
    query: &[f32; 3],
    k: usize,
    t: f64,
    skip: Option<usize>,
) -> Vec<f64> {
    let norm = |v: &[f32; 3]| {
        v.iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt()
            .max(1e-12)
    };
    let mut nearest: Vec<(f64, u32)> = known
        .iter()
        .zip(classes)
        .enumerate()
        .filter(|(index, _)| Some(*index) != skip)
        .map(|(_, (point, &class))| {
            let dot: f64 = point
                .iter()
                .zip(query)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            (dot / norm(point) / norm(query), class)
        })
        .collect();
    nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut votes = vec![0.0; 4];
    nearest
        .iter()
        .take(k)
        .for_each(|(similarity, class)| votes[*class as usize] += (similarity / t).exp());
    votes
}

proptest! {
    #[test]
    fn votes_are_those_of_the_definition(
        points in proptest::collection::vec((prop::array::uniform3(-1.0_f32..1.0), 0_u32..4), 2..30),
        k in 1_usize..8,
        shared: bool,
    ) {
        tch::set_num_threads(1);
        let (known, classes): (Vec<[f32; 3]>, Vec<u32>) = points.into_iter().unzip();
        let flat: Vec<f32> = known.iter().flatten().copied().collect();
        let matrix = Tensor::from_slice(&flat).view([known.len() as i64, 3]);
        let options = KnnOptions { neighbours: k, temperature: 0.5 };
        // No query is among the known points, or every second one is.
        let own: Vec<Option<usize>> =
            (0..known.len()).map(|index| (shared && index % 2 == 0).then_some(index)).collect();
        let found = classify(&matrix, &classes, &matrix, &own, options);
        let k = if shared { k.min(known.len() - 1) } else { k };
        for (index, query) in known.iter().enumerate() {
            let votes = by_hand(&known, &classes, query, k, 0.5, own[index]);
            let best = votes.iter().copied().fold(0.0, f64::max);
            // Rounding may decide between equal votes.
            prop_assert!(votes[found[index] as usize] > best * 0.9999, "{votes:?}, {found:?}");
        }
    }
}

#[test]
fn accuracy_counts_the_right_ones() {
    assert_eq!(accuracy(&[1, 2, 3, 4], &[1, 2, 0, 4]), 0.75);
}
