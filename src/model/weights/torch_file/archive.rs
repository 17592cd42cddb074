//! The format since PyTorch 1.6: a zip archive of `NAME/data.pkl`, which describes the
//! tensors, and of each storage's bytes as `NAME/data/KEY`. Nothing in it is compressed, so
//! that a storage is a run of the file.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::input::Input;
use super::{Contents, TorchFileError, pickle};

pub(super) fn open(reader: impl Read + Seek) -> Result<Contents, TorchFileError> {
    let mut archive = ZipArchive::new(BufReader::new(reader))?;
    if archive.has_duplicate_names() || archive.has_overlapping_entries()? {
        return Err(TorchFileError::damaged(
            "entries of its zip archive overlap",
        ));
    }
    let entries = entries(&mut archive)?;
    let mut reader = archive.into_inner().into_inner();

    let Some(described) = entries.get("data.pkl") else {
        return Err(TorchFileError::Foreign(
            "it is a zip archive without data.pkl",
        ));
    };
    if let Some(order) = entries.get("byteorder") {
        reader.seek(SeekFrom::Start(order.start))?;
        let mut order_name = Vec::new();
        let length = order.end - order.start;
        reader
            .by_ref()
            .take(length.min(8))
            .read_to_end(&mut order_name)?;
        if order_name != b"little" {
            return Err(TorchFileError::BigEndian);
        }
    }
    reader.seek(SeekFrom::Start(described.start))?;
    let mut input = Input::new(reader, described.end - described.start);
    let (heap, root) = pickle::load(&mut input)?;
    let storages = entries
        .into_iter()
        .filter_map(|(name, bytes)| Some((name.strip_prefix("data/")?.to_owned(), bytes)))
        .collect();
    Ok(Contents {
        heap,
        root,
        storages,
    })
}

/// Where the entries of interest lie in the file, by their names in the archive's folder.
fn entries<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
) -> Result<HashMap<String, Range<u64>>, TorchFileError> {
    let mut entries = HashMap::new();
    let mut folder = None;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index)?;
        let name = entry.name()?.into_owned();
        // PyTorch takes the first entry's folder.
        let folder = folder.get_or_insert_with(|| {
            let end = name.find('/').map_or(0, |slash| slash + 1);
            name[..end].to_owned()
        });
        let Some(inner) = name.strip_prefix(folder.as_str()) else {
            continue;
        };
        if inner == "constants.pkl" {
            return Err(TorchFileError::TorchScript);
        }
        if !matches!(inner, "data.pkl" | "byteorder") && !inner.starts_with("data/") {
            continue;
        }
        if entry.encrypted() || entry.compression() != CompressionMethod::Stored {
            return Err(TorchFileError::Packed { entry: name });
        }
        let start = entry.data_start().ok_or(TorchFileError::Cut)?;
        let end = start.checked_add(entry.compressed_size());
        entries.insert(inner.to_owned(), start..end.ok_or(TorchFileError::Cut)?);
    }
    Ok(entries)
}
