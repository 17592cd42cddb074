//! K-means from its definition, in f64.

use crate::{Rows, dot, squared_distance};

fn unit(row: &[f64]) -> Vec<f64> {
    let norm = dot(row, row).sqrt();
    row.iter().map(|x| x / norm).collect()
}

/// What it comes to.
pub struct Reference {
    pub labels: Vec<usize>,
    pub centroids: Rows,
    /// Of every assignment.
    pub objective: Vec<f64>,
}

/// Lloyd's algorithm from its definition, for data that leave no cluster empty.
pub fn lloyd(points: &Rows, start: &Rows, iterations: usize, spherical: bool) -> Reference {
    let map = |matrix: &Rows| -> Rows {
        let row = |row: &Vec<f64>| if spherical { unit(row) } else { row.clone() };
        matrix.iter().map(row).collect()
    };
    let (points, mut centroids) = (map(points), map(start));
    let nearest = |centroids: &Rows| -> Vec<usize> {
        let distance = |x: &[f64], c: &[f64]| {
            if spherical {
                -dot(x, c)
            } else {
                squared_distance(x, c)
            }
        };
        let best = |x: &Vec<f64>| {
            let of = |j: &usize| distance(x, &centroids[*j]);
            (0..centroids.len())
                .min_by(|i, j| of(i).total_cmp(&of(j)))
                .unwrap()
        };
        points.iter().map(best).collect()
    };
    let value = |labels: &[usize], centroids: &Rows| -> f64 {
        let of = |(x, &label): (&Vec<f64>, &usize)| squared_distance(x, &centroids[label]);
        points.iter().zip(labels).map(of).sum()
    };
    let mut labels = nearest(&centroids);
    let mut objective = vec![value(&labels, &centroids)];
    for _ in 0..iterations {
        for (cluster, centroid) in centroids.iter_mut().enumerate() {
            let members: Vec<_> = points
                .iter()
                .zip(&labels)
                .filter(|(_, label)| **label == cluster)
                .collect();
            assert!(
                !members.is_empty(),
                "the test wants data that leave no cluster empty"
            );
            for (j, value) in centroid.iter_mut().enumerate() {
                *value = members.iter().map(|(x, _)| x[j]).sum::<f64>() / members.len() as f64;
            }
        }
        centroids = map(&centroids);
        let next = nearest(&centroids);
        objective.push(value(&next, &centroids));
        let settled = next == labels;
        labels = next;
        if settled {
            break;
        }
    }
    Reference {
        labels,
        centroids,
        objective,
    }
}
