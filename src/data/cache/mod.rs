//! Decoded pixels at the working size: in memory while they fit a share of it, else in a file of the
//! cache directory ([`store`]), or nowhere, and then decoded anew for each batch.

pub mod store;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tch::Tensor;

use super::DataError;
use super::decode::{self, DecodeError};
use super::source::{ImageSet, Skipped};
use crate::config::CacheChoice;
use crate::device;
use crate::monitor::{Interrupted, Monitor, Silent};
use store::Store;

/// The share of the available memory that pixels may take.
const MEMORY_SHARE: f64 = 0.4;
/// Images decoded between two looks at Ctrl-C and the progress bar.
const GROUP: usize = 256;

/// Where decoded pixels are kept, and in which directory where that is the disk.
#[derive(Debug, Clone)]
pub struct Cache {
    pub choice: CacheChoice,
    /// None where the user has no such directory.
    pub directory: Option<PathBuf>,
}

impl Cache {
    /// In the user's own directory: see [`store::directory`].
    pub fn of_user(choice: CacheChoice) -> Self {
        Self {
            choice,
            directory: store::directory(),
        }
    }
}

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
    /// One square behind the other, from the start. Read, not mapped: the system's page cache serves
    /// both alike, and a file cut short is an error here and would be the end of the program there.
    File(File),
    /// The images themselves, of these rows.
    Images {
        set: Arc<ImageSet>,
        rows: Vec<u32>,
    },
}

/// Pixels, the rows of the set that they come from, and what could not be read.
#[derive(Debug)]
pub struct Read {
    pub pixels: Pixels,
    pub kept: Vec<u32>,
    pub skipped: Vec<Skipped>,
    /// Whether all that was skipped would be again: it is no image, where a file that could not be
    /// opened may be readable the next time.
    pub lasting: bool,
}

impl Pixels {
    /// Decodes all of `set`, in parallel, or finds it decoded; the result does not depend on the
    /// number of threads.
    pub fn open(
        set: &Arc<ImageSet>,
        side: usize,
        cache: &Cache,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let bytes = (side * side * 3) as f64 * set.files.len() as f64;
        let budget = device::available_memory().map_or(4e9, |memory| memory as f64 * MEMORY_SHARE);
        match cache.choice {
            CacheChoice::Off => return Self::none(set, side, monitor),
            CacheChoice::Auto if bytes > budget => monitor.note(&format!(
                "the decoded images take {:.1} GB, kept on disk (memory holds {:.1} GB)",
                bytes / 1e9,
                budget / 1e9
            )),
            CacheChoice::Disk => {}
            CacheChoice::Auto | CacheChoice::Ram => {
                let all = 0..set.files.len();
                return Ok(Self::decode(set, all, side, monitor)?);
            }
        }
        let store = Store::new(set, side, cache.directory.as_deref())?;
        if let Some(read) = store.read(side) {
            monitor.note(&format!(
                "the decoded images were found in {}",
                store.path().display()
            ));
            return Ok(read);
        }
        store.fill(set, side, monitor)
    }

    /// Decodes some rows of `set` into memory.
    ///
    /// # Errors
    /// [`Interrupted`] when the user asks to stop.
    pub fn decode(
        set: &ImageSet,
        rows: Range<usize>,
        side: usize,
        monitor: &dyn Monitor,
    ) -> Result<Read, Interrupted> {
        let square = side * side * 3;
        let mut pixels = Vec::with_capacity(rows.len() * square);
        let (mut kept, mut skipped, mut lasting) = (Vec::new(), Vec::new(), true);
        for start in rows.clone().step_by(GROUP) {
            if monitor.stopping() {
                return Err(Interrupted);
            }
            let group = start..(start + GROUP).min(rows.end);
            let before = pixels.len();
            let failures = append_group(set, group.clone(), side, &mut pixels);
            // What follows an image that cannot be read moves up.
            let mut failed = failures.into_iter().peekable();
            let mut to = before;
            for row in group.clone() {
                match failed.next_if(|failure| failure.0 == row) {
                    Some((_, error)) => {
                        lasting &= !matches!(error, DecodeError::Io(_));
                        skipped.push(skip(set, row, &error));
                    }
                    None => {
                        let from = before + (row - start) * square;
                        if from != to {
                            pixels.copy_within(from..from + square, to);
                        }
                        to += square;
                        kept.push(row as u32);
                    }
                }
            }
            pixels.truncate(to);
            monitor.advance(group.len() as u64);
        }
        let pixels = Self {
            side,
            count: kept.len(),
            backing: Backing::Memory(pixels),
        };
        Ok(Read {
            pixels,
            kept,
            skipped,
            lasting,
        })
    }

