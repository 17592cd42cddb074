//! Networks: a backbone turns images into features, a head turns features into
//! scores of clusters.
//!
//! A new backbone is one file that implements [`Backbone`], exports a
//! [`BackboneEntry`], and has its line in [`BACKBONES`].

pub mod alexnet;
pub mod beside;
pub mod conv4;
pub mod convnext;
pub mod decoder;
pub mod descriptors;
pub mod heads;
mod histograms;
pub mod input;
pub mod lab;
pub mod layers;
pub mod mobilenet;
pub mod network;
pub mod published;
pub mod resnet;
mod sequential;
mod sobel;
mod tokens;
pub mod vgg;
pub mod vit;
pub mod vlad;
pub mod weights;

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, nn};

pub use heads::{LinearHead, MultiHead, TwoLayerHead};
pub use input::InputSpec;
pub use published::Published;
pub use sobel::sobel;

/// A network without its classification head. Images are NCHW; their kind, f32 or bf16, is that of
/// all that is computed from them, while parameters and batch norm's statistics are f32.
///
/// `train` chooses batch statistics and dropout (`true`) or running statistics and
/// no dropout (`false`); gradients are recorded either way, so extraction belongs
/// inside [`tch::no_grad`].
pub trait Backbone: std::fmt::Debug + Send {
    /// What images `[b, in_channels, s, s]` become before the last layers. `watch` is shown the maps of the
    /// middle layers, in the order of [`layers`](Self::layers), as they are made.
    fn watched_maps(&self, images: &Tensor, train: bool, watch: &mut LayerWatch) -> Maps;

    /// The same, and nobody watches.
    fn maps(&self, images: &Tensor, train: bool) -> Maps {
        self.watched_maps(images, train, &mut |_, _| {})
    }

    /// The middle layers that others may look at: for probes of each layer, or a second loss on one of them.
    fn layers(&self) -> Vec<MiddleLayer>;

    /// The last hidden layer `[b, dim]` of maps, *before* its final ReLU: what
    /// DeepCluster clusters (`facebookresearch/deepcluster`, `main.py`). For residual
    /// networks these are the pooled features, for transformers the class token.
    fn hidden(&self, maps: &Maps, train: bool) -> Tensor;

    /// What a classification head sees, `[b, dim]`: the ReLU of `hidden` for Conv4, AlexNet
    /// and VGG, `hidden` itself for residual networks and transformers.
    fn activate(&self, hidden: &Tensor) -> Tensor {
        hidden.shallow_clone()
    }

    /// What it must learn of the images before it sees them, where it stands on more than its weights.
    fn dictionary(&self) -> Option<&dyn Dictionary> {
        None
    }

    /// The same network for inference alone, in `kind`, with batch norm and layer scale folded into the layers
    /// before them. It does not follow when this one learns.
    fn folded(&self, kind: Kind) -> Box<dyn Backbone>;

    /// Channels of [`Maps::last`].
    fn channels(&self) -> i64;

    /// Width of [`hidden`](Self::hidden).
    fn dim(&self) -> i64;

    /// Channels of the input: 3 for colour, 2 after [`sobel()`].
    fn in_channels(&self) -> i64;
}

/// What a backbone learns by looking at the images, without gradients, before anything else: kept among its variables.
pub trait Dictionary {
    /// Learns from a sample of the images, prepared: `[m, in_channels, s, s]`. The same sample gives the same.
    ///
    /// # Errors
    /// Those of `clusterer`.
    fn learn(&self, images: &Tensor, clusterer: &dyn Quantiser) -> anyhow::Result<()>;
}

/// By what a dictionary is learned: networks know no clustering.
pub trait Quantiser {
    /// The mean `[d]` of `rows` `[n, d] f32` and their principal components `[r, d]`, at most `most`, fewer where there
    /// are no more.
    fn components(&self, rows: &Tensor, most: usize) -> anyhow::Result<(Tensor, Tensor)>;

    /// The centroids `[clusters, d]` of so many clusters of `rows` `[n, d] f32`.
    fn centroids(&self, rows: &Tensor, clusters: usize) -> anyhow::Result<Tensor>;
}

