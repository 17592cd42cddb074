//! A backbone with its parameters and the normalisation of its input.

use std::path::Path;

use tch::{Device, Tensor, nn};

use super::weights::{self, LoadReport, WeightsError};
use super::{Backbone, BackboneEntry, Shape, ShapeError, sobel};

/// Mean and deviation of ImageNet's R, G and B in 0..1: torchvision's normalisation, so that its
/// weights can be used and ours can be used there.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// A feature extractor for images in 0..1.
#[derive(Debug)]
pub struct Network {
    /// The backbone's parameters and running statistics, under torchvision's names.
    pub store: nn::VarStore,
    pub backbone: Box<dyn Backbone>,
    sobel: bool,
    /// `[1, 3, 1, 1]`
    scale: Tensor,
    shift: Tensor,
}

impl Network {
    /// A network with random weights for inputs of `size` x `size` pixels; call
    /// `tch::manual_seed` before.
    ///
    /// # Errors
    /// A size too small for the architecture.
    pub fn new(
        entry: &BackboneEntry,
        size: usize,
        sobel: bool,
        device: Device,
    ) -> Result<Self, ShapeError> {
        let store = nn::VarStore::new(device);
        let shape = Shape {
            size: size as i64,
            in_channels: if sobel { 2 } else { 3 },
        };
        let backbone = entry.build(&store.root(), &shape)?;
        let channel = |values: [f32; 3]| {
            Tensor::from_slice(&values)
                .view([1, 3, 1, 1])
                .to_device(device)
        };
        Ok(Self {
            backbone,
            store,
            sobel,
            scale: channel(DEVIATION.map(f32::recip)),
            shift: channel([0, 1, 2].map(|c| -MEAN[c] / DEVIATION[c])),
        })
    }

    /// Copies weights from a `.safetensors` (or `.pt`) file into the backbone.
    pub fn load(&self, path: &Path) -> Result<LoadReport, WeightsError> {
        let file = weights::read(path)?;
        weights::load_into(&weights::named_variables(&self.store), &file.tensors, path)
    }

    /// The input that the backbone sees: images `[b, 3, s, s] f32` in 0..1, normalised, and reduced
    /// to edges where the network was made for them.
    pub fn prepare(&self, images: &Tensor) -> Tensor {
        let normalised = images * &self.scale + &self.shift;
        let input = if self.sobel {
            sobel(&normalised)
        } else {
            normalised
        };
        // libtorch's channels-last order (NHWC in memory), which convolutions keep from layer to
        // layer: a training epoch of conv4 takes 67 s with it and 88 s without, on two cores.
        input
            .permute([0, 2, 3, 1])
            .contiguous()
            .permute([0, 3, 1, 2])
    }

    /// The last hidden layer before its ReLU `[b, d]` of a prepared input.
    pub fn hidden(&self, input: &Tensor, train: bool) -> Tensor {
        self.backbone
            .hidden(&self.backbone.feature_map(input, train), train)
    }

    /// What a head sees `[b, d]` of a prepared input.
    pub fn activation(&self, input: &Tensor, train: bool) -> Tensor {
        self.backbone.activate(&self.hidden(input, train))
    }

    /// Width of the hidden layer.
    pub fn dim(&self) -> i64 {
        self.backbone.dim()
    }

    pub fn device(&self) -> Device {
        self.store.device()
    }
}
