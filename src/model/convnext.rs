//! ConvNeXt-T: a residual network with a transformer's proportions.
//!
//! Liu et al., "A ConvNet for the 2020s", <https://arxiv.org/abs/2201.03545>. Names and geometry are torchvision's;
//! timm's and the authors' names are mapped to them.
//!
//! Parameters: `features.0.{0,1}.*` (stem: convolution, norm), `features.{2,4,6}.{0,1}.*` (norm, convolution
//! that halves the side), `features.{1,3,5,7}.{i}.layer_scale`,
//! `features.{1,3,5,7}.{i}.block.{0,2,3,5}.*` (depthwise convolution, norm, two linear layers), `classifier.0.*`
//! (norm of the pooled features).

use std::collections::BTreeMap;

use tch::{Kind, Tensor, nn};

use super::layers::Bias;
use super::tokens::{Activation, LayerNorm, Linear, Patches, STDEV, to_map, to_tokens};
use super::{Backbone, BackboneEntry, InputSpec, LayerWatch, Maps, MiddleLayer, Published, Shape};

pub const CONVNEXT_TINY: BackboneEntry = BackboneEntry {
    name: "convnext_tiny",
    help: "ConvNeXt-T, torchvision's and timm's weights, 768 features",
    paper: "Liu et al., A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545",
    input: InputSpec {
        resized: 236,
        ..InputSpec::IMAGENET
    },
    min_size: 32,
    multiple_of: 1,
    smaller: None,
    billion_products: 4.5,
    published: &[
        Published {
            file: "convnext_tiny-",
            about: "ImageNet with labels, torchvision",
            rank: 30,
        },
        Published {
            file: "convnext_tiny.",
            about: "ImageNet with labels, timm",
            rank: 30,
        },
    ],
    adapt: |tensors, _| adapt(tensors),
    build: |path, shape| Box::new(ConvNext::new(path, shape)),
};

/// Blocks and channels of each stage.
const STAGES: [(i64, i64); 4] = [(3, 96), (3, 192), (9, 384), (3, 768)];
/// Side of the stem's patches, in pixels.
const STEM: i64 = 4;
/// Side of the depthwise convolutions.
const KERNEL: i64 = 7;
/// Width of the layer between the two linear ones, for each channel.
const EXPANSION: i64 = 4;
const LAYER_SCALE: f64 = 1e-6;
const EPSILON: f64 = 1e-6;
const NORMAL: nn::Init = nn::Init::Randn {
    mean: 0.,
    stdev: STDEV,
};
const ZERO: Option<nn::Init> = Some(nn::Init::Const(0.));

#[derive(Debug)]
struct Block {
    /// Depthwise `[c, 1, 7, 7]`, `[c]`.
    weight: Tensor,
    bias: Tensor,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
    /// `[c, 1, 1]`; None once it is folded into `down`.
    scale: Option<Tensor>,
}

impl Block {
    fn new(path: &nn::Path, channels: i64) -> Self {
        let hidden = EXPANSION * channels;
        let scale = nn::Init::Const(LAYER_SCALE);
        let layers = path / "block";
        let depthwise = &layers / 0;
        Self {
            weight: depthwise.var("weight", &[channels, 1, KERNEL, KERNEL], NORMAL),
            bias: depthwise.zeros("bias", &[channels]),
            norm: LayerNorm::new(&layers / 2, channels, EPSILON),
            up: Linear::new(&layers / 3, (channels, hidden), Bias::Zero, STDEV),
            down: Linear::new(&layers / 5, (hidden, channels), Bias::Zero, STDEV),
            scale: Some(path.var("layer_scale", &[channels, 1, 1], scale)),
        }
    }

    fn forward(&self, map: &Tensor) -> Tensor {
        let kind = map.kind();
        let around = map.conv2d(
            &self.weight.to_kind(kind),
            Some(self.bias.to_kind(kind)),
            [1, 1],
            [KERNEL / 2; 2],
            [1, 1],
            self.bias.size()[0],
        );
        let hidden = self.up.forward(&self.norm.forward(&to_tokens(&around)));
        let mixed = to_map(&self.down.forward(&Activation::Gelu.of(&hidden)));
        match &self.scale {
            Some(scale) => map + mixed * scale.to_kind(kind),
            None => map + mixed,
        }
    }

    fn folded(&self, kind: Kind) -> Self {
        let scale = self.scale.as_ref().map(|scale| scale.flatten(0, -1));
        Self {
            weight: self.weight.detach().to_kind(kind),
            bias: self.bias.detach().to_kind(kind),
            norm: self.norm.folded(kind),
            up: self.up.folded(None, kind),
            down: self.down.folded(scale.as_ref(), kind),
            scale: None,
        }
    }
}

/// What makes the map smaller before a stage: patches, with a norm after them (the stem) or before.
#[derive(Debug)]
struct Shrinking {
    norm: LayerNorm,
    patches: Patches,
}

impl Shrinking {
    fn new(path: &nn::Path, stage: usize, (c_in, c_out): (i64, i64)) -> Self {
        let (patches, norm, side, normed) = match stage {
            0 => (0, 1, STEM, c_out),
            _ => (1, 0, 2, c_in),
        };
        Self {
            norm: LayerNorm::new(path / norm, normed, EPSILON),
            patches: Patches::new(path / patches, (c_in, c_out), side, (NORMAL, ZERO)),
        }
    }

