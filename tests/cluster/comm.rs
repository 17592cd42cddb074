//! Rows that are divided among processes, here threads, beside the same rows in one.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use ssl_cluster::cluster::kmeans::TensorKMeans;
use ssl_cluster::cluster::preprocess::Pca;
use ssl_cluster::cluster::sinkhorn::{SinkhornOptions, Solver, Transport, solve};
use ssl_cluster::cluster::{self, Clustering, Empty, Engine, Init, KMeansOptions, kmeans, linfa};
use ssl_cluster::comm::{Comm, OneProcess};
use ssl_cluster::tensors::to_labels;
use tch::{Device, Tensor};

/// What threads exchange: each puts something down, waits, and looks at what all have.
#[derive(Debug)]
struct Table {
    barrier: Barrier,
    numbers: Mutex<Vec<Vec<f64>>>,
    rows: Mutex<Vec<Option<Tensor>>>,
}

#[derive(Debug)]
struct Thread {
    rank: usize,
    table: Arc<Table>,
}

impl Comm for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.numbers.lock().unwrap().len()
    }

    fn sum(&self, numbers: &mut [f64]) {
        self.table.numbers.lock().unwrap()[self.rank] = numbers.to_vec();
        self.table.barrier.wait();
        numbers.fill(0.0);
        for of_one in self.table.numbers.lock().unwrap().iter() {
            assert_eq!(of_one.len(), numbers.len());
            for (sum, number) in numbers.iter_mut().zip(of_one) {
                *sum += number;
            }
        }
        self.table.barrier.wait();
    }

    fn gather(&self, rows: &Tensor) -> Tensor {
        self.table.rows.lock().unwrap()[self.rank] = Some(rows.shallow_clone());
        self.table.barrier.wait();
        let all = Tensor::cat(
            &self
                .table
                .rows
                .lock()
                .unwrap()
                .iter()
                .map(|rows| rows.as_ref().unwrap().shallow_clone())
                .collect::<Vec<_>>(),
            0,
        );
        self.table.barrier.wait();
        all
    }
}

/// How many of the rows each process has.
const SHARES: [f64; 3] = [0.2, 0.5, 0.3];

