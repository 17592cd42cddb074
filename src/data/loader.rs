//! Batches of pixels, prepared by a thread of their own while the network works on the one before.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use tch::Device;

use super::cache::Pixels;
use super::image_batch::ImageBatch;

/// Batches that wait ready.
const PREFETCH: usize = 2;

/// Some images.
#[derive(Debug)]
pub struct PixelBatch {
    /// On the CPU, or on the device that they are bound for.
    pub images: ImageBatch,
    /// Which images of the data set they are.
    pub indices: Vec<u32>,
    /// Where their other planes are, and in which rows.
    pub(crate) pixels: Arc<Pixels>,
    pub(crate) rows: Vec<u32>,
}

impl PixelBatch {
    /// The images `rows`, bound for `device`.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn new(pixels: &Arc<Pixels>, rows: &[u32], device: Device) -> io::Result<Self> {
        let images = if device == Device::Cpu && pixels.is_in_memory() {
            ImageBatch::Kept {
                pixels: Arc::clone(pixels),
                indices: rows.to_vec(),
            }
        } else if let Some(resident) = pixels.resident(rows, device) {
            ImageBatch::Copied(resident)
        } else {
            let copy = pixels.gather(rows)?;
            ImageBatch::Copied(match device {
                // Only from pinned memory can a CUDA device fetch while the program goes on. (The public
                // `pin_memory` of libtorch warns of the argument that tch gives it, each time.)
                Device::Cuda(_) => copy.internal_pin_memory(device),
                _ => copy,
            })
        };
        Ok(Self {
            images,
            indices: rows.to_vec(),
            pixels: Arc::clone(pixels),
            rows: rows.to_vec(),
        })
    }
}

/// The images `order` in batches of these lengths, in this order, on the CPU and bound for `device`.
/// Dropping the iterator ends the thread.
pub fn batches(
    pixels: &Arc<Pixels>,
    order: Vec<u32>,
    lengths: Vec<usize>,
    device: Device,
) -> Batches {
    let (sender, receiver) = sync_channel(PREFETCH);
    let left = lengths.len();
    let pixels = Arc::clone(pixels);
    std::thread::spawn(move || {
        let mut rest = order.as_slice();
        for length in lengths {
            let (rows, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            let batch = PixelBatch::new(&pixels, rows, device);
            if sender.send(batch).is_err() {
                break;
            }
        }
    });
    Batches { receiver, left }
}

/// An iterator over prepared batches: see [`batches`].
#[derive(Debug)]
pub struct Batches {
    receiver: Receiver<io::Result<PixelBatch>>,
    /// Batches still to come: fewer is a failure of the thread, never the end.
    left: usize,
}

impl Iterator for Batches {
    type Item = io::Result<PixelBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let lost = |_| Err(io::Error::other("the thread that prepares batches died"));
        Some(self.receiver.recv().unwrap_or_else(lost))
    }
}

/// `count` images in batches of `size`; the last may be smaller.
pub fn equal_lengths(count: usize, size: usize) -> Vec<usize> {
    let size = size.max(1);
    (0..count)
        .step_by(size)
        .map(|start| size.min(count - start))
        .collect()
}

/// As [`equal_lengths`], but a small remainder joins the batch before it: batch norm needs more than
/// a few images to estimate its statistics.
pub fn training_lengths(count: usize, size: usize) -> Vec<usize> {
    let mut lengths = equal_lengths(count, size);
    if let [.., before, last] = lengths[..]
        && last < before / 4
    {
        lengths.truncate(lengths.len() - 2);
        lengths.push(before + last);
    }
    lengths
}