    fn forward(&self, map: &Tensor, stage: usize) -> Tensor {
        let normed = |map: &Tensor| to_map(&self.norm.forward(&to_tokens(map)));
        match stage {
            0 => normed(&self.patches.forward(map)),
            _ => self.patches.forward(&normed(map)),
        }
    }

    fn folded(&self, kind: Kind) -> Self {
        Self {
            norm: self.norm.folded(kind),
            patches: self.patches.folded(kind),
        }
    }
}

#[derive(Debug)]
struct ConvNext {
    stages: Vec<(Shrinking, Vec<Block>)>,
    /// Of the pooled features.
    norm: LayerNorm,
    in_channels: i64,
}

impl ConvNext {
    fn new(path: &nn::Path, shape: &Shape) -> Self {
        let mut channels = shape.in_channels;
        let features = path / "features";
        let stage = |(stage, (blocks, width)): (usize, (i64, i64))| {
            let shrinking = Shrinking::new(&(&features / (2 * stage)), stage, (channels, width));
            channels = width;
            let path = &features / (2 * stage + 1);
            let blocks = (0..blocks).map(|i| Block::new(&(&path / i), width));
            (shrinking, blocks.collect())
        };
        let stages = STAGES.into_iter().enumerate().map(stage).collect();
        Self {
            stages,
            norm: LayerNorm::new(path / "classifier" / 0, channels, EPSILON),
            in_channels: shape.in_channels,
        }
    }
}

impl Backbone for ConvNext {
    fn watched_maps(&self, images: &Tensor, _train: bool, watch: &mut LayerWatch) -> Maps {
        let mut map = images.shallow_clone();
        for (stage, (shrinking, blocks)) in self.stages.iter().enumerate() {
            map = shrinking.forward(&map, stage);
            for block in blocks {
                map = block.forward(&map);
            }
            watch(stage, &map);
        }
        map.into()
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        let layer = |(stage, (_, channels))| MiddleLayer {
            name: format!("features.{}", 2 * stage + 1),
            channels,
        };
        STAGES.into_iter().enumerate().map(layer).collect()
    }

    fn hidden(&self, maps: &Maps, _train: bool) -> Tensor {
        let pooled = maps
            .last
            .mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        self.norm.forward(&pooled)
    }

    fn folded(&self, kind: Kind) -> Box<dyn Backbone> {
        let stage = |(shrinking, blocks): &(Shrinking, Vec<Block>)| {
            let blocks = blocks.iter().map(|block| block.folded(kind));
            (shrinking.folded(kind), blocks.collect())
        };
        Box::new(Self {
            stages: self.stages.iter().map(stage).collect(),
            norm: self.norm.folded(Kind::Float),
            in_channels: self.in_channels,
        })
    }

    fn channels(&self) -> i64 {
        self.dim()
    }

    fn dim(&self) -> i64 {
        STAGES[STAGES.len() - 1].1
    }

    fn in_channels(&self) -> i64 {
        self.in_channels
    }
}

/// Weights of timm's or the authors' network under torchvision's names. Those of a network like ours pass through.
fn adapt(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let stems = ["stem.0.weight", "downsample_layers.0.0.weight"];
    if !stems.iter().any(|stem| tensors.contains_key(*stem)) {
        return tensors;
    }
    let ours = |(name, tensor): (String, Tensor)| match torchvisions(&name) {
        Some(ours) if ours.ends_with("layer_scale") => (ours, tensor.reshape([-1, 1, 1])),
        Some(ours) => (ours, tensor),
        None => (name, tensor),
    };
    tensors.into_iter().map(ours).collect()
}

/// The name of torchvision's parameter, if the other is one of the network's.
fn torchvisions(name: &str) -> Option<String> {
    let (module, parameter) = name.rsplit_once('.')?;
    let stage_of = |part: &str| {
        STAGES
            .iter()
            .enumerate()
            .find(|(i, _)| i.to_string() == part)
    };
    let shrinking = |stage: &str, part: &str| {
        let (stage, _) = stage_of(stage)?;
        Some(format!("features.{}.{part}.{parameter}", 2 * stage))
    };
    match module.split('.').collect::<Vec<_>>()[..] {
        ["stem", part] => shrinking("0", part),
        ["downsample_layers", stage, part] | ["stages", stage, "downsample", part] => {
            shrinking(stage, part)
        }
        ["norm"] | ["head", "norm"] => Some(format!("classifier.0.{parameter}")),
        ["stages", stage, "blocks", block, ref rest @ ..]
        | ["stages", stage, block, ref rest @ ..] => {
            let within = match rest {
                [] if parameter == "gamma" => "layer_scale".into(),
                ["conv_dw" | "dwconv"] => format!("block.0.{parameter}"),
                ["norm"] => format!("block.2.{parameter}"),
                ["mlp", "fc1"] | ["pwconv1"] => format!("block.3.{parameter}"),
                ["mlp", "fc2"] | ["pwconv2"] => format!("block.5.{parameter}"),
                _ => return None,
            };
            let (stage, _) = stage_of(stage)?;
            Some(format!("features.{}.{block}.{within}", 2 * stage + 1))
        }
        _ => None,
    }
}