/// What each process makes of its share of `rows`, in the order of ranks.
fn divided<T: Send>(rows: &Tensor, work: impl Fn(Tensor, &'static dyn Comm) -> T + Sync) -> Vec<T> {
    divided_as(&SHARES, rows, work)
}

fn divided_as<T: Send>(
    shares: &[f64],
    rows: &Tensor,
    work: impl Fn(Tensor, &'static dyn Comm) -> T + Sync,
) -> Vec<T> {
    let table = Arc::new(Table {
        barrier: Barrier::new(shares.len()),
        numbers: Mutex::new(vec![Vec::new(); shares.len()]),
        rows: Mutex::new((0..shares.len()).map(|_| None).collect()),
    });
    let n = rows.size()[0] as f64;
    let mut first = 0;
    let shares: Vec<Tensor> = (1..=shares.len())
        .map(|count| {
            let end = (n * shares[..count].iter().sum::<f64>()).round() as i64;
            let share = rows.narrow(0, first, end - first).copy();
            first = end;
            share
        })
        .collect();
    let work = &work;
    // Processes that wait for each other for ever are a failure, not a test that hangs.
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if waiting.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the processes wait for each other");
            std::process::exit(101);
        }
    });
    let results = std::thread::scope(|scope| {
        let started: Vec<_> = shares
            .into_iter()
            .enumerate()
            .map(|(rank, share)| {
                let table = Arc::clone(&table);
                scope.spawn(move || work(share, Box::leak(Box::new(Thread { rank, table }))))
            })
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    drop(done);
    results
}

/// Blobs around `k` places, a little apart from each other, off the origin.
fn blobs(n: usize, d: usize, k: usize) -> Tensor {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let places: Vec<f64> = (0..k * d).map(|_| random.gen_range(-9.0..9.0)).collect();
    let values: Vec<f32> = (0..n * d)
        .map(|at| {
            let (row, column) = (at / d, at % d);
            let spread: f64 = random.gen_range(-1.0..1.0);
            (places[(row * 7 % k) * d + column] + spread + 3.0) as f32
        })
        .collect();
    Tensor::from_slice(&values).view([n as i64, d as i64])
}

fn near(one: &Tensor, other: &Tensor, tolerance: f64) {
    let off = (one - other).abs().max().double_value(&[]);
    assert!(off < tolerance, "off by {off}");
}

#[test]
fn principal_components_are_those_of_all_rows() {
    // More rows than columns, and fewer.
    for (n, d) in [(400, 12), (40, 60)] {
        let rows = blobs(n, d, 5);
        let whole = Pca::fit(&rows, 6, true).unwrap();
        let parts = divided(&rows, |share, comm| {
            Pca::fit_on(Device::Cpu, comm, &share, 6, true).unwrap()
        });
        for part in parts {
            near(&part.mean, &whole.mean, 1e-9);
            near(&part.eigenvalues, &whole.eigenvalues, 1e-9);
            near(&part.components, &whole.components, 1e-8);
        }
    }
}

fn fit(
    engine: &Engine,
    rows: &Tensor,
    empty: Empty,
    init: Init,
    comm: &'static dyn Comm,
) -> Clustering {
    // A point weighs what its first coordinate says, in every process.
    let weights = rows.select(1, 0).abs() + 0.5;
    let options = KMeansOptions {
        clusters: 20,
        seed: 3,
        empty,
        init,
        weights: matches!(init, Init::Given(_)).then_some(&weights),
        comm,
        ..KMeansOptions::default()
    };
    cluster::cluster(engine, rows, &options).unwrap()
}

#[test]
fn k_means_of_shares_is_that_of_all_rows() {
    // Twenty clusters for seven blobs with copies: some become empty and are filled.
    let rows = blobs(900, 6, 7);
    let rows = Tensor::cat(&[&rows, &rows.narrow(0, 0, 1).expand([300, -1], true)], 0);
    let products = Engine {
        clusterer: &TensorKMeans { products: true },
        ..kmeans::ENGINE
    };
    for engine in [&kmeans::ENGINE, &products] {
        for (empty, given) in [
            (Empty::Split, false),
            (Empty::Keep, false),
            (Empty::Keep, true),
        ] {
            let start = || rows.narrow(0, 7, 20);
            let whole = match given {
                false => fit(engine, &rows, empty, Init::Random, &OneProcess),
                true => fit(engine, &rows, empty, Init::Given(&start()), &OneProcess),
            };
            let start = Mutex::new(start());
            let filled = whole.statistics.reassigned() > 0;
            assert_eq!(filled, empty == Empty::Split, "some became empty");
            let parts = divided(&rows, |share, comm| {
                let start = start.lock().unwrap().copy();
                let init = if given {
                    Init::Given(&start)
                } else {
                    Init::Random
                };
                fit(engine, &share, empty, init, comm)
            });
            let labels: Vec<u32> = parts
                .iter()
                .flat_map(|part| to_labels(&part.labels))
                .collect();
            assert_eq!(labels, to_labels(&whole.labels));
            for part in &parts {
                assert_eq!(part.sizes, whole.sizes);
                assert_eq!(part.statistics.iterations, whole.statistics.iterations);
                let (ours, all) = (part.statistics.objective(), whole.statistics.objective());
                assert!((ours - all).abs() < 1e-5 * all, "{ours} beside {all}");
                near(&part.centroids, &whole.centroids, 1e-4);
            }
        }
    }
}

#[test]
fn balanced_labels_of_shares_are_those_of_all_rows() {
    let (n, k) = (700, 9);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(8);
    let scores: Vec<f32> = (0..n * k).map(|_| random.gen_range(-4.0..0.0)).collect();
    let scores = Tensor::from_slice(&scores).view([n as i64, k as i64]);
    // In 16 bits one of the shares would fit, another would not.
    let little = 2 * k * n * 2 / 5;
    for (solver, memory) in [
        (Solver::Sinkhorn, usize::MAX),
        (Solver::Sinkhorn, little),
        (Solver::Auto, usize::MAX),
        (Solver::Auto, little),
        (Solver::Newton, usize::MAX),
    ] {
        let balance = |scores: Tensor, comm| -> Transport {
            let values: Vec<f32> = Vec::try_from(&scores.view(-1)).unwrap();
            let options = SinkhornOptions {
                solver,
                tolerance: 1e-3,
                memory,
                comm,
                ..SinkhornOptions::default()
            };
            solve(&values, k, &options).unwrap()
        };
        let whole = balance(scores.shallow_clone(), &OneProcess);
        let parts = divided(&scores, balance);
        let labels: Vec<u32> = parts.iter().flat_map(|part| part.labels.clone()).collect();
        let differ = labels.iter().zip(&whole.labels).filter(|(a, b)| a != b);
        assert!(differ.count() <= 1, "{solver:?}");
        for part in &parts {
            assert!(part.converged, "{solver:?}");
            assert_eq!(part.sizes.iter().sum::<usize>(), n, "{solver:?}");
            assert!((part.cost - whole.cost).abs() < 1e-3, "{solver:?}");
            assert_eq!(
                part.log_scalings, parts[0].log_scalings,
                "{solver:?}: all processes have the same scalings"
            );
        }
    }
}

#[test]
fn what_one_process_alone_can_do_is_refused() {
    let rows = blobs(60, 4, 3);
    let refused = divided(&rows, |share, comm| {
        let by = |engine: &Engine, options: KMeansOptions| {
            let options = KMeansOptions { comm, ..options };
            cluster::cluster(engine, &share, &options).is_err()
        };
        let default = KMeansOptions::default;
        [
            by(&linfa::ENGINE, default()),
            by(
                &kmeans::ENGINE,
                KMeansOptions {
                    init: Init::PlusPlus,
                    ..default()
                },
            ),
            by(
                &kmeans::ENGINE,
                KMeansOptions {
                    empty: Empty::Farthest,
                    ..default()
                },
            ),
        ]
    });
    assert_eq!(refused, [[true; 3]; SHARES.len()]);
}

#[test]
fn a_process_without_rows_ends_them_all() {
    let rows = blobs(60, 4, 3);
    let ended = divided_as(&[0.5, 0.0, 0.5], &rows, |share, comm| {
        let options = KMeansOptions {
            comm,
            ..KMeansOptions::default()
        };
        let clustered = cluster::cluster(&kmeans::ENGINE, &share, &options).is_err();
        let reduced = Pca::fit_on(Device::Cpu, comm, &share, 2, false).is_err();
        let values: Vec<f32> = Vec::try_from(&share.flatten(0, -1)).unwrap();
        let options = SinkhornOptions {
            comm,
            ..SinkhornOptions::default()
        };
        [clustered, reduced, solve(&values, 4, &options).is_err()]
    });
    assert_eq!(ended, [[true; 3]; 3]);
}

#[test]
fn where_one_process_fails_all_of_them_end() {
    let rows = blobs(60, 4, 3);
    // In the share of the second.
    let _ = rows.get(20).get(1).fill_(f64::NAN);
    let ended = divided(&rows, |share, comm| {
        let options = KMeansOptions {
            comm,
            ..KMeansOptions::default()
        };
        let clustered = cluster::cluster(&kmeans::ENGINE, &share, &options).map(|_| ());
        let reduced = Pca::fit_on(Device::Cpu, comm, &share, 2, false).map(|_| ());
        (
            clustered.unwrap_err().to_string(),
            reduced.unwrap_err().to_string(),
        )
    });
    for (rank, (clustered, reduced)) in ended.iter().enumerate() {
        let expected = match rank {
            1 => "row 8 holds NaN or infinity",
            _ => "another process could not go on",
        };
        assert_eq!((clustered.as_str(), reduced.as_str()), (expected, expected));
    }
}
