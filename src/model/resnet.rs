//! ResNet-18, -34 and -50.
//!
//! He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition",
//! <https://arxiv.org/abs/1512.03385>. Names and geometry are torchvision's: the
//! bottleneck's stride lies on its 3x3 convolution ("v1.5").
//!
//! Parameters: `conv1.weight`, `bn1.*`, `layer{1..4}.{i}.conv{1..}.weight`,
//! `layer{1..4}.{i}.bn{1..}.*`, `layer{1..4}.0.downsample.{0.weight,1.*}`.
//!
//! Images of at most 64 px get the stem of He et al.'s CIFAR networks (3x3, stride 1,
//! no pooling) under the same names; such a `conv1.weight` is `[64, c, 3, 3]` and does
//! not fit torchvision's 7x7 one.

use tch::{Kind, Tensor, nn};

use super::layers::{Bias, ConvBn, Window, max_pool};
use super::{Backbone, BackboneEntry, InputSpec, LayerWatch, Maps, MiddleLayer, Published, Shape};

const PAPER: &str =
    "He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385";

/// From this side on, in pixels, the last map has more than one position to average.
const MIN_SIZE: usize = 16;

/// Largest side, in pixels, that gets the stem without downsampling.
const SMALL_STEM_SIZE: i64 = 64;

pub const RESNET18: BackboneEntry = BackboneEntry {
    name: "resnet18",
    help: "ResNet-18, torchvision's, 512 features; a 3x3 stem up to 64 px",
    paper: PAPER,
    input: InputSpec::IMAGENET,
    min_size: MIN_SIZE,
    multiple_of: 1,
    smaller: None,
    billion_products: 1.8,
    published: &[
        Published {
            file: "resnet18-",
            about: "ImageNet with labels, torchvision",
            rank: 9,
        },
        Published {
            file: "resnet18.",
            about: "ImageNet with labels, timm",
            rank: 9,
        },
    ],
    adapt: |tensors, _| tensors,
    build: |path, shape| Box::new(ResNet::new(path, shape, BlockKind::Basic, [2, 2, 2, 2])),
};

pub const RESNET34: BackboneEntry = BackboneEntry {
    name: "resnet34",
    help: "ResNet-34, torchvision's, 512 features; a 3x3 stem up to 64 px",
    paper: PAPER,
    input: InputSpec::IMAGENET,
    min_size: MIN_SIZE,
    multiple_of: 1,
    smaller: None,
    billion_products: 3.7,
    published: &[
        Published {
            file: "resnet34-",
            about: "ImageNet with labels, torchvision",
            rank: 15,
        },
        Published {
            file: "resnet34.",
            about: "ImageNet with labels, timm",
            rank: 15,
        },
    ],
    adapt: |tensors, _| tensors,
    build: |path, shape| Box::new(ResNet::new(path, shape, BlockKind::Basic, [3, 4, 6, 3])),
};

pub const RESNET50: BackboneEntry = BackboneEntry {
    name: "resnet50",
    help: "ResNet-50, torchvision's, 2048 features; a 3x3 stem up to 64 px",
    paper: PAPER,
    input: InputSpec::IMAGENET,
    min_size: MIN_SIZE,
    multiple_of: 1,
    smaller: None,
    billion_products: 4.1,
    published: &[
        Published {
            file: "resnet50-",
            about: "ImageNet with labels, torchvision",
            rank: 25,
        },
        Published {
            file: "resnet50.",
            about: "ImageNet with labels, timm",
            rank: 25,
        },
        Published {
            file: "dino_resnet50_pretrain",
            about: "ImageNet without labels, DINO",
            rank: 32,
        },
        Published {
            file: "swav_800ep_pretrain",
            about: "ImageNet without labels, SwAV",
            rank: 31,
        },
        Published {
            file: "deepclusterv2_800ep_pretrain",
            about: "ImageNet without labels, DeepCluster-v2",
            rank: 31,
        },
    ],
    adapt: |tensors, _| tensors,
    build: |path, shape| {
        Box::new(ResNet::new(
            path,
            shape,
            BlockKind::Bottleneck,
            [3, 4, 6, 3],
        ))
    },
};

#[derive(Debug, Clone, Copy)]
enum BlockKind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1 down, 3x3, 1x1 up to four times the width.
    Bottleneck,
}

impl BlockKind {
    /// Output channels for each unit of width.
    fn expansion(self) -> i64 {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }

    /// (channels, kernel, stride) of each convolution in turn.
    fn convolutions(self, width: i64, stride: i64) -> Vec<(i64, i64, i64)> {
        match self {
            Self::Basic => vec![(width, 3, stride), (width, 3, 1)],
            Self::Bottleneck => vec![(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)],
        }
    }
}

