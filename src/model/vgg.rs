//! VGG-16 with batch norm.
//!
//! Simonyan, Zisserman: "Very Deep Convolutional Networks for Large-Scale Image
//! Recognition", configuration D, <https://arxiv.org/abs/1409.1556>; names and geometry
//! are those of torchvision's `vgg16_bn`, which DeepCluster's VGG shares.
//!
//! Parameters: `features.N` (convolutions and batch norms), `classifier.{0,3}`. The
//! last map is averaged to 7 x 7 (an identity at 224 px).

use super::layers::Window;
use super::sequential::{HiddenLayer, Row, Sequential, Table};
use super::{BackboneEntry, InputSpec, Published};

pub const VGG16: BackboneEntry = BackboneEntry {
    name: "vgg16",
    help: "VGG-16 with batch norm, torchvision's vgg16_bn, from 32 px, made for 224 px",
    paper: "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, https://arxiv.org/abs/1409.1556",
    input: InputSpec::IMAGENET,
    min_size: 32,
    multiple_of: 1,
    smaller: None,
    billion_products: 15.5,
    published: &[Published {
        file: "vgg16_bn-",
        about: "ImageNet with labels, torchvision",
        rank: 20,
    }],
    adapt: |tensors, _| tensors,
    build: |path, shape| Box::new(Sequential::new(path, shape, &TABLE)),
};

const TABLE: Table = Table {
    features: &[
        conv(64),
        conv(64),
        POOL,
        conv(128),
        conv(128),
        POOL,
        conv(256),
        conv(256),
        conv(256),
        POOL,
        conv(512),
        conv(512),
        conv(512),
        POOL,
        conv(512),
        conv(512),
        conv(512),
        POOL,
    ],
    pooled_side: 7,
    classifier: [
        HiddenLayer {
            index: 0,
            dropout: false,
        },
        HiddenLayer {
            index: 3,
            dropout: true,
        },
    ],
};

const POOL: Row = Row::MaxPool(Window {
    kernel: 2,
    stride: 2,
    padding: 0,
});

const fn conv(filters: i64) -> Row {
    Row::Conv {
        filters,
        window: Window {
            kernel: 3,
            stride: 1,
            padding: 1,
        },
    }
}
