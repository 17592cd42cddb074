//! Transformers and ConvNeXt against timm's and torchvision's, and the files that others publish for them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use ssl_cluster::device::Precision;
use ssl_cluster::model::network::Network;
use ssl_cluster::model::weights::named_variables;
use ssl_cluster::model::{Backbone, find};
use tch::{Device, Kind, Tensor};

use crate::*;

/// The records with networks' own names, or with those of files.
fn records(key: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("timm.json")).unwrap();
    let mut records: Vec<Value> = serde_json::from_str(&text).unwrap();
    records.retain(|record| record.get(key).is_some());
    assert!(records.len() > 5);
    records
}

/// Names and shapes, with the blocks that the record leaves out.
fn shapes(record: &Value, key: &str) -> BTreeMap<String, Vec<i64>> {
    let written: BTreeMap<String, Vec<i64>> = serde_json::from_value(record[key].clone()).unwrap();
    let mut all = written.clone();
    for (name, shape) in written {
        for i in 1..record["depth"].as_i64().unwrap() {
            let other = name.replace("blocks.0.", &format!("blocks.{i}."));
            all.insert(other, shape.clone());
        }
    }
    all
}

/// Compares features and a few numbers of the last map.
fn check_answer(record: &Value, backbone: &dyn Backbone) {
    let arch = &record["arch"];
    let (batch, side) = (
        record["batch"].as_i64().unwrap(),
        record["side"].as_i64().unwrap(),
    );
    let shape = [batch, 3, side, side];
    let count = shape.iter().product::<i64>() as usize;
    let pixels: Vec<f32> = noise("image", count).map(|v| v as f32).collect();
    let images = Tensor::from_slice(&pixels).view(shape);
    let (map, hidden) = tch::no_grad(|| {
        let maps = backbone.maps(&images, false);
        let hidden = backbone.hidden(&maps, false);
        (maps.last, hidden)
    });
    assert_eq!(hidden.size(), [batch, backbone.dim()]);
    assert_eq!(map.size()[..2], [batch, backbone.channels()]);
    let numbers = |key: &str, i: i64| -> Vec<f64> {
        serde_json::from_value(record[key][i as usize].clone()).unwrap()
    };
    for i in 0..batch {
        let row = hidden.get(i).to_kind(Kind::Double);
        let std = record["std"][i as usize].as_f64().unwrap();
        let tolerance = 1e-4 * std;
        let compare = |what: &str, ours: f64, theirs: f64, tolerance: f64| {
            let side = side.to_string();
            assert!(
                close(ours, theirs, tolerance),
                "{arch} at {side} px, image {i}, {what}: {ours}, expected {theirs}"
            );
        };
        let mean = record["mean"][i as usize].as_f64().unwrap();
        compare("mean", row.mean(None).double_value(&[]), mean, tolerance);
        compare("std", row.std(false).double_value(&[]), std, tolerance);
        for (j, &theirs) in numbers("first", i).iter().enumerate() {
            let ours = row.double_value(&[j as i64]);
            compare("a feature", ours, theirs, tolerance);
        }
        let map = map.get(i).to_kind(Kind::Double).flatten(0, -1);
        let tolerance = 1e-4 * map.std(false).double_value(&[]);
        let expected = numbers("map", i);
        let step = map.size()[0] / 8;
        for (j, &theirs) in expected.iter().enumerate() {
            let ours = map.double_value(&[j as i64 * step]);
            compare("a number of the map", ours, theirs, tolerance);
        }
    }
}

#[test]
fn transformers_and_convnext_have_the_published_names_and_answers() {
    for record in records("names") {
        let arch = record["arch"].as_str().unwrap();
        let (vs, backbone) = build(arch, record["size"].as_i64().unwrap(), 3);
        let ours: BTreeMap<String, Vec<i64>> = named_variables(&vs)
            .into_iter()
            .map(|(name, variable)| (name, variable.size()))
            .collect();
        assert_eq!(ours, shapes(&record, "names"), "{arch}");
        if record.get("batch").is_some() {
            fill(&vs);
            check_answer(&record, &*backbone);
        }
    }
}

