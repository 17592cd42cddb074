//! Networks, heads, and weights on disk. Expected values: `tests/fixtures/make.py` and `make_timm.py`.

mod backbones;
#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod heads;
mod timm;
mod torch_file;
mod vlad;
mod weights;

use std::path::{Path, PathBuf};

use common::noise;
use ssl_cluster::model::weights::named_variables;
use ssl_cluster::model::{Backbone, Shape, find};
use tch::{Device, Tensor, nn};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub fn build(name: &str, size: i64, in_channels: i64) -> (nn::VarStore, Box<dyn Backbone>) {
    tch::set_num_threads(2);
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = find(name)
        .unwrap()
        .build(&vs.root(), &Shape { size, in_channels })
        .unwrap();
    (vs, backbone)
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

pub fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

// Weights by formula, as in make.py.

pub fn filled(name: &str, shape: &[i64]) -> Tensor {
    let added = ["pos_embed", "_token", "_tokens"];
    let (scale, offset) = if added.iter().any(|end| name.ends_with(end)) {
        (1., 0.)
    } else if shape.len() > 1 {
        let fan_in: i64 = shape[1..].iter().product();
        ((6. / fan_in as f64).sqrt(), 0.)
    } else if name.ends_with("running_var") {
        (0.5, 1.)
    } else if name.ends_with("weight") {
        (0.1, 1.)
    } else {
        (0.1, 0.)
    };
    let count = shape.iter().product::<i64>() as usize;
    let numbers: Vec<f32> = noise(name, count)
        .map(|v| (v * scale + offset) as f32)
        .collect();
    Tensor::from_slice(&numbers).view(shape)
}

pub fn fill(vs: &nn::VarStore) {
    for (name, mut variable) in named_variables(vs) {
        tch::no_grad(|| variable.copy_(&filled(&name, &variable.size())));
    }
}
