//! What is done to images before a backbone sees them.

use tch::{Device, Kind, Tensor};

use super::sobel;
use crate::config::Interpolation;

/// Mean and deviation of ImageNet's R, G and B in 0..1: torchvision's normalisation.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Inputs of up to this side are taken whole: thumbnails have no border to cut off.
const WHOLE_UP_TO: usize = 64;

/// How the images were prepared that a backbone's published weights have seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputSpec {
    /// Of R, G and B in 0..1.
    pub mean: [f32; 3],
    pub deviation: [f32; 3],
    /// Side of the input that it was made for, in pixels.
    pub size: usize,
    /// Side that the centre square of an image was resized to, for its centre to be the input of that size.
    pub resized: usize,
    pub interpolation: Interpolation,
}

impl InputSpec {
    /// torchvision's: resized to 256 pixels, the centre of 224.
    pub const IMAGENET: Self = Self {
        mean: IMAGENET_MEAN,
        deviation: IMAGENET_DEVIATION,
        size: 224,
        resized: 256,
        interpolation: Interpolation::Bilinear,
    };

    /// ImageNet's normalisation for whole images of `size` pixels.
    pub const fn whole(size: usize) -> Self {
        Self {
            size,
            resized: size,
            ..Self::IMAGENET
        }
    }

    /// The side that images are kept at for an input of `size` pixels.
    pub fn kept(&self, size: usize) -> usize {
        match size {
            0..=WHOLE_UP_TO => size,
            _ => size * self.resized / self.size,
        }
    }
}

/// What is done to images before the backbone sees them.
#[derive(Debug)]
pub(super) struct Input {
    sobel: bool,
    /// The network sees the mean of the colours alone.
    pub grey: bool,
    /// What the backbone computes in.
    pub kind: Kind,
    /// `[1, 3, 1, 1]`
    scale: Tensor,
    shift: Tensor,
}

impl Input {
    pub fn new(spec: &InputSpec, sobel: bool, kind: Kind, device: Device) -> Self {
        let channel = |values: [f32; 3]| {
            Tensor::from_slice(&values)
                .view([1, 3, 1, 1])
                .to_device(device)
        };
        let InputSpec {
            mean, deviation, ..
        } = spec;
        Self {
            sobel,
            grey: false,
            kind,
            scale: channel(deviation.map(f32::recip)),
            shift: channel([0, 1, 2].map(|c| -mean[c] / deviation[c])),
        }
    }

    pub fn device(&self) -> Device {
        self.scale.device()
    }

    /// Images `[b, 3, s, s] f32` in 0..1 as the backbone wants them.
    pub fn prepare(&self, images: &Tensor) -> Tensor {
        let seen = match self.grey {
            true => images.mean_dim(1, true, Kind::Float).expand_as(images),
            false => images.shallow_clone(),
        };
        let normalised = seen * &self.scale + &self.shift;
        let input = if self.sobel {
            sobel(&normalised)
        } else {
            normalised
        };
        // libtorch's channels-last order (NHWC in memory), which convolutions keep from layer to
        // layer: a training epoch of conv4 takes 67 s with it and 88 s without, on two cores.
        input
            .to_kind(self.kind)
            .permute([0, 2, 3, 1])
            .contiguous()
            .permute([0, 3, 1, 2])
    }
}

impl Clone for Input {
    fn clone(&self) -> Self {
        Self {
            scale: self.scale.shallow_clone(),
            shift: self.shift.shallow_clone(),
            ..*self
        }
    }
}