/// What a backbone makes of images before its last layers.
#[derive(Debug)]
pub struct Maps {
    /// The last map `[b, channels, h, w]`, in the kind of the input: convolutional features (after their ReLU where
    /// they have one, but for Conv4, whose hidden layer this is), or a transformer's patch tokens where they lie,
    /// after its last norm.
    pub last: Tensor,
    /// A transformer's class token `[b, channels]`.
    pub token: Option<Tensor>,
}

impl From<Tensor> for Maps {
    fn from(last: Tensor) -> Self {
        Self { last, token: None }
    }
}

/// A layer between the input and the last map, or the last one itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiddleLayer {
    /// As papers call it, or torchvision's modules.
    pub name: String,
    pub channels: i64,
}

/// Is shown the number of a middle layer and its map `[b, channels, h, w]`, after ReLU and pooling where it has
/// them, in the kind of the input.
pub type LayerWatch<'a> = dyn FnMut(usize, &Tensor) + 'a;

/// The images that a backbone is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Side of the square input, in pixels.
    pub size: i64,
    /// 3 for colour, 2 after [`sobel()`].
    pub in_channels: i64,
}

/// A shape that a backbone cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The last map would be empty.
    #[error(
        "{backbone} needs images of at least {min_size} px, but they are {size} px; \
         give --size {min_size} or take a backbone for small images, such as {}",
        conv4::CONV4.name
    )]
    TooSmall {
        backbone: &'static str,
        min_size: usize,
        size: i64,
    },
    /// Patches would not cover the image.
    #[error(
        "{backbone} sees patches of {patch} px: give a --size that is a multiple, such as {}",
        nearest_multiple(*size, *patch)
    )]
    NoMultiple {
        backbone: &'static str,
        patch: usize,
        size: i64,
    },
    /// No input channel.
    #[error("{backbone} needs at least one input channel, but {in_channels} were asked for")]
    NoChannels {
        backbone: &'static str,
        in_channels: i64,
    },
}

/// The multiple of `step` that is closest to `size`, and not zero.
fn nearest_multiple(size: i64, step: usize) -> i64 {
    let step = step as i64;
    ((size + step / 2) / step).max(1) * step
}

/// One line of the registry.
#[derive(Debug)]
pub struct BackboneEntry {
    /// What the user types.
    pub name: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Authors, title and arXiv link.
    pub paper: &'static str,
    /// How images are prepared for it.
    pub input: InputSpec,
    /// Smallest side of the input, in pixels.
    pub min_size: usize,
    /// Products for an image of [`InputSpec::size`], in billions.
    pub billion_products: f64,
    /// Weights for it that others have published.
    pub published: &'static [Published],
    /// What divides the side of the input: that of a transformer's patches, in pixels, or 1.
    pub multiple_of: usize,
    /// A smaller network of the very same layers, which stands for this one where every backbone is tried in turn.
    pub smaller: Option<&'static BackboneEntry>,
    /// Published weights under the names and in the shapes that the network has for inputs of a shape; a network's
    /// own pass through. Names have no prefixes any more.
    adapt: fn(BTreeMap<String, Tensor>, &Shape) -> BTreeMap<String, Tensor>,
    build: fn(&nn::Path, &Shape) -> Box<dyn Backbone>,
}

impl BackboneEntry {
    /// Creates the network; its parameters are registered under `path`, so that with
    /// `vs.root()` the variable store's names are those of the published checkpoints.
    ///
    /// Initial weights come from libtorch's generator: call [`tch::manual_seed`] first.
    /// Build once in each variable store (tch renames a variable that exists already).
    ///
    /// # Errors
    /// As of [`check`](Self::check).
    pub fn build(&self, path: &nn::Path, shape: &Shape) -> Result<Box<dyn Backbone>, ShapeError> {
        self.check(shape)?;
        Ok((self.build)(path, shape))
    }

