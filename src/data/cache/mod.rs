//! Decoded pixels at the working size: in memory while they fit a share of it, else in a file of the
//! cache directory ([`store`]), or nowhere, and then decoded anew for each batch.

pub mod decoding;
mod groups;
mod resident;
pub mod store;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tch::{Device, Tensor};

use super::DataError;
use super::source::{ImageSet, Skipped};
use crate::config::CacheChoice;
use crate::device;
use crate::monitor::Monitor;
use decoding::{by_groups, decode_row};
use groups::Groups;
use resident::Resident;
use store::Store;

/// The share of the available memory that pixels may take.
const MEMORY_SHARE: f64 = 0.4;

/// Is shown images as they are decoded: the squares of some, and which of the images that can be read they
/// are.
pub type Watch<'a> = dyn FnMut(Pixels, Range<u32>) + 'a;

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
    resident: Resident,
}

#[derive(Debug)]
enum Backing {
    Memory(Groups),
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

impl Read {
    fn nothing(side: usize) -> Self {
        Self {
            pixels: Pixels {
                side,
                count: 0,
                backing: Backing::Memory(Groups::new(side * side * 3)),
                resident: Resident::default(),
            },
            kept: Vec::new(),
            skipped: Vec::new(),
            lasting: true,
        }
    }

    /// Takes over which images of the next group could be read, not their pixels.
    fn append(&mut self, group: &Self) {
        self.kept.extend(&group.kept);
        self.skipped.extend(group.skipped.iter().cloned());
        self.lasting &= group.lasting;
    }
}

impl Pixels {
    /// Decodes all of `set`, in parallel, or finds it decoded (then `watch` sees nothing); the result
    /// does not depend on the number of threads.
    pub fn open(
        set: &Arc<ImageSet>,
        side: usize,
        cache: &Cache,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let bytes = (side * side * 3) as f64 * set.files.len() as f64;
        let budget = device::available_memory().map_or(4e9, |memory| memory as f64 * MEMORY_SHARE);
        match cache.choice {
            CacheChoice::Off => return Self::none(set, side, watch, monitor),
            CacheChoice::Auto if bytes > budget => monitor.note(&format!(
                "the decoded images take {:.1} GB, kept on disk (memory holds {:.1} GB)",
                bytes / 1e9,
                budget / 1e9
            )),
            CacheChoice::Disk => {}
            CacheChoice::Auto | CacheChoice::Ram => {
                return Self::in_ram(set, side, watch, monitor);
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
        store.fill(set, side, watch, monitor)
    }

    /// Keeps all in memory.
    fn in_ram(
        set: &ImageSet,
        side: usize,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let mut all = Groups::new(side * side * 3);
        let mut read = Read::nothing(side);
        by_groups(set, side, watch, monitor, &mut |_, group| {
            if let Backing::Memory(groups) = &group.pixels.backing {
                all.append(groups);
            }
            read.append(group);
            Ok(())
        })?;
        read.pixels = Self {
            side,
            count: all.count(),
            backing: Backing::Memory(all),
            resident: Resident::default(),
        };
        Ok(read)
    }

    /// Keeps nothing, but finds out what can be read.
    fn none(
        set: &Arc<ImageSet>,
        side: usize,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let mut read = Read::nothing(side);
        by_groups(set, side, watch, monitor, &mut |_, group| {
            read.append(group);
            Ok(())
        })?;
        read.pixels = Self {
            side,
            count: read.kept.len(),
            backing: Backing::Images {
                set: Arc::clone(set),
                rows: read.kept.clone(),
            },
            resident: Resident::default(),
        };
        Ok(read)
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

    /// The squares of `rows` as a tensor on `device`, taken from a copy of all of them that lies there; `None`
    /// where they do not lie in memory, or would take too much of the device's.
    pub(super) fn resident(&self, rows: &[u32], device: Device) -> Option<Tensor> {
        if !self.is_in_memory() {
            return None;
        }
        self.resident.gather(self, rows, device)
    }

    /// The square of a row, where squares lie in memory.
    ///
    /// # Panics
    /// If they do not.
    pub(super) fn kept(&self, row: u32) -> &[u8] {
        match &self.backing {
            Backing::Memory(groups) => groups.square(row as usize),
            Backing::File(_) | Backing::Images { .. } => panic!("no square is kept in memory"),
        }
    }

    /// Whether squares lie in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.backing, Backing::Memory(_))
    }

    /// All squares in their order, one behind the other in each part, where they lie in memory.
    fn in_memory(&self) -> impl Iterator<Item = &[u8]> {
        let groups = match &self.backing {
            Backing::Memory(groups) => Some(groups.groups()),
            Backing::File(_) | Backing::Images { .. } => None,
        };
        groups.into_iter().flatten()
    }

    fn read(&self, row: usize, square: &mut [u8]) -> io::Result<()> {
        match &self.backing {
            Backing::Memory(groups) => {
                square.copy_from_slice(groups.square(row));
                Ok(())
            }
            Backing::File(file) => file.read_exact_at(square, (row * square.len()) as u64),
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
