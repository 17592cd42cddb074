//! The networks against torchvision's.

use std::collections::BTreeMap;

use ssl_cluster::model::weights::named_variables;
use ssl_cluster::model::{BACKBONES, Shape, ShapeError, find, learns, sobel};
use tch::{Device, Kind, Tensor, nn};

use crate::*;

/// Compares names, shapes and answers with each network of that name in models.json.
fn check_against_pytorch(arch: &str) {
    let text = std::fs::read_to_string(fixture("models.json")).unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let cases: Vec<_> = all.iter().filter(|case| case["arch"] == arch).collect();
    assert!(!cases.is_empty());
    for case in cases {
        let (size, batch) = (
            case["size"].as_i64().unwrap(),
            case["batch"].as_i64().unwrap(),
        );
        let edges = case["sobel"].as_bool().unwrap();
        let (vs, backbone) = build(arch, size, if edges { 2 } else { 3 });

        let expected: BTreeMap<String, Vec<i64>> =
            serde_json::from_value(case["names"].clone()).unwrap();
        let ours: BTreeMap<String, Vec<i64>> = named_variables(&vs)
            .into_iter()
            .map(|(name, variable)| (name, variable.size()))
            .collect();
        assert_eq!(ours, expected, "{arch} at {size} px");

        fill(&vs);
        let shape = [batch, 3, size, size];
        let count = shape.iter().product::<i64>() as usize;
        let pixels: Vec<f32> = noise("image", count).map(|v| v as f32).collect();
        let images = Tensor::from_slice(&pixels).view(shape);
        let hidden = tch::no_grad(|| {
            let input = if edges { sobel(&images) } else { images };
            let maps = backbone.maps(&input, false);
            assert_eq!(maps.last.size()[..2], [batch, backbone.channels()]);
            backbone.hidden(&maps, false)
        });
        assert_eq!(hidden.size(), [batch, backbone.dim()]);

        for i in 0..batch {
            let number = |key: &str| case[key][i as usize].as_f64().unwrap();
            let (mean, std) = (number("mean"), number("std"));
            let row = hidden.get(i).to_kind(Kind::Double);
            let tolerance = 1e-4 * std;
            assert!(
                close(row.mean(None).double_value(&[]), mean, tolerance),
                "mean of {arch} at {size} px"
            );
            assert!(
                close(row.std(false).double_value(&[]), std, tolerance),
                "std of {arch} at {size} px"
            );
            for (j, value) in case["first"][i as usize]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
            {
                let (ours, theirs) = (row.double_value(&[j as i64]), value.as_f64().unwrap());
                assert!(
                    close(ours, theirs, tolerance),
                    "{arch} at {size} px, image {i}, feature {j}: {ours}, expected {theirs}"
                );
            }
        }
    }
}

#[test]
fn resnet18_answers_as_torchvisions_with_either_stem() {
    check_against_pytorch("resnet18");
}

#[test]
fn mobilenet_v2_answers_as_torchvisions() {
    check_against_pytorch("mobilenet_v2");
}

#[test]
fn resnet34_answers_as_torchvisions() {
    check_against_pytorch("resnet34");
}

#[test]
fn resnet50_answers_as_torchvisions() {
    check_against_pytorch("resnet50");
}

#[test]
fn vgg16_answers_as_torchvisions() {
    check_against_pytorch("vgg16");
}

#[test]
fn alexnet_answers_as_deepclusters() {
    check_against_pytorch("alexnet");
}

#[test]
fn every_backbone_trains_on_edges_at_its_smallest_size() {
    let learning = BACKBONES.iter().filter(|entry| learns(entry.name));
    for entry in learning.filter(|entry| entry.smaller.is_none()) {
        let size = entry.size_from(0) as i64;
        let (vs, backbone) = build(entry.name, size, 2);
        let images = Tensor::randn([2, 3, size, size], (Kind::Float, Device::Cpu));
        let hidden = backbone.hidden(&backbone.maps(&sobel(&images), true), true);
        assert_eq!(hidden.size(), [2, backbone.dim()], "{}", entry.name);
        assert_eq!(backbone.in_channels(), 2);
        backbone.activate(&hidden).sum(Kind::Float).backward();
        let untrained: Vec<String> = named_variables(&vs)
            .into_iter()
            .filter(|(_, v)| v.requires_grad() && !v.grad().defined())
            .map(|(name, _)| name)
            .collect();
        assert!(untrained.is_empty(), "{}: {untrained:?}", entry.name);
    }
}

