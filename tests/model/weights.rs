//! Weights on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ssl_cluster::model::weights::{
    LoadReport, Problem, WeightsError, canonical_name, load_into, named_variables, read,
    save_bytes, shapes,
};
use tch::{Device, Kind, Tensor, nn};

use crate::*;

type Tensors = BTreeMap<String, Tensor>;

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
        ("model.conv1.weight", "conv1.weight"),
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
fn of_teacher_and_student_one_is_loaded_whole() {
    let (vs, _) = build("conv4", 28, 3);
    let own = tensors_of(&vs);
    let under = |prefix: &str, added: f64| -> Tensors {
        let named = own.iter();
        named
            .map(|(name, tensor)| (format!("{prefix}{name}"), tensor + added))
            .collect()
    };
    let holds = |added: f64| {
        let loaded = tensors_of(&vs);
        loaded
            .iter()
            .all(|(name, tensor)| tensor.equal(&(&own[name] + added)))
    };
    let mut both = under("student.module.backbone.", 1.);
    both.extend(under("teacher.backbone.", 2.));
    let head = Tensor::zeros([2], (Kind::Float, Device::Cpu));
    both.insert("teacher.head.bias".into(), head);
    let report = load(&vs, &both).unwrap();
    assert_eq!(report.unexpected, ["teacher.head.bias", "student.*"]);
    assert!(holds(2.));

    // Half a teacher is none.
    both.remove("teacher.backbone.blocks.2.bn.bias");
    let report = load(&vs, &both).unwrap();
    assert_eq!(report.unexpected, ["teacher.*"]);
    assert!(holds(1.));

    // A run's own network goes before what its method keeps beside it.
    let mut run = under("", 3.);
    run.extend(under("teacher.", 4.));
    assert_eq!(load(&vs, &run).unwrap().loaded, own.len());
    assert!(holds(3.));
}

#[test]
fn published_files_of_resnet50_load() {
    let (vs, _) = build("resnet50", 80, 3);
    let own = tensors_of(&vs);
    // DINO; SwAV and DeepCluster-v2, whose heads are dropped; torchvision and timm.
    for (prefix, heads) in [
        ("", &[][..]),
        (
            "module.",
            &[
                "module.projection_head.0.weight",
                "module.projection_head.1.running_mean",
                "module.prototypes.weight",
            ],
        ),
        ("", &["fc.weight", "fc.bias"]),
    ] {
        let mut file: Tensors = own
            .iter()
            .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone()))
            .collect();
        for head in heads {
            let tensor = Tensor::zeros([8], (Kind::Float, Device::Cpu));
            file.insert((*head).into(), tensor);
        }
        let counter = Tensor::from(7_i64);
        file.insert(format!("{prefix}bn1.num_batches_tracked"), counter);
        let report = load(&vs, &file).unwrap();
        assert_eq!(report.loaded, own.len());
        let mut expected = heads.to_vec();
        expected.sort_unstable();
        assert_eq!(report.unexpected, expected);
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
fn a_training_scripts_checkpoint_is_read() {
    let file = read(&fixture("checkpoint.pt")).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let weight = (&vs.root() / 0).zeros("weight", &[2, 1, 1, 1]);
    let report = load(&vs, &file.tensors).unwrap();
    assert!(weight.equal(&filled("0.weight", &[2, 1, 1, 1])));
    assert!(
        report
            .unexpected
            .contains(&"state_dict.module.1.bias".into())
    );
}

#[test]
fn shapes_are_told_without_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (vs, _) = build("conv4", 28, 3);
    for path in [saved(&dir, &named_variables(&vs)), fixture("state_dict.pt")] {
        let whole = read(&path).unwrap().tensors.into_iter();
        let sides = |tensor: &Tensor| tensor.size().iter().map(|&side| side as usize).collect();
        let expected: BTreeMap<String, Vec<usize>> =
            whole.map(|(name, tensor)| (name, sides(&tensor))).collect();
        assert_eq!(shapes(&path).unwrap(), expected);
    }
}

#[test]
fn a_pytorch_file_that_cannot_be_read_names_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pth");
    std::fs::write(&garbage, b"PK\x03\x04 not a zip file").unwrap();
    let truncated = dir.path().join("truncated.pt");
    let whole = std::fs::read(fixture("state_dict.pt")).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    for path in [garbage, truncated] {
        let message = read(&path).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            message.contains(name) && message.contains("copy or download"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
        assert!(shapes(&path).is_err());
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
