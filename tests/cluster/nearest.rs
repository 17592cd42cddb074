//! The exact search against brute force in f64, on every instruction set of this processor.

use proptest::prelude::*;
use rand::Rng;
use ssl_cluster::cluster::kernel::Isa;
use ssl_cluster::cluster::nearest::Search;

use super::{generator, normal};

fn flat(rows: Vec<Vec<f64>>) -> Vec<f32> {
    rows.into_iter().flatten().map(|x| x as f32).collect()
}

/// Twice the score of a centroid: the negative squared distance, but for ‖x‖².
fn score(point: &[f32], centroid: &[f32]) -> f64 {
    let terms = point.iter().zip(centroid).map(|(&x, &c)| {
        let (x, c) = (f64::from(x), f64::from(c));
        c * (2.0 * x - c)
    });
    terms.sum()
}

/// Asserts that no centroid is nearer to a point than the one found, and that among equal ones it is
/// the first; that the labels that changed are counted; and that all this holds as the centroids move
/// on, each on its own way, until they rest.
#[track_caller]
fn check(points: &[f32], centroids: &[f32], d: usize) {
    let k = centroids.len() / d;
    let mut first = Vec::new();
    // With the points in 16 bits and small groups, and with neither.
    let ways = Isa::available()
        .into_iter()
        .flat_map(|isa| [80 << 20, 0].map(|memory| (isa, memory)));
    for (isa, memory) in ways {
        let mut rng = generator(7);
        let mut search = Search::with_memory(isa, points, d, k, memory);
        let mut centroids = centroids.to_vec();
        let mut found = Vec::new();
        for step in 0..6 {
            let before = search.labels().to_vec();
            let changed = search.assign(&centroids);
            let differ = |(a, b): &(&u32, &u32)| a != b;
            assert_eq!(
                changed,
                before.iter().zip(search.labels()).filter(differ).count()
            );
            check_labels(points, &centroids, d, search.labels(), isa);
            assert_eq!(search.assign(&centroids), 0);
            found.push(search.labels().to_vec());
            // Some stay where they are, some move a little, some jump to another one's place.
            for j in 0..k {
                match rng.gen_range(0..4 + step) {
                    0 => {
                        let other = rng.gen_range(0..k);
                        centroids.copy_within(other * d..(other + 1) * d, j * d);
                    }
                    1 | 2 => {
                        let share = 10.0_f32.powi(-step);
                        for c in &mut centroids[j * d..][..d] {
                            *c += share * rng.gen_range(-1.0..1.0) * c.abs();
                        }
                    }
                    _ => {}
                }
            }
        }
        if first.is_empty() {
            first.clone_from(&found);
        }
        assert!(found == first, "{}", isa.name());
    }
}

#[track_caller]
fn check_labels(points: &[f32], centroids: &[f32], d: usize, labels: &[u32], isa: Isa) {
    for (point, &label) in points.chunks_exact(d).zip(labels) {
        let scores: Vec<f64> = centroids.chunks_exact(d).map(|c| score(point, c)).collect();
        let found = scores[label as usize];
        let parts = point
            .iter()
            .chain(centroids)
            .map(|x| x.abs())
            .fold(0.0, f32::max);
        let rounding = 1e-14 * d as f64 * f64::from(parts).powi(2);
        for (j, &other) in scores.iter().enumerate() {
            assert!(
                other <= found + rounding,
                "{}: {label} scores {found}, but {j} {other}",
                isa.name()
            );
            let same = centroids[j * d..][..d] == centroids[label as usize * d..][..d];
            assert!(
                !same || j >= label as usize,
                "{label} taken before its twin {j}"
            );
        }
    }
}

#[test]
fn finds_the_nearest_of_many() {
    for (n, d, k) in [
        (500, 256, 100),
        (200, 7, 33),
        (97, 1, 5),
        (50, 64, 1),
        (1, 3, 2),
        (300, 33, 300),
    ] {
        check(&flat(normal(1, n, d)), &flat(normal(2, k, d)), d);
    }
}

#[test]
fn finds_the_nearest_far_from_the_origin() {
    let shift = |rows: Vec<f32>| rows.into_iter().map(|x| x + 10_000.0).collect::<Vec<f32>>();
    let (points, centroids) = (flat(normal(3, 200, 20)), flat(normal(4, 40, 20)));
    check(&shift(points), &shift(centroids), 20);
}

#[test]
fn finds_the_nearest_for_points_of_any_size() {
    let d = 16;
    let scale = |mut rows: Vec<f32>, seed| {
        let mut rng = generator(seed);
        for row in rows.chunks_exact_mut(d) {
            let factor = 10.0_f32.powf(rng.gen_range(-12.0..12.0));
            row.iter_mut().for_each(|x| *x *= factor);
        }
        rows
    };
    check(
        &scale(flat(normal(5, 300, d)), 1),
        &scale(flat(normal(6, 50, d)), 2),
        d,
    );
    // One value that stands out costs the others their precision.
    let mut points = flat(normal(7, 300, d));
    points.iter_mut().step_by(d).for_each(|x| *x *= 1e5);
    check(&points, &flat(normal(8, 50, d)), d);
}

#[test]
fn zeros_duplicates_and_twins_are_taken_in_order() {
    let d = 5;
    let mut points = flat(normal(9, 60, d));
    points[..4 * d].fill(0.0);
    let mut centroids = points[..20 * d].to_vec();
    centroids.extend_from_slice(&points[..20 * d]);
    check(&points, &centroids, d);
    check(&[0.0; 12], &[0.0; 18], 3);
    check(&[1.0; 12], &[1.0; 18], 3);
}

#[test]
fn what_has_settled_is_not_searched_again() {
    let d = 16;
    let (points, mut centroids) = (flat(normal(11, 2_000, d)), flat(normal(12, 200, d)));
    let mut search = Search::new(Isa::best(), &points, d, 200);
    search.assign(&centroids);
    assert_eq!(search.searched(), 1.0);
    // The group that the new label is of, and then nothing.
    search.assign(&centroids);
    search.assign(&centroids);
    assert!(search.searched() < 0.01, "{}", search.searched());
    // One of them moves: its group is searched for most points, the others for few.
    centroids[77 * d] += 1.0;
    search.assign(&centroids);
    assert!(search.searched() < 0.15, "{}", search.searched());
    check_labels(&points, &centroids, d, search.labels(), Isa::best());
}

#[test]
fn nearly_equal_centroids_are_told_apart() {
    // Differences far below what 16 bits resolve.
    let d = 24;
    let centroid = flat(normal(10, 1, d));
    let mut centroids = Vec::new();
    for step in 0..40 {
        centroids.extend(centroid.iter().map(|c| c * (1.0 + step as f32 * 1e-6)));
    }
    let mut points = Vec::new();
    for step in (0..40).rev() {
        points.extend(centroid.iter().map(|c| c * (1.0 + step as f32 * 1e-6)));
    }
    check(&points, &centroids, d);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn finds_the_nearest_of_any(
        n in 1..120_usize,
        d in 1..40_usize,
        k in 1..70_usize,
        steps in 1..200_i32,
        seed in 0..u64::MAX,
    ) {
        // A coarse grid has many ties.
        let mut rng = generator(seed);
        let mut draw = |count: usize| -> Vec<f32> {
            (0..count).map(|_| rng.gen_range(-steps..=steps) as f32).collect()
        };
        let (points, centroids) = (draw(n * d), draw(k * d));
        check(&points, &centroids, d);
    }
}
