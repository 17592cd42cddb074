use std::path::Path;

use ndarray::Array2;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tch::{Kind, Tensor};
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
    tensor(matrix).write_npy(path).unwrap();
}

fn tensor(matrix: &Array2<f32>) -> Tensor {
    let (rows, columns) = matrix.dim();
    let flat: Vec<f32> = matrix.iter().copied().collect();
    Tensor::from_slice(&flat).view([rows as i64, columns as i64])
}

/// A .npy file in Fortran order, byte for byte as NumPy writes it.
fn fortran(matrix: &Array2<f32>) -> Vec<u8> {
    let (rows, columns) = matrix.dim();
    let header =
        format!("{{'descr': '<f8', 'fortran_order': True, 'shape': ({rows}, {columns}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    for value in matrix.t().iter() {
        bytes.extend(f64::from(*value).to_le_bytes());
    }
    bytes
}

#[test]
fn matrices_come_in_every_common_format() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name);
    // Halves and quarters alone, exact in f16.
    let points = blobs().mapv(|x| (x * 4.0).round() / 4.0);
    write(&place("f32.npy"), &points);
    tensor(&points)
        .to_kind(Kind::Half)
        .write_npy(place("f16.npy"))
        .unwrap();
    std::fs::write(place("fortran.npy"), fortran(&points)).unwrap();
    let named = [("features", tensor(&points))];
    Tensor::write_safetensors(&named, place("x.safetensors")).unwrap();
    let lines = |open: &str, close: &str| -> String {
        let rows = points.rows().into_iter();
        rows.map(|row| format!("{open}{},{}{close}\n", row[0], row[1]))
            .collect()
    };
    std::fs::write(place("x.csv"), format!("a,b\n{}", lines("", ""))).unwrap();
    std::fs::write(place("x.jsonl"), lines("[", "]")).unwrap();
    let run = |input: &str, stdin: &str| {
        let output = ssl_cluster(&[
            "cluster",
            input,
            "-k",
            "3",
            "--init",
            text(&place("start.csv")),
        ])
        .write_stdin(stdin)
        .output()
        .unwrap();
        assert!(
            output.status.success(),
            "{input}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    std::fs::write(place("start.csv"), "0,0\n10,0\n0,10\n").unwrap();
    let expected = run(text(&place("f32.npy")), "");
    assert_eq!(json_lines(&expected).len(), 30);
    for name in [
        "f16.npy",
        "fortran.npy",
        "x.safetensors",
        "x.csv",
        "x.jsonl",
    ] {
        assert!(run(text(&place(name)), "") == expected, "{name}");
    }
    assert!(run("-", &lines("", "")) == expected);
    assert!(run("-", &lines("[", "]")) == expected);
}

#[test]
fn bad_rows_of_text_are_named() {
    let folder = TempDir::new().unwrap();
    for (name, content, message) in [
        ("a.csv", "1,2\n3,x\n", "line 2, column 2: 'x' is no number"),
        ("b.csv", "1,2\n3\n", "line 2"),
        (
            "c.jsonl",
            "[1,2]\n\n[3]\n",
            "line 3 has 1 numbers, those before it have 2",
        ),
        ("d.jsonl", "[1,2]\n{}\n", "line 2 is no array of numbers"),
        ("e.csv", "", "no numbers"),
        ("f.csv", "1,2\n3,nan\n", "row 1 holds NaN"),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        ssl_cluster(&["cluster", text(&file), "-k", "2"])
            .assert()
            .code(1)
            .stderr(contains(message).and(contains(name)));
    }
}

#[test]
fn statistics_tell_of_every_iteration() {
    let folder = TempDir::new().unwrap();
    let (file, stats) = (folder.path().join("x.npy"), folder.path().join("s.json"));
    write(&file, &blobs());
    ssl_cluster(&[
        "cluster",
        text(&file),
        "-k",
        "3",
        "--restarts",
        "4",
        "--empty",
        "farthest",
    ])
    .args(["--stats", text(&stats)])
    .assert()
    .success();
    let stats: Value = serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap();
    let history = stats["history"].as_array().unwrap();
    assert_eq!(
        history.len() as u64,
        stats["iterations"].as_u64().unwrap() + 1
    );
    assert_eq!(history.last().unwrap()["objective"], stats["objective"]);
    assert_eq!(history[0]["reassigned"], 0);
    assert!(history[0]["moved"].is_u64() && history[0]["seconds"].is_f64());
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
fn small_and_large_numbers_keep_their_digits() {
    let folder = TempDir::new().unwrap();
    let distances = |scale: f32| -> Vec<f64> {
        let file = folder.path().join("x.npy");
        write(&file, &(blobs() * scale));
        let output = ssl_cluster(&["cluster", text(&file), "-k", "3", "--init", "kmeans++"])
            .output()
            .unwrap();
        let lines = json_lines(&output.stdout);
        lines
            .iter()
            .map(|line| line["distance"].as_f64().unwrap())
            .collect()
    };
    let exact = distances(1.0);
    for scale in [1e-9, 1e-5, 1e6] {
        let scaled = distances(scale);
        for (one, other) in exact.iter().zip(&scaled) {
            let ratio = other / (one * f64::from(scale));
            assert!((ratio - 1.0).abs() < 1e-5, "{scale}: {one} and {other}");
        }
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

#[test]
fn transport_answers_the_example_of_its_help() {
    let run = |args: &[&str]| {
        ssl_cluster(&["transport", "-", "--supply", "25,25"])
            .args(args)
            .write_stdin("1,3\n2,1\n")
            .output()
            .unwrap()
    };
    let exact = json_lines(&run(&["--demand", "25,25"]).stdout);
    assert_eq!(exact[0]["cost"], 50.0);
    assert_eq!(exact[0]["exact"], true);
    assert_eq!(
        exact[0]["plan"],
        serde_json::json!([[25.0, 0.0], [0.0, 25.0]])
    );
    let smooth = json_lines(&run(&["--demand", "25,25", "--lambda", "1"]).stdout);
    assert!(smooth[0]["cost"].as_f64().unwrap() > 60.0);
    for (demand, message) in [
        ("25,26", "the supply is 50 in all, the demand 51"),
        ("50", "--demand has 1 amounts, the costs have 2 columns"),
        ("75,-25", "an amount is -25"),
    ] {
        let output = run(&["--demand", demand]);
        assert_eq!(output.status.code(), Some(2), "{demand}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[test]
fn power_iteration_finds_the_groups_itself() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.npy");
    write(&file, &blobs());
    let run = |more: &[&str]| {
        let args = [&["cluster", text(&file), "--method", "pic"][..], more].concat();
        ssl_cluster(&args).assert()
    };
    let output = run(&["--sigma", "1"]).success().get_output().stdout.clone();
    let labels: Vec<u64> = json_lines(&output)
        .iter()
        .map(|line| line["label"].as_u64().unwrap())
        .collect();
    // No cluster reaches from one group into another.
    for (row, label) in labels.iter().enumerate() {
        let first = labels.iter().position(|other| other == label).unwrap();
        assert_eq!(first / 10, row / 10);
    }
    run(&["-k", "3"])
        .code(2)
        .stderr(contains("leave --clusters out"));
    run(&["--sigma", "0"])
        .code(2)
        .stderr(contains("sigma must be positive"));
    run(&["--empty", "keep"])
        .code(2)
        .stderr(contains("--empty belongs to --method kmeans"));
    run(&["--sigma", "0.001"])
        .success()
        .stderr(contains("30 of 30 points are clusters of their own"));
}

#[test]
fn weights_pull_the_means() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("x.csv"), "0\n1\n10\n").unwrap();
    std::fs::write(place("w.csv"), "3\n1\n1\n").unwrap();
    std::fs::write(place("few.csv"), "3\n1\n").unwrap();
    std::fs::write(place("c.csv"), "0\n10\n").unwrap();
    let run = |weights: &str| {
        ssl_cluster(&[
            "cluster",
            text(&place("x.csv")),
            "--init",
            text(&place("c.csv")),
            "--weights",
            text(&place(weights)),
        ])
        .assert()
    };
    let output = run("w.csv").success().get_output().stdout.clone();
    let distances: Vec<f64> = json_lines(&output)
        .iter()
        .map(|line| line["distance"].as_f64().unwrap())
        .collect();
    assert_eq!(distances, [0.25, 0.75, 0.0]);
    run("few.csv")
        .code(1)
        .stderr(contains("few.csv' holds 2 rows of 1 for 3 rows of points"));
}
