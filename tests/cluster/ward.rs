//! Ward's clustering against SciPy, and against all pairs from the definition.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;
use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::ward::{Tree, ward};

/// Merges points `[n, d]`.
fn tree(points: &[Vec<f32>], weights: Option<&[f64]>) -> Tree {
    let d = points[0].len();
    ward(&points.concat(), points.len(), d, weights, &|| false).unwrap()
}

fn heights(tree: &Tree) -> Vec<f64> {
    tree.merges.iter().map(|merge| merge.height).collect()
}

fn assert_heights(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b, "merge {i}: {a}, not {b}");
    }
}

/// That two labellings are the same but for the names.
fn assert_same_clusters<A: Copy + Eq + std::hash::Hash>(found: &[u32], expected: &[A]) {
    let mut names = HashMap::new();
    let mut back = HashMap::new();
    for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
        assert!(*names.entry(a).or_insert(b) == b, "point {i}");
        assert!(*back.entry(b).or_insert(a) == a, "point {i}");
    }
}

/// Independent numbers between -1 and 1 (xorshift), some of them near 0.
fn noise(seed: u64, n: usize, d: usize) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
        uniform * uniform.abs()
    };
    (0..n).map(|_| (0..d).map(|_| draw()).collect()).collect()
}

/// Heights from the definition: all pairs of clusters, again for each merge.
fn brute_force(points: &[Vec<f32>], weights: &[f64]) -> Vec<f64> {
    let each = points.iter().zip(weights);
    let mut clusters: Vec<(Vec<f64>, f64)> = each
        .map(|(point, &weight)| (point.iter().map(|&x| f64::from(x)).collect(), weight))
        .collect();
    let mut heights = Vec::new();
    while clusters.len() > 1 {
        let mut best = (f64::INFINITY, 0, 0);
        for j in 0..clusters.len() {
            for i in 0..j {
                let ((a, of_a), (b, of_b)) = (&clusters[i], &clusters[j]);
                let squared: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                let distance = 2.0 * of_a * of_b / (of_a + of_b) * squared;
                if distance < best.0 {
                    best = (distance, i, j);
                }
            }
        }
        let (b, of_b) = clusters.remove(best.2);
        let (a, of_a) = &mut clusters[best.1];
        for (a, b) in a.iter_mut().zip(b) {
            *a = (*of_a * *a + of_b * b) / (*of_a + of_b);
        }
        *of_a += of_b;
        heights.push(best.0.sqrt());
    }
    heights
}

#[derive(Deserialize)]
struct Record {
    name: String,
    points: Vec<Vec<f32>>,
    weights: Option<Vec<f64>>,
    ids: Option<Vec<[u32; 2]>>,
    heights: Vec<f64>,
    cuts: Vec<(usize, Vec<u32>)>,
}

#[test]
fn merges_are_those_of_scipy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ward.json");
    let records: Vec<Record> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(records.len() >= 6);
    for record in records {
        println!("{}", record.name);
        let tree = tree(&record.points, record.weights.as_deref());
        // Copies that a weight stands for have merged before.
        let before = record.heights.len() - tree.merges.len();
        assert_heights(&heights(&tree), &record.heights[before..], 1e-9);
        assert!(record.heights[..before].iter().all(|&height| height == 0.0));
        if let Some(ids) = record.ids {
            let found = tree.merges.iter().map(|merge| [merge.left, merge.right]);
            assert!(found.eq(ids));
        }
        for (k, labels) in record.cuts {
            assert_same_clusters(&tree.cut(k).unwrap(), &labels);
        }
    }
}

/// Enough points that columns of the matrix move together, and tiles are not all full.
#[test]
fn many_points_merge_as_by_definition() {
    for (n, d) in [(400, 3), (300, 300)] {
        let points = noise(n as u64, n, d);
        let expected = brute_force(&points, &vec![1.0; n]);
        assert_heights(&heights(&tree(&points, None)), &expected, 1e-9);
    }
}

#[test]
fn far_from_the_origin_nothing_is_lost() {
    let mut points = noise(5, 200, 6);
    let near = points.iter_mut().flatten();
    // Steps of 1/16 are what f32 has at 10^6.
    near.for_each(|x| *x = (*x * 64.0).round() / 16.0);
    let far: Vec<Vec<f32>> = points
        .iter()
        .map(|point| point.iter().map(|x| x + 1e6).collect())
        .collect();
    assert_heights(
        &heights(&tree(&far, None)),
        &heights(&tree(&points, None)),
        1e-9,
    );
}

/// A narrow cluster and points far away: squares of single precision do not tell its members apart.
#[test]
fn narrow_clusters_beside_far_points() {
    let mut points = noise(6, 60, 5);
    for point in &mut points[..30] {
        point.iter_mut().for_each(|x| *x *= 1e-6);
    }
    points.push(vec![1e6; 5]);
    points.push(vec![-3e15; 5]);
    let expected = brute_force(&points, &vec![1.0; points.len()]);
    assert_heights(&heights(&tree(&points, None)), &expected, 1e-9);
}