#[test]
fn published_files_are_renamed_and_resampled_as_timm_does() {
    tch::set_num_threads(2);
    for record in records("file") {
        let arch = record["arch"].as_str().unwrap();
        let entry = find(arch).unwrap();
        let size = record["size"].as_i64().unwrap() as usize;
        let network = Network::new(entry, size, false, Device::Cpu, Precision::F32).unwrap();
        let file: BTreeMap<String, Tensor> = shapes(&record, "file")
            .into_iter()
            .map(|(name, shape)| {
                // Meta's DINOv3 has biases, and all are zero.
                let zero = arch.contains("dinov3") && name.ends_with("attn.qkv.bias");
                let tensor = match zero {
                    true => Tensor::zeros(&shape[..], (Kind::Float, Device::Cpu)),
                    false => filled(&name, &shape),
                };
                (name, tensor)
            })
            .collect();
        let report = network.load_tensors(&file, Path::new("some.pth")).unwrap();
        let expected: Vec<String> = serde_json::from_value(record["unexpected"].clone()).unwrap();
        assert_eq!(report.unexpected, expected, "{arch}");
        check_answer(&record, &*network.backbone);

        // What it has now is a run's own file, and passes through.
        let own: BTreeMap<String, Tensor> = named_variables(&network.store)
            .into_iter()
            .map(|(name, variable)| (name, variable.detach().copy()))
            .collect();
        let report = network.load_tensors(&own, Path::new("model.safetensors"));
        assert_eq!(report.unwrap().unexpected, [""; 0]);
        for (name, variable) in named_variables(&network.store) {
            assert!(variable.equal(&own[&name]), "{arch}: {name}");
        }
    }
}

#[test]
fn transformers_start_as_timms() {
    let std = |tensor: &Tensor| tensor.std(true).double_value(&[]);
    let (vs, _) = build("vit_small_patch14_reg4_dinov2", 56, 3);
    let variables = vs.variables();
    let near = |name: &str, expected: f64| {
        let off = std(&variables[name]) / expected - 1.;
        assert!(off.abs() < 0.1, "{name}: {off}");
    };
    near("pos_embed", 0.02);
    assert!(close(std(&variables["cls_token"]), 1e-6, 2e-7));
    near("reg_token", 1e-6);
    near("blocks.11.attn.proj.weight", 0.02);
    near("blocks.3.mlp.fc2.weight", 0.02);
    // Uniform up to 1 / √fan in.
    near(
        "patch_embed.proj.weight",
        (3. * 3. * 14. * 14_f64).powf(-0.5),
    );
    assert!(
        values(&variables["blocks.0.ls1.gamma"])
            .iter()
            .all(|&v| v == 1e-5)
    );
    assert!(
        values(&variables["blocks.0.attn.qkv.bias"])
            .iter()
            .all(|&v| v == 0.)
    );
    assert!(values(&variables["norm.weight"]).iter().all(|&v| v == 1.));

    let (vs, _) = build("vit_small_patch16_dinov3", 32, 3);
    let variables = vs.variables();
    let last = std(&variables["blocks.11.attn.proj.weight"]);
    assert!(close(last, 0.02 / 24_f64.sqrt(), 1e-4));
    // Of 384 numbers the deviation itself deviates by 7e-4.
    assert!(close(std(&variables["cls_token"]), 0.02, 4e-3));
}

#[test]
fn clip_sees_other_colours() {
    let normalised = |arch: &str| {
        let entry = find(arch).unwrap();
        entry.input.mean[0]
    };
    assert_eq!(normalised("vit_small_patch16_224"), 0.485);
    assert_eq!(normalised("vit_base_patch16_clip_224"), 0.481_454_66);
}
