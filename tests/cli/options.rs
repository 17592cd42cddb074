use clap::CommandFactory;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use tempfile::TempDir;

use crate::{few_images, resolved, ssl_cluster, text};

#[test]
fn the_command_line_is_consistent() {
    ssl_cluster::commands::Cli::command().debug_assert();
}

#[test]
fn help_teaches_with_examples() {
    for command in [
        &["--help"][..],
        &["train", "--help"],
        &["assign", "--help"],
        &["inspect", "--help"],
        &["cluster", "--help"],
    ] {
        ssl_cluster(command)
            .assert()
            .success()
            .stdout(contains("Examples:"));
    }
}

#[test]
fn wrong_usage_exits_with_2_and_names_what_would_do() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 8);
    let out = folder.path().join("run");
    for (args, message) in [
        (
            &["--method", "magic"][..],
            "use deepcluster, sela, rotation",
        ),
        (&["--arch", "lenet"], "conv4"),
        (&["--engine", "faiss"], "tensor, linfa"),
        (&["--lr", "-1"], "--lr must be positive"),
        (&["--heads", "3"], "no option 'heads'"),
        (&["--empty", "drop"], "split"),
        (&["--empty", "keep", "--engine", "linfa"], "--engine tensor"),
        (&["--method", "sela", "--memory", "-1"], "--memory"),
        (&["--method", "sela", "--memory", "inf"], "--memory"),
        (&["--method", "sela", "--memory=-1"], "--memory"),
        (&["--set", "balance=maybe"], "balance"),
        (&["--set", "balance"], "KEY=VALUE"),
        (&["--reassign=-1"], "--reassign"),
        (&["--method", "sela", "--epochs", "0"], "--epochs"),
        (&["--arch", "alexnet", "--size", "28"], "at least 63"),
        (
            &["--arch", "vit_small_patch14_dinov2", "--size", "220"],
            "such as 224",
        ),
        (&["--device", "tpu"], "auto, cpu, cuda"),
        (&["--crop-scale", "2"], "--crop-scale"),
    ] {
        ssl_cluster(&["train", text(&images), "--out", text(&out)])
            .args(args)
            .assert()
            .code(2)
            .stderr(contains(message));
    }
    assert!(!out.exists());
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    for (args, names) in [
        (
            ["train", "x", "--schedule", "sudden"],
            "constant, linear, cosine, steps, step-decay",
        ),
        (["train", "x", "--cache", "tape"], "auto, ram, disk, off"),
        (["cluster", "x", "--empty", "drop"], "split, farthest, keep"),
        (
            ["cluster", "x", "--solver", "magic"],
            "auto, sinkhorn, newton",
        ),
    ] {
        ssl_cluster(&args)
            .assert()
            .code(2)
            .stderr(contains(format!("[possible values: {names}]")));
    }
}

#[test]
fn names_of_earlier_versions_are_taken_where_they_stood() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    let file = folder.path().join("options.toml");
    std::fs::write(&file, "[train]\nschedule = \"drops\"\n").unwrap();
    for old in [["--schedule", "drops"], ["--config", text(&file)]] {
        ssl_cluster(&["train", text(&images), "--print-config"])
            .args(old)
            .assert()
            .success()
            .stdout(contains("schedule = \"step-decay\""));
    }
}

#[test]
fn a_warm_up_ends_before_the_run_does() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 4);
    let train = |warmup: &str| {
        let mut command = ssl_cluster(&["train", text(&images), "--print-config"]);
        command.args(["--epochs", "4", &format!("--warmup={warmup}")]);
        command.assert()
    };
    train("1.5").success().stdout(contains("warmup = 1.5"));
    for wrong in ["-1", "4", "NaN"] {
        train(wrong).code(2).stderr(contains("--warmup"));
    }
}

#[test]
fn options_are_resolved_in_layers() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 8);
    let file = folder.path().join("options.toml");
    std::fs::write(
        &file,
        "[train]\nepochs = 3\nlr = 0.01\n[cluster]\nclusters = 4\n",
    )
    .unwrap();
    let print = |more: &[&str]| {
        resolved(ssl_cluster(&["train", text(&images), "--print-config"]).args(more))
    };
    let config = print(&["--config", text(&file), "--epochs", "5", "--method", "sela"]);
    assert_eq!(
        config["train"]["epochs"].as_integer(),
        Some(5),
        "a flag is above the file"
    );
    assert_eq!(
        config["train"]["lr"].as_float(),
        Some(0.01),
        "the file is above the default"
    );
    assert_eq!(
        config["data"]["jitter"].as_float(),
        Some(0.4),
        "the method's preset"
    );
    assert_eq!(
        config["method"]["lambda"].as_float(),
        Some(10.0),
        "the method's preset for thumbnails"
    );
    assert_eq!(
        config["method"]["tolerance"].as_float(),
        Some(0.1),
        "the method's own default"
    );
    assert_eq!(
        config["method"]["label_steps"].as_integer(),
        Some(5),
        "what the method chose"
    );
    assert_eq!(
        config["model"]["arch"].as_str(),
        Some("conv4"),
        "a default that fits"
    );

    std::fs::write(&file, "[train]\nepoch = 3\n").unwrap();
    ssl_cluster(&["train", text(&images), "--config", text(&file)])
        .assert()
        .code(2)
        .stderr(contains("epoch"));
}

#[test]
fn defaults_come_with_their_reasons_and_quiet_says_nothing() {
    let folder = TempDir::new().unwrap();
    let images = few_images(folder.path(), 2, 8);
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let mut command =
            ssl_cluster(&["train", text(&images), "--out", text(&out), "--epochs", "1"]);
        command.args(more);
        command
    };
    train("loud", &[]).assert().success().stderr(
        contains("28 px")
            .and(contains("taken as they are"))
            .and(contains("conv4"))
            .and(contains("epoch 1/1"))
            // Not a terminal: no escape sequences.
            .and(contains("\x1b").not()),
    );
    train("quiet", &["--quiet"])
        .assert()
        .success()
        .stderr("")
        .stdout("");
}

#[test]
fn methods_doctor_and_completions_answer() {
    ssl_cluster(&["methods"]).assert().success().stdout(
        contains("deepcluster")
            .and(contains("--set reassign=0"))
            .and(contains("rotation")),
    );
    ssl_cluster(&["doctor"])
        .assert()
        .success()
        .stdout(contains("libtorch").and(contains("threads")));
    ssl_cluster(&["completions", "bash"])
        .assert()
        .success()
        .stdout(contains("ssl-cluster"));
}

#[test]
fn the_binary_needs_no_environment() {
    let binary = assert_cmd::cargo::cargo_bin("ssl-cluster");
    let output = std::process::Command::new(binary)
        .arg("doctor")
        .env_clear()
        .current_dir("/")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_option_of_a_method_is_explained() {
    for entry in ssl_cluster::method::METHODS {
        let options = (entry.defaults)();
        let mut explained: Vec<&str> = entry.options.iter().map(|option| option.key).collect();
        explained.sort_unstable();
        let mut keys: Vec<&str> = options.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(explained, keys, "{}", entry.name);
    }
}
