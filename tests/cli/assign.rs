use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

use crate::{data, json_lines, read_json_lines, runs, ssl_cluster, text};

fn labels(records: &[Value]) -> HashMap<String, (u64, Value)> {
    let key = |record: &Value| record["path"].as_str().unwrap().to_string();
    let value = |record: &Value| (record["label"].as_u64().unwrap(), record["labels"].clone());
    records
        .iter()
        .map(|record| (key(record), value(record)))
        .collect()
}

#[test]
fn training_images_get_their_own_labels_back() {
    for method in ssl_cluster::method::METHODS.iter().map(|entry| entry.name) {
        let run = runs().of(method);
        let output = ssl_cluster(&["assign", text(&run), text(&runs().images)])
            .output()
            .unwrap();
        assert!(output.status.success());
        let given = labels(&json_lines(&output.stdout));
        let written = labels(&read_json_lines(&run.join("labels.jsonl")));
        assert_eq!(given.len(), 120);
        assert_eq!(given, written, "{method}");
    }
}

#[test]
fn a_label_does_not_depend_on_the_company() {
    let run = runs().of("deepcluster");
    let all = ssl_cluster(&["assign", text(&run), &data("test/bag")])
        .output()
        .unwrap();
    let all = json_lines(&all.stdout);
    assert_eq!(all.len(), 50);
    for record in all.iter().step_by(17) {
        let path = PathBuf::from(data("test/bag")).join(record["path"].as_str().unwrap());
        let one = ssl_cluster(&["assign", text(&run), text(&path)])
            .output()
            .unwrap();
        let one = &json_lines(&one.stdout)[0];
        assert_eq!(one["label"], record["label"]);
        assert_eq!(one["distance"], record["distance"]);
    }
}

#[test]
fn lists_come_from_files_and_stdin_in_their_order() {
    let run = runs().of("deepcluster");
    let names = [data("test/bag/0003.png"), data("test/coat/0001.png")];
    for name in &names {
        assert!(PathBuf::from(name).is_file(), "{name}");
    }
    let list = names.join("\n");
    let output = ssl_cluster(&["assign", text(&run), "-"])
        .write_stdin(list.clone())
        .output()
        .unwrap();
    let paths: Vec<String> = json_lines(&output.stdout)
        .iter()
        .map(|record| record["path"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(paths, names);
    let file = runs().folder.path().join("list.txt");
    std::fs::write(&file, list).unwrap();
    let from_file = ssl_cluster(&["assign", text(&run), text(&file)])
        .output()
        .unwrap();
    assert_eq!(from_file.stdout, output.stdout);
}

#[test]
fn formats_hold_the_same_labels() {
    let run = runs().of("sela");
    let input = data("test/bag");
    let assign = |more: &[&str]| {
        let output = ssl_cluster(&["assign", text(&run), &input])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = json_lines(assign(&[]).as_bytes());
    let array: Vec<Value> = serde_json::from_str(&assign(&["--format", "json"])).unwrap();
    assert_eq!(lines, array);
    let csv = assign(&["--format", "csv"]);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "path,label,score,distance,labels");
    assert_eq!(rows.len(), lines.len() + 1);
    let first: Vec<&str> = rows[1].split(',').collect();
    assert_eq!(first[0], lines[0]["path"].as_str().unwrap());
    assert_eq!(first[1], lines[0]["label"].to_string());

    let out = TempDir::new().unwrap();
    let file = out.path().join("labels.csv");
    ssl_cluster(&["assign", text(&run), &input, "-o", text(&file)])
        .assert()
        .success()
        .stdout("");
    assert_eq!(std::fs::read_to_string(file).unwrap(), csv);
}

#[test]
fn unreadable_images_are_skipped_and_the_others_labelled() {
    let run = runs().of("deepcluster");
    let folder = TempDir::new().unwrap();
    std::fs::copy(data("test/bag/0003.png"), folder.path().join("good.png")).unwrap();
    std::fs::write(folder.path().join("bad.png"), "text").unwrap();
    ssl_cluster(&["assign", text(&run), text(folder.path())])
        .assert()
        .success()
        .stdout(contains("good.png").and(contains("bad.png").not()))
        .stderr(contains("bad.png").and(contains("1 of 2 inputs")));
    ssl_cluster(&["assign", text(&run), text(folder.path()), "--strict"])
        .assert()
        .code(3)
        .stdout(contains("good.png"));
}

#[test]
fn what_is_no_run_is_said_to_be_none() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (place, reason) in [
        (folder.path().join("missing"), "does not exist"),
        (file, "it is a file"),
        (folder.path().to_path_buf(), "no config.toml"),
    ] {
        ssl_cluster(&["assign", text(&place), &data("test")])
            .assert()
            .code(1)
            .stdout("")
            .stderr(contains("is no run").and(contains(reason)));
    }
}

#[test]
fn damaged_files_of_a_run_are_named() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    for file in ["config.toml", "model.safetensors", "clustering.safetensors"] {
        std::fs::copy(runs().of("deepcluster").join(file), run.join(file)).unwrap();
    }
    for file in ["clustering.safetensors", "model.safetensors"] {
        let good = std::fs::read(run.join(file)).unwrap();
        for length in [0, 7, 100, good.len() / 2, good.len() - 1] {
            std::fs::write(run.join(file), &good[..length]).unwrap();
            ssl_cluster(&["assign", text(&run), &data("test/bag")])
                .assert()
                .code(1)
                .stderr(contains(file));
        }
        std::fs::write(run.join(file), &good).unwrap();
    }
    std::fs::write(run.join("config.toml"), "[data]\nsize = 'large'\n").unwrap();
    ssl_cluster(&["assign", text(&run), &data("test/bag")])
        .assert()
        .code(1)
        .stderr(contains("config.toml"));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let run = runs().of("deepcluster");
    let binary = assert_cmd::cargo::cargo_bin("ssl-cluster");
    let mut child = std::process::Command::new(binary)
        .args(["assign", text(&run), &data("test")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"));
}

#[test]
fn outputs_are_opened_first_and_devices_are_written_to() {
    let run = runs().of("deepcluster");
    let bag = data("test/bag");
    ssl_cluster(&["features", text(&run), &bag, "-o", "/no/such/folder/x.npy"])
        .assert()
        .code(1)
        .stderr(contains("/no/such/folder").and(contains("extracting").not()));
    let output = ssl_cluster(&["assign", text(&run), &bag, "--out", "/dev/stdout"])
        .output()
        .unwrap();
    assert_eq!(json_lines(&output.stdout).len(), 50);
}

#[test]
fn features_have_a_row_for_each_path_and_cluster_takes_them() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("new.npy");
    ssl_cluster(&[
        "features",
        text(&runs().of("deepcluster")),
        &data("test/bag"),
    ])
    .args(["-o", text(&file)])
    .assert()
    .success();
    let paths = std::fs::read_to_string(folder.path().join("new.paths.txt")).unwrap();
    assert_eq!(paths.lines().count(), 50);
    let output = ssl_cluster(&["cluster", text(&file), "-k", "3"])
        .output()
        .unwrap();
    assert_eq!(json_lines(&output.stdout).len(), 50);
}

#[test]
fn features_are_refused_where_they_would_not_be_what_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let run = runs().of("deepcluster");
    let out = folder.path().join("f.csv");
    ssl_cluster(&["features", text(&run), &data("test/bag"), "-o", text(&out)])
        .assert()
        .code(2)
        .stderr(contains("f.npy"));
    assert!(!out.exists());
    let out = folder.path().join("f.npy");
    ssl_cluster(&["features", text(&run), &data("test/bag"), "-o", text(&out)])
        .args(["--arch", "conv4"])
        .assert()
        .code(2)
        .stderr(contains("leave --arch out"));
}

