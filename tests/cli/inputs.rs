//! `inspect`, `cache`, shards and several inputs, as a user meets them.

use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

use crate::{few_images, json_lines, read_json_lines, ssl_cluster, text};

/// Packs the folder `from` as `tar` would.
fn pack(from: &Path, into: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(into).unwrap());
    builder.append_dir_all("", from).unwrap();
    builder.finish().unwrap();
}

fn inspect(args: &[&str]) -> Value {
    let output = ssl_cluster(&["inspect"]).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    json_lines(&output.stdout).remove(0)
}

/// Trains two short epochs and gives the run's final labels.
fn train(inputs: &[&str], out: &Path, more: &[&str]) -> Vec<Value> {
    ssl_cluster(&["train"])
        .args(inputs)
        .args(["--out", text(out), "-k", "4", "--epochs", "2"])
        .args(["--batch-size", "16", "--threads", "1", "-q"])
        .args(more)
        .assert()
        .success();
    read_json_lines(&out.join("labels.jsonl"))
}

#[test]
fn inspect_tells_what_train_would_see() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 10);
    let mut classes: Vec<_> = images
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    classes.sort();
    std::fs::write(classes[0].join("broken.png"), b"no image").unwrap();
    std::fs::write(classes[0].join("notes.txt"), b"text").unwrap();
    let original = classes[1].read_dir().unwrap().next().unwrap().unwrap();
    std::fs::copy(original.path(), classes[2].join("copy.png")).unwrap();
    let report = inspect(&[text(&images), "--epochs", "2", "--augment"]);
    assert_eq!(report["images"], 31);
    assert_eq!(report["skipped"], 1);
    let unreadable = report["unreadable"][0]["path"].as_str().unwrap();
    assert!(unreadable.ends_with("broken.png"), "{unreadable}");
    assert_eq!(report["others"], 1);
    assert_eq!(report["formats"], serde_json::json!({"png": 31}));
    assert_eq!(report["width"], serde_json::json!([28, 28, 28]));
    assert_eq!(
        (&report["size"], &report["store"]),
        (&28.into(), &28.into())
    );
    assert_eq!(report["classes"].as_array().unwrap().len(), 3);
    assert_eq!(report["classes"][2]["images"], 11);
    let duplicates = report["duplicates"].as_array().unwrap();
    assert_eq!(duplicates.len(), 1);
    let copies = duplicates[0].as_array().unwrap();
    assert!(copies[1].as_str().unwrap().ends_with("copy.png"));
    let epochs = report["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 2);
    assert!(
        epochs
            .iter()
            .all(|e| e["images_per_second"].as_f64().unwrap() > 0.0)
    );
    // Strict is for scripts, and a folder without images has nothing to tell.
    ssl_cluster(&["inspect", text(&images), "--strict", "-q"])
        .assert()
        .code(3);
    let empty = TempDir::new().unwrap();
    ssl_cluster(&["inspect", text(empty.path())])
        .assert()
        .failure()
        .stderr(contains("it is empty"));
}

