//! Matrices in and out of files: `.npy`, `.safetensors`, CSV, and JSON Lines of arrays.

mod csv;
mod jsonl;
mod npy;
mod rows;
mod safetensors;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use tch::{Kind, Tensor};

pub use npy::to_npy;

/// A matrix `[n, d]` as f32. The name's ending says what the file is: `.npy` (f16, f32 or f64, in C or
/// Fortran order; a vector is one column), `.safetensors` (with one matrix in it), `.csv` (numbers, a first line without any
/// is a heading), `.jsonl` (an array a line); `-` is CSV or JSON Lines on stdin.
///
/// # Errors
/// The file's name, and what is wrong with it, by row where it has rows.
pub fn read(path: &Path) -> Result<Tensor> {
    read_as(path, Kind::Float)
}

/// The same as numbers of `kind`.
///
/// # Errors
/// As for [`read`].
pub fn read_as(path: &Path, kind: Kind) -> Result<Tensor> {
    let name = || format!("'{}'", path.display());
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the matrix on stdin")?;
        let rows = match text.trim_start().starts_with('[') {
            true => jsonl::read(&text, kind),
            false => csv::read(text.as_bytes(), kind),
        };
        return rows.context("stdin");
    }
    let text = || std::fs::read_to_string(path).with_context(|| format!("cannot read {}", name()));
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.unwrap_or("").to_ascii_lowercase().as_str() {
        "csv" => csv::read(text()?.as_bytes(), kind).with_context(name),
        "json" | "jsonl" => jsonl::read(&text()?, kind).with_context(name),
        "safetensors" => Ok(safetensors::read(path)?.to_kind(kind)),
        "txt" | "tsv" | "parquet" | "arrow" | "h5" | "mat" => bail!(
            "{} cannot be read: save it as .npy, .safetensors, .csv (commas) or .jsonl",
            name()
        ),
        _ => {
            let file = File::open(path).with_context(|| format!("cannot read {}", name()))?;
            npy::read(path, BufReader::new(file), kind).with_context(name)
        }
    }
}
