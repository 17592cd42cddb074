//! What runs start from: published weights, files, other runs, nothing.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use serde_json::Value;
use ssl_cluster::matrix;
use ssl_cluster::model::weights::{named_variables, save_bytes};
use ssl_cluster::model::{Shape, find};
use tch::{Device, nn};
use tempfile::TempDir;

use crate::*;

/// Numbers of visual words and descriptors of an image.
const WORDS: i64 = 256 + 128 + 6 * 6 * 9;

/// A file of MobileNetV2's weights, which are random numbers.
fn mobilenet() -> Vec<u8> {
    tch::manual_seed(7);
    let store = nn::VarStore::new(Device::Cpu);
    let shape = Shape {
        size: 64,
        in_channels: 3,
    };
    let _backbone = find("mobilenet_v2")
        .unwrap()
        .build(&store.root(), &shape)
        .unwrap();
    save_bytes(&named_variables(&store), &Default::default()).unwrap()
}

/// A cache with such a file under the published name.
fn cache() -> TempDir {
    let cache = TempDir::new().unwrap();
    std::fs::write(cache.path().join("mobilenet_v2-0000.pth"), mobilenet()).unwrap();
    cache
}

fn with_cache(args: &[&str], cache: &TempDir) -> Command {
    let mut command = ssl_cluster(args);
    command.env("SSL_CLUSTER_WEIGHTS", cache.path());
    command
}

fn small(folder: &TempDir) -> PathBuf {
    few_images(folder.path(), 4, 12)
}

fn config(run: &Path) -> toml::Table {
    let text = std::fs::read_to_string(run.join("config.toml")).unwrap();
    text.parse().unwrap()
}

#[test]
fn found_weights_are_listed_with_what_they_are_for() {
    let cache = cache();
    std::fs::write(cache.path().join("resnet50-0000.pth"), b"PK\x03\x04").unwrap();
    let hub = cache.path().join("hub");
    let snapshot = hub.join("models--timm--vit_small_patch14_dinov2.lvd142m/snapshots/1");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("model.safetensors"), mobilenet()).unwrap();
    let mut command = with_cache(&["weights"], &cache);
    let output = command.env("HF_HUB_CACHE", &hub).output().unwrap();
    let lines = json_lines(&output.stdout);
    let field = |name: &str| -> Vec<Value> { lines.iter().map(|l| l[name].clone()).collect() };
    let archs = ["mobilenet_v2", "vit_small_patch14_dinov2", "resnet50"];
    assert_eq!(field("arch"), archs);
    assert_eq!(
        field("place"),
        ["ssl-cluster", "hugging face", "ssl-cluster"]
    );
    assert!(lines[0]["error"].is_null() && lines[1]["error"].is_null());
    assert!(
        lines[2]["error"]
            .as_str()
            .unwrap()
            .contains("resnet50-0000.pth")
    );

    let none = ssl_cluster(&["weights"]).output().unwrap();
    assert!(none.status.success() && none.stdout.is_empty());
    let told = String::from_utf8(none.stderr).unwrap();
    assert!(
        told.contains("weights.sh") && told.contains("nowhere"),
        "{told}"
    );
}

#[test]
fn frozen_features_are_clustered_like_any_run() {
    let (folder, cache) = (TempDir::new().unwrap(), cache());
    let images = small(&folder);
    let run = folder.path().join("run");
    let train = |out: &Path, seed: &str| {
        let args = ["train", text(&images), "--out", text(out), "-k", "4"];
        let rest = [
            "--size",
            "64",
            "--threads",
            "1",
            "--precision",
            "f32",
            "--seed",
            seed,
        ];
        with_cache(&[&args[..], &rest].concat(), &cache)
            .assert()
            .success()
    };
    let told = train(&run, "0");
    let told = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(told.contains("ImageNet with labels, torchvision"), "{told}");
    let options = config(&run);
    assert_eq!(options["train"]["epochs"].as_integer(), Some(0));
    assert_eq!(options["cluster"]["whiten"].as_bool(), Some(false));
    assert_eq!(options["model"]["init"].as_str(), Some("imagenet"));
    let digest = options["model"]["weights"]["sha256"].as_str().unwrap();
    assert_eq!(digest.len(), 64);
    for file in [
        "labels.jsonl",
        "model.safetensors",
        "clustering.safetensors",
        "report.html",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }

    // The weights are the run's own from here on.
    let assigned = ssl_cluster(&["assign", text(&run), text(&images), "--threads", "1"])
        .output()
        .unwrap();
    let labels =
        |lines: &[Value]| -> Vec<Value> { lines.iter().map(|l| l["label"].clone()).collect() };
    let own = read_json_lines(&run.join("labels.jsonl"));
    assert_eq!(labels(&json_lines(&assigned.stdout)), labels(&own));
    let out = folder.path().join("f.npy");
    let width = |run: &Path| {
        ssl_cluster(&["features", text(run), text(&images), "-o", text(&out)])
            .assert()
            .success();
        matrix::read(&out).unwrap().size()[1]
    };
    // The network's features, and visual words beside them: those of the images, kept with the run.
    assert_eq!(options["model"]["beside"].as_str(), Some("vlad"));
    assert_eq!(width(&run), 1_280 + WORDS);
    let alone = folder.path().join("alone");
    let args = [
        "train",
        text(&images),
        "--out",
        text(&alone),
        "-k",
        "4",
        "--size",
        "64",
    ];
    with_cache(&[&args[..], &["--beside", "none"]].concat(), &cache)
        .assert()
        .success();
    assert_eq!(width(&alone), 1_280);
    let wrong = folder.path().join("wrong");
    for beside in ["conv4", "nothing"] {
        let args = [
            "train",
            text(&images),
            "--out",
            text(&wrong),
            "--beside",
            beside,
        ];
        with_cache(&args, &cache).assert().code(2);
    }
    assert!(!wrong.exists());
    ssl_cluster(&["eval", text(&run), text(&images)])
        .assert()
        .success();
    let resumed = ssl_cluster(&["train", "--resume", text(&run)])
        .output()
        .unwrap();
    assert!(resumed.status.success());
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("complete"));

    // Nothing is drawn.
    let other = folder.path().join("other");
    train(&other, "1");
    assert_eq!(
        labels(&read_json_lines(&other.join("labels.jsonl"))),
        labels(&own)
    );
}

