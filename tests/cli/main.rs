//! The real binary on real images (the sample in `data/`).

mod assign;
mod cluster;
mod inputs;
mod labels;
mod options;
mod resume;
mod train;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// The binary, without a user's own settings. Long runs are given one thread: tests run side by
/// side, and libtorch's threads wait for each other by spinning.
pub fn ssl_cluster(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("ssl-cluster").unwrap();
    command.args(args).env_remove("SSL_CLUSTER_DEVICE");
    // Published weights that lie on this machine would change what runs begin with.
    for cache in ["SSL_CLUSTER_WEIGHTS", "TORCH_HOME", "HF_HOME"] {
        command.env(cache, "nowhere");
    }
    command.env_remove("HF_HUB_CACHE");
    command
}

/// The options that `train --print-config` resolves.
pub fn resolved(command: &mut Command) -> toml::Table {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

pub fn data(part: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/fashion-mnist")
        .join(part);
    path.to_str().unwrap().to_string()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(bytes).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub fn read_json_lines(path: &Path) -> Vec<Value> {
    json_lines(&std::fs::read(path).unwrap())
}

/// A folder with the first `per_class` training images of each of the first `classes` classes.
pub fn few_images(folder: &Path, classes: usize, per_class: usize) -> PathBuf {
    let images = folder.join("images");
    let train = PathBuf::from(data("train"));
    let mut names: Vec<_> = train
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    for class in names.iter().take(classes) {
        std::fs::create_dir_all(images.join(class)).unwrap();
        let mut files: Vec<_> = train
            .join(class)
            .read_dir()
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        for file in files.iter().take(per_class) {
            std::fs::copy(file, images.join(class).join(file.file_name().unwrap())).unwrap();
        }
    }
    images
}

/// Small runs that several tests read, made once: DeepCluster and SeLa with two heads.
pub struct Runs {
    pub folder: TempDir,
    pub images: PathBuf,
}

impl Runs {
    pub fn of(&self, method: &str) -> PathBuf {
        self.folder.path().join(method)
    }
}

pub fn runs() -> &'static Runs {
    static RUNS: OnceLock<Runs> = OnceLock::new();
    RUNS.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let images = few_images(folder.path(), 5, 24);
        let runs = Runs { folder, images };
        for entry in ssl_cluster::method::METHODS {
            let method = entry.name;
            // Several heads, where a method has them.
            let several = entry.options.iter().any(|option| option.key == "heads");
            let more = if several { &["--heads", "2"][..] } else { &[] };
            let out = runs.of(method);
            ssl_cluster(&[
                "train",
                text(&runs.images),
                "--out",
                text(&out),
                "--method",
                method,
            ])
            .args(["--epochs", "2", "--clusters", "6", "--threads", "1"])
            .args(more)
            .assert()
            .success()
            .stdout("");
        }
        runs
    })
}