    /// # Errors
    /// [`ShapeError`] when images of that shape are smaller than [`min_size`](Self::min_size), no multiple of
    /// [`multiple_of`](Self::multiple_of), or have no channel.
    pub fn check(&self, shape: &Shape) -> Result<(), ShapeError> {
        let Shape { size, in_channels } = *shape;
        let backbone = self.name;
        if in_channels < 1 {
            return Err(ShapeError::NoChannels {
                backbone,
                in_channels,
            });
        }
        match usize::try_from(size) {
            Ok(side) if side >= self.min_size => match side.is_multiple_of(self.multiple_of) {
                true => Ok(()),
                false => Err(ShapeError::NoMultiple {
                    backbone,
                    patch: self.multiple_of,
                    size,
                }),
            },
            _ => Err(ShapeError::TooSmall {
                backbone,
                min_size: self.min_size,
                size,
            }),
        }
    }

    /// The smallest side of the input that it works with and that is at least `size`, in pixels.
    pub fn size_from(&self, size: usize) -> usize {
        size.max(self.min_size).next_multiple_of(self.multiple_of)
    }
}

/// Every backbone, smallest first; last what is no network.
pub const BACKBONES: &[BackboneEntry] = &[
    conv4::CONV4,
    conv4::CONV4_256,
    mobilenet::MOBILENET_V2,
    resnet::RESNET18,
    resnet::RESNET34,
    vit::SMALL_PATCH16,
    vit::SMALL_PATCH8,
    vit::SMALL_DINOV2,
    vit::SMALL_REG4_DINOV2,
    vit::SMALL_DINOV3,
    resnet::RESNET50,
    convnext::CONVNEXT_TINY,
    alexnet::ALEXNET,
    vit::BASE_PATCH16,
    vit::BASE_PATCH8,
    vit::BASE_DINOV2,
    vit::BASE_REG4_DINOV2,
    vit::BASE_DINOV3,
    vit::BASE_CLIP,
    vit::BASE_CLIP_QUICKGELU,
    vgg::VGG16,
    vit::LARGE_DINOV2,
    vit::LARGE_REG4_DINOV2,
    vit::LARGE_DINOV3,
    descriptors::DESCRIPTORS,
    vlad::VLAD,
];

/// Images from which on a GPU has enough to learn for the larger network.
const MANY: usize = 20_000;

/// The backbone where none is asked for.
pub fn default_backbone(small: bool, on_cpu: bool, images: usize) -> &'static str {
    let entry = match (small, on_cpu) {
        (true, true) => conv4::CONV4,
        (false, false) if images >= MANY => resnet::RESNET50,
        _ => resnet::RESNET18,
    };
    entry.name
}

/// What images are described by where nothing is to be learned, and nothing has been.
pub fn unlearned_backbone() -> &'static str {
    vlad::VLAD.name
}

/// Whether a backbone has anything to learn.
pub fn learns(name: &str) -> bool {
    ![descriptors::DESCRIPTORS.name, vlad::VLAD.name].contains(&name)
}

/// What learns from few images, where visual words stand beside it.
pub fn small_backbone() -> &'static str {
    conv4::CONV4_256.name
}

/// Whether a CPU gets through many images with it.
pub fn is_light(name: &str) -> bool {
    [conv4::CONV4.name, conv4::CONV4_256.name].contains(&name)
}

/// A variable store on `device` and what `build` makes in it. Initial weights are drawn on the CPU and then
/// moved, so that a seed gives the same ones wherever the network is. There, those of convolutions are
/// channels-last, as the maps are: cuDNN would turn them round in every pass.
pub fn store_on<T>(device: Device, build: impl FnOnce(&nn::Path) -> T) -> (nn::VarStore, T) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let built = build(&store.root());
    if device != Device::Cpu {
        tch::no_grad(|| {
            store.set_device(device);
            for mut variable in store.variables().into_values() {
                if variable.dim() == 4 {
                    let turned = variable.permute([0, 2, 3, 1]).contiguous();
                    variable.set_data(&turned.permute([0, 3, 1, 2]));
                }
            }
        });
    }
    (store, built)
}

/// The entry called `name`, if there is one.
pub fn find(name: &str) -> Option<&'static BackboneEntry> {
    BACKBONES.iter().find(|entry| entry.name == name)
}
