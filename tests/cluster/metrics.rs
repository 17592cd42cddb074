//! Agreement of labelings, against scikit-learn and against all matchings.

use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;
use ssl_cluster::cluster::metrics::{ari, balance, matched_accuracy, nmi, purity};

use super::{assert_close, generator};

#[derive(Deserialize)]
struct Record {
    case: String,
    a: Vec<u32>,
    b: Vec<u32>,
    nmi: f64,
    ari: f64,
}

#[test]
fn nmi_and_ari_are_those_of_scikit_learn() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics.json");
    let records: Vec<Record> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(records.len() >= 10);
    for Record {
        case,
        a,
        b,
        nmi: expected_nmi,
        ari: expected_ari,
    } in records
    {
        for (a, b) in [(&a, &b), (&b, &a)] {
            println!("{case}: NMI {}, ARI {}", nmi(a, b), ari(a, b));
            assert_close(nmi(a, b), expected_nmi, 1e-9);
            assert_close(ari(a, b), expected_ari, 1e-9);
        }
    }
}

/// The best share over all one-to-one matchings of `0..from` into `0..to`, `from <= to`.
fn best_matching(counts: &[Vec<usize>], row: usize, used: &mut Vec<bool>) -> usize {
    if row == counts.len() {
        return 0;
    }
    let mut best = 0;
    for column in 0..used.len() {
        if !used[column] {
            used[column] = true;
            best = best.max(counts[row][column] + best_matching(counts, row + 1, used));
            used[column] = false;
        }
    }
    best
}

fn brute_force_accuracy(clusters: &[u32], classes: &[u32]) -> f64 {
    let width = |labels: &[u32]| labels.iter().max().unwrap() + 1;
    let (few, many) = if width(clusters) <= width(classes) {
        (clusters, classes)
    } else {
        (classes, clusters)
    };
    let mut counts = vec![vec![0; width(many) as usize]; width(few) as usize];
    for (&row, &column) in few.iter().zip(many) {
        counts[row as usize][column as usize] += 1;
    }
    let right = best_matching(&counts, 0, &mut vec![false; width(many) as usize]);
    right as f64 / clusters.len() as f64
}

#[test]
fn matched_accuracy_by_hand() {
    // Renamed clusters are all right.
    assert_eq!(matched_accuracy(&[2, 2, 0, 1], &[0, 0, 1, 2]), 1.0);
    // More clusters than classes: one cluster for each class.
    assert_eq!(
        matched_accuracy(&[0, 0, 1, 2, 2, 3], &[0, 0, 0, 1, 1, 1]),
        4.0 / 6.0
    );
    // Fewer clusters than classes.
    assert_eq!(matched_accuracy(&[0, 0, 0, 0], &[3, 5, 5, 9]), 0.5);
    // Taking the largest cell first (3) would leave 0; the best matching gives 2 + 2.
    let (clusters, classes) = ([0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0]);
    assert_eq!(matched_accuracy(&clusters, &classes), 4.0 / 7.0);
}

#[test]
fn purity_by_hand() {
    // Manning, Raghavan and Schütze, Introduction to Information Retrieval, figure 16.1:
    // (5 + 4 + 3) / 17.
    let clusters = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2];
    let classes = [0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 2, 0, 0, 2, 2, 2];
    assert_close(purity(&clusters, &classes), 12.0 / 17.0, 1e-12);
    // Its NMI and Rand index (adjusted, by scikit-learn) as well.
    assert_close(nmi(&clusters, &classes), 0.3646, 1e-4);
    // Clusters of single points are pure whatever the classes.
    assert_eq!(purity(&[0, 1, 2, 3], &[0, 0, 1, 1]), 1.0);
}

#[test]
fn balance_by_hand() {
    assert_close(balance(&[7, 7, 7]), 1.0, 1e-12);
    assert_close(balance(&[9, 0, 0]), 0.0, 1e-12);
    assert_close(balance(&[4, 4, 0, 0]), 0.5, 1e-12);
    let (a, b) = (0.25_f64, 0.75_f64);
    assert_close(
        balance(&[1, 3]),
        -(a * a.ln() + b * b.ln()) / 2.0_f64.ln(),
        1e-12,
    );
    assert_eq!(balance(&[12]), 1.0);
}

proptest! {
    #[test]
    fn matched_accuracy_is_the_best_of_all_matchings(
        pairs in prop::collection::vec((0..5_u32, 0..5_u32), 1..60),
        clusters in 1..6_u32,
        classes in 1..6_u32,
    ) {
        let (a, b): (Vec<u32>, Vec<u32>) =
            pairs.iter().map(|(a, b)| (a % clusters, b % classes)).unzip();
        assert_close(matched_accuracy(&a, &b), brute_force_accuracy(&a, &b), 1e-12);
    }

    #[test]
    fn names_do_not_matter(
        pairs in prop::collection::vec((0..6_u32, 0..6_u32), 1..60),
        seed in 0..u64::MAX,
    ) {
        let (a, b): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
        let mut names: Vec<u32> = (0..6).map(|name| name * 1_000_003).collect();
        rand::seq::SliceRandom::shuffle(&mut names[..], &mut generator(seed));
        let renamed: Vec<u32> = a.iter().map(|&label| names[label as usize]).collect();
        for measure in [nmi, ari, matched_accuracy, purity] {
            assert_close(measure(&a, &b), measure(&renamed, &b), 1e-12);
            assert_close(measure(&a, &renamed), 1.0, 1e-12);
        }
        prop_assert!(matched_accuracy(&a, &b) <= purity(&a, &b) + 1e-12);
    }
}