    /// Keeps nothing, but finds out what can be read.
    fn none(set: &Arc<ImageSet>, side: usize, monitor: &dyn Monitor) -> Result<Read, DataError> {
        let (mut kept, mut skipped) = (Vec::new(), Vec::new());
        Self::by_groups(set, side, monitor, &mut |_, read| {
            kept.extend(read.kept);
            skipped.extend(read.skipped);
            Ok(())
        })?;
        let pixels = Self {
            side,
            count: kept.len(),
            backing: Backing::Images {
                set: Arc::clone(set),
                rows: kept.clone(),
            },
        };
        Ok(Read {
            pixels,
            kept,
            skipped,
            lasting: true,
        })
    }

    /// Decodes all of `set` without keeping it: `take` is given each group of rows and what came of it.
    fn by_groups(
        set: &ImageSet,
        side: usize,
        monitor: &dyn Monitor,
        take: &mut dyn FnMut(Range<usize>, Read) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let all = set.files.len();
        for start in (0..all).step_by(GROUP) {
            if monitor.stopping() {
                return Err(Interrupted.into());
            }
            let group = start..(start + GROUP).min(all);
            let count = group.len();
            take(group.clone(), Self::decode(set, group, side, &Silent)?)?;
            monitor.advance(count as u64);
        }
        Ok(())
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

    /// The squares of `rows`: `[rows, side, side, 3] u8` on the CPU.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn gather(&self, rows: &[u32]) -> io::Result<Tensor> {
        let side = self.side as i64;
        let failure = OnceLock::new();
        let shape = [rows.len() as i64, side, side, 3];
        let tensor = device::filled_rows::<u8>(&shape, |at, square| {
            if let Err(error) = self.read(rows[at] as usize, square) {
                // The first is enough.
                let _ = failure.set(error);
            }
        });
        failure.into_inner().map_or(Ok(tensor), Err)
    }

    /// The square of a row, where squares lie in memory.
    ///
    /// # Panics
    /// If they do not.
    pub(super) fn kept(&self, row: u32) -> &[u8] {
        let square = self.side * self.side * 3;
        &self.in_memory()[row as usize * square..][..square]
    }

    /// Whether squares lie in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.backing, Backing::Memory(_))
    }

    /// All squares, one behind the other, where they lie in memory.
    fn in_memory(&self) -> &[u8] {
        match &self.backing {
            Backing::Memory(all) => all,
            Backing::File(_) | Backing::Images { .. } => &[],
        }
    }

    fn read(&self, row: usize, square: &mut [u8]) -> io::Result<()> {
        let offset = row * square.len();
        match &self.backing {
            Backing::Memory(all) => {
                square.copy_from_slice(&all[offset..offset + square.len()]);
                Ok(())
            }
            Backing::File(file) => file.read_exact_at(square, offset as u64),
            Backing::Images { set, rows } => {
                let row = rows[row] as usize;
                decode_row(set, row, self.side, square).map_err(|reason| {
                    io::Error::other(format!(
                        "'{}' cannot be read any more: {reason}",
                        set.path(row).display()
                    ))
                })
            }
        }
    }
}

/// Decodes `group` and appends its squares; gives the rows that cannot be read, in order, with the reasons.
fn append_group(
    set: &ImageSet,
    group: Range<usize>,
    side: usize,
    squares: &mut Vec<u8>,
) -> Vec<(usize, DecodeError)> {
    let failures = Mutex::new(Vec::new());
    device::append_rows(squares, group.len(), side * side * 3, |at, square| {
        let row = group.start + at;
        if let Err(error) = decode_row(set, row, side, square) {
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push((row, error));
        }
    });
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable_by_key(|(row, _)| *row);
    failures
}

fn decode_row(
    set: &ImageSet,
    row: usize,
    side: usize,
    square: &mut [u8],
) -> Result<(), DecodeError> {
    decode::square_into(&set.bytes(row)?, side as u32, square)
}

fn skip(set: &ImageSet, row: usize, error: &DecodeError) -> Skipped {
    // Decoders' messages end in line breaks now and then.
    let text = error.to_string();
    Skipped {
        path: set.files[row].name.to_string(),
        reason: text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
