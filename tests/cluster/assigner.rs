//! Labels of points, old and new, from a stored clustering.

use ssl_cluster::cluster::assigner::{
    Assigner, Assignments, Centroids, FeatureKind, Fit, Heads, Stored, StoredPoints, load,
};
use ssl_cluster::cluster::preprocess::Pca;
use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, solve};
use ssl_cluster::cluster::{Init, KMeansOptions, cluster, kmeans};
use ssl_cluster::comm::OneProcess;
use ssl_cluster::tensors::l2_rows;
use tch::{Kind, Tensor};

use super::{Rows, assert_close, dot, normal, rows, squared_distance, tensor};

/// What DeepCluster stores: k-means on whitened, normalised features.
fn centroids(features: &Tensor, k: usize) -> Centroids {
    let pca = Pca::fit(features, 6, true).unwrap();
    let points = l2_rows(&pca.apply(features, Kind::Float));
    let options = KMeansOptions {
        clusters: k,
        init: Init::Random,
        ..KMeansOptions::default()
    };
    let clustering = cluster(&kmeans::ENGINE, &points, &options).unwrap();
    let objective = clustering.statistics.objective();
    let variance = objective / (features.size()[0] as usize * pca.rank()) as f64;
    Centroids {
        pca,
        centroids: clustering.centroids,
        variance,
        fit: None,
    }
}

/// Numbers in steps of 1/8: products and sums of a few of them are exact in f32.
fn eighths(seed: u64, n: usize, d: usize) -> Rows {
    let round = |x: f64| (x * 8.0).round() / 8.0;
    normal(seed, n, d)
        .iter()
        .map(|row| row.iter().map(|&x| round(x)).collect())
        .collect()
}

/// Two heads on `features`, each with its labels by optimal transport.
fn heads(features: &Rows, k: usize, lambda: f64) -> (Heads, Vec<Vec<u32>>) {
    let d = features[0].len();
    let (mut weights, mut biases, mut scalings, mut labels) = (vec![], vec![], vec![], vec![]);
    for head in 0..2 {
        let (weight, bias) = (eighths(30 + head, k, d), eighths(40 + head, 1, k));
        let logits: Vec<f32> = features
            .iter()
            .flat_map(|x| {
                weight
                    .iter()
                    .zip(&bias[0])
                    .map(|(w, b)| (dot(x, w) + b) as f32)
            })
            .collect();
        let options = SinkhornOptions {
            lambda,
            ..SinkhornOptions::default()
        };
        let transport = solve(&logits, k, &options).unwrap();
        labels.push(transport.labels);
        scalings.push(Tensor::from_slice(&transport.log_scalings));
        weights.push(tensor(&weight));
        biases.push(tensor(&bias).get(0));
    }
    let assigner = Heads {
        weights: Tensor::stack(&weights, 0),
        biases: Tensor::stack(&biases, 0),
        log_scalings: Tensor::stack(&scalings, 0),
        lambda,
    };
    (assigner, labels)
}

fn stored(assigner: &dyn Assigner) -> Stored {
    let mut stored = Stored::default();
    assigner.store(&mut stored);
    stored
}

fn both() -> [(Box<dyn Assigner>, Tensor); 2] {
    let (features, exact) = (tensor(&normal(20, 300, 10)), eighths(21, 300, 5));
    let (heads, _) = heads(&exact, 4, 10.0);
    [
        (Box::new(centroids(&features, 7)), features),
        (Box::new(heads), tensor(&exact)),
    ]
}

#[test]
fn what_is_stored_assigns_the_same() {
    for (assigner, features) in both() {
        let copy = load(stored(assigner.as_ref())).unwrap();
        assert_eq!(copy.assign(&features), assigner.assign(&features));
        assert_eq!(copy.feature_kind(), assigner.feature_kind());
        assert_eq!(copy.clusters(), assigner.clusters());
        assert_eq!(copy.dim(), features.size()[1] as usize);
    }
}

#[test]
fn centroids_label_by_the_nearest_one() {
    let features = tensor(&normal(22, 300, 10));
    let assigner = centroids(&features, 7);
    assert_eq!(assigner.feature_kind(), FeatureKind::Hidden);
    assert_eq!((assigner.clusters(), assigner.dim()), (7, 10));
    let new = tensor(&normal(23, 200, 10));
    for features in [features, new] {
        let result = assigner.assign(&features);
        let Centroids {
            pca,
            centroids,
            variance,
            ..
        } = &assigner;
        let points = rows(&l2_rows(&pca.apply(&features, Kind::Double)));
        let centroids = rows(centroids);
        assert_eq!(result.labels.len(), 1);
        assert_eq!(result.len(), points.len());
        let distances = result.distances.unwrap();
        for (i, point) in points.iter().enumerate() {
            let squared: Vec<f64> = centroids
                .iter()
                .map(|c| squared_distance(point, c))
                .collect();
            let label = (0..7)
                .min_by(|&a, &b| squared[a].total_cmp(&squared[b]))
                .unwrap();
            assert_eq!(result.labels[0][i] as usize, label);
            assert_close(distances[i], squared[label].sqrt(), 1e-7);
            let density = |s: f64| (-0.5 * (s - squared[label]) / variance).exp();
            let posterior = 1.0 / squared.iter().map(|&s| density(s)).sum::<f64>();
            assert_close(result.scores[i], posterior, 1e-7);
            assert!((0.0..=1.0).contains(&result.scores[i]));
        }
    }
}

