//! A backbone with its parameters and the normalisation of its input.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, nn};

use super::beside::{Beside, InferenceBeside};
use super::input::Input;
use super::weights::{self, LoadReport, WeightsError};
use super::{Backbone, BackboneEntry, Dictionary, InputSpec, Maps, Shape, ShapeError, store_on};
use crate::device::Precision;

/// What stands before the names of the variables of what stands beside a network.
const BESIDE: &str = "beside";

/// A feature extractor for images in 0..1.
#[derive(Debug)]
pub struct Network {
    /// The backbone's parameters and running statistics, under torchvision's names, or timm's.
    pub store: nn::VarStore,
    pub backbone: Box<dyn Backbone>,
    /// What is joined to its features.
    pub beside: Option<Beside>,
    /// How the images of its published weights were prepared.
    pub spec: InputSpec,
    /// What it computes in.
    pub precision: Precision,
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
            beside: None,
            spec: entry.input,
            precision,
            shape,
            adapt: entry.adapt,
            input: Input::new(&entry.input, sobel, precision.kind(), device),
        })
    }

    /// The same, but it sees the mean of the colours alone if `grey` says so.
    pub fn seeing_grey(mut self, grey: bool) -> Self {
        self.input.grey = grey;
        self
    }

    /// The same with `beside` at its side.
    pub fn beside(mut self, beside: Option<Beside>) -> Self {
        self.beside = beside;
        self
    }

    /// All parameters, running statistics and dictionaries by name: what a run keeps.
    pub fn variables(&self) -> Vec<(String, Tensor)> {
        let mut all = weights::named_variables(&self.store);
        if let Some(beside) = &self.beside {
            all.extend(weights::prefixed(BESIDE, &beside.store));
        }
        all
    }

    /// What must be learned of the images first: by the backbone, of images that are [prepared](Self::prepare), or by
    /// what stands beside it.
    pub fn dictionary(&self) -> Option<&dyn Dictionary> {
        let of_beside = || self.beside.as_ref()?.backbone.dictionary();
        self.backbone.dictionary().or_else(of_beside)
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
        let mut report = weights::load_adapted(&variables, tensors, &adapt, path)?;
        let is_beside = |name: &String| name.starts_with(&format!("{BESIDE}."));
        // Published weights know nothing of it, runs do.
        if let Some(beside) = &self.beside
            && tensors.keys().any(is_beside)
        {
            let variables = weights::prefixed(BESIDE, &beside.store);
            report.loaded += weights::load_into(&variables, tensors, path)?.loaded;
            report.unexpected.retain(|name| !is_beside(name));
        }
        Ok(report)
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
        InferenceNetwork {
            backbone: self.backbone.folded(self.input.kind),
            beside: self.beside.as_ref().map(Beside::folded),
            input: self.input.clone(),
        }
    }

    /// Width of the hidden layer.
    pub fn dim(&self) -> i64 {
        self.backbone.dim()
    }

    /// Width of [`InferenceNetwork::features`].
    pub fn features_dim(&self) -> i64 {
        let of_beside = |beside: &Beside| beside.backbone.dim();
        self.dim() + self.beside.as_ref().map_or(0, of_beside)
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
    beside: Option<InferenceBeside>,
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

    /// What is clustered `[b, features_dim] f32`: the hidden layer, and joined to it what `beside` tells of the same
    /// images, where something stands beside the network.
    pub fn features(&self, images: &Tensor, beside: Option<&Tensor>) -> Tensor {
        let own = self.hidden(images);
        match (&self.beside, beside) {
            (Some(there), Some(images)) => tch::no_grad(|| there.joined(&own, images)),
            _ => own,
        }
    }

    /// What a head sees `[b, d] f32` of images `[b, 3, s, s] f32` in 0..1.
    pub fn activation(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.backbone.activate(&self.hidden(images)))
    }

    pub fn device(&self) -> Device {
        self.input.device()
    }
}