#[test]
fn conv4_names_and_width() {
    let (vs, backbone) = build("conv4", 28, 3);
    let names: Vec<String> = named_variables(&vs).into_iter().map(|(n, _)| n).collect();
    let expected: Vec<String> = (0..4)
        .flat_map(|i| {
            [
                "bn.bias",
                "bn.running_mean",
                "bn.running_var",
                "bn.weight",
                "conv.weight",
            ]
            .map(|name| format!("blocks.{i}.{name}"))
        })
        .collect();
    assert_eq!(names, expected);
    for size in [16, 28, 32, 47, 64] {
        let (_, backbone) = build("conv4", size, 3);
        let images = Tensor::zeros([1, 3, size, size], (Kind::Float, Device::Cpu));
        let hidden = backbone.hidden(&backbone.maps(&images, false), false);
        assert_eq!(hidden.size(), [1, backbone.dim()], "{size} px");
    }
    assert_eq!(backbone.channels(), 64);
}

#[test]
fn wrong_shapes_are_errors_that_say_what_helps() {
    let vs = nn::VarStore::new(Device::Cpu);
    let entry = find("alexnet").unwrap();
    let small = Shape {
        size: 28,
        in_channels: 3,
    };
    let error = entry.build(&vs.root(), &small).unwrap_err();
    assert!(error.to_string().contains("at least 63 px") && error.to_string().contains("conv4"));
    let colourless = Shape {
        size: 224,
        in_channels: 0,
    };
    assert!(matches!(
        entry.build(&vs.root(), &colourless),
        Err(ShapeError::NoChannels { .. })
    ));
    let negative = Shape {
        size: -1,
        in_channels: 3,
    };
    assert!(entry.build(&vs.root(), &negative).is_err());
    assert!(vs.variables().is_empty());
    let patches = find("vit_small_patch14_dinov2").unwrap();
    let error = |size| {
        let shape = Shape {
            size,
            in_channels: 3,
        };
        patches.check(&shape).unwrap_err().to_string()
    };
    assert_eq!(
        error(220),
        "vit_small_patch14_dinov2 sees patches of 14 px: give a --size that is a multiple, such as 224"
    );
    assert!(error(256).contains("such as 252"));
    assert!(error(14).contains("at least 28 px"));
    assert_eq!(
        [0, 28, 29].map(|size| patches.size_from(size)),
        [28, 28, 42]
    );
    assert!(find("alexnet2").is_none());
}

#[test]
fn residual_networks_alone_have_no_relu_after_their_features() {
    let negative = Tensor::from_slice(&[-1f32, 2.]);
    for (name, expected) in [
        ("conv4", [0., 2.]),
        ("resnet18", [-1., 2.]),
        ("alexnet", [0., 2.]),
    ] {
        let (_, backbone) = build(name, 64, 3);
        assert_eq!(values(&backbone.activate(&negative)), expected, "{name}");
    }
}

#[test]
fn batch_norm_starts_as_the_identity_and_convolutions_by_fan_out() {
    let (vs, _) = build("resnet18", 96, 3);
    let variables = vs.variables();
    for (name, variable) in &variables {
        let expected = match name.rsplit('.').next() {
            _ if variable.dim() > 1 => continue,
            Some("weight" | "running_var") => 1.,
            _ => 0.,
        };
        assert!(values(variable).iter().all(|&v| v == expected), "{name}");
    }
    let conv = &variables["layer3.0.conv2.weight"];
    let expected = (2f64 / (256. * 9.)).sqrt();
    assert!(close(
        conv.std(true).double_value(&[]),
        expected,
        0.01 * expected
    ));
    let (vs, _) = build("alexnet", 64, 3);
    let linear = &vs.variables()["classifier.4.weight"];
    assert!(close(linear.std(true).double_value(&[]), 0.01, 1e-4));
}

#[test]
fn a_backbone_moves_between_threads() {
    let (vs, backbone) = build("conv4", 16, 3);
    let dim = std::thread::spawn(move || {
        let images = Tensor::zeros([1, 3, 16, 16], (Kind::Float, Device::Cpu));
        backbone
            .hidden(&backbone.maps(&images, false), false)
            .size()[1]
    })
    .join()
    .unwrap();
    assert_eq!(dim, 64 * 2 * 2);
    drop(vs);
}