#[test]
fn points_on_their_centroids_are_certain() {
    // Three different features: k-means with three clusters has no distance left, so the variance
    // is 0.
    let features = tensor(&(0..30).map(|i| normal(24, 3, 4)[i % 3].clone()).collect());
    let Centroids { pca, .. } = centroids(&features, 3);
    let points = l2_rows(&pca.apply(&features, Kind::Float));
    let assigner = Centroids {
        pca,
        centroids: points.narrow(0, 0, 3),
        variance: 0.0,
        fit: None,
    };
    let result = assigner.assign(&features);
    let expected: Vec<u32> = (0..30).map(|i| i % 3).collect();
    assert_eq!(result.labels[0], expected);
    result
        .scores
        .iter()
        .for_each(|score| assert_close(*score, 1.0, 1e-9));
}

#[test]
fn heads_repeat_the_labels_of_optimal_transport() {
    for lambda in [1.0, 10.0, 25.0] {
        let features = eighths(25, 400, 6);
        let (assigner, labels) = heads(&features, 5, lambda);
        assert_eq!(assigner.feature_kind(), FeatureKind::Activation);
        assert_eq!((assigner.clusters(), assigner.dim()), (5, 6));
        let result = assigner.assign(&tensor(&features));
        assert_eq!(result.labels, labels);
        assert_ne!(labels[0], labels[1]);
        assert!(result.distances.is_none());
        // Scores: the first head's probabilities of these labels.
        let Heads {
            weights, biases, ..
        } = &assigner;
        let (weight, bias) = (rows(&weights.get(0)), rows(&biases.narrow(0, 0, 1)));
        for ((x, &label), score) in features.iter().zip(&labels[0]).zip(&result.scores) {
            let logits: Vec<f64> = weight
                .iter()
                .zip(&bias[0])
                .map(|(w, b)| dot(x, w) + b)
                .collect();
            let total: f64 = logits.iter().map(|z| z.exp()).sum();
            assert_close(*score, logits[label as usize].exp() / total, 1e-9);
        }
    }
}

/// One by one, and joined.
fn one_by_one(assigner: &dyn Assigner, features: &Tensor) -> Assignments {
    let mut all = Assignments::default();
    for i in 0..features.size()[0] {
        all.append(assigner.assign(&features.narrow(0, i, 1)));
    }
    all
}

fn assert_same(many: &Assignments, single: &Assignments) {
    assert_eq!(many.labels, single.labels);
    assert_eq!(many.len(), single.len());
    many.scores
        .iter()
        .zip(&single.scores)
        .for_each(|(a, b)| assert_close(*a, *b, 1e-9));
    assert_eq!(many.distances.is_some(), single.distances.is_some());
    if let (Some(many), Some(single)) = (&many.distances, &single.distances) {
        many.iter()
            .zip(single)
            .for_each(|(a, b)| assert_close(*a, *b, 1e-7));
    }
}

#[test]
fn many_points_get_the_labels_of_each_alone() {
    for (assigner, features) in both() {
        assert_same(
            &assigner.assign(&features),
            &one_by_one(assigner.as_ref(), &features),
        );
    }
    // 16,384 features: blocks of 512 points.
    let d = 16_384;
    let wide = tensor(&normal(26, 520, 8)).repeat([1, d / 8]);
    let directions = tensor(&normal(27, 4, d as usize)).to_kind(Kind::Double);
    let assigner = Centroids {
        pca: Pca {
            unit: false,
            mean: Tensor::zeros([d], (Kind::Double, tch::Device::Cpu)),
            components: directions,
            eigenvalues: Tensor::from_slice(&[4.0, 3.0, 2.0, 1.0]),
            whiten: true,
        },
        centroids: l2_rows(&tensor(&normal(28, 6, 4))),
        variance: 0.1,
        fit: None,
    };
    let many = assigner.assign(&wide);
    assert_eq!(many.len(), 520);
    let part = wide.narrow(0, 505, 15);
    let expected = one_by_one(&assigner, &part);
    assert_eq!(many.labels[0][505..], expected.labels[0]);
    let distances = many.distances.unwrap();
    for (a, b) in distances[505..].iter().zip(expected.distances.unwrap()) {
        assert_close(*a, b, 1e-7);
    }
    assert!(
        many.scores[505..]
            .iter()
            .zip(&expected.scores)
            .all(|(a, b)| (a - b).abs() < 1e-9)
    );
}

