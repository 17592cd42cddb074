//! Matrices in and out of files: `.npy`, `.safetensors`, CSV, and JSON Lines of arrays.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use npyz::{NpyHeader, Order, WriterBuilder};
use tch::{Device, Kind, Tensor};

use crate::model::weights;

/// Bytes read at a time: beside the matrix itself no more than this is held.
const BLOCK: usize = 64 << 20;
/// Bytes from which on an `.npy` file of f32 is mapped.
const MAPPED: i64 = 512 << 20;

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
            true => json_lines(&text, kind),
            false => csv(text.as_bytes(), kind),
        };
        return rows.context("stdin");
    }
    let text = || std::fs::read_to_string(path).with_context(|| format!("cannot read {}", name()));
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension.unwrap_or("").to_ascii_lowercase().as_str() {
        "csv" => csv(text()?.as_bytes(), kind).with_context(name),
        "json" | "jsonl" => json_lines(&text()?, kind).with_context(name),
        "safetensors" => Ok(safetensors(path)?.to_kind(kind)),
        "txt" | "tsv" | "parquet" | "arrow" | "h5" | "mat" => bail!(
            "{} cannot be read: save it as .npy, .safetensors, .csv (commas) or .jsonl",
            name()
        ),
        _ => {
            let file = File::open(path).with_context(|| format!("cannot read {}", name()))?;
            npy(path, BufReader::new(file), kind).with_context(name)
        }
    }
}

/// The bytes of a `.npy` file with a matrix `[n, d]` as f32.
pub fn to_npy(matrix: &Tensor) -> Result<Vec<u8>> {
    let flat = matrix
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
        .view(-1);
    let values: Vec<f32> = Vec::try_from(&flat)?;
    let shape: Vec<u64> = matrix.size().iter().map(|&side| side as u64).collect();
    let mut bytes = Vec::with_capacity(4 * values.len() + 128);
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&shape)
        .writer(&mut bytes)
        .begin_nd()?;
    writer.extend(values)?;
    writer.finish()?;
    Ok(bytes)
}

fn npy(path: &Path, mut file: BufReader<File>, wanted: Kind) -> Result<Tensor> {
    let header = NpyHeader::from_reader(&mut file)
        .map_err(|error| anyhow::anyhow!("no good .npy file: {error}"))?;
    let descr = header.dtype().descr();
    let (kind, width) = match descr.trim_matches('\'') {
        "<f2" => (Kind::Half, 2),
        "<f4" => (Kind::Float, 4),
        "<f8" => (Kind::Double, 8),
        _ => {
            bail!("it holds {descr}, no little-endian f16, f32 or f64: save it with .astype('<f4')")
        }
    };
    let (rows, columns) = match *header.shape() {
        [rows, columns] => (rows, columns),
        [rows] => (rows, 1),
        ref other => bail!("it is no matrix [n, d], its shape is {other:?}"),
    };
    let (rows, columns) = (rows as i64, columns as i64);
    let by_columns = header.order() == Order::Fortran;
    if kind == Kind::Float
        && wanted == kind
        && !by_columns
        && let Some(matrix) = mapped(path, &mut file, [rows, columns])?
    {
        return Ok(matrix);
    }
    // What lies one behind the other in the file.
    let (outer, inner) = match by_columns {
        true => (columns, rows),
        false => (rows, columns),
    };
    let matrix = Tensor::zeros([outer, inner], (wanted, Device::Cpu));
    let few = (BLOCK / (width * inner.max(1) as usize)).max(1) as i64;
    let mut bytes = Vec::new();
    for start in (0..outer).step_by(few as usize) {
        let count = few.min(outer - start);
        bytes.resize(count as usize * inner as usize * width, 0);
        file.read_exact(&mut bytes).map_err(|_| {
            anyhow::anyhow!("it ends before the {rows} x {columns} numbers that it announces")
        })?;
        let block = Tensor::from_data_size(&bytes, &[count, inner], kind);
        matrix.narrow(0, start, count).copy_(&block);
    }
    Ok(match by_columns {
        true => matrix.transpose(0, 1).contiguous(),
        false => matrix,
    })
}

