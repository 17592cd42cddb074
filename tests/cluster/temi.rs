//! Clusters that near neighbours agree on.

use ssl_cluster::cluster::ClusterError;
use ssl_cluster::cluster::neighbours::Neighbours;
use ssl_cluster::cluster::temi::{Agreed, agreed, agreement};
use ssl_cluster::tensors::{from_labels, l2_rows, to_labels};
use tch::{Device, Kind, Tensor};

use super::{Rows, assert_close, normal, tensor};

const ARCS: usize = 3;

/// Unit points along arcs on a sphere, each so long that its ends are farther apart than two arcs are, and their
/// arcs.
fn arcs(each: usize) -> (Tensor, Vec<u32>) {
    let noise = normal(5, ARCS * each, 12);
    let point = |(number, noise): (usize, &Vec<f64>)| {
        let (arc, angle) = (number / each, 2.2 * (number % each) as f64 / each as f64);
        let mut point = [0.0; 12];
        (point[3 * arc], point[3 * arc + 1]) = (angle.cos(), angle.sin());
        point[9] = 0.6;
        let moved = point.iter().zip(noise).map(|(x, e)| x + 0.03 * e);
        moved.collect()
    };
    let points: Rows = noise.iter().enumerate().map(point).collect();
    let arc_of = (0..points.len()).map(|number| (number / each) as u32);
    (l2_rows(&tensor(&points)), arc_of.collect())
}

/// The labels of arcs of `each` points, of which the first third of each has the next one's.
fn shifted(arc_of: &[u32], each: usize) -> Vec<u32> {
    let label = |(place, &arc): (usize, &u32)| match place % each < each / 3 {
        true => (arc + 1) % ARCS as u32,
        false => arc,
    };
    arc_of.iter().enumerate().map(label).collect()
}

fn neighbours(points: &Tensor) -> Neighbours {
    Neighbours::find(points, 5).unwrap()
}

fn moved(points: &Tensor, labels: &[u32], clusters: usize) -> Option<Agreed> {
    agreed(points, labels, clusters, &neighbours(points), &|| false).unwrap()
}

fn nearest(points: &Tensor, centroids: &Tensor) -> Vec<u32> {
    let differences = points.unsqueeze(1) - centroids.unsqueeze(0);
    let squared = differences.square().sum_dim_intlist(2, false, Kind::Float);
    to_labels(&squared.argmin(1, false))
}

/// Section 3 of the paper with a teacher that is the student, sharper: for pairs of neighbours
/// `-w log sum_c (p_c q'_c)^beta / m_c`, both ways, with `w = sum_c q_c q'_c`.
fn objective(points: &Tensor, centroids: &Tensor, neighbours: &Neighbours) -> f64 {
    let cosines = points.matmul(&l2_rows(centroids).transpose(0, 1));
    let (student, teacher) = (
        (&cosines / 0.1).softmax(1, Kind::Double),
        (&cosines / 0.05).softmax(1, Kind::Double),
    );
    let shares = teacher.mean_dim(0, false, Kind::Double);
    let index = from_labels(&neighbours.index).view([points.size()[0], -1]);
    let mut sum = 0.0;
    for partner in 0..3 {
        let of_near = teacher.index_select(0, &index.select(1, partner));
        let weights = (&teacher * &of_near).sum_dim_intlist(1, false, Kind::Double);
        let alike = (&student * &of_near).pow_tensor_scalar(0.6) / &shares;
        let each = alike.sum_dim_intlist(1, false, Kind::Double).log() * weights;
        sum -= each.sum(Kind::Double).double_value(&[]);
    }
    sum / points.size()[0] as f64
}

#[test]
fn agreement_is_counted_without_what_chance_gives() {
    let found = Neighbours {
        count: 2,
        index: vec![1, 2, 0, 2, 0, 1, 2, 1],
        squared: vec![1.0; 8],
    };
    // Three of eight pairs agree, where chance gives a half; six, where it gives 5/8.
    let share = |labels: &[u32]| agreement(labels, 2, &found);
    assert_close(share(&[0, 0, 1, 1]), (3.0 / 8.0 - 0.5) / 0.5, 1e-12);
    assert_close(share(&[0, 0, 0, 1]), (6.0 / 8.0 - 0.625) / 0.375, 1e-12);
    // Labels that know nothing of the points, of very different sizes.
    let points = l2_rows(&tensor(&normal(1, 3_000, 6)));
    let blind: Vec<u32> = (0..3_000).map(|i| u32::from(i % 10 == 0)).collect();
    assert!(agreement(&blind, 2, &neighbours(&points)).abs() < 0.03);
}

#[test]
fn clusters_follow_what_hangs_together() {
    // 12,600 points are more than one step looks at.
    for each in [200, 4_200] {
        let (points, arc_of) = arcs(each);
        let first = shifted(&arc_of, each);
        let found = moved(&points, &first, ARCS).expect("neighbours agree more often");
        let labels = nearest(&points, &found.centroids);
        let right = labels.iter().zip(&arc_of).filter(|(a, b)| a == b).count();
        assert!(right as f64 > 0.99 * arc_of.len() as f64, "{each}: {right}");
        let agreement = |labels: &[u32]| agreement(labels, ARCS, &neighbours(&points));
        assert_close(found.before, agreement(&first), 1e-12);
        assert_close(found.after, agreement(&labels), 1e-12);
        assert!(found.after > found.before);
        let again = moved(&points, &first, ARCS).unwrap();
        assert!(found.centroids.equal(&again.centroids));
    }
}

#[test]
fn the_papers_objective_falls() {
    let (points, arc_of) = arcs(300);
    let first = shifted(&arc_of, 300);
    let index = from_labels(&first);
    let sums = Tensor::zeros([ARCS as i64, 12], (Kind::Float, Device::Cpu));
    let means = sums.index_add(0, &index, &points);
    let found = moved(&points, &first, ARCS).unwrap();
    let near = neighbours(&points);
    let (before, after) = (
        objective(&points, &means, &near),
        objective(&points, &found.centroids, &near),
    );
    assert!(after < before, "{before} to {after}");
}

#[test]
fn clusters_that_agree_already_are_left_alone() {
    let (points, arc_of) = arcs(100);
    assert!(moved(&points, &arc_of, ARCS).is_none());
    assert!(moved(&points, &vec![0; arc_of.len()], 1).is_none());
    let alone = points.narrow(0, 0, 1);
    assert!(moved(&alone, &[0], 2).is_none());
}

#[test]
fn empty_clusters_and_equal_points_leave_all_finite() {
    let (points, arc_of) = arcs(100);
    let one = points.narrow(0, 0, 1).copy();
    points.narrow(0, 0, 40).copy_(&one);
    // Nobody has two of the five labels.
    let found = moved(&points, &shifted(&arc_of, 100), 5).expect("neighbours agree more often");
    assert_eq!(found.centroids.isfinite().all().int64_value(&[]), 1);
    assert_eq!(found.centroids.size(), [5, 12]);
}

#[test]
fn no_cluster_is_lost() {
    // Far more clusters than hang together: each would agree more with its neighbours in a larger one.
    let (points, _) = arcs(60);
    let labels: Vec<u32> = (0..180).map(|place| place / 3).collect();
    if let Some(found) = moved(&points, &labels, 60) {
        let mut used = nearest(&points, &found.centroids);
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 60);
    }
}

#[test]
fn it_stops_when_asked() {
    let (points, arc_of) = arcs(50);
    let stopped = agreed(&points, &arc_of, ARCS, &neighbours(&points), &|| true);
    assert_eq!(stopped.unwrap_err(), ClusterError::Interrupted);
}
