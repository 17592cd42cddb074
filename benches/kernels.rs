//! The kernels of clustering on every instruction set that the processor has.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use ssl_cluster::cluster::kernel::Isa;
use ssl_cluster::cluster::nearest::Search;
use ssl_cluster::cluster::sinkhorn::{self, SinkhornOptions, Solver};

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| rng.gen_range(-1.0..1.0)).collect()
}

fn nearest(criterion: &mut Criterion) {
    let (n, d, k) = (10_000, 256, 1000);
    let points = numbers(1, n * d);
    let centroids = &points[..k * d];
    let moved: Vec<f32> = centroids.iter().map(|x| x * 0.999).collect();
    let mut group = criterion.benchmark_group("nearest centroids, 10,000 x 256, k = 1000");
    group.throughput(Throughput::Elements((n * d * k) as u64));
    group.sample_size(10);
    for isa in Isa::available() {
        group.bench_function(format!("all, {}", isa.name()), |bencher| {
            bencher.iter_batched(
                || Search::new(isa, &points, d, k),
                |mut search| black_box(search.assign(centroids)),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("after a small step, {}", isa.name()), |bencher| {
            bencher.iter_batched(
                || {
                    let mut search = Search::new(isa, &points, d, k);
                    search.assign(centroids);
                    search
                },
                |mut search| black_box(search.assign(&moved)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn transport(criterion: &mut Criterion) {
    let (n, k) = (10_000, 500);
    let scores = numbers(2, n * k);
    let mut group = criterion.benchmark_group("labels of equal sizes, 10,000 x 500, λ = 5");
    group.sample_size(10);
    for solver in [Solver::Auto, Solver::Sinkhorn, Solver::Newton] {
        let options = SinkhornOptions {
            lambda: 5.0,
            solver,
            ..SinkhornOptions::default()
        };
        group.bench_function(format!("{solver:?}"), |bencher| {
            bencher.iter(|| black_box(sinkhorn::solve(&scores, k, &options).unwrap().iterations));
        });
    }
    group.finish();
}

criterion_group!(benches, nearest, transport);
criterion_main!(benches);
