//! Nearest neighbours against all distances, power iteration against the authors' in NumPy.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;
use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::neighbours::Neighbours;
use ssl_cluster::cluster::pic::{self, PicOptions};
use tch::{Kind, Tensor};

use super::{Rows, assert_close, generator, normal, squared_distance, tensor};

fn check_neighbours(points: &Rows, count: usize) {
    let found = Neighbours::find(&tensor(points), count).unwrap();
    let count = count.min(points.len() - 1);
    assert_eq!(found.count, count);
    for (i, point) in points.iter().enumerate() {
        let mut all: Vec<(f64, u32)> = (0..points.len())
            .filter(|&j| j != i)
            .map(|j| (squared_distance(point, &points[j]), j as u32))
            .collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        for ((squared, j), (found, near)) in all.into_iter().zip(found.of(i)) {
            assert_eq!(j, found, "point {i}");
            assert_close(squared, near, 1e-12 * squared);
        }
    }
}

#[test]
fn neighbours_are_the_nearest_of_all() {
    check_neighbours(&normal(1, 300, 7), 5);
    check_neighbours(&normal(2, 40, 3), 39);
    check_neighbours(&normal(3, 2, 3), 5);
}

#[test]
fn neighbours_are_exact_where_single_precision_is_not() {
    // Far from the origin, products in f32 say nothing of such distances.
    let mut points = normal(4, 200, 3);
    points
        .iter_mut()
        .flatten()
        .for_each(|x| *x = f64::from((*x + 4096.0) as f32));
    check_neighbours(&points, 5);
}

proptest! {
    #[test]
    fn neighbours_of_points_with_copies(
        cells in prop::collection::vec((0..3_i8, 0..3_i8), 2..40),
        count in 1..6_usize,
    ) {
        generator(0);
        let points: Rows = cells.iter().map(|&(x, y)| vec![f64::from(x), f64::from(y)]).collect();
        check_neighbours(&points, count);
    }
}

#[derive(Deserialize)]
struct Record {
    points: Rows,
    neighbours: usize,
    sigma: f64,
    alpha: f64,
    labels: Vec<usize>,
}

#[test]
fn clusters_are_those_of_the_authors() {
    generator(0);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pic.json");
    let records: Vec<Record> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(records.len() >= 3);
    for record in records {
        let options = PicOptions {
            neighbours: record.neighbours,
            sigma: record.sigma,
            alpha: record.alpha,
            ..PicOptions::default()
        };
        let found = pic::cluster(&tensor(&record.points), &options).unwrap();
        // Clusters are numbered in the order in which they come.
        let mut numbers = HashMap::new();
        for (label, &theirs) in found.labels.iter().zip(&record.labels) {
            let next = numbers.len() as u32;
            assert_eq!(*label, *numbers.entry(theirs).or_insert(next));
        }
        assert_eq!(found.sizes.len(), numbers.len());
        assert_eq!(found.sizes.iter().sum::<usize>(), record.points.len());
    }
}

#[test]
fn what_lies_apart_stays_apart() {
    generator(0);
    let line = [0.0, 0.1, 0.2, 10.0, 10.1, 10.2, 10.3];
    let points: Rows = line.iter().map(|&x| vec![x]).collect();
    let options = PicOptions {
        neighbours: 2,
        ..PicOptions::default()
    };
    let found = pic::cluster(&tensor(&points), &options).unwrap();
    assert_eq!(found.labels[..3], [0, 0, 0]);
    assert!(found.labels[3..].iter().all(|&label| label > 0));
}

#[test]
fn odd_cases_have_stated_results() {
    generator(0);
    let one = pic::cluster(&tensor(&vec![vec![1.0, 2.0]]), &PicOptions::default()).unwrap();
    assert_eq!((one.labels, one.sizes), (vec![0], vec![1]));
    // No edge weighs anything: everybody stays alone.
    let far: Rows = (0..5).map(|x| vec![1e6 * f64::from(x)]).collect();
    let apart = pic::cluster(&tensor(&far), &PicOptions::default()).unwrap();
    assert_eq!(apart.sizes, [1; 5]);
    let vast: Rows = (1..20).map(|x| vec![1e20 * f64::from(x)]).collect();
    assert_eq!(
        pic::cluster(&tensor(&vast), &PicOptions::default()),
        Err(ClusterError::TooLarge { row: 18 })
    );
    let none = Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu));
    assert_eq!(
        pic::cluster(&none, &PicOptions::default()),
        Err(ClusterError::NoPoints)
    );
    for options in [
        PicOptions {
            sigma: 0.0,
            ..PicOptions::default()
        },
        PicOptions {
            alpha: 1.5,
            ..PicOptions::default()
        },
        PicOptions {
            neighbours: 0,
            ..PicOptions::default()
        },
    ] {
        let error = pic::cluster(&tensor(&far), &options).unwrap_err();
        assert!(matches!(error, ClusterError::Options(_)));
    }
}
