use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

use crate::{data, few_images, read_json_lines, runs, ssl_cluster, text};

fn label_of(record: &Value) -> u64 {
    record["label"].as_u64().unwrap()
}

#[test]
fn a_run_holds_every_file_that_the_design_names() {
    for method in ["deepcluster", "sela", "rotation"] {
        let run = runs().of(method);
        for file in [
            "config.toml",
            "model.safetensors",
            "clustering.safetensors",
            "labels.jsonl",
            "metrics.jsonl",
            "checkpoint/state.safetensors",
            "skipped.jsonl",
            "report.html",
        ] {
            assert!(run.join(file).is_file(), "{method} has no {file}");
        }
        let labels = read_json_lines(&run.join("labels.jsonl"));
        assert_eq!(labels.len(), 120);
        assert!(labels.iter().all(|record| label_of(record) < 6));
        assert!(labels.iter().all(|record| {
            let score = record["score"].as_f64().unwrap();
            (0.0..=1.0).contains(&score)
        }));
        assert!(labels[0]["path"].as_str().unwrap().contains('/'));
        let records = read_json_lines(&run.join("metrics.jsonl"));
        let epochs = records
            .iter()
            .filter(|record| record["kind"] == "epoch")
            .count();
        assert_eq!(epochs, 2, "{method}");
        assert!(
            records
                .iter()
                .filter(|r| r["kind"] == "epoch")
                .all(|r| r["loss"].is_number())
        );
    }
}

#[test]
fn files_are_readable_by_others_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt;
    let path = runs().of("deepcluster").join("labels.jsonl");
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    let probe = runs().folder.path().join("probe");
    std::fs::write(&probe, "").unwrap();
    assert_eq!(mode, probe.metadata().unwrap().permissions().mode() & 0o777);
}

#[test]
fn a_run_that_exists_is_not_overwritten() {
    let run = runs().of("deepcluster");
    let before = std::fs::read(run.join("labels.jsonl")).unwrap();
    ssl_cluster(&["train", text(&runs().images), "--out", text(&run)])
        .assert()
        .code(1)
        .stderr(contains("exists already").and(contains("--resume")));
    assert!(before == std::fs::read(run.join("labels.jsonl")).unwrap());
}

#[test]
fn wrong_inputs_are_told_in_one_line_with_the_cure() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::create_dir(path("texts")).unwrap();
    std::fs::write(path("texts/a.txt"), "no image").unwrap();
    std::fs::create_dir(path("broken")).unwrap();
    for name in ["broken/a.png", "broken/b.png", "broken/c.png"] {
        std::fs::write(path(name), "no image either").unwrap();
    }
    for (name, message) in [
        ("missing", "does not exist"),
        ("empty", "no images in"),
        ("texts", "none of its 1 files has an image's name"),
        ("broken", "none can be read"),
    ] {
        let out = path("run");
        let output = ssl_cluster(&["train", text(&path(name)), "--out", text(&out)])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        let errors: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("error:"))
            .collect();
        assert_eq!(errors.len(), 1, "{name}: {stderr}");
        assert!(errors[0].contains(message), "{name}: {stderr}");
        assert!(!out.exists(), "{name} left a run behind");
    }
}

#[test]
fn what_is_wrong_is_told_before_images_are_read_and_leaves_no_run() {
    let folder = TempDir::new().unwrap();
    let (out, weights) = (
        folder.path().join("run"),
        folder.path().join("w.safetensors"),
    );
    std::fs::write(&weights, "none").unwrap();
    ssl_cluster(&[
        "train",
        &data("test"),
        "--out",
        text(&out),
        "--init",
        text(&weights),
    ])
    .assert()
    .code(1)
    .stderr(contains("w.safetensors"));
    assert!(!out.exists());
    ssl_cluster(&["train", "-", "--out", text(&out)])
        .assert()
        .code(2)
        .stderr(contains("write the list to a file"));
}

