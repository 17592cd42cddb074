//! The shape of the source that the design promises: `use` lines point one way, one printer, one
//! place that replaces files, `unsafe` only where it is explained.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules by layer, the lowest first; a module may use its own layer and those below it.
const LAYERS: &[&[&str]] = &[
    &[
        "config",
        "device",
        "directories",
        "error",
        "monitor",
        "picture",
        "profile",
        "random",
        "record",
        "comm",
        "tensors",
    ],
    &["cluster", "data", "model"],
    &["method"],
    &[
        "eval", "labels", "matrix", "report", "run_dir", "train", "trained", "ui",
    ],
    &["commands"],
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_path_buf(), text));
            }
        }
    }
    assert!(files.len() > 30, "the sources were not found");
    files
}

/// The top module of a source file.
fn module(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

/// Modules named after `crate::` anywhere in the text, comments aside.
fn used(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut layer = BTreeMap::new();
    for (height, modules) in LAYERS.iter().enumerate() {
        modules.iter().for_each(|module| {
            layer.insert(module.to_string(), height);
        });
    }
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        let Some(&height) = layer.get(&own) else {
            assert!(
                ["main", "lib"].contains(&own.as_str()),
                "{own} has no layer"
            );
            continue;
        };
        for name in used(&text) {
            if layer.get(&name).is_some_and(|&other| other > height) {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What `docs/extending.md` promises: an entry's name stands in its own file, and nowhere else.
#[test]
fn names_of_entries_occur_in_their_own_files_alone() {
    use ssl_cluster::{cluster, labels, method, model};
    let mut entries: Vec<(&str, &str)> = Vec::new();
    entries.extend(method::METHODS.iter().map(|entry| ("method", entry.name)));
    entries.extend(model::BACKBONES.iter().map(|entry| ("model", entry.name)));
    entries.extend(
        cluster::ENGINES
            .iter()
            .map(|engine| ("cluster", engine.name)),
    );
    entries.extend(labels::FORMATS.iter().map(|format| ("labels", format.name)));
    let rules = cluster::assigner::ASSIGNERS.iter();
    entries.extend(rules.map(|rule| ("cluster", rule.name)));
    let sources = sources();
    for (folder, name) in entries {
        let quoted = format!("name: \"{name}\"");
        let own: Vec<&PathBuf> = sources
            .iter()
            .filter(|(path, text)| path.starts_with(folder) && text.contains(&quoted))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(own.len(), 1, "{name} is defined in {own:?}");
        for (path, text) in &sources {
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            // File endings, names of tensors and modules are other things of the same name.
            let other: &[&str] = match folder {
                "labels" => &["matrix/"],
                "cluster" => &["assigner", "sela"],
                _ => &[],
            };
            let place = path.to_string_lossy();
            let elsewhere = path != own[0] && !other.iter().any(|part| place.contains(part));
            let found = elsewhere && code.contains(&format!("\"{name}\""));
            assert!(!found, "{} knows '{name}'", path.display());
        }
    }
}

#[test]
fn siblings_that_must_not_know_each_other_do_not() {
    let strangers = [
        ("cluster", &["data", "model", "device"][..]),
        ("data", &["model", "cluster"]),
        ("model", &["data", "cluster"]),
        ("labels", &["train", "run_dir", "ui"]),
        ("matrix", &["train", "run_dir", "ui"]),
        ("report", &["train", "run_dir", "ui", "labels", "method"]),
    ];
    for (path, text) in sources() {
        for (own, forbidden) in strangers {
            if module(&path) == own {
                let known = used(&text);
                let met = known.iter().find(|name| forbidden.contains(&name.as_str()));
                assert!(met.is_none(), "{} uses {met:?}", path.display());
            }
        }
    }
}

#[test]
fn only_ui_prints_and_only_commands_know_clap() {
    for (path, text) in sources() {
        let own = module(&path);
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        if !["ui", "commands"].contains(&own.as_str()) {
            for printer in ["println!", "print!", "stdout()", "stderr()"] {
                assert!(!code.contains(printer), "{} has {printer}", path.display());
            }
        }
        if own != "commands" {
            assert!(!code.contains("clap::"), "{} knows clap", path.display());
        }
    }
}

#[test]
fn only_run_dir_replaces_files() {
    for (path, text) in sources() {
        // The cache holds nothing that is not made again.
        if module(&path) != "run_dir" && path != Path::new("data/cache/store.rs") {
            for writer in ["fs::write", "fs::rename", "File::create", ".persist("] {
                assert!(!text.contains(writer), "{} has {writer}", path.display());
            }
        }
        // `used` above looks at the name after `crate::`.
        assert!(!text.contains("crate::{"), "{}", path.display());
    }
}

#[test]
fn unsafe_stands_in_device_and_kernel_alone_with_its_reason() {
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe {") {
                let kernel = path.components().any(|part| part.as_os_str() == "kernel");
                let allowed = kernel || module(&path) == "device";
                assert!(allowed, "{} is unsafe", path.display());
                let reason = lines[number.saturating_sub(4)..number].concat();
                assert!(reason.contains("SAFETY:"), "{}:{number}", path.display());
            }
        }
    }
}