#[test]
fn weights_of_another_file_give_features_without_a_run() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("f.npy");
    let weights = runs().of("deepcluster").join("model.safetensors");
    ssl_cluster(&[
        "features",
        "--arch",
        "conv4",
        "--init",
        text(&weights),
        "--size",
        "28",
    ])
    .args([&data("test/bag"), "-o", text(&file)])
    .assert()
    .success();
    let run = folder.path().join("r.npy");
    ssl_cluster(&[
        "features",
        text(&runs().of("deepcluster")),
        &data("test/bag"),
        "-o",
        text(&run),
    ])
    .assert()
    .success();
    assert!(std::fs::read(file).unwrap() == std::fs::read(run).unwrap());
    ssl_cluster(&[
        "features",
        "--arch",
        "resnet18",
        "--init",
        text(&weights),
        &data("test/bag"),
    ])
    .args(["-o", text(&folder.path().join("x.npy"))])
    .assert()
    .code(1)
    .stderr(contains("conv1.weight"));
}

#[test]
fn eval_gives_json_in_a_pipe() {
    let output = ssl_cluster(&["eval", text(&runs().of("rotation")), text(&runs().images)])
        .output()
        .unwrap();
    let report = &json_lines(&output.stdout)[0];
    for key in [
        "knn_accuracy",
        "nmi",
        "ari",
        "matched_accuracy",
        "purity",
        "pretext_accuracy",
    ] {
        let value = report[key].as_f64().unwrap();
        assert!((-0.5..=1.0).contains(&value), "{key} is {value}");
    }
    assert_eq!(report["images"], 120);
    let flat = data("test/bag");
    ssl_cluster(&["eval", text(&runs().of("rotation")), &flat])
        .assert()
        .code(1)
        .stderr(contains("has no classes"));
}

#[test]
fn report_is_one_file_with_the_clusters_in_it() {
    let folder = TempDir::new().unwrap();
    let (page, sheet) = (folder.path().join("r.html"), folder.path().join("s.png"));
    ssl_cluster(&["report", text(&runs().of("sela")), "-o", text(&page)])
        .args(["--contact-sheet", text(&sheet)])
        .assert()
        .success();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("data:image/"));
    assert!(!html.contains("src=\"http"));
    assert_eq!(&std::fs::read(sheet).unwrap()[1..4], b"PNG");
    // What the method sees, in the page of the training as in that of the command.
    for method in ssl_cluster::method::METHODS {
        let of_training = runs().of(method.name).join("report.html");
        let html = std::fs::read_to_string(of_training).unwrap();
        assert!(html.contains("What the method sees"), "{}", method.name);
    }
    assert!(html.contains("What the method sees"));
}
