//! The networks against torchvision's, and weights on disk. Expected values:
//! `tests/fixtures/make.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ssl_cluster::model::weights::{
    LoadReport, Problem, WeightsError, canonical_name, load_into, named_variables, read, save_bytes,
};
use ssl_cluster::model::{
    BACKBONES, Backbone, LinearHead, MultiHead, Shape, ShapeError, find, sobel,
};
use tch::{Device, Kind, Tensor, nn};

mod common;
use common::noise;

type Tensors = BTreeMap<String, Tensor>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn build(name: &str, size: i64, in_channels: i64) -> (nn::VarStore, Box<dyn Backbone>) {
    tch::set_num_threads(2);
    let vs = nn::VarStore::new(Device::Cpu);
    let backbone = find(name)
        .unwrap()
        .build(&vs.root(), &Shape { size, in_channels })
        .unwrap();
    (vs, backbone)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

// Weights by formula, as in make.py.

fn filled(name: &str, shape: &[i64]) -> Tensor {
    let (scale, offset) = if shape.len() > 1 {
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

fn fill(vs: &nn::VarStore) {
    for (name, mut variable) in named_variables(vs) {
        tch::no_grad(|| variable.copy_(&filled(&name, &variable.size())));
    }
}

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
    for entry in BACKBONES {
        let size = entry.min_size as i64;
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

// Weights on disk.

fn saved(dir: &tempfile::TempDir, named: &[(String, Tensor)]) -> PathBuf {
    let path = dir.path().join("weights.safetensors");
    let metadata = BTreeMap::from([("arch".into(), "conv4".into())]);
    std::fs::write(&path, save_bytes(named, &metadata).unwrap()).unwrap();
    path
}

fn load(vs: &nn::VarStore, tensors: &Tensors) -> Result<LoadReport, WeightsError> {
    load_into(&named_variables(vs), tensors, Path::new("some.safetensors"))
}

fn tensors_of(vs: &nn::VarStore) -> Tensors {
    named_variables(vs)
        .into_iter()
        .map(|(name, variable)| (name, variable.detach().copy()))
        .collect()
}

#[test]
fn weights_survive_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (vs, backbone) = build("conv4", 28, 3);
    fill(&vs);
    let path = saved(&dir, &named_variables(&vs));
    let file = read(&path).unwrap();
    assert_eq!(file.metadata["format"], "pt");
    assert_eq!(file.metadata["arch"], "conv4");
    let counter = &file.tensors["blocks.2.bn.num_batches_tracked"];
    assert_eq!((counter.kind(), counter.dim()), (Kind::Int64, 0));

    let (other_vs, other) = build("conv4", 28, 3);
    let report = load(&other_vs, &file.tensors).unwrap();
    assert_eq!((report.loaded, report.unexpected.len()), (20, 0));
    let images = Tensor::randn([2, 3, 28, 28], (Kind::Float, Device::Cpu));
    assert!(
        backbone
            .maps(&images, false)
            .last
            .equal(&other.maps(&images, false).last)
    );
    assert!(
        other_vs
            .trainable_variables()
            .iter()
            .all(Tensor::requires_grad)
    );
}

#[test]
fn any_memory_layout_and_float_type_is_saved_and_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let variable = vs.root().zeros("w", &[2, 3, 2, 2]);
    let numbers = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 2, 2, 3]);
    let channels_last = numbers.permute([0, 3, 1, 2]);
    assert!(!channels_last.is_contiguous());
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double] {
        let path = saved(&dir, &[("w".into(), channels_last.to_kind(kind))]);
        let file = read(&path).unwrap();
        assert_eq!(file.tensors["w"].kind(), kind);
        load(&vs, &file.tensors).unwrap();
        assert_eq!(variable.kind(), Kind::Float);
        assert!(variable.equal(&channels_last));
    }
}

#[test]
fn what_cannot_be_saved_is_an_error() {
    let one = || {
        (
            "w".to_owned(),
            Tensor::ones([2], (Kind::Float, Device::Cpu)),
        )
    };
    let error = save_bytes(&[one(), one()], &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("twice"));
    let complex = Tensor::ones([2], (Kind::ComplexFloat, Device::Cpu));
    assert!(save_bytes(&[("c".into(), complex)], &BTreeMap::new()).is_err());
}

