//! Edges before a network, and heads behind it.

use ssl_cluster::model::{LinearHead, MultiHead, sobel};
use tch::{Device, Kind, Tensor, nn};

use crate::*;

#[test]
fn sobel_by_hand() {
    // Grey is the mean of 2x and 0 and x, that is x.
    let x = Tensor::from_slice(&[1f32, 2., 4., 0., 3., 5., 7., 1., 2.]).view([1, 1, 3, 3]);
    let images = Tensor::cat(&[&x * 2., &x * 0., x.shallow_clone()], 1);
    let edges = sobel(&images);
    assert_eq!(edges.size(), [1, 2, 3, 3]);
    let ours = values(&edges);
    // Centre: (1 + 2·0 + 7) − (4 + 2·5 + 2) and (1 + 2·2 + 4) − (7 + 2·1 + 2).
    assert!(close(ours[4].into(), -8., 1e-5) && close(ours[13].into(), -2., 1e-5));
    // Corner (0, 0), outside it zeros: −(2·2 + 3) and −(2·0 + 3).
    assert!(close(ours[0].into(), -7., 1e-5) && close(ours[9].into(), -3., 1e-5));
}

#[test]
fn a_reset_head_is_new_and_normal() {
    let vs = nn::VarStore::new(Device::Cpu);
    let mut head = LinearHead::new(&(vs.root() / "head"), 512, 1000);
    let features = Tensor::randn([3, 512], (Kind::Float, Device::Cpu));
    assert_eq!(head.forward(&features).size(), [3, 1000]);
    let before = head.weight().copy();
    tch::no_grad(|| {
        let _ = head.bias().shallow_clone().fill_(5.);
    });
    head.reset();
    let weight = head.weight();
    assert!((weight - &before).abs().max().double_value(&[]) > 0.01);
    assert!(close(weight.mean(Kind::Double).double_value(&[]), 0., 1e-4));
    assert!(close(weight.std(true).double_value(&[]), 0.01, 1e-4));
    assert!(values(head.bias()).iter().all(|&b| b == 0.));
    assert!(weight.requires_grad());
    // The variable store still holds this very tensor.
    assert!(vs.variables()["head.weight"].equal(weight));
    assert_eq!(vs.trainable_variables().len(), 2);
}

#[test]
fn several_heads_are_one_layer() {
    let vs = nn::VarStore::new(Device::Cpu);
    let mut heads = MultiHead::new(&vs.root(), 8, 3, 5);
    heads.reset();
    assert_eq!((heads.heads(), heads.clusters()), (3, 5));
    let features = Tensor::randn([4, 8], (Kind::Float, Device::Cpu));
    let all = heads.forward(&features);
    assert_eq!(all.size(), [4, 3, 5]);
    for h in 0..3 {
        assert_eq!(heads.weight(h).size(), [5, 8]);
        assert_eq!(heads.bias(h).size(), [5]);
        let alone = heads.forward_head(&features, h);
        assert!(all.select(1, h).allclose(&alone, 1e-5, 1e-6, false));
    }
    assert_eq!(vs.variables()["weight"].size(), [15, 8]);
}
