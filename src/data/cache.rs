//! Decoded pixels at the working size: in memory while they fit a share of it, else in a temporary
//! file that vanishes with the process.

use std::fs::File;
use std::io;

use rayon::prelude::*;

use super::source::{ImageSet, Skipped};
use super::{DataError, decode};
use crate::device;
use crate::monitor::{Interrupted, Monitor};

/// The share of the available memory that pixels may take.
const MEMORY_SHARE: f64 = 0.4;
/// Images decoded between two looks at Ctrl-C and the progress bar.
const GROUP: usize = 64;

/// Squares of RGB pixels `[n, side, side, 3] u8`.
#[derive(Debug)]
pub struct Pixels {
    side: usize,
    count: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Memory(Vec<u8>),
    File(File),
}

/// Pixels, the rows of the set that they come from, and what could not be read.
pub type Read = (Pixels, Vec<usize>, Vec<Skipped>);

impl Pixels {
    /// Decodes all of `set`, in parallel; the result does not depend on the number of threads.
    pub fn read(set: &ImageSet, side: usize, monitor: &dyn Monitor) -> Result<Read, DataError> {
        let square = side * side * 3;
        let bytes = square as u64 * set.files.len() as u64;
        let budget = device::available_memory().map_or(4e9, |memory| memory as f64 * MEMORY_SHARE);
        let mut backing = if bytes as f64 <= budget {
            Backing::Memory(Vec::with_capacity(bytes as usize))
        } else {
            monitor.note(&format!(
                "the decoded images take {:.1} GB, kept in a temporary file (memory holds {:.1} GB)",
                bytes as f64 / 1e9,
                budget / 1e9
            ));
            Backing::File(tempfile::tempfile()?)
        };
        let (mut kept, mut skipped) = (Vec::new(), Vec::new());
        for start in (0..set.files.len()).step_by(GROUP) {
            if monitor.stopping() {
                return Err(Interrupted.into());
            }
            let rows = start..(start + GROUP).min(set.files.len());
            let decoded: Vec<_> = rows
                .clone()
                .into_par_iter()
                .map(|row| decode::square_of_file(&set.path(row), side as u32))
                .collect();
            for (row, result) in rows.clone().zip(decoded) {
                match result {
                    Ok(image) => {
                        backing.append(kept.len() * square, image.as_raw())?;
                        kept.push(row);
                    }
                    Err(error) => skipped.push(Skipped {
                        path: set.files[row].name.clone(),
                        reason: one_line(&error.to_string()),
                    }),
                }
            }
            monitor.advance(rows.len() as u64);
        }
        Ok((
            Self {
                side,
                count: kept.len(),
                backing,
            },
            kept,
            skipped,
        ))
    }

    /// Side of the squares, in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The squares of `rows`, one behind the other: `[rows, side, side, 3]`.
    pub fn gather(&self, rows: &[u32]) -> io::Result<Vec<u8>> {
        let square = self.side * self.side * 3;
        let mut bytes = vec![0; rows.len() * square];
        bytes
            .par_chunks_exact_mut(square)
            .zip(rows)
            .with_min_len(32)
            .try_for_each(|(target, &row)| self.backing.read(row as usize * square, target))?;
        Ok(bytes)
    }
}

impl Backing {
    fn append(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(all) => {
                all.extend_from_slice(bytes);
                Ok(())
            }
            Self::File(file) => {
                std::os::unix::fs::FileExt::write_all_at(file, bytes, offset as u64)
            }
        }
    }

    fn read(&self, offset: usize, target: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(all) => {
                target.copy_from_slice(&all[offset..offset + target.len()]);
                Ok(())
            }
            Self::File(file) => {
                std::os::unix::fs::FileExt::read_exact_at(file, target, offset as u64)
            }
        }
    }
}

/// Decoders' messages end in line breaks now and then.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