#[test]
fn any_scale_gives_the_same_tree() {
    let points = noise(7, 100, 4);
    let expected = tree(&points, None);
    for scale in [2.0_f32.powi(-100), 2.0_f32.powi(100)] {
        let scaled: Vec<Vec<f32>> = points
            .iter()
            .map(|point| point.iter().map(|x| x * scale).collect())
            .collect();
        let found = tree(&scaled, None);
        let back: Vec<f64> = heights(&found)
            .iter()
            .map(|height| height / f64::from(scale))
            .collect();
        assert_heights(&back, &heights(&expected), 1e-12);
        assert_eq!(found.cut(7), expected.cut(7));
    }
}

#[test]
fn threads_do_not_matter() {
    let points = noise(8, 700, 10);
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let three = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let found = one.install(|| tree(&points, None));
    assert_eq!(three.install(|| tree(&points, None)), found);
    let grid: Vec<Vec<f32>> = (0..400)
        .map(|i| vec![(i % 20) as f32, (i / 20) as f32])
        .collect();
    let found = one.install(|| tree(&grid, None));
    assert_eq!(three.install(|| tree(&grid, None)), found);
}

#[test]
fn small_numbers_of_points() {
    let one = tree(&[vec![3.0, 4.0]], None);
    assert!(one.merges.is_empty());
    assert_eq!(one.cut(1).unwrap(), [0]);
    let two = tree(&[vec![0.0, 0.0], vec![3.0, 4.0]], None);
    assert_eq!(heights(&two), [5.0]);
    assert_eq!((two.merges[0].left, two.merges[0].right), (0, 1));
    assert_eq!(two.merges[0].weight, 2.0);
    assert_eq!(two.cut(1).unwrap(), [0, 0]);
    assert_eq!(two.cut(2).unwrap(), [0, 1]);
    assert_eq!([4.9, 5.0].map(|height| two.clusters_at(height)), [2, 1]);
}

#[test]
fn equal_points_merge_at_height_0() {
    let constant = tree(&vec![vec![0.5, -0.0]; 50], None);
    assert_eq!(heights(&constant), [0.0; 49]);
    for k in 1..=50 {
        assert_eq!(constant.cut(k).unwrap().iter().max(), Some(&(k as u32 - 1)));
    }
    let points = [[1.0, 0.0], [5.0, 0.0], [1.0, -0.0], [5.0, 0.0], [1.0, 0.0]];
    let mixed = tree(&points.map(|point| point.to_vec()), None);
    assert_eq!(heights(&mixed)[..3], [0.0; 3]);
    assert_eq!(mixed.cut(2).unwrap(), [0, 1, 0, 1, 0]);
}

#[test]
fn labels_follow_weight_and_first_member() {
    let points: Vec<Vec<f32>> = [0.0, 10.0, 10.1, 20.0, 20.1].map(|x| vec![x]).to_vec();
    assert_eq!(tree(&points, None).cut(3).unwrap(), [2, 0, 0, 1, 1]);
    let heavy = tree(&points, Some(&[9.0, 1.0, 1.0, 1.0, 2.0]));
    assert_eq!(heavy.cut(3).unwrap(), [0, 2, 2, 1, 1]);
}

#[test]
fn odd_input_is_refused() {
    let run = |points: &[f32], n, d, weights: Option<&[f64]>| {
        ward(points, n, d, weights, &|| false)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(run(&[], 0, 3, None), ClusterError::NoPoints);
    let is_shape = |error| matches!(error, ClusterError::Shape { .. });
    assert!(is_shape(run(&[1.0; 5], 2, 3, None)));
    assert!(is_shape(run(&[], 2, 0, None)));
    assert!(is_shape(run(&[1.0; 5], usize::MAX, 3, None)));
    assert!(is_shape(run(&[1.0; 6], 2, 3, Some(&[1.0]))));
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = run(&[1.0, 2.0, wrong, 3.0], 2, 2, None);
        assert_eq!(error, ClusterError::NotFinite { row: 1 });
    }
    for weights in [
        [1.0, 0.0],
        [1.0, -1.0],
        [f64::NAN, 1.0],
        [f64::INFINITY, 1.0],
        [1.0, 1e-300],
        [1.7e308, 1.7e308],
    ] {
        let error = run(&[1.0, 2.0], 2, 1, Some(&weights));
        assert!(matches!(error, ClusterError::Options(_)), "{weights:?}");
    }
    let many: Vec<f32> = (0..40_000_u16).map(f32::from).collect();
    let error = run(&many, many.len(), 1, None);
    assert!(matches!(
        error,
        ClusterError::TooManyPoints { points: 40_000, .. }
    ));
    let two = tree(&[vec![1.0], vec![2.0]], None);
    assert_eq!(two.cut(0), Err(ClusterError::NoClusters));
    let expected = ClusterError::TooFewPoints {
        points: 2,
        clusters: 3,
    };
    assert_eq!(two.cut(3), Err(expected));
}