#[test]
fn nothing_is_broadcast_or_copied_when_one_tensor_does_not_fit() {
    let (vs, _) = build("conv4", 28, 3);
    let before = tensors_of(&vs);
    let mut tensors: Tensors = before
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor + 1.))
        .collect();
    let scalar = Tensor::ones([1], (Kind::Float, Device::Cpu));
    tensors.insert("blocks.1.bn.weight".into(), scalar);
    let counts = Tensor::ones([64], (Kind::Int64, Device::Cpu));
    tensors.insert("blocks.1.bn.bias".into(), counts);
    tensors.remove("blocks.2.bn.bias");
    tensors.insert(
        "fc.weight".into(),
        Tensor::zeros([2, 2], (Kind::Float, Device::Cpu)),
    );
    let error = load(&vs, &tensors).unwrap_err();
    let message = error.to_string();
    let WeightsError::Misfit {
        problems,
        unexpected,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        problems,
        [
            Problem::Kind {
                name: "blocks.1.bn.bias".into(),
                file: Kind::Int64
            },
            Problem::Shape {
                name: "blocks.1.bn.weight".into(),
                network: vec![64],
                file: vec![1]
            },
            Problem::Missing {
                name: "blocks.2.bn.bias".into()
            },
        ]
    );
    assert_eq!(unexpected, ["fc.weight"]);
    for part in [
        "some.safetensors",
        "blocks.1.bn.weight",
        "[1]",
        "[64]",
        "blocks.2.bn.bias is missing",
        "fc.weight",
        "Hint",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    for (name, tensor) in tensors_of(&vs) {
        assert!(tensor.equal(&before[&name]), "{name} was changed");
    }
}

#[test]
fn a_head_too_many_is_reported_only() {
    let (vs, _) = build("conv4", 28, 3);
    let mut tensors = tensors_of(&vs);
    tensors.insert(
        "fc.bias".into(),
        Tensor::zeros([9], (Kind::Float, Device::Cpu)),
    );
    assert_eq!(
        load(&vs, &tensors).unwrap(),
        LoadReport {
            loaded: 20,
            unexpected: vec!["fc.bias".into()]
        }
    );
}

#[test]
fn another_architecture_gives_a_short_message() {
    let (vs, _) = build("resnet18", 64, 3);
    let (other, _) = build("conv4", 28, 3);
    let message = load(&vs, &tensors_of(&other)).unwrap_err().to_string();
    assert!(message.contains("another architecture"), "{message}");
    assert!(message.contains("and 88 more"), "{message}");
}

#[test]
fn prefixes_of_other_programs_are_dropped() {
    for (theirs, ours) in [
        ("conv1.weight", "conv1.weight"),
        ("module.conv1.weight", "conv1.weight"),
        ("state_dict.module.backbone.conv1.weight", "conv1.weight"),
        ("features.module.0.weight", "features.0.weight"),
        ("module.features.module.0.weight", "features.0.weight"),
        ("submodule.conv1.weight", "submodule.conv1.weight"),
    ] {
        assert_eq!(canonical_name(theirs), ours);
    }
    let (vs, _) = build("conv4", 28, 3);
    let renamed: Tensors = tensors_of(&vs)
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor + 1.))
        .collect();
    let before = tensors_of(&vs);
    assert_eq!(load(&vs, &renamed).unwrap().loaded, 20);
    for (name, tensor) in tensors_of(&vs) {
        assert!(tensor.equal(&(&before[&name] + 1.)), "{name}");
    }
}

#[test]
fn a_pytorch_state_dict_is_read() {
    let file = read(&fixture("state_dict.pt")).unwrap();
    assert!(file.metadata.is_empty());
    let vs = nn::VarStore::new(Device::Cpu);
    let root = vs.root();
    let weight = (&root / 0).zeros("weight", &[2, 1, 1, 1]);
    let variance = (&root / 1).zeros("running_var", &[2]);
    load(&vs, &file.tensors).unwrap();
    assert!(weight.equal(&filled("0.weight", &[2, 1, 1, 1])));
    assert!(variance.equal(&filled("1.running_var", &[2])));
}

#[test]
fn a_pytorch_checkpoint_that_cannot_be_read_names_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pth");
    std::fs::write(&garbage, b"PK\x03\x04 not a zip file").unwrap();
    let truncated = dir.path().join("truncated.pt");
    let whole = std::fs::read(fixture("state_dict.pt")).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    for path in [fixture("checkpoint.pt"), garbage, truncated] {
        let message = read(&path).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            message.contains(name) && message.contains("save_file"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
    let absent = dir.path().join("absent.pt");
    assert!(matches!(read(&absent), Err(WeightsError::Io { .. })));
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (vs, _) = build("conv4", 16, 3);
    let path = saved(&dir, &named_variables(&vs));
    let whole = std::fs::read(&path).unwrap();
    let lengths = [0, 1, 7, 8, 9, 100, 1000, whole.len() / 2, whole.len() - 1];
    for length in lengths {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, WeightsError::Damaged { .. }), "{length}");
        assert!(error.to_string().contains("weights.safetensors"));
    }
    let absent = dir.path().join("absent.safetensors");
    assert!(matches!(read(&absent), Err(WeightsError::Io { .. })));
}

#[test]
fn hostile_headers_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.safetensors");
    let headers = [
        // 2^62 squared overflows, but the tensor holds no numbers.
        r#"{"w":{"dtype":"F32","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0]}}"#,
        r#"{"w":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#,
        r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#,
        r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}"#,
        r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"w":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}"#,
        r#"{"__metadata__":{"format":1},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        r#"[]"#,
    ];
    for header in headers {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend([0; 8]);
        std::fs::write(&path, &file).unwrap();
        let error = read(&path).expect_err(header);
        assert!(error.to_string().contains("hostile.safetensors"), "{error}");
    }
    std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(read(&path).is_err());
}