#[test]
fn a_shard_trains_and_labels_as_the_folder_that_it_was_made_from() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 12);
    let shard = folder.path().join("all.tar");
    pack(&images, &shard);
    let plain = train(&[text(&images)], &folder.path().join("plain"), &[]);
    let run = folder.path().join("sharded");
    let sharded = train(&[text(&shard)], &run, &[]);
    assert_eq!(plain.len(), 36);
    for (a, b) in plain.iter().zip(&sharded) {
        let name = b["path"].as_str().unwrap();
        let name = name.strip_prefix(text(&shard)).unwrap();
        assert_eq!(name.trim_start_matches('/'), a["path"]);
        assert_eq!(a["label"], b["label"]);
    }
    let labels = |input: &Path| {
        let assign = ssl_cluster(&["assign", text(&run), text(input), "--threads", "1", "-q"])
            .output()
            .unwrap();
        let records = json_lines(&assign.stdout);
        records
            .iter()
            .map(|r| r["label"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(labels(&shard), labels(&images));
    // The report of the finished run finds its pictures in the shard.
    ssl_cluster(&["report", text(&run)]).assert().success();
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("data:image/"));
    ssl_cluster(&["train", "--resume", text(&run)])
        .assert()
        .success()
        .stderr(contains("nothing to resume"));
}

#[test]
fn several_inputs_are_one_data_set_that_resume_finds_again() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 4, 8);
    let mut classes: Vec<_> = images
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    classes.sort();
    let shard = folder.path().join("last.tar");
    pack(&classes[3], &shard);
    let inputs = [&classes[0], &classes[1], &shard].map(|path| text(path));
    let run = folder.path().join("run");
    let labels = train(&inputs, &run, &[]);
    assert_eq!(labels.len(), 24);
    let paths: Vec<&str> = labels.iter().map(|r| r["path"].as_str().unwrap()).collect();
    assert!(paths[0].starts_with(inputs[0]) && paths[23].starts_with(inputs[2]));
    std::fs::remove_file(run.join("clustering.safetensors")).unwrap();
    ssl_cluster(&["train", "--resume", text(&run), "-q"])
        .assert()
        .success();
    assert_eq!(read_json_lines(&run.join("labels.jsonl")), labels);
    ssl_cluster(&["assign", text(&run), "-", inputs[0]])
        .assert()
        .code(2)
        .stderr(contains("stands alone"));
    ssl_cluster(&["train", inputs[0], "/no/such/place", "--out", "x"])
        .assert()
        .failure()
        .stderr(contains("'/no/such/place' does not exist"));
}

#[test]
fn the_cache_on_disk_is_used_shown_and_cleared_and_changes_no_label() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 12);
    let cache = folder.path().join("cache");
    let run = |name: &str, choice: &str| {
        let out = folder.path().join(name);
        let assert = ssl_cluster(&["train", text(&images), "--out", text(&out)])
            .args([
                "-k",
                "4",
                "--epochs",
                "1",
                "--threads",
                "1",
                "--cache",
                choice,
            ])
            .env("SSL_CLUSTER_CACHE", &cache)
            .assert()
            .success();
        let found = String::from_utf8_lossy(&assert.get_output().stderr).contains("were found in");
        (read_json_lines(&out.join("labels.jsonl")), found)
    };
    let (expected, _) = run("ram", "ram");
    assert_eq!(run("first", "disk"), (expected.clone(), false));
    assert_eq!(run("second", "disk"), (expected.clone(), true));
    assert_eq!(run("off", "off"), (expected, false));
    let of_cache = |args: &[&str]| {
        let mut command = ssl_cluster(&["cache"]);
        command.args(args).env("SSL_CLUSTER_CACHE", &cache);
        command.assert().success()
    };
    of_cache(&[]).stdout(contains("1 files"));
    of_cache(&["clear"]).stdout(contains("removed 1 files"));
    of_cache(&[]).stdout(contains("0 files"));
}

#[test]
fn profile_tells_where_the_time_went() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 12);
    let out = folder.path().join("run");
    ssl_cluster(&["train", text(&images), "--out", text(&out), "--profile"])
        .args(["-k", "4", "--epochs", "2", "--threads", "1"])
        .assert()
        .success()
        .stderr(contains("where the time went").and(contains("backward")));
    let epochs: Vec<Value> = read_json_lines(&out.join("metrics.jsonl"))
        .into_iter()
        .filter(|record| record["kind"] == "epoch")
        .collect();
    let parts = epochs[1]["profile"].as_object().unwrap();
    for part in ["wait", "augment", "forward", "backward", "optimiser"] {
        assert!(parts[part].as_f64().unwrap() >= 0.0, "{part}");
    }
    assert!(epochs[0]["profile"]["decode"].as_f64().unwrap() > 0.0);
}

#[test]
fn parts_of_a_batch_and_either_precision_train_and_are_kept_for_assign() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 12);
    for (name, more) in [
        ("parts", &["--accumulate", "3"][..]),
        ("f32", &["--precision", "f32"]),
        ("bf16", &["--precision", "bf16"]),
    ] {
        let run = folder.path().join(name);
        let labels = train(&[text(&images)], &run, more);
        let assign = ssl_cluster(&["assign", text(&run), text(&images), "--threads", "1", "-q"])
            .output()
            .unwrap();
        assert_eq!(json_lines(&assign.stdout), labels, "{name}");
    }
    ssl_cluster(&["train", text(&images), "--precision", "f16"])
        .assert()
        .code(2)
        .stderr(contains("auto, f32 or bf16"));
}

