use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use tempfile::TempDir;

use crate::{few_images, read_json_lines, runs, ssl_cluster, text};

/// Sends `signal` to a process.
fn send(signal: &str, id: u32) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {id}")])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn an_interrupted_run_goes_on_to_the_labels_of_an_uninterrupted_one() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 4, 40);
    for (method, more, signal) in [
        ("deepcluster", &["-k", "6", "--reassign", "1"][..], "INT"),
        (
            "deepcluster",
            &["--reassign", "1", "--clusterer", "pic"],
            "KILL",
        ),
        ("sela", &["-k", "6"], "INT"),
        ("sela", &["-k", "6", "--features-from", "training"], "KILL"),
    ] {
        let whole = folder.path().join(format!("{method}-{signal}-whole"));
        let parts = folder.path().join(format!("{method}-{signal}-parts"));
        let args = |out: &std::path::Path| {
            [
                "train",
                text(&images),
                "--out",
                text(out),
                "--method",
                method,
                "--epochs",
                "12",
            ]
            .map(String::from)
            .into_iter()
            .chain(["--batch-size", "8", "--threads", "1"].map(String::from))
            .chain(more.iter().map(|arg| arg.to_string()))
            .collect::<Vec<_>>()
        };
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("ssl-cluster"))
            .args(args(&parts))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Somewhere after the first epochs: wherever it is, the result must be the same.
        let started = Instant::now();
        while !parts.join("checkpoint/state.safetensors").exists() {
            assert!(
                started.elapsed() < Duration::from_secs(300),
                "no checkpoint came"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(150));
        send(signal, child.id());
        let code = child.wait().unwrap().code();
        assert_eq!(
            code,
            (signal == "INT").then_some(130),
            "{method} ended before it could be interrupted"
        );
        assert!(!parts.join("clustering.safetensors").exists());

        ssl_cluster(&["assign", text(&parts), text(&images)])
            .assert()
            .code(1)
            .stderr(contains("train --resume"));
        ssl_cluster(&["train", "--resume", text(&parts)])
            .assert()
            .success();
        let all = args(&whole);
        ssl_cluster(&all.iter().map(String::as_str).collect::<Vec<_>>())
            .assert()
            .success();
        let labels = |run: &std::path::Path| std::fs::read(run.join("labels.jsonl")).unwrap();
        assert!(
            labels(&parts) == labels(&whole),
            "{method}: resumed labels differ"
        );
        let steps = |run: &std::path::Path| {
            let records = read_json_lines(&run.join("metrics.jsonl"));
            records
                .iter()
                .map(|record| {
                    (
                        record["images_seen"].clone(),
                        record["nmi_previous"].clone(),
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            steps(&parts),
            steps(&whole),
            "{method}: records are lost, doubled or different"
        );
    }
}

#[test]
fn resuming_a_finished_run_changes_nothing() {
    let run = runs().of("rotation");
    let read = |name: &str| std::fs::read(run.join(name)).unwrap();
    let (labels, metrics) = (
        read("labels.jsonl"),
        read_json_lines(&run.join("metrics.jsonl")).len(),
    );
    ssl_cluster(&["train", "--resume", text(&run)])
        .assert()
        .success();
    assert!(labels == read("labels.jsonl"));
    assert_eq!(metrics, read_json_lines(&run.join("metrics.jsonl")).len());
}

#[test]
fn what_cannot_be_resumed_says_why() {
    let folder = TempDir::new().unwrap();
    ssl_cluster(&["train", "--resume", text(folder.path())])
        .assert()
        .code(1)
        .stderr(contains("is no run").and(contains("internal").not()));
    ssl_cluster(&[
        "train",
        "--resume",
        text(folder.path()),
        text(folder.path()),
    ])
    .assert()
    .code(2);
}