#[test]
fn what_does_not_belong_lies_beyond_the_reach_and_scores_low() {
    // Points in the first six of ten dimensions, and others in the last four, of which the components know
    // nothing.
    let mut points = normal(31, 400, 10);
    points.iter_mut().for_each(|row| row[6..].fill(0.0));
    let features = tensor(&points);
    let mut assigner = centroids(&features, 5);
    let labels = assigner.assign(&features).labels.remove(0);
    assigner.fit = Some(Fit::of(&OneProcess, &features, &labels, 5));
    let own = assigner.assign(&features);
    let mut distances = own.distances.clone().unwrap();
    distances.sort_by(f64::total_cmp);
    let reach = distances[396];
    let scored = own.scores.iter().zip(own.distances.as_ref().unwrap());
    for (&score, &distance) in scored {
        assert!(distance <= reach || score <= 0.5, "{score} at {distance}");
    }

    let means: Vec<Vec<f64>> = (0..5)
        .map(|label| {
            let of_label = |(_, l): &(&Vec<f64>, &u32)| **l == label;
            let members: Vec<_> = points.iter().zip(&labels).filter(of_label).collect();
            let mean = |at: usize| {
                let unit = |row: &Vec<f64>| row[at] / dot(row, row).sqrt();
                members.iter().map(|(row, _)| unit(row)).sum::<f64>() / members.len() as f64
            };
            (0..10).map(mean).collect()
        })
        .collect();
    let unit: Vec<f64> = points[7]
        .iter()
        .map(|x| x / dot(&points[7], &points[7]).sqrt())
        .collect();
    let expected = squared_distance(&unit, &means[labels[7] as usize]).sqrt();
    assert_close(own.distances.unwrap()[7], expected, 1e-6);

    let mut foreign = normal(32, 50, 10);
    foreign.iter_mut().for_each(|row| row[..6].fill(0.0));
    let foreign = assigner.assign(&tensor(&foreign));
    assert!(
        foreign
            .distances
            .unwrap()
            .iter()
            .all(|&distance| distance > reach)
    );
    assert!(
        foreign.scores.iter().all(|&score| score < 0.3),
        "{:?}",
        foreign.scores
    );

    // It comes back from disk, and runs of earlier versions have none.
    let again = load(stored(&assigner)).unwrap();
    assert_eq!(again.assign(&features), assigner.assign(&features));
}

#[test]
fn no_points_have_no_labels() {
    for (assigner, features) in both() {
        let result = assigner.assign(&features.narrow(0, 0, 0));
        assert!(result.is_empty());
    }
}

#[test]
fn incomplete_and_misshapen_tensors_are_refused() {
    let refused = |stored: Stored, about: &str| {
        let error = load(stored).expect_err(about);
        assert!(!error.is_empty());
    };
    for (assigner, _) in both() {
        let all = || stored(assigner.as_ref());
        for name in all().tensors.keys() {
            let mut missing = all();
            missing.tensors.remove(name);
            refused(missing, &format!("without {name}"));
            let mut flat = all();
            let tensor = flat.tensors[name].unsqueeze(0);
            flat.tensors.insert(name.clone(), tensor);
            refused(flat, &format!("{name} with one more dimension"));
            let mut short = all();
            let last = short.tensors[name].dim() as i64 - 1;
            let tensor = short.tensors[name].narrow(last, 0, 2);
            short.tensors.insert(name.clone(), tensor);
            if name != "heads.weight" {
                refused(short, &format!("{name} cut to 2"));
            }
        }
        // Runs of earlier versions have no 'unit'.
        for key in all().metadata.keys().filter(|key| *key != "unit") {
            let mut missing = all();
            missing.metadata.remove(key);
            refused(missing, &format!("without the metadata {key}"));
        }
        let mut other = all();
        other.metadata.insert("kind".into(), "trees".into());
        refused(other, "of another kind");
    }
}

#[test]
fn no_clusters_and_no_heads_are_refused() {
    for (assigner, _) in both() {
        let mut empty = stored(assigner.as_ref());
        for (name, tensor) in &mut empty.tensors {
            if name == "centroids" || name.starts_with("heads.") {
                *tensor = tensor.narrow(0, 0, 0);
            }
        }
        assert!(load(empty).is_err());
    }
}

#[test]
fn the_nearest_point_gives_its_label() {
    let features = tensor(&normal(71, 60, 5));
    let pca = Pca::fit(&features, 5, true).unwrap();
    let points = l2_rows(&pca.apply(&features, Kind::Float));
    let given: Vec<i64> = (0..60).map(|i| i % 4).collect();
    let labels = Tensor::from_slice(&given);
    let assigner = StoredPoints {
        pca,
        centroids: points.narrow(0, 0, 4),
        points,
        labels,
        sigma: 0.2,
    };
    assert_eq!((assigner.clusters(), assigner.dim()), (4, 5));
    let found = assigner.assign(&features);
    let expected: Vec<u32> = given.iter().map(|&label| label as u32).collect();
    assert_eq!(found.labels, [expected]);
    assert!(
        found
            .scores
            .iter()
            .all(|score| (0.0..=1.0 + 1e-9).contains(score))
    );
    let again = load(stored(&assigner)).unwrap();
    assert_eq!(again.assign(&features), found);
    let mut broken = stored(&assigner);
    let beyond = Tensor::from_slice(&[7_i64; 60]);
    broken.tensors.insert("labels".into(), beyond);
    assert!(load(broken).is_err());
}
