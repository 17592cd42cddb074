//! Pseudo-labels and last labels of whole runs.

use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use ssl_cluster::config::Keep;
use ssl_cluster::run_dir::RunDir;
use tempfile::TempDir;

use crate::{data, few_images, json_lines, read_json_lines, runs, ssl_cluster, text};

#[test]
fn several_heads_give_several_labels() {
    let labels = read_json_lines(&runs().of("sela").join("labels.jsonl"));
    for record in &labels {
        let heads = record["labels"].as_array().unwrap();
        assert_eq!(heads.len(), 2);
        assert_eq!(heads[0], record["label"]);
    }
}

#[test]
fn the_same_seed_gives_the_same_labels_byte_for_byte_and_another_does_not() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 4, 16);
    for method in ["deepcluster", "sela"] {
        let labels = |name: &str, seed: &str| {
            let out = folder.path().join(format!("{method}-{name}"));
            ssl_cluster(&[
                "train",
                text(&images),
                "--out",
                text(&out),
                "--method",
                method,
            ])
            .args([
                "--epochs",
                "2",
                "--clusters",
                "5",
                "--seed",
                seed,
                "--threads",
                "1",
                "-q",
            ])
            .assert()
            .success();
            std::fs::read(out.join("labels.jsonl")).unwrap()
        };
        let first = labels("first", "7");
        assert!(first == labels("second", "7"), "{method} is not repeatable");
        assert!(first != labels("third", "8"), "{method} ignores the seed");
    }
}

/// NMI of the labels with the classes: from the untrained network's features, and in the end.
fn first_and_last_nmi(method: &str, seed: &str, folder: &Path) -> (f64, f64) {
    let out = folder.join(format!("{method}-{seed}"));
    ssl_cluster(&[
        "train",
        &data("train"),
        "--out",
        text(&out),
        "--method",
        method,
    ])
    .args(["--epochs", "6", "--seed", seed, "--threads", "1", "-q"])
    .assert()
    .success();
    let records = read_json_lines(&out.join("metrics.jsonl"));
    let nmi: Vec<f64> = records
        .iter()
        .filter_map(|record| record["nmi_classes"].as_f64())
        .collect();
    (nmi[0], nmi[nmi.len() - 1])
}

#[test]
fn training_brings_the_labels_nearer_to_the_classes_that_it_never_saw() {
    let folder = TempDir::new().unwrap();
    for method in ["deepcluster", "sela"] {
        // One seed's k-means alone moves the measure by 0.01, as much as six epochs do.
        let runs = ["0", "1", "2"].map(|seed| first_and_last_nmi(method, seed, folder.path()));
        let gain: f64 = runs.iter().map(|(first, last)| last - first).sum();
        assert!(gain > 0.0, "{method}: NMI from, to: {runs:?}");
    }
}

#[test]
fn the_first_labels_may_come_from_descriptors() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 4, 12);
    let first = |out: &str, method: &str, source: &str, seed: &str| -> Vec<Value> {
        let run = folder.path().join(out);
        let args = [
            "train",
            text(&images),
            "--out",
            text(&run),
            "--epochs",
            "1",
            "-k",
            "4",
        ];
        let more = [
            "--method",
            method,
            "--first-labels",
            source,
            "--seed",
            seed,
            "--keep-labels",
            "all",
        ];
        ssl_cluster(&[&args[..], &more].concat()).assert().success();
        let labels = read_json_lines(&run.join("labels/epoch-0000.jsonl"));
        labels.iter().map(|label| label["label"].clone()).collect()
    };
    // Descriptors know no seed, a random network does.
    for method in ["deepcluster", "sela"] {
        let labels =
            |number: u32, source, seed| first(&format!("{method}-{number}"), method, source, seed);
        let described = labels(0, "descriptors", "0");
        assert_eq!(described, labels(1, "descriptors", "1"));
        assert_ne!(labels(2, "network", "0"), labels(3, "network", "1"));
        if method == "sela" {
            let of = |label: u32| described.iter().filter(|&one| *one == label).count();
            assert!(
                (0..4).all(|label| of(label) == described.len() / 4),
                "{described:?}"
            );
        }
    }
}

