//! NumPy's `.npy`, read and written.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Result, bail};
use npyz::{NpyHeader, Order, WriterBuilder};
use tch::{Device, Kind, Tensor};

/// Bytes read at a time: beside the matrix itself no more than this is held.
const BLOCK: usize = 64 << 20;
/// Bytes from which on an `.npy` file of f32 is mapped.
const MAPPED: i64 = 512 << 20;

/// The matrix in `file`, which lies at `path`, as numbers of the kind that is `wanted`; a vector is one
/// column.
pub(super) fn read(path: &Path, mut file: BufReader<File>, wanted: Kind) -> Result<Tensor> {
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
