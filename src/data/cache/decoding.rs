//! Items to pixels, group by group.

use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use super::groups::Groups;
use super::resident::Resident;
use super::{Backing, Pixels, Read, Watch};
use crate::data::DataError;
use crate::data::decode::DecodeError;
use crate::data::items::{Items, Layout};
use crate::data::source::Skipped;
use crate::device;
use crate::monitor::{Interrupted, Monitor};

/// Images decoded between two looks at Ctrl-C and the progress bar.
const GROUP: usize = 512;

/// Decodes some of `items` into memory, in parallel; the result does not depend on the number of
/// threads.
pub fn decode(items: &dyn Items, rows: Range<usize>, layout: &Layout) -> Read {
    let length = layout.bytes();
    let mut pixels = Vec::new();
    let failures = Mutex::new(Vec::new());
    device::append_rows(&mut pixels, rows.len(), length, |at, out| {
        let row = rows.start + at;
        if let Err(error) = items.read(row, layout.side, out) {
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
                skipped.push(skip(items, row, &error));
            }
            None => {
                // What follows an image that cannot be read moves up.
                let from = (row - rows.start) * length;
                let to = kept.len() * length;
                if from != to {
                    pixels.copy_within(from..from + length, to);
                }
                kept.push(row as u32);
            }
        }
    }
    pixels.truncate(kept.len() * length);
    let mut groups = Groups::new(length);
    groups.push(Arc::new(pixels));
    Read {
        pixels: Pixels {
            layout: layout.clone(),
            count: kept.len(),
            backing: Backing::Memory(groups),
            resident: Resident::default(),
        },
        kept,
        skipped,
        lasting,
    }
}

/// Decodes `items` at `side` pixels in blocks of `size` of them, each while `take` works on
/// the one before. `take` is also given the rows that the block was made from.
///
/// # Errors
/// Those of `take`, which end the work.
pub fn decode_ahead<E>(
    items: &dyn Items,
    side: usize,
    size: usize,
    take: &mut dyn FnMut(Read, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let layout = &Layout::of(items, side);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        scope.spawn(move || {
            for rows in groups_of(items, size) {
                if sender
                    .send((decode(items, rows.clone(), layout), rows))
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

/// Decodes all `items`: `take` is given each group of rows and what came of it. `watch` sees the images
/// of a group while the next one is decoded.
pub(super) fn by_groups(
    items: &dyn Items,
    layout: &Layout,
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
        for rows in groups_of(items, GROUP) {
            group(&decode(items, rows.clone(), layout), rows)?;
        }
        return Ok(());
    };
    let mut seen = 0;
    decode_ahead(items, layout.side, GROUP, &mut |read, rows| {
        group(&read, rows)?;
        let first = seen;
        seen += read.kept.len() as u32;
        watch(read.pixels, first..seen);
        Ok(())
    })
}

fn groups_of(items: &dyn Items, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let all = items.len();
    (0..all)
        .step_by(size)
        .map(move |start| start..(start + size).min(all))
}

fn skip(items: &dyn Items, row: usize, error: &DecodeError) -> Skipped {
    // Decoders' messages end in line breaks now and then.
    let text = error.to_string();
    Skipped {
        path: items.name(row).into(),
        reason: text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