#[test]
fn balance_and_reassign_take_their_values() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 3, 12);
    for balance in ["sampler", "weights", "none"] {
        let out = folder.path().join(balance);
        ssl_cluster(&[
            "train",
            text(&images),
            "--out",
            text(&out),
            "--balance",
            balance,
        ])
        .args([
            "--reassign",
            "0.5",
            "--epochs",
            "1",
            "-k",
            "4",
            "--batch-size",
            "6",
            "-q",
        ])
        .args(["--keep-labels", "all"])
        .assert()
        .success();
        // At 0, 0.5 and after the end.
        let records = read_json_lines(&out.join("metrics.jsonl"));
        let steps: Vec<f64> = records
            .iter()
            .filter(|record| record["kind"] == "labels")
            .map(|record| record["epoch"].as_f64().unwrap())
            .collect();
        assert_eq!(steps, [0.0, 0.5, 1.0]);
        assert!(out.join("labels/epoch-0000.jsonl").is_file());
        assert!(out.join("labels/epoch-0000.50.jsonl").is_file());
    }
}

#[test]
fn old_label_files_go_and_those_of_others_stay() {
    let folder = TempDir::new().unwrap();
    let run = RunDir::create(folder.path()).unwrap();
    let labels = folder.path().join("labels");
    std::fs::create_dir(&labels).unwrap();
    for other in ["corrected.jsonl", "epoch.txt", "zebra.jsonl"] {
        std::fs::write(labels.join(other), "mine").unwrap();
    }
    for epoch in [0.0, 0.5, 1.0, 1.5] {
        run.keep_step_labels(&[], epoch, Keep::Newest(2)).unwrap();
    }
    let mut names: Vec<_> = labels
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "corrected.jsonl",
            "epoch-0001.50.jsonl",
            "epoch-0001.jsonl",
            "epoch.txt",
            "zebra.jsonl"
        ]
    );
}

#[test]
fn more_clusters_than_images_is_refused_with_a_number_that_works() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    ssl_cluster(&[
        "train",
        text(&images),
        "--out",
        text(&folder.path().join("run")),
        "-k",
        "100",
    ])
    .assert()
    .code(2)
    .stderr(contains("8 images cannot form 100 clusters").and(contains("--clusters 2")));
}

#[test]
fn sela_in_little_memory_learns_the_same_labels() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 4, 30);
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        ssl_cluster(&["train", text(&images), "--out", text(&out)])
            .args(["--method", "sela", "--heads", "2", "--clusters", "6"])
            .args(["--epochs", "2", "--seed", "3", "-q"])
            .args(more)
            .assert()
            .success();
        let lines = read_json_lines(&out.join("labels.jsonl"));
        let labels = lines.iter().map(|line| line["labels"].clone());
        labels.collect::<Vec<_>>()
    };
    let stored = train("stored", &[]);
    let computed = train("computed", &["--memory", "0"]);
    assert_eq!(stored.len(), 120);
    let equal = stored.iter().zip(&computed).filter(|(a, b)| a == b).count();
    assert!(equal >= 114, "{equal} of 120");
}

#[test]
fn frozen_clusters_are_such_as_near_neighbours_agree_on() {
    let folder = TempDir::new().unwrap();
    let (run, images) = (folder.path().join("run"), data("train"));
    ssl_cluster(&["train", &images, "--out", text(&run), "-k", "45"])
        .assert()
        .success()
        .stderr(contains("near neighbours agree").and(contains("were moved")));
    let records = read_json_lines(&run.join("metrics.jsonl"));
    let agreement = records[0]["agreement"].as_f64().unwrap();
    assert!((0.7..1.0).contains(&agreement), "{agreement}");
    let labels = read_json_lines(&run.join("labels.jsonl"));
    let assigned = ssl_cluster(&["assign", text(&run), &images])
        .output()
        .unwrap();
    assert_eq!(json_lines(&assigned.stdout), labels);
}
