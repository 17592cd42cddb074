//! The pixels of a batch on their way from the cache to a view.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::cache::Pixels;
use crate::device::numbers;

/// The colours of some images.
#[derive(Debug)]
pub enum ImageBatch {
    /// `[b, side, side, 3] u8`, contiguous, on any device.
    Copied(Tensor),
    /// Those of these numbers in a cache in memory, where it keeps them.
    Kept {
        pixels: Arc<Pixels>,
        indices: Vec<u32>,
    },
}

impl From<&Tensor> for ImageBatch {
    /// `[b, side, side, 3] u8`.
    fn from(pixels: &Tensor) -> Self {
        Self::Copied(pixels.contiguous())
    }
}

impl ImageBatch {
    /// Side of the images, in pixels.
    pub fn side(&self) -> usize {
        match self {
            Self::Copied(pixels) => pixels.size()[1] as usize,
            Self::Kept { pixels, .. } => pixels.side(),
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        match self {
            Self::Copied(pixels) => pixels.size()[0] as usize,
            Self::Kept { indices, .. } => indices.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same on `device`; what is kept stays where it is, for views that a CPU makes. The copy
    /// to a CUDA device goes on while the program does: what is computed there comes after it.
    pub fn on(self, device: Device) -> Self {
        debug_assert!(matches!(self, Self::Copied(_)) || device == Device::Cpu);
        match self {
            Self::Copied(pixels) if pixels.device() != device => {
                Self::Copied(pixels.to_device_(device, Kind::Uint8, true, false))
            }
            _ => self,
        }
    }

    /// `count` of them, from `start` on.
    pub fn narrow(&self, start: usize, count: usize) -> Self {
        match self {
            Self::Copied(pixels) => Self::Copied(pixels.narrow(0, start as i64, count as i64)),
            Self::Kept { pixels, indices } => Self::Kept {
                pixels: Arc::clone(pixels),
                indices: indices[start..start + count].to_vec(),
            },
        }
    }

    /// Each of them, or the tensor that holds them on another device.
    pub fn here(&self) -> Result<Vec<&[u8]>, &Tensor> {
        match self {
            Self::Copied(pixels) if pixels.device() != Device::Cpu => Err(pixels),
            Self::Copied(pixels) => {
                let square = 3 * self.side() * self.side();
                Ok(numbers::<u8>(pixels).chunks_exact(square.max(1)).collect())
            }
            Self::Kept { pixels, indices } => {
                Ok(indices.iter().map(|&row| pixels.kept(row)).collect())
            }
        }
    }
}
