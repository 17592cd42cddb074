//! Images to squares, group by group.

use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use super::groups::Groups;
use super::resident::Resident;
use super::{Backing, Pixels, Read, Watch};
use crate::data::DataError;
use crate::data::decode::{self, DecodeError};
use crate::data::source::{ImageSet, Skipped};
use crate::device;
use crate::monitor::{Interrupted, Monitor};

/// Images decoded between two looks at Ctrl-C and the progress bar.
const GROUP: usize = 512;

/// Decodes some rows of `set` into memory, in parallel; the result does not depend on the number of
/// threads.
pub fn decode(set: &ImageSet, rows: Range<usize>, side: usize) -> Read {
    let square = side * side * 3;
    let mut squares = Vec::new();
    let failures = Mutex::new(Vec::new());
    device::append_rows(&mut squares, rows.len(), square, |at, square| {
        let row = rows.start + at;
        if let Err(error) = decode_row(set, row, side, square) {
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.push((row, error));
        }
    });
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort_unstable_by_key(|(row, _)| *row);
    let mut failed = failures.into_iter().peekable();
    let (mut kept, mut skipped, mut lasting) = (Vec::new(), Vec::new(), true);
    for row in rows.clone() {
        match failed.next_if(|failure| failure.0 == row) {
            Some((_, error)) => {
                lasting &= !matches!(error, DecodeError::Io(_));
                skipped.push(skip(set, row, &error));
            }
            None => {
                // What follows an image that cannot be read moves up.
                let from = (row - rows.start) * square;
                let to = kept.len() * square;
                if from != to {
                    squares.copy_within(from..from + square, to);
                }
                kept.push(row as u32);
            }
        }
    }
    squares.truncate(kept.len() * square);
    let mut groups = Groups::new(square);
    groups.push(Arc::new(squares));
    Read {
        pixels: Pixels {
            side,
            count: kept.len(),
            backing: Backing::Memory(groups),
            resident: Resident::default(),
        },
        kept,
        skipped,
        lasting,
    }
}

/// Decodes `set` to squares of `side` pixels in blocks of `size` images, each while `take` works on
/// the one before. `take` is also given the rows of the set that the block was made from.
///
/// # Errors
/// Those of `take`, which end the work.
pub fn decode_ahead<E>(
    set: &ImageSet,
    side: usize,
    size: usize,
    take: &mut dyn FnMut(Read, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        scope.spawn(move || {
            for rows in groups_of(set, size) {
                if sender
                    .send((decode(set, rows.clone(), side), rows))
                    .is_err()
                {
                    break;
                }
            }
        });
        for (block, rows) in receiver {
            take(block, rows)?;
        }
        // Had the thread died, the scope would hand its panic on.
        Ok(())
    })
}

/// Is given each group of rows and what came of it.
type Take<'a> = dyn FnMut(Range<usize>, &Read) -> Result<(), DataError> + 'a;

/// Decodes all of `set`: `take` is given each group of rows and what came of it. `watch` sees the images
/// of a group while the next one is decoded.
pub(super) fn by_groups(
    set: &ImageSet,
    side: usize,
    watch: Option<&mut Watch>,
    monitor: &dyn Monitor,
    take: &mut Take,
) -> Result<(), DataError> {
    let mut group = |read: &Read, rows: Range<usize>| -> Result<(), DataError> {
        if monitor.stopping() {
            return Err(Interrupted.into());
        }
        let count = rows.len();
        take(rows, read)?;
        monitor.advance(count as u64);
        Ok(())
    };
    let Some(watch) = watch else {
        for rows in groups_of(set, GROUP) {
            group(&decode(set, rows.clone(), side), rows)?;
        }
        return Ok(());
    };
    let mut seen = 0;
    decode_ahead(set, side, GROUP, &mut |read, rows| {
        group(&read, rows)?;
        let first = seen;
        seen += read.kept.len() as u32;
        watch(read.pixels, first..seen);
        Ok(())
    })
}

fn groups_of(set: &ImageSet, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let all = set.files.len();
    (0..all)
        .step_by(size)
        .map(move |start| start..(start + size).min(all))
}

pub(super) fn decode_row(
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