#[test]
fn who_asks_to_learn_starts_from_nothing_unless_weights_are_asked_for() {
    let (folder, cache) = (TempDir::new().unwrap(), cache());
    let images = small(&folder);
    let resolved = |rest: &[&str]| {
        let args = ["train", text(&images), "--print-config"];
        resolved(&mut with_cache(&[&args[..], rest].concat(), &cache))
    };
    for learn in [&["--method", "rotation"][..], &["--epochs", "2"]] {
        let options = resolved(learn);
        assert_eq!(options["model"]["init"].as_str(), Some("none"), "{learn:?}");
        assert!(
            options["train"]["epochs"].as_integer() > Some(0),
            "{learn:?}"
        );
        assert!(options["model"].get("weights").is_none());
    }
    // Where nothing is to be learned, and nothing has been, images are described by visual words.
    let options = resolved(&["--init", "none"]);
    assert_eq!(options["model"]["arch"].as_str(), Some("vlad"));
    assert_eq!(options["train"]["epochs"].as_integer(), Some(0));
    let options = resolved(&["--method", "sela", "--init", "imagenet"]);
    assert_eq!(options["model"]["arch"].as_str(), Some("mobilenet_v2"));
    assert!(options["train"]["epochs"].as_integer() > Some(0));
    let options = resolved(&["--arch", "resnet18"]);
    assert_eq!(options["model"]["init"].as_str(), Some("none"));
}

#[test]
fn what_has_nothing_to_learn_is_a_backbone_for_all_but_learning() {
    let folder = TempDir::new().unwrap();
    let images = small(&folder);
    let run = folder.path().join("run");
    ssl_cluster(&["train", text(&images), "--out", text(&run), "-k", "4"])
        .assert()
        .success()
        .stderr(predicates::str::contains("scripts/weights.sh"));
    assert_eq!(config(&run)["model"]["arch"].as_str(), Some("vlad"));
    let own = read_json_lines(&run.join("labels.jsonl"));
    let assigned = ssl_cluster(&["assign", text(&run), text(&images)])
        .output()
        .unwrap();
    assert_eq!(json_lines(&assigned.stdout), own);
    ssl_cluster(&["report", text(&run)]).assert().success();
    let out = folder.path().join("f.npy");
    let features = |what: &[&str]| {
        let args = ["features", text(&images), "-o", text(&out)];
        ssl_cluster(&[&args[..1], what, &args[1..]].concat())
            .assert()
            .success()
            .stderr(predicates::str::contains("untrained").not());
        matrix::read(&out).unwrap()
    };
    // The words are learned of the images that they describe, whoever asks.
    for what in [&[text(&run)][..], &["--arch", "vlad"]] {
        assert_eq!(features(what).size()[1], WORDS, "{what:?}");
    }
    assert_eq!(features(&["--arch", "descriptors"]).size()[1], WORDS - 256);
    let learned = folder.path().join("learned");
    for arch in ["descriptors", "vlad"] {
        let args = [
            "train",
            text(&images),
            "--out",
            text(&learned),
            "--arch",
            arch,
        ];
        ssl_cluster(&[&args[..], &["--epochs", "2"]].concat())
            .assert()
            .code(2)
            .stderr(predicates::str::contains("nothing to learn"));
    }
}

#[test]
fn files_and_runs_serve_as_a_start_and_wrong_ones_are_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let images = small(&folder);
    let file = folder.path().join("mine.safetensors");
    std::fs::write(&file, mobilenet()).unwrap();
    let out = folder.path().join("run");
    let train = |rest: &[&str]| {
        let args = [
            "train",
            text(&images),
            "--out",
            text(&out),
            "-k",
            "3",
            "--size",
            "64",
        ];
        ssl_cluster(&[&args[..], rest].concat()).output().unwrap()
    };
    let refused = |rest: &[&str], part: &str| {
        let output = train(rest);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{rest:?}");
        assert!(told.contains(part), "{told}");
        assert!(!out.exists(), "{rest:?}");
    };
    refused(&["--init", "imagenet"], "ssl-cluster weights");
    refused(&["--init", "absent.pth"], "absent.pth");
    refused(
        &["--init", text(&file), "--arch", "resnet18"],
        "mine.safetensors",
    );
    let images_as_weights = images.join("ankle-boot/0000.png");
    refused(&["--init", text(&images_as_weights)], "0000.png");

    let output = train(&["--init", text(&file), "--arch", "mobilenet_v2"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let next = folder.path().join("next");
    let args = [
        "train",
        text(&images),
        "--out",
        text(&next),
        "-k",
        "3",
        "--init",
        text(&out),
    ];
    ssl_cluster(&args).assert().success();
    let (first, next) = (config(&out), config(&next));
    assert_eq!(next["model"]["arch"].as_str(), Some("mobilenet_v2"));
    assert_eq!(next["data"]["size"], first["data"]["size"]);
}
