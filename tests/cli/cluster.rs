use std::path::Path;

use ndarray::Array2;
use ndarray_npy::WriteNpyExt;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

use crate::{json_lines, ssl_cluster, text};

/// Three far groups of ten points each.
fn blobs() -> Array2<f32> {
    Array2::from_shape_fn((30, 2), |(row, column)| {
        let centre = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)][row / 10];
        let jitter = ((row * 7 + column * 3) % 10) as f32 / 20.0;
        jitter + if column == 0 { centre.0 } else { centre.1 }
    })
}

fn write(path: &Path, matrix: &Array2<f32>) {
    matrix
        .write_npy(std::fs::File::create(path).unwrap())
        .unwrap();
}

fn groups(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["label"].as_u64().unwrap())
        .collect()
}

#[test]
fn both_engines_and_inits_find_the_groups() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.npy");
    write(&file, &blobs());
    for more in [
        &["--engine", "tensor", "--init", "kmeans++"][..],
        &["--engine", "linfa", "--init", "kmeans++"],
        &["--pca", "2", "--whiten", "--init", "kmeans++"],
    ] {
        let output = ssl_cluster(&["cluster", text(&file), "-k", "3"])
            .args(more)
            .output()
            .unwrap();
        let lines = json_lines(&output.stdout);
        assert_eq!(lines.len(), 30);
        assert_eq!(lines[4]["index"], 4);
        let labels = groups(&lines);
        for group in labels.chunks(10) {
            assert!(
                group.iter().all(|label| *label == group[0]),
                "{more:?}: {labels:?}"
            );
        }
        assert!(labels[0] != labels[10] && labels[10] != labels[20] && labels[0] != labels[20]);
    }
}

#[test]
fn centroids_and_stats_are_written_and_centroids_start_the_next() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name);
    write(&place("x.npy"), &blobs());
    let first = ssl_cluster(&[
        "cluster",
        text(&place("x.npy")),
        "-k",
        "3",
        "--init",
        "kmeans++",
    ])
    .args([
        "--centroids",
        text(&place("c.npy")),
        "--stats",
        text(&place("s.json")),
    ])
    .output()
    .unwrap();
    let stats: Value = serde_json::from_slice(&std::fs::read(place("s.json")).unwrap()).unwrap();
    assert_eq!(stats["sizes"], serde_json::json!([10, 10, 10]));
    for key in ["objective", "iterations", "seconds", "reassigned"] {
        assert!(stats[key].is_number(), "{key}");
    }
    let again = ssl_cluster(&[
        "cluster",
        text(&place("x.npy")),
        "--init",
        text(&place("c.npy")),
    ])
    .output()
    .unwrap();
    assert_eq!(first.stdout, again.stdout);
}

#[test]
fn sinkhorn_gives_equal_sizes() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("scores.npy");
    // Every row prefers the first column, some more than others.
    let scores = Array2::from_shape_fn(
        (40, 2),
        |(row, column)| if column == 0 { row as f32 / 10.0 } else { 0.0 },
    );
    write(&file, &scores);
    let stats = folder.path().join("s.json");
    let output = ssl_cluster(&["cluster", text(&file), "--method", "sinkhorn"])
        .args(["--stats", text(&stats), "--tolerance", "0.001"])
        .output()
        .unwrap();
    let labels = groups(&json_lines(&output.stdout));
    let expected: Vec<u64> = (0..40).map(|row| u64::from(row < 20)).collect();
    assert_eq!(labels, expected);
    let stats: Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    assert_eq!(stats["sizes"], serde_json::json!([20, 20]));
    assert!(stats["error"].is_number() && stats["cost"].is_number());
    ssl_cluster(&[
        "cluster",
        text(&file),
        "--method",
        "sinkhorn",
        "--lambda",
        "0",
    ])
    .assert()
    .code(2);
}

#[test]
fn bad_features_are_named() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name);
    let mut points = blobs();
    points[[17, 1]] = f32::NAN;
    write(&place("nan.npy"), &points);
    write(&place("few.npy"), &blobs());
    std::fs::write(place("text.npy"), "hello").unwrap();
    let whole = std::fs::read(place("few.npy")).unwrap();
    std::fs::write(place("cut.npy"), &whole[..whole.len() - 9]).unwrap();
    for (name, clusters, code, message) in [
        ("nan.npy", "2", 1, "row 17"),
        ("few.npy", "31", 2, "30 points cannot form 31 clusters"),
        ("text.npy", "2", 1, "text.npy"),
        ("cut.npy", "2", 1, "cut.npy"),
        ("none.npy", "2", 1, "none.npy"),
    ] {
        ssl_cluster(&["cluster", text(&place(name)), "-k", clusters])
            .assert()
            .code(code)
            .stdout("")
            .stderr(contains(message).and(contains("internal").not()));
    }
}

#[test]
fn options_of_the_other_method_are_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.npy");
    write(&file, &blobs());
    for (args, name) in [
        (&["-k", "2", "--lambda", "3"][..], "--lambda"),
        (&["--method", "sinkhorn", "--pca", "1"], "--pca"),
    ] {
        ssl_cluster(&["cluster", text(&file)])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(name).and(contains("--method")));
    }
}
