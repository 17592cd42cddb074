//! Weights that others have published, and where they lie on this machine: in our own cache, torch's and
//! Hugging Face's. Nothing is fetched here.

use std::path::{Path, PathBuf};

use super::{BACKBONES, BackboneEntry};
use crate::directories::{self, in_cache};

/// A file of weights as people have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// What its name begins with, or that of its repository on the Hugging Face hub.
    pub file: &'static str,
    /// What it was trained on, and by whom.
    pub about: &'static str,
    /// Which are taken where several are there: those of the highest rank. The order is ours, after the accuracy
    /// of nearest neighbours on ImageNet where that is published; labels that were trained on count for less.
    pub rank: u32,
}

/// Where a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `ssl-cluster/weights` in the user's cache directory, or `$SSL_CLUSTER_WEIGHTS`.
    Own,
    /// torch.hub's and torchvision's cache.
    TorchHub,
    /// The cache of the Hugging Face hub, timm's among it.
    HuggingFace,
}

impl Place {
    /// As people know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "ssl-cluster",
            Self::TorchHub => "torch hub",
            Self::HuggingFace => "hugging face",
        }
    }
}

/// Weights that are there.
#[derive(Debug, Clone)]
pub struct Found {
    pub path: PathBuf,
    pub entry: &'static BackboneEntry,
    pub published: &'static Published,
    pub place: Place,
}

/// Directories that weights are looked for in.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub own: Option<PathBuf>,
    pub torch_hub: Option<PathBuf>,
    pub hugging_face: Option<PathBuf>,
}

/// Files of weights in a snapshot of the Hugging Face hub, the first one first.
const IN_SNAPSHOTS: [&str; 4] = [
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
];

impl Places {
    /// Those of the user, as the environment has them.
    pub fn of_user() -> Self {
        let named = directories::named;
        let torch = named("TORCH_HOME").or_else(|| in_cache("torch"));
        let hub = named("HF_HOME").or_else(|| in_cache("huggingface"));
        Self {
            own: named("SSL_CLUSTER_WEIGHTS").or_else(|| in_cache("ssl-cluster/weights")),
            torch_hub: torch.map(|torch| torch.join("hub/checkpoints")),
            hugging_face: named("HF_HUB_CACHE").or_else(|| hub.map(|hub| hub.join("hub"))),
        }
    }

    /// Those that there are.
    pub fn named(&self) -> impl Iterator<Item = (Place, &Path)> {
        let all = [
            (Place::Own, &self.own),
            (Place::TorchHub, &self.torch_hub),
            (Place::HuggingFace, &self.hugging_face),
        ];
        let some = all.into_iter();
        some.filter_map(|(place, directory)| Some((place, directory.as_deref()?)))
    }

    /// The published weights that lie there, those of the first backbone first. What cannot be read is not there.
    pub fn find(&self) -> Vec<Found> {
        let of_file = |path: PathBuf, place| named(&file_name(&path), path, place);
        let of_repository = |path: PathBuf, place| {
            let name = file_name(&path);
            let (_, name) = name.strip_prefix("models--")?.split_once("--")?;
            named(name, in_repository(&path)?, place)
        };
        let mut found = Vec::new();
        for (place, directory) in self.named() {
            let entries = listed(directory).into_iter();
            match place {
                Place::HuggingFace => {
                    found.extend(entries.filter_map(|path| of_repository(path, place)));
                }
                Place::Own | Place::TorchHub => {
                    let files = entries.filter(|path| path.is_file());
                    found.extend(files.filter_map(|path| of_file(path, place)));
                }
            }
        }
        found.sort_by_key(|found| {
            let same = |entry: &BackboneEntry| entry.name == found.entry.name;
            BACKBONES.iter().position(same)
        });
        found
    }
}

/// The backbone that a file or repository of that name holds weights for, where somebody has published it.
pub fn entry_of(name: &str) -> Option<&'static BackboneEntry> {
    named(name, PathBuf::new(), Place::Own).map(|found| found.entry)
}

/// What a file or repository of that name holds, where somebody has published it.
fn named(name: &str, path: PathBuf, place: Place) -> Option<Found> {
    let all = BACKBONES.iter().flat_map(|entry| {
        entry
            .published
            .iter()
            .map(move |published| (entry, published))
    });
    // The longest name says most.
    let (entry, published) = all
        .filter(|(_, published)| name.starts_with(published.file))
        .max_by_key(|(_, published)| published.file.len())?;
    Some(Found {
        path,
        entry,
        published,
        place,
    })
}

/// The weights of the newest snapshot of a repository.
fn in_repository(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = std::fs::read_to_string(repository.join("refs/main")).ok();
    let main = main.map(|commit| snapshots.join(commit.trim()));
    let files = |snapshot: PathBuf| IN_SNAPSHOTS.map(|name| snapshot.join(name));
    let newest = main.into_iter().chain(listed(&snapshots).into_iter().rev());
    newest.flat_map(files).find(|path| path.is_file())
}

/// What a directory holds, in the order of its names; nothing where it cannot be read.
fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