/// The rest of a large file as f32 without reading it: pages come from the disk as they are needed, and
/// leave memory again where it is short. `None` for small files, whose content had better not change
/// under us, and where a mapping is not possible.
fn mapped(path: &Path, file: &mut BufReader<File>, shape: [i64; 2]) -> Result<Option<Tensor>> {
    let start = file.stream_position()? as i64;
    let bytes = file.get_ref().metadata()?.len() as i64;
    let values = shape[0]
        .checked_mul(shape[1])
        .filter(|&values| values < i64::MAX / 8);
    let fits = |values: &i64| start % 4 == 0 && bytes >= MAPPED && bytes >= start + 4 * values;
    let (Some(name), Some(values)) = (path.to_str(), values.filter(fits)) else {
        return Ok(None);
    };
    let options = (Kind::Float, Device::Cpu);
    // Linux refuses what is larger than memory and swap together.
    let all = Tensor::f_from_file(name, false, start / 4 + values, options).ok();
    Ok(all.map(|all| all.narrow(0, start / 4, values).view(shape)))
}

fn safetensors(path: &Path) -> Result<Tensor> {
    let file = weights::read(path)?;
    let mut matrices = file
        .tensors
        .into_iter()
        .filter(|(_, tensor)| tensor.dim() == 2 && tensor.is_floating_point());
    match (matrices.next(), matrices.next()) {
        (Some((_, matrix)), None) => Ok(matrix.to_kind(Kind::Float)),
        (None, _) => bail!(
            "'{}' holds no matrix of floating-point numbers",
            path.display()
        ),
        (Some((first, _)), Some((second, _))) => bail!(
            "'{}' holds several matrices ('{first}', '{second}', ...): save the one alone",
            path.display()
        ),
    }
}

fn csv(text: &[u8], kind: Kind) -> Result<Tensor> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let mut rows = Rows::default();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|error| anyhow::anyhow!("{error}"))?;
        let line = record.position().map_or(0, |place| place.line());
        let numbers: Vec<Option<f64>> = record.iter().map(|field| field.parse().ok()).collect();
        if number == 0 && numbers.iter().all(Option::is_none) {
            continue; // a heading
        }
        if let Some(column) = numbers.iter().position(Option::is_none) {
            bail!(
                "line {line}, column {}: '{}' is no number",
                column + 1,
                &record[column]
            );
        }
        rows.add(numbers.into_iter().flatten().collect(), line)?;
    }
    rows.matrix(kind)
}

fn json_lines(text: &str, kind: Kind) -> Result<Tensor> {
    let mut rows = Rows::default();
    for (line, json) in (1..).zip(text.lines()) {
        if json.trim().is_empty() {
            continue;
        }
        let row: Vec<f64> = serde_json::from_str(json)
            .map_err(|error| anyhow::anyhow!("line {line} is no array of numbers: {error}"))?;
        rows.add(row, line)?;
    }
    rows.matrix(kind)
}

/// Rows of equal length, one behind the other.
#[derive(Default)]
struct Rows {
    values: Vec<f64>,
    columns: Option<usize>,
}

impl Rows {
    fn add(&mut self, row: Vec<f64>, line: u64) -> Result<()> {
        let columns = *self.columns.get_or_insert(row.len());
        ensure!(
            row.len() == columns,
            "line {line} has {} numbers, those before it have {columns}",
            row.len()
        );
        self.values.extend(row);
        Ok(())
    }

    fn matrix(self, kind: Kind) -> Result<Tensor> {
        let columns = self.columns.unwrap_or(0);
        ensure!(columns > 0, "it holds no numbers");
        let matrix = Tensor::from_slice(&self.values).view([-1, columns as i64]);
        Ok(matrix.to_kind(kind))
    }
}