/// A square window whose padding keeps the side at stride 1.
fn same(kernel: i64, stride: i64) -> Window {
    Window {
        kernel,
        stride,
        padding: kernel / 2,
    }
}

#[derive(Debug)]
struct Block {
    residual: Vec<ConvBn>,
    downsample: Option<ConvBn>,
}

impl Block {
    fn new(path: &nn::Path, kind: BlockKind, c_in: i64, width: i64, stride: i64) -> Self {
        let mut c = c_in;
        let residual = kind
            .convolutions(width, stride)
            .into_iter()
            .zip(1..)
            .map(|((c_out, kernel, stride), i)| {
                let layer = ConvBn::new(
                    path / format!("conv{i}"),
                    path / format!("bn{i}"),
                    (c, c_out),
                    same(kernel, stride),
                    Bias::None,
                );
                c = c_out;
                layer
            })
            .collect();
        let downsample = (stride != 1 || c_in != c).then(|| {
            let path = path / "downsample";
            ConvBn::new(&path / 0, &path / 1, (c_in, c), same(1, stride), Bias::None)
        });
        Self {
            residual,
            downsample,
        }
    }

    fn folded(&self, kind: Kind) -> Self {
        let residual = self.residual.iter().map(|layer| layer.folded(kind));
        Self {
            residual: residual.collect(),
            downsample: self.downsample.as_ref().map(|layer| layer.folded(kind)),
        }
    }

    /// Of the output.
    fn channels(&self) -> i64 {
        self.residual.last().map_or(0, ConvBn::channels)
    }

    fn forward(&self, input: &Tensor, train: bool) -> Tensor {
        let shortcut = match &self.downsample {
            Some(layer) => layer.forward(input, train),
            None => input.shallow_clone(),
        };
        let mut map = input.shallow_clone();
        for (i, layer) in self.residual.iter().enumerate() {
            let last = i + 1 == self.residual.len();
            map = layer.forward_relu(&map, last.then_some(&shortcut), train);
        }
        map
    }
}

#[derive(Debug)]
struct ResNet {
    stem: ConvBn,
    small_stem: bool,
    /// `layer1` to `layer4`.
    stages: Vec<Vec<Block>>,
    channels: i64,
    in_channels: i64,
}

impl ResNet {
    fn new(path: &nn::Path, shape: &Shape, kind: BlockKind, depths: [usize; 4]) -> Self {
        let small_stem = shape.size <= SMALL_STEM_SIZE;
        let (kernel, stride) = if small_stem { (3, 1) } else { (7, 2) };
        let stem = ConvBn::new(
            path / "conv1",
            path / "bn1",
            (shape.in_channels, 64),
            same(kernel, stride),
            Bias::None,
        );
        let mut channels = 64;
        let mut stages = Vec::with_capacity(depths.len());
        for (stage, (depth, width)) in depths.into_iter().zip([64, 128, 256, 512]).enumerate() {
            let path = path / format!("layer{}", stage + 1);
            let mut blocks = Vec::with_capacity(depth);
            for i in 0..depth {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                blocks.push(Block::new(&(&path / i), kind, channels, width, stride));
                channels = kind.expansion() * width;
            }
            stages.push(blocks);
        }
        Self {
            stem,
            small_stem,
            stages,
            channels,
            in_channels: shape.in_channels,
        }
    }
}

impl Backbone for ResNet {
    fn watched_maps(&self, images: &Tensor, train: bool, watch: &mut LayerWatch) -> Maps {
        let mut map = self.stem.forward(images, train);
        if !self.small_stem {
            map = max_pool(&map, same(3, 2));
        }
        map = map.relu_();
        for (stage, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                map = block.forward(&map, train);
            }
            watch(stage, &map);
        }
        map.into()
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        let layer = |(stage, blocks): (usize, &Vec<Block>)| MiddleLayer {
            name: format!("layer{}", stage + 1),
            channels: blocks.last().map_or(0, Block::channels),
        };
        self.stages.iter().enumerate().map(layer).collect()
    }

    fn hidden(&self, maps: &Maps, _train: bool) -> Tensor {
        maps.last
            .mean_dim([2_i64, 3].as_slice(), false, Kind::Float)
    }

    fn folded(&self, kind: Kind) -> Box<dyn Backbone> {
        Box::new(Self {
            stem: self.stem.folded(kind),
            stages: self
                .stages
                .iter()
                .map(|blocks| blocks.iter().map(|block| block.folded(kind)).collect())
                .collect(),
            ..*self
        })
    }

    fn channels(&self) -> i64 {
        self.channels
    }

    fn dim(&self) -> i64 {
        self.channels
    }

    fn in_channels(&self) -> i64 {
        self.in_channels
    }
}