#[test]
fn the_largest_numbers_are_taken() {
    let points = [
        vec![f32::MAX, 0.0],
        vec![f32::MIN, 1.0],
        vec![f32::MIN_POSITIVE, 1e-45],
    ];
    let found = heights(&tree(&points, None));
    assert_heights(&found, &brute_force(&points, &[1.0; 3]), 1e-9);
}

#[test]
fn it_stops_when_asked() {
    let points = noise(9, 500, 2).concat();
    let (mut last, mut most) = (None, 0);
    // Wherever it is asked: before the matrix, within it, between merges.
    while last.is_none() {
        let asked = Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > most
        };
        match ward(&points, 500, 2, None, &stop) {
            Ok(tree) => last = Some(tree),
            Err(error) => assert_eq!(error, ClusterError::Interrupted),
        }
        most += 1;
    }
    assert!(most > 8, "asked {most} times");
}

/// Points of few values, so that there are copies and ties; or of any.
fn any_points() -> impl Strategy<Value = Vec<Vec<f32>>> {
    let few = (1..4_usize, 1..40_usize).prop_flat_map(|(d, n)| {
        prop::collection::vec(prop::collection::vec((-3..4_i8).prop_map(f32::from), d), n)
    });
    let any = (1..6_usize, 1..40_usize).prop_flat_map(|(d, n)| {
        prop::collection::vec(prop::collection::vec(-10.0..10.0_f32, d), n)
    });
    prop_oneof![few, any]
}

proptest! {
    #[test]
    fn heights_are_those_of_all_pairs(
        points in (1..6_usize, 1..40_usize).prop_flat_map(|(d, n)| prop::collection::vec(
            prop::collection::vec(-10.0..10.0_f32, d), n)),
        weights in prop::collection::vec(0.1..20.0_f64, 40),
    ) {
        let ones = vec![1.0; points.len()];
        assert_heights(&heights(&tree(&points, None)), &brute_force(&points, &ones), 1e-9);
        let weights = &weights[..points.len()];
        let found = heights(&tree(&points, Some(weights)));
        assert_heights(&found, &brute_force(&points, weights), 1e-9);
    }

    #[test]
    fn weights_are_repeated_points(
        points in prop::collection::vec(prop::collection::vec(-10.0..10.0_f32, 3), 2..20),
        weights in prop::collection::vec(1..5_u8, 20),
    ) {
        let weights = &weights[..points.len()];
        let owners: Vec<usize> = (0..points.len())
            .flat_map(|i| std::iter::repeat_n(i, usize::from(weights[i])))
            .collect();
        let repeated: Vec<Vec<f32>> = owners.iter().map(|&i| points[i].clone()).collect();
        let weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        let (found, all) = (tree(&points, Some(&weights)), tree(&repeated, None));
        let copies = repeated.len() - points.len();
        assert_heights(&heights(&found), &heights(&all)[copies..], 1e-9);
        for k in 1..=points.len() {
            let labels = found.cut(k).unwrap();
            let of_copies: Vec<u32> = owners.iter().map(|&i| labels[i]).collect();
            prop_assert_eq!(of_copies, all.cut(k).unwrap());
        }
    }

    #[test]
    fn order_does_not_matter(
        points in prop::collection::vec(prop::collection::vec(-10.0..10.0_f32, 2), 2..40),
        shift in 0..40_usize,
    ) {
        let expected = heights(&tree(&points, None));
        let mut turned = points.clone();
        turned.rotate_left(shift % points.len());
        turned.swap(0, points.len() / 2);
        assert_heights(&heights(&tree(&turned, None)), &expected, 1e-9);
    }

    #[test]
    fn cuts_are_nested_clusters(points in any_points()) {
        let tree = tree(&points, None);
        let n = points.len();
        prop_assert_eq!(tree.merges.len(), n - 1);
        let rising = heights(&tree);
        prop_assert!(rising.is_sorted());
        let mut finer: Option<Vec<u32>> = None;
        for k in (1..=n).rev() {
            let labels = tree.cut(k).unwrap();
            let mut sizes = vec![0; k];
            labels.iter().for_each(|&label| sizes[label as usize] += 1);
            prop_assert!(sizes.iter().all(|&size| size > 0));
            prop_assert!(sizes.is_sorted_by(|a, b| a >= b));
            // Each cluster of the finer cut lies in one of this.
            let mut homes = HashMap::new();
            for (&small, &large) in finer.iter().flatten().zip(&labels) {
                prop_assert_eq!(*homes.entry(small).or_insert(large), large);
            }
            finer = Some(labels);
        }
        // SciPy's numbers: each cluster is merged once, after it was made.
        let mut merged = vec![false; 2 * n - 1];
        for (id, merge) in (n..).zip(&tree.merges) {
            prop_assert!(merge.left < merge.right && (merge.right as usize) < id);
            for part in [merge.left, merge.right] {
                prop_assert!(!std::mem::replace(&mut merged[part as usize], true));
            }
        }
        for k in 1..n {
            let height = rising[n - 1 - k];
            if k == 1 || rising[n - k] > height {
                prop_assert_eq!(tree.clusters_at(height), k);
            }
        }
    }
}
