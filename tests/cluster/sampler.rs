//! Clusters of unequal size: sampling uniform over clusters, and loss weights.

use proptest::prelude::*;
use ssl_cluster::data::sampler::{inverse_size_weights, uniform_over_labels};

use super::{assert_close, count, generator};

#[test]
fn every_cluster_is_drawn_equally_often() {
    // 100 clusters, the first of 505 and the others of 5: 11 draws from each, cut to 1,000.
    let labels: Vec<u32> = (0..1_000)
        .map(|i| if i < 500 { 0 } else { i % 100 })
        .collect();
    for seed in 0..5 {
        let order = uniform_over_labels(&labels, &mut generator(seed));
        let counts = count(order.iter().map(|&i| labels[i as usize] as usize), 100);
        assert!(counts.iter().all(|n| (5..=11).contains(n)), "{counts:?}");
    }
}

#[test]
fn the_order_is_shuffled_and_a_function_of_the_generator() {
    let labels: Vec<u32> = (0..300).map(|i| i / 100).collect();
    let draw = |seed| uniform_over_labels(&labels, &mut generator(seed));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    // The first third holds all three clusters.
    let counts = count(
        draw(1)[..100].iter().map(|&i| labels[i as usize] as usize),
        3,
    );
    assert!(counts.iter().all(|&n| n > 15), "{counts:?}");
}

#[test]
fn nothing_is_drawn_from_nothing() {
    assert!(uniform_over_labels(&[], &mut generator(0)).is_empty());
    assert!(inverse_size_weights(&[]).is_empty());
    assert_eq!(inverse_size_weights(&[0, 0]), [0.0, 0.0]);
}

#[test]
fn weights_by_hand() {
    assert_eq!(inverse_size_weights(&[1, 0, 3]), [2.0, 0.0, 2.0 / 3.0]);
}

proptest! {
    #[test]
    fn draws_fit_the_clusters(
        labels in prop::collection::vec(0..9_u32, 1..200),
        factor in 1..50_u32,
        seed in 0..u64::MAX,
    ) {
        // Gaps between the labels are empty clusters.
        let labels: Vec<u32> = labels.iter().map(|label| label * factor).collect();
        let n = labels.len();
        let order = uniform_over_labels(&labels, &mut generator(seed));
        prop_assert_eq!(order.len(), n);
        let width = 9 * factor as usize;
        let sizes = count(labels.iter().map(|&label| label as usize), width);
        let filled = sizes.iter().filter(|&&size| size > 0).count();
        let draws = n / filled + 1;
        let cut = draws * filled - n;
        let drawn = count(order.iter().map(|&i| labels[i as usize] as usize), width);
        let times = count(order.iter().map(|&i| i as usize), n);
        for (cluster, &size) in sizes.iter().enumerate() {
            if size == 0 {
                prop_assert_eq!(drawn[cluster], 0);
            } else {
                prop_assert!(drawn[cluster] <= draws && drawn[cluster] + cut >= draws);
            }
        }
        for (image, &label) in labels.iter().enumerate() {
            if sizes[label as usize] > draws {
                prop_assert!(times[image] <= 1, "{} is drawn {} times", image, times[image]);
            }
        }
    }

    #[test]
    fn weights_are_equal_over_clusters(sizes in prop::collection::vec(0..1_000_usize, 1..50)) {
        let n: usize = sizes.iter().sum();
        prop_assume!(n > 0);
        let weights = inverse_size_weights(&sizes);
        prop_assert_eq!(weights.len(), sizes.len());
        let filled = sizes.iter().filter(|&&size| size > 0).count();
        let totals: Vec<f64> = weights.iter().zip(&sizes).map(|(w, &s)| w * s as f64).collect();
        assert_close(totals.iter().sum::<f64>() / n as f64, 1.0, 1e-12);
        for ((total, &size), weight) in totals.iter().zip(&sizes).zip(&weights) {
            if size == 0 {
                prop_assert_eq!(*weight, 0.0);
            } else {
                assert_close(*total, n as f64 / filled as f64, 1e-9);
            }
        }
    }
}
