//! Images a second through a network, on random images in memory:
//!
//!     cargo bench --bench network -- extract|train ARCH SIZE BATCH [auto|f32|bf16]
//!
//! prints one JSON object. `scripts/bench_images.py` sets it beside PyTorch.

use std::time::Instant;

use ssl_cluster::device::{self, DeviceChoice, PrecisionChoice};
use ssl_cluster::model::network::Network;
use ssl_cluster::model::{LinearHead, find};
use ssl_cluster::train::optim::{Optimiser, Rule, Training};
use tch::{Kind, Tensor, nn};

/// Batches before the clock starts, and batches that are timed: their median counts.
const WARM_UP: usize = 3;
const TIMED: usize = 12;
const CLASSES: i64 = 100;

fn main() {
    let given: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let usage = "extract|train ARCH SIZE BATCH [auto|f32|bf16]";
    let [work, arch, size, batch, rest @ ..] = &given[..] else {
        eprintln!("usage: {usage}");
        return;
    };
    device::keep_freed_memory();
    let device = device::select(DeviceChoice::Auto).expect("a device");
    device::set_threads(None);
    let choice: PrecisionChoice = rest
        .first()
        .map_or("auto", String::as_str)
        .parse()
        .expect(usage);
    let precision = device::precision(choice, device);
    let (size, batch): (usize, i64) = (size.parse().expect(usage), batch.parse().expect(usage));
    tch::manual_seed(0);
    let entry = find(arch).expect("a backbone");
    let network = Network::new(entry, size, false, device, precision).expect("a size that fits");
    let images = Tensor::rand([batch, 3, size as i64, size as i64], (Kind::Float, device));
    let images = images
        .permute([0, 2, 3, 1])
        .contiguous()
        .permute([0, 3, 1, 2]);
    let seconds = match work.as_str() {
        "extract" => {
            let inference = network.for_inference();
            timed(device, || drop(inference.hidden(&images)))
        }
        "train" => {
            let head_store = nn::VarStore::new(device);
            let head = LinearHead::new(&head_store.root(), network.dim(), CLASSES);
            let mut optimiser = Optimiser::default();
            let training = |momentum| Training {
                rule: Rule::Sgd { momentum },
                lr: 1.0,
                weight_decay: 1e-5,
            };
            optimiser.add("backbone", &network.store, training(0.9));
            optimiser.add("head", &head_store, training(0.0));
            let targets = Tensor::randint(CLASSES, [batch], (Kind::Int64, device));
            timed(device, || {
                let features = network.activation(&network.prepare(&images), true);
                let loss = head.forward(&features).cross_entropy_for_logits(&targets);
                optimiser.zero_grad();
                optimiser.backward(&loss, &[]);
                optimiser.step(&[], 0.05);
            })
        }
        _ => panic!("{usage}"),
    };
    println!(
        "{}",
        serde_json::json!({
            "work": work,
            "arch": arch,
            "size": size,
            "batch": batch,
            "device": device::describe(device),
            "precision": precision.to_string(),
            "images_per_second": batch as f64 / seconds,
        })
    );
}

/// Median seconds of `work`.
fn timed(device: tch::Device, mut work: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..WARM_UP + TIMED)
        .map(|_| {
            let start = Instant::now();
            work();
            device::wait_for(device);
            start.elapsed().as_secs_f64()
        })
        .skip(WARM_UP)
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[TIMED / 2]
}
