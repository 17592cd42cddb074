//! Conv4: four blocks, for images of 28 to 64 pixels; equal ones, or each twice as wide as the one before.
//!
//! Snell, Swersky, Zemel: "Prototypical Networks for Few-shot Learning" (section 2.7,
//! the embedding of Vinyals et al.), <https://arxiv.org/abs/1703.05175>.
//!
//! Parameters: `blocks.{0..3}.conv.weight`, `blocks.{0..3}.bn.{weight,bias,running_mean,running_var}`.

use tch::{Kind, Tensor, nn};

use super::layers::{Bias, ConvBn, Window, max_pool};
use super::{Backbone, BackboneEntry, InputSpec, LayerWatch, Maps, MiddleLayer, Shape};

/// The registry entry.
pub const CONV4: BackboneEntry = BackboneEntry {
    name: "conv4",
    help: "four 3x3 convolutions of 64 filters, for thumbnails of 16 to 64 px",
    paper: "Snell et al., Prototypical Networks for Few-shot Learning, https://arxiv.org/abs/1703.05175",
    input: InputSpec::whole(32),
    min_size: 16,
    multiple_of: 1,
    smaller: None,
    billion_products: 0.01,
    published: &[],
    adapt: |tensors, _| tensors,
    build: |path, shape| Box::new(Conv4::new(path, shape, Form::Equal)),
};

/// The same with as many channels where the map is small as others have: 32 to 256, whose means are the features.
pub const CONV4_256: BackboneEntry = BackboneEntry {
    name: "conv4_256",
    help: "four 3x3 convolutions of 32 to 256 filters, and their means: learns from few thumbnails",
    input: InputSpec::whole(48),
    billion_products: 0.04,
    build: |path, shape| Box::new(Conv4::new(path, shape, Form::Widening)),
    ..CONV4
};

/// How wide the blocks are, and with it what becomes of the last map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// [`FILTERS`] each; the last map is flattened, before its ReLU.
    Equal,
    /// [`WIDENING`]; the last map's ReLU is averaged.
    Widening,
}

impl Form {
    fn widths(self) -> [i64; BLOCKS] {
        match self {
            Self::Equal => [FILTERS; BLOCKS],
            Self::Widening => WIDENING,
        }
    }
}

const BLOCKS: usize = 4;
const FILTERS: i64 = 64;
const WIDENING: [i64; BLOCKS] = [32, 64, 128, 256];
const CONV_3X3: Window = Window {
    kernel: 3,
    stride: 1,
    padding: 1,
};
const HALVING: Window = Window {
    kernel: 2,
    stride: 2,
    padding: 0,
};

/// How many of the blocks, from the first, end in a pooling that halves the side; the
/// hidden layer is the flattened last map before its ReLU. At 28 px a fourth pooling would
/// leave 64 x 1 x 1, and drop five ninths of the 3 x 3 map on the way: nearest-neighbour
/// accuracy of the untrained network falls from 84 to 80 % (Fashion-MNIST).
const POOLED_BLOCKS: usize = 3;
/// The last map is averaged down to this side, CIFAR's, where it is larger: at 64 px its 4,096
/// numbers would cost more to whiten than the network costs to train.
const MOST_SIDE: i64 = 4;

#[derive(Debug)]
struct Conv4 {
    blocks: Vec<ConvBn>,
    shape: Shape,
    form: Form,
}

impl Conv4 {
    fn new(path: &nn::Path, shape: &Shape, form: Form) -> Self {
        let widths = form.widths();
        let blocks = (0..BLOCKS)
            .map(|i| {
                let path = path / "blocks" / i;
                let c_in = if i == 0 {
                    shape.in_channels
                } else {
                    widths[i - 1]
                };
                ConvBn::new(
                    &path / "conv",
                    &path / "bn",
                    (c_in, widths[i]),
                    CONV_3X3,
                    Bias::None,
                )
            })
            .collect();
        Self {
            blocks,
            shape: *shape,
            form,
        }
    }
}

impl Conv4 {
    /// Side of the hidden layer's map.
    fn side(&self) -> i64 {
        (self.shape.size >> POOLED_BLOCKS).min(MOST_SIDE)
    }
}

impl Backbone for Conv4 {
    fn watched_maps(&self, images: &Tensor, train: bool, watch: &mut LayerWatch) -> Maps {
        let mut map = images.shallow_clone();
        for (i, block) in self.blocks.iter().enumerate() {
            map = block.forward(&map, train);
            if i < POOLED_BLOCKS {
                // The ReLU of the largest is the largest ReLU, on a quarter of the numbers.
                map = max_pool(&map, HALVING).relu_();
                watch(i, &map);
            }
        }
        match self.form {
            Form::Equal => map.into(),
            Form::Widening => map.relu().into(),
        }
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        let layer = |i| MiddleLayer {
            name: format!("block{i}"),
            channels: self.form.widths()[i],
        };
        (0..POOLED_BLOCKS).map(layer).collect()
    }

    fn hidden(&self, maps: &Maps, _train: bool) -> Tensor {
        let map = &maps.last;
        if self.form == Form::Widening {
            return map.mean_dim([2, 3].as_slice(), false, map.kind());
        }
        let side = self.side();
        if map.size()[2..] == [side, side] {
            return map.flatten(1, -1);
        }
        map.adaptive_avg_pool2d([side, side]).flatten(1, -1)
    }

    fn activate(&self, hidden: &Tensor) -> Tensor {
        match self.form {
            Form::Equal => hidden.relu(),
            Form::Widening => hidden.shallow_clone(),
        }
    }

    fn folded(&self, kind: Kind) -> Box<dyn Backbone> {
        Box::new(Self {
            blocks: self.blocks.iter().map(|block| block.folded(kind)).collect(),
            shape: self.shape,
            form: self.form,
        })
    }

    fn channels(&self) -> i64 {
        self.form.widths()[BLOCKS - 1]
    }

    fn dim(&self) -> i64 {
        match self.form {
            Form::Equal => FILTERS * self.side() * self.side(),
            Form::Widening => self.channels(),
        }
    }

    fn in_channels(&self) -> i64 {
        self.shape.in_channels
    }
}
