//! MobileNetV2.
//!
//! Sandler, Howard, Zhu, Zhmoginov, Chen: "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
//! <https://arxiv.org/abs/1801.04381>. Names and geometry are torchvision's.
//!
//! Parameters: `features.0.{0.weight,1.*}`, `features.{1..17}.conv.{0..3}.*`, `features.18.{0.weight,1.*}`.

use tch::{Kind, Tensor, nn};

use super::layers::{Bias, ConvBn, Window};
use super::{Backbone, BackboneEntry, InputSpec, LayerWatch, Maps, MiddleLayer, Published, Shape};

/// The registry entry.
pub const MOBILENET_V2: BackboneEntry = BackboneEntry {
    name: "mobilenet_v2",
    help: "MobileNetV2, torchvision's, 1280 features: fast on a CPU",
    paper: "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381",
    input: InputSpec::IMAGENET,
    min_size: 32,
    multiple_of: 1,
    smaller: None,
    billion_products: 0.3,
    published: &[Published {
        file: "mobilenet_v2-",
        about: "ImageNet with labels, torchvision",
        rank: 10,
    }],
    adapt: |tensors, _| tensors,
    build: |path, shape| Box::new(MobileNetV2::new(path, shape)),
};

/// Table 2 of the paper: expansion, channels, blocks, stride of the first of them.
const STAGES: [(i64, i64, usize, i64); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];
const STEM: i64 = 32;
const LAST: i64 = 1280;

const POINT: Window = Window {
    kernel: 1,
    stride: 1,
    padding: 0,
};

fn three(stride: i64) -> Window {
    Window {
        kernel: 3,
        stride,
        padding: 1,
    }
}

/// An inverted residual: wide, each channel by itself, narrow again.
#[derive(Debug)]
struct Block {
    /// None where the block does not widen.
    expand: Option<ConvBn>,
    depthwise: ConvBn,
    /// Without a ReLU: a linear bottleneck.
    project: ConvBn,
    shortcut: bool,
}

impl Block {
    fn new(path: &nn::Path, expansion: i64, (c_in, c_out): (i64, i64), stride: i64) -> Self {
        let path = path / "conv";
        let wide = c_in * expansion;
        let mut index = 0;
        let mut next = || {
            let here = &path / index;
            index += 1;
            here
        };
        let expand = (expansion != 1).then(|| {
            let here = next();
            ConvBn::new(&here / 0, &here / 1, (c_in, wide), POINT, Bias::None)
        });
        let here = next();
        let depthwise = ConvBn::depthwise(&here / 0, &here / 1, wide, three(stride));
        let project = ConvBn::new(next(), next(), (wide, c_out), POINT, Bias::None);
        Self {
            expand,
            depthwise,
            project,
            shortcut: stride == 1 && c_in == c_out,
        }
    }

    fn folded(&self, kind: Kind) -> Self {
        Self {
            expand: self.expand.as_ref().map(|layer| layer.folded(kind)),
            depthwise: self.depthwise.folded(kind),
            project: self.project.folded(kind),
            shortcut: self.shortcut,
        }
    }

    fn forward(&self, input: &Tensor, train: bool) -> Tensor {
        let wide = match &self.expand {
            Some(layer) => layer.forward_relu6(input, train),
            None => input.shallow_clone(),
        };
        let narrow = self
            .project
            .forward(&self.depthwise.forward_relu6(&wide, train), train);
        match self.shortcut {
            true => narrow + input,
            false => narrow,
        }
    }
}

#[derive(Debug)]
struct MobileNetV2 {
    stem: ConvBn,
    blocks: Vec<Block>,
    last: ConvBn,
    in_channels: i64,
}

impl MobileNetV2 {
    fn new(path: &nn::Path, shape: &Shape) -> Self {
        let path = path / "features";
        let layer = |index: usize, channels, window| {
            let here = &path / index;
            ConvBn::new(&here / 0, &here / 1, channels, window, Bias::None)
        };
        let stem = layer(0, (shape.in_channels, STEM), three(2));
        let mut channels = STEM;
        let mut blocks: Vec<Block> = Vec::new();
        for (expansion, c_out, count, stride) in STAGES {
            for number in 0..count {
                let stride = if number == 0 { stride } else { 1 };
                let here = &path / (blocks.len() + 1);
                blocks.push(Block::new(&here, expansion, (channels, c_out), stride));
                channels = c_out;
            }
        }
        let last = layer(blocks.len() + 1, (channels, LAST), POINT);
        Self {
            stem,
            blocks,
            last,
            in_channels: shape.in_channels,
        }
    }
}

impl Backbone for MobileNetV2 {
    fn watched_maps(&self, images: &Tensor, train: bool, watch: &mut LayerWatch) -> Maps {
        let mut map = self.stem.forward_relu6(images, train);
        for (number, block) in self.blocks.iter().enumerate() {
            map = block.forward(&map, train);
            watch(number, &map);
        }
        self.last.forward_relu6(&map, train).into()
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        let layer = |(block, number): (&Block, usize)| MiddleLayer {
            name: format!("features.{number}"),
            channels: block.project.channels(),
        };
        self.blocks.iter().zip(1..).map(layer).collect()
    }

    fn hidden(&self, maps: &Maps, _train: bool) -> Tensor {
        maps.last
            .mean_dim([2_i64, 3].as_slice(), false, Kind::Float)
    }

    fn folded(&self, kind: Kind) -> Box<dyn Backbone> {
        let blocks = self.blocks.iter().map(|block| block.folded(kind));
        Box::new(Self {
            stem: self.stem.folded(kind),
            blocks: blocks.collect(),
            last: self.last.folded(kind),
            in_channels: self.in_channels,
        })
    }

    fn channels(&self) -> i64 {
        LAST
    }

    fn dim(&self) -> i64 {
        LAST
    }

    fn in_channels(&self) -> i64 {
        self.in_channels
    }
}