#[test]
fn lists_of_relative_paths_are_found_again_from_elsewhere() {
    let folder = TempDir::new().unwrap();
    few_images(folder.path(), 2, 8);
    let list = folder.path().join("list.txt");
    let names = std::process::Command::new("find")
        .args(["images", "-name", "*.png"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    std::fs::write(&list, names.stdout).unwrap();
    ssl_cluster(&[
        "train",
        "list.txt",
        "--out",
        "run",
        "--epochs",
        "1",
        "--threads",
        "1",
    ])
    .current_dir(folder.path())
    .assert()
    .success();
    let run = folder.path().join("run");
    ssl_cluster(&["eval", text(&run), text(&folder.path().join("images"))])
        .assert()
        .success()
        .stderr(contains("16 of the images are among those that vote"));
    let before = std::fs::read(run.join("report.html")).unwrap().len();
    ssl_cluster(&["report", text(&run)]).assert().success();
    let after = std::fs::read(run.join("report.html")).unwrap().len();
    assert!(
        after * 10 > before * 9,
        "the thumbnails are gone: {before} to {after}"
    );
}

#[test]
fn unreadable_images_are_named_counted_and_listed() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 12);
    std::fs::write(images.join("bag/broken.jpg"), b"\xff\xd8\xff not a jpeg").unwrap();
    let out = folder.path().join("run");
    let train = |strict: &[&str]| {
        let mut command = ssl_cluster(&["train", text(&images), "--out", text(&out)]);
        command.args(["--epochs", "1", "-k", "3"]).args(strict);
        command
    };
    train(&["--strict"]).assert().code(3);
    train(&[])
        .assert()
        .success()
        .stderr(contains("broken.jpg").and(contains("1 of")));
    let skipped = read_json_lines(&out.join("skipped.jsonl"));
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0]["path"].as_str().unwrap().ends_with("broken.jpg"));
    assert!(!skipped[0]["reason"].as_str().unwrap().is_empty());
    assert_eq!(read_json_lines(&out.join("labels.jsonl")).len(), 24);
}

#[test]
fn every_method_of_the_registry_runs_on_eight_images() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    for entry in ssl_cluster::method::METHODS {
        let out = folder.path().join(entry.name);
        ssl_cluster(&[
            "train",
            text(&images),
            "--out",
            text(&out),
            "--method",
            entry.name,
        ])
        .args(["--epochs", "1", "-k", "2", "-q"])
        .assert()
        .success();
        assert_eq!(
            read_json_lines(&out.join("labels.jsonl")).len(),
            8,
            "{}",
            entry.name
        );
    }
}

#[test]
fn colorization_says_that_grey_images_teach_nothing() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    let train = |out: &str| {
        let out = folder.path().join(out);
        ssl_cluster(&["train", text(&images), "--out", text(&out)])
            .args(["--method", "colorization", "--epochs", "1", "-k", "2"])
            .assert()
            .success()
    };
    train("grey").stderr(contains("are grey"));
    let red = image::RgbImage::from_pixel(28, 28, image::Rgb([200, 40, 40]));
    red.save(images.join("red.png")).unwrap();
    train("one-red").stderr(contains("are grey").not());
}

#[test]
fn every_backbone_trains() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    let learn = |name: &str| ssl_cluster::model::learns(name);
    for entry in ssl_cluster::model::BACKBONES
        .iter()
        .filter(|entry| learn(entry.name))
    {
        // The large ones are stepped by the tests of the model; here the way through `train` counts.
        let large = ["vgg16", "resnet50", "resnet34", "vit_base_patch16_clip_224"];
        if large.contains(&entry.name) || entry.smaller.is_some() {
            continue;
        }
        let size = entry.size_from(32).to_string();
        let out = folder.path().join(entry.name);
        ssl_cluster(&[
            "train",
            text(&images),
            "--out",
            text(&out),
            "--arch",
            entry.name,
        ])
        .args(["--epochs", "1", "-k", "2", "--size", &size, "--sobel", "-q"])
        .assert()
        .success();
    }
}
