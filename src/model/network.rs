//! A backbone with its parameters and the normalisation of its input.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, nn};

use super::weights::{self, LoadReport, WeightsError};
use super::{Backbone, BackboneEntry, Colours, Maps, Shape, ShapeError, sobel, store_on};
use crate::device::Precision;

/// What is done to images before the backbone sees them.
#[derive(Debug)]
struct Input {
    sobel: bool,
    grey: bool,
    /// What the backbone computes in.
    kind: Kind,
    /// `[1, 3, 1, 1]`
    scale: Tensor,
    shift: Tensor,
}

impl Input {
    fn new(sobel: bool, colours: Colours, kind: Kind, device: Device) -> Self {
        let Colours { mean, deviation } = colours;
        let channel = |values: [f32; 3]| {
            Tensor::from_slice(&values)
                .view([1, 3, 1, 1])
                .to_device(device)
        };
        Self {
            sobel,
            grey: false,
            kind,
            scale: channel(deviation.map(f32::recip)),
            shift: channel([0, 1, 2].map(|c| -mean[c] / deviation[c])),
        }
    }

    fn prepare(&self, images: &Tensor) -> Tensor {
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

/// A feature extractor for images in 0..1.
#[derive(Debug)]
pub struct Network {
    /// The backbone's parameters and running statistics, under torchvision's names, or timm's.
    pub store: nn::VarStore,
    pub backbone: Box<dyn Backbone>,
    /// What images are normalised by.
    pub colours: Colours,
    shape: Shape,
    adapt: fn(BTreeMap<String, Tensor>, &Shape) -> BTreeMap<String, Tensor>,
    input: Input,
}

impl Network {
    /// A network with random weights for inputs of `size` x `size` pixels, computing in
    /// `precision`; call `tch::manual_seed` before.
    ///
    /// # Errors
    /// A size that the architecture cannot work with.
    pub fn new(
        entry: &BackboneEntry,
        size: usize,
        sobel: bool,
        device: Device,
        precision: Precision,
    ) -> Result<Self, ShapeError> {
        let shape = Shape {
            size: size as i64,
            in_channels: if sobel { 2 } else { 3 },
        };
        let (store, backbone) = store_on(device, |root| entry.build(root, &shape));
        Ok(Self {
            backbone: backbone?,
            store,
            colours: entry.colours,
            shape,
            adapt: entry.adapt,
            input: Input::new(sobel, entry.colours, precision.kind(), device),
        })
    }

    /// The same, but it sees the mean of the colours alone if `grey` says so.
    pub fn seeing_grey(mut self, grey: bool) -> Self {
        self.input.grey = grey;
        self
    }

    /// Copies weights from a `.safetensors` (or `.pt`) file into the backbone, also such as others publish under
    /// other names or for another size.
    pub fn load(&self, path: &Path) -> Result<LoadReport, WeightsError> {
        let file = weights::read(path)?;
        self.load_tensors(&file.tensors, path)
    }

    /// The same with what a file holds; `path` is the one that messages name.
    pub fn load_tensors(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<LoadReport, WeightsError> {
        let variables = weights::named_variables(&self.store);
        let adapt = |tensors| (self.adapt)(tensors, &self.shape);
        weights::load_adapted(&variables, tensors, &adapt, path)
    }

    /// The input that the backbone sees: images `[b, 3, s, s] f32` in 0..1, normalised, reduced to
    /// edges where the network was made for them, and in the kind that it computes in.
    pub fn prepare(&self, images: &Tensor) -> Tensor {
        self.input.prepare(images)
    }

    /// The last hidden layer before its ReLU `[b, d] f32` of a prepared input.
    pub fn hidden(&self, input: &Tensor, train: bool) -> Tensor {
        let maps = self.backbone.maps(input, train);
        self.backbone.hidden(&maps, train).to_kind(Kind::Float)
    }

    /// The last maps of a prepared input, and those of the middle layers of these names `[b, channels, h, w]`, in
    /// the kind that the network computes in.
    ///
    /// # Errors
    /// A name that the backbone has not, with those that it has.
    pub fn maps_with(
        &self,
        input: &Tensor,
        train: bool,
        names: &[&str],
    ) -> Result<(Maps, BTreeMap<String, Tensor>), String> {
        let layers = self.backbone.layers();
        let known = |name: &str| layers.iter().any(|layer| layer.name == name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            let known: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
            return Err(format!("there is no layer '{name}': {}", known.join(", ")));
        }
        let mut middle = BTreeMap::new();
        let mut watch = |number: usize, map: &Tensor| {
            let name = &layers[number].name;
            if names.contains(&name.as_str()) {
                middle.insert(name.clone(), map.shallow_clone());
            }
        };
        let maps = self.backbone.watched_maps(input, train, &mut watch);
        Ok((maps, middle))
    }

    /// What a head sees `[b, d] f32` of a prepared input.
    pub fn activation(&self, input: &Tensor, train: bool) -> Tensor {
        self.backbone.activate(&self.hidden(input, train))
    }

    /// The network as it is now, for inference alone.
    pub fn for_inference(&self) -> InferenceNetwork {
        let Input {
            sobel,
            grey,
            kind,
            scale,
            shift,
        } = &self.input;
        InferenceNetwork {
            backbone: self.backbone.folded(*kind),
            input: Input {
                sobel: *sobel,
                grey: *grey,
                kind: *kind,
                scale: scale.shallow_clone(),
                shift: shift.shallow_clone(),
            },
        }
    }

    /// Width of the hidden layer.
    pub fn dim(&self) -> i64 {
        self.backbone.dim()
    }

    pub fn device(&self) -> Device {
        self.store.device()
    }
}

/// A network that no longer learns: batch norm is folded into the convolutions, weights are in the
/// kind that they are used in.
#[derive(Debug)]
pub struct InferenceNetwork {
    backbone: Box<dyn Backbone>,
    input: Input,
}

impl InferenceNetwork {
    /// The last hidden layer before its ReLU `[b, d] f32` of images `[b, 3, s, s] f32` in 0..1.
    pub fn hidden(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let maps = self.backbone.maps(&self.input.prepare(images), false);
            self.backbone.hidden(&maps, false).to_kind(Kind::Float)
        })
    }

    /// What a head sees `[b, d] f32` of images `[b, 3, s, s] f32` in 0..1.
    pub fn activation(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.backbone.activate(&self.hidden(images)))
    }

    /// Width of the hidden layer.
    pub fn dim(&self) -> i64 {
        self.backbone.dim()
    }

    pub fn device(&self) -> Device {
        self.input.scale.device()
    }
}
