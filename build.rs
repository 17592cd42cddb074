//! Gives our binaries a run path to libtorch, so that they start from anywhere with no
//! environment variable, and says in one line what to do where libtorch is missing.
//!
//! The build script has no dependencies, so that it runs (and can complain) long before
//! torch-sys, whose own failure would be pages of C++ errors. It therefore looks for
//! libtorch itself, in the order in which torch-sys does.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");

    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let suffix = match os.as_str() {
        "linux" => "so",
        "macos" => "dylib",
        // Windows has no run paths; there the DLLs are found through PATH.
        _ => return,
    };
    // docs.rs has no libtorch, and a static one needs no run path.
    if env::var_os("DOCS_RS").is_some() || var("LIBTORCH_STATIC").is_some() {
        return;
    }

    let library = format!("libtorch_cpu.{suffix}");
    let dir = lib_dir();
    // The real directory, not the one with our links: libtorch looks for the libraries that
    // it needs itself relative to the path that it was loaded from.
    let Ok(real) = dir.join(&library).canonicalize() else {
        missing(&dir.join(&library));
    };
    let Some(real_dir) = real.parent().and_then(Path::to_str) else {
        fail(&format!(
            "the path of {} is not UTF-8: move libtorch elsewhere",
            real.display()
        ));
    };

    println!("cargo:rerun-if-changed={}", real.display());
    // Written by scripts/libtorch.sh whenever it changes where the links lead: the times of
    // the libraries alone do not show a change to ones that were installed earlier.
    if let Some(version) = dir.parent().map(|d| d.join("build-version"))
        && version.exists()
    {
        println!("cargo:rerun-if-changed={}", version.display());
    }

    println!("cargo:rustc-link-arg=-Wl,-rpath,{real_dir}");
    if os == "linux" {
        // DT_RPATH instead of DT_RUNPATH: libtorch's C++ interface holds for one version
        // only, so another torch in LD_LIBRARY_PATH must not come first; and it also serves
        // what libtorch's libraries load by name later. Theirs are DT_RPATH as well.
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
        // The linker follows libtorch's own dependencies from our links, where they are not.
        for nvidia in nvidia_dirs(Path::new(real_dir)) {
            println!("cargo:rustc-link-arg=-Wl,-rpath-link,{}", nvidia.display());
        }
    }
}

/// The directory that torch-sys links from.
fn lib_dir() -> PathBuf {
    if var("LIBTORCH_USE_PYTORCH").is_some() {
        return python_lib_dir();
    }
    let given = var("LIBTORCH_LIB").or_else(|| var("LIBTORCH"));
    // Without LIBTORCH torch-sys takes a libtorch in /usr/lib. Cargo sets LIBTORCH to
    // .libtorch here (.cargo/config.toml), unless it was started in another directory.
    match given {
        Some(dir) => Path::new(&dir).join("lib"),
        None if Path::new("/usr/lib/libtorch.so").exists() => PathBuf::from("/usr/lib"),
        None => fail("LIBTORCH is not set: run cargo in the project's directory, or set LIBTORCH"),
    }
}

/// Where the active Python's torch has its libraries; found without importing torch, which
/// would take seconds.
fn python_lib_dir() -> PathBuf {
    let python = if var("VIRTUAL_ENV").is_some() {
        "python"
    } else {
        "python3"
    };
    let code =
        "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])";
    let output = Command::new(python).args(["-c", code]).output();
    match output {
        Ok(o) if o.status.success() => {
            Path::new(String::from_utf8_lossy(&o.stdout).trim()).join("lib")
        }
        _ => fail(&format!(
            "LIBTORCH_USE_PYTORCH is set, but '{python}' has no torch: \
             install torch 2.11.0 there, or unset it and run scripts/libtorch.sh"
        )),
    }
}

/// Where torch's wheel has the NVIDIA libraries: nvidia/*/lib, beside torch/lib.
fn nvidia_dirs(torch_lib: &Path) -> Vec<PathBuf> {
    let Some(site) = torch_lib.ancestors().nth(2) else {
        return Vec::new();
    };
    let Ok(entries) = site.join("nvidia").read_dir() else {
        return Vec::new();
    };
    let mut dirs: Vec<_> = entries
        .flatten()
        .map(|e| e.path().join("lib"))
        .filter(|d| d.is_dir())
        .collect();
    dirs.sort();
    dirs
}

fn missing(library: &Path) -> ! {
    // Cargo's own setting and a user's look the same here; the name tells them apart.
    if library.components().any(|c| c.as_os_str() == ".libtorch") {
        fail("libtorch is missing: run scripts/libtorch.sh first");
    }
    fail(&format!(
        "there is no {}: set LIBTORCH to a directory with libtorch 2.11.0, \
         or unset it and run scripts/libtorch.sh",
        library.display()
    ))
}

fn var(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok()
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    // Cargo fails the build for this line alone; an exit status would only make it print more.
    exit(0)
}
