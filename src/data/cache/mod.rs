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

use tch::{Device, Kind, Tensor};

use super::DataError;
use super::items::{Depth, Items, Layout};
use super::source::Skipped;
use crate::config::CacheChoice;
use crate::device;
use crate::monitor::Monitor;
use decoding::by_groups;
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

/// The planes of items, as [`Layout`] says; the first of them are colours `[n, side, side, 3] u8`.
#[derive(Debug)]
pub struct Pixels {
    layout: Layout,
    count: usize,
    backing: Backing,
    resident: Resident,
}

#[derive(Debug)]
enum Backing {
    Memory(Groups),
    /// One item behind the other, from the start. Read, not mapped: the system's page cache serves
    /// both alike, and a file cut short is an error here and would be the end of the program there.
    File(File),
    /// The items themselves, of these rows.
    Items {
        items: Arc<dyn Items>,
        rows: Vec<u32>,
    },
}

/// Pixels, the rows of the items that they come from, and what could not be read.
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
    fn nothing(layout: Layout) -> Self {
        Self {
            pixels: Pixels {
                count: 0,
                backing: Backing::Memory(Groups::new(layout.bytes())),
                layout,
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
    /// Decodes all `items`, in parallel, or finds them decoded (then `watch` sees nothing); the result
    /// does not depend on the number of threads.
    pub fn open(
        items: &Arc<dyn Items>,
        side: usize,
        cache: &Cache,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let layout = Layout::of(items.as_ref(), side);
        let bytes = layout.bytes() as f64 * items.len() as f64;
        let budget = device::available_memory().map_or(4e9, |memory| memory as f64 * MEMORY_SHARE);
        match cache.choice {
            CacheChoice::Off => return Self::none(items, layout, watch, monitor),
            CacheChoice::Auto if bytes > budget => monitor.note(&format!(
                "the decoded images take {:.1} GB, kept on disk (memory holds {:.1} GB)",
                bytes / 1e9,
                budget / 1e9
            )),
            CacheChoice::Disk => {}
            CacheChoice::Auto | CacheChoice::Ram => {
                return Self::in_ram(items.as_ref(), layout, watch, monitor);
            }
        }
        let store = Store::new(items.as_ref(), layout, cache.directory.as_deref())?;
        if let Some(read) = store.read() {
            monitor.note(&format!(
                "the decoded images were found in {}",
                store.path().display()
            ));
            return Ok(read);
        }
        store.fill(items.as_ref(), watch, monitor)
    }

    /// Keeps all in memory.
    fn in_ram(
        items: &dyn Items,
        layout: Layout,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let mut all = Groups::new(layout.bytes());
        let mut read = Read::nothing(layout.clone());
        by_groups(items, &layout, watch, monitor, &mut |_, group| {
            if let Backing::Memory(groups) = &group.pixels.backing {
                all.append(groups);
            }
            read.append(group);
            Ok(())
        })?;
        read.pixels = Self {
            layout,
            count: all.count(),
            backing: Backing::Memory(all),
            resident: Resident::default(),
        };
        Ok(read)
    }

    /// Keeps nothing, but finds out what can be read.
    fn none(
        items: &Arc<dyn Items>,
        layout: Layout,
        watch: Option<&mut Watch>,
        monitor: &dyn Monitor,
    ) -> Result<Read, DataError> {
        let mut read = Read::nothing(layout.clone());
        by_groups(items.as_ref(), &layout, watch, monitor, &mut |_, group| {
            read.append(group);
            Ok(())
        })?;
        read.pixels = Self {
            layout,
            count: read.kept.len(),
            backing: Backing::Items {
                items: Arc::clone(items),
                rows: read.kept.clone(),
            },
            resident: Resident::default(),
        };
        Ok(read)
    }

    /// Side of the squares, in pixels.
    pub fn side(&self) -> usize {
        self.layout.side
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
        let side = self.layout.side as i64;
        self.gathered(0, rows, &[rows.len() as i64, side, side, 3])
    }

    /// The plane of that number of `rows`: `[rows, channels, side, side] f32` in 0..1, where 1 is the largest
    /// number that its kind holds.
    ///
    /// # Errors
    /// As [`Self::gather`].
    ///
    /// # Panics
    /// If there is no such plane.
    pub fn plane(&self, plane: usize, rows: &[u32]) -> io::Result<Tensor> {
        let kind = self.layout.planes[plane];
        let (side, channels) = (self.layout.side as i64, kind.channels as i64);
        let count = rows.len() as i64;
        let bytes = self.gathered(plane, rows, &[count, kind.bytes(self.layout.side) as i64])?;
        let numbers = match kind.depth {
            Depth::U8 => bytes.to_kind(Kind::Float) / 255.0,
            Depth::U16 => {
                let pairs = bytes.view([count, -1, 2]).to_kind(Kind::Float);
                (pairs.select(2, 0) + pairs.select(2, 1) * 256.0) / 65_535.0
            }
        };
        let numbers = numbers.view([count, side, side, channels]);
        Ok(numbers.permute([0, 3, 1, 2]).contiguous())
    }

    /// Whether the plane of that number has no values between its values.
    pub fn is_discrete(&self, plane: usize) -> bool {
        self.layout.planes[plane].discrete
    }

    /// The bytes of a plane of `rows`, in a tensor of that shape.
    fn gathered(&self, plane: usize, rows: &[u32], shape: &[i64]) -> io::Result<Tensor> {
        let failure = OnceLock::new();
        let tensor = device::filled_rows::<u8>(shape, |at, out| {
            if let Err(error) = self.read(plane, rows[at] as usize, out) {
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

    /// The colours of a row, where pixels lie in memory.
    ///
    /// # Panics
    /// If they do not.
    pub(super) fn kept(&self, row: u32) -> &[u8] {
        match &self.backing {
            Backing::Memory(groups) => &groups.item(row as usize)[self.layout.range(0)],
            Backing::File(_) | Backing::Items { .. } => panic!("no pixels are kept in memory"),
        }
    }

    /// Whether pixels lie in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.backing, Backing::Memory(_))
    }

    /// All items in their order, one behind the other in each part, where they lie in memory.
    fn in_memory(&self) -> impl Iterator<Item = &[u8]> {
        let groups = match &self.backing {
            Backing::Memory(groups) => Some(groups.groups()),
            Backing::File(_) | Backing::Items { .. } => None,
        };
        groups.into_iter().flatten()
    }

    fn read(&self, plane: usize, row: usize, out: &mut [u8]) -> io::Result<()> {
        let range = self.layout.range(plane);
        let length = self.layout.bytes();
        match &self.backing {
            Backing::Memory(groups) => {
                out.copy_from_slice(&groups.item(row)[range]);
                Ok(())
            }
            Backing::File(file) => file.read_exact_at(out, (row * length + range.start) as u64),
            Backing::Items { items, rows } => {
                let item = rows[row] as usize;
                let side = self.layout.side;
                let read = match range.len() == length {
                    true => items.read(item, side, out),
                    false => {
                        let mut all = vec![0; length];
                        let read = items.read(item, side, &mut all);
                        out.copy_from_slice(&all[range]);
                        read
                    }
                };
                read.map_err(|reason| {
                    io::Error::other(format!(
                        "'{}' cannot be read any more: {reason}",
                        items.origin(item)
                    ))
                })
            }
        }
    }
}