#[test]
fn features_of_the_training_pass_spare_the_extraction() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 40);
    for method in ["deepcluster", "sela"] {
        let extracted = |source: &str| {
            let out = folder.path().join(format!("{method}-{source}"));
            let more = ["--method", method, "--features-from", source];
            train(&[text(&images)], &out, &more);
            let steps: Vec<Value> = read_json_lines(&out.join("metrics.jsonl"))
                .into_iter()
                .filter(|record| record["kind"] == "labels")
                .collect();
            assert!(
                steps
                    .iter()
                    .all(|step| step["nonempty"].as_u64().unwrap() >= 2)
            );
            steps.len()
        };
        assert_eq!(extracted("training"), extracted("extraction"));
    }
    let out = folder.path().join("r");
    ssl_cluster(&[
        "train",
        text(&images),
        "--out",
        text(&out),
        "--method",
        "rotation",
    ])
    .args(["--features-from", "training"])
    .assert()
    .code(2)
    .stderr(contains("no option 'features_from'"));
}

/// Names begin with the inputs as they were typed, wherever the run is taken up again.
#[test]
fn relative_inputs_are_found_again_from_another_directory() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 8);
    pack(&images, &folder.path().join("all.tar"));
    for (name, inputs) in [
        ("shard", &["all.tar"][..]),
        ("dotted", &["./images", "all.tar"]),
        ("folder", &["images"]),
    ] {
        let run = folder.path().join(name);
        ssl_cluster(&["train"])
            .args(inputs)
            .args(["--out", name, "-k", "3", "--epochs", "1", "--threads", "1"])
            .current_dir(folder.path())
            .assert()
            .success();
        let labels = read_json_lines(&run.join("labels.jsonl"));
        std::fs::remove_file(run.join("clustering.safetensors")).unwrap();
        ssl_cluster(&["train", "--resume", text(&run), "-q"])
            .assert()
            .success();
        assert_eq!(read_json_lines(&run.join("labels.jsonl")), labels, "{name}");
        ssl_cluster(&["report", text(&run)]).assert().success();
        let page = std::fs::read_to_string(run.join("report.html")).unwrap();
        assert!(page.contains("data:image/"), "{name}: no pictures");
    }
}

#[test]
fn inspect_refuses_what_train_would() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    for (args, message) in [
        (&["--augment", "--jitter", "inf"][..], "between 0 and 1"),
        (&["--size", "100000"], "--size must lie between"),
    ] {
        ssl_cluster(&["inspect", text(&images)])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(message));
    }
}

#[test]
fn copies_of_a_picture_count_once() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 4, 10);
    let train = |out: &str| {
        let run = folder.path().join(out);
        let args = [
            "train",
            text(&images),
            "--out",
            text(&run),
            "-k",
            "5",
            "--threads",
            "1",
        ];
        let output = ssl_cluster(&args).output().unwrap();
        assert!(output.status.success());
        let labels = read_json_lines(&run.join("labels.jsonl")).into_iter();
        let labels: Vec<(String, u64)> = labels
            .map(|l| {
                (
                    l["path"].as_str().unwrap().into(),
                    l["label"].as_u64().unwrap(),
                )
            })
            .collect();
        (labels, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (single, told) = train("single");
    assert!(!told.contains("copies"), "{told}");
    let (original, of_original) = &single[3];
    let copies = images.join("copies");
    std::fs::create_dir(&copies).unwrap();
    for number in 0..30 {
        std::fs::copy(images.join(original), copies.join(format!("{number}.png"))).unwrap();
    }
    let (all, told) = train("copied");
    assert!(told.contains("30 images are copies of others"), "{told}");
    assert_eq!(all.len(), single.len() + 30);
    for (path, label) in &all {
        let expected = match path.starts_with("copies/") {
            true => of_original,
            false => &single.iter().find(|(name, _)| name == path).unwrap().1,
        };
        assert_eq!(label, expected, "{path}");
    }
}
