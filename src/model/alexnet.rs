//! AlexNet as DeepCluster trains it: batch norm instead of local response
//! normalisation, one tower, the filters of 2012.
//!
//! Caron, Bojanowski, Joulin, Douze: "Deep Clustering for Unsupervised Learning of
//! Visual Features", <https://arxiv.org/abs/1807.05520>, after Krizhevsky, Sutskever,
//! Hinton (2012). Layer table: `facebookresearch/deepcluster`, `models/alexnet.py`.
//!
//! Parameters: `features.{0,4,8,11,14}` (convolutions), `features.{1,5,9,12,15}` (batch
//! norm), `classifier.{1,4}`. It is *not* torchvision's AlexNet, which has 64 filters
//! in its first layer and no batch norm.
//!
//! At 224 px the last map is 6 x 6, as published. Other sizes are averaged to 6 x 6
//! before the classifier (an identity at 224 px), so that one set of weights serves
//! every size from 63 px, the smallest whose last map is not empty.

use super::layers::Window;
use super::sequential::{HiddenLayer, Row, Sequential, Table};
use super::{BackboneEntry, InputSpec};

pub const ALEXNET: BackboneEntry = BackboneEntry {
    name: "alexnet",
    help: "DeepCluster's AlexNet with batch norm, from 63 px, made for 224 px",
    paper: "Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, https://arxiv.org/abs/1807.05520",
    input: InputSpec::IMAGENET,
    min_size: 63,
    multiple_of: 1,
    smaller: None,
    billion_products: 1.1,
    published: &[],
    adapt: |tensors, _| tensors,
    build: |path, shape| Box::new(Sequential::new(path, shape, &TABLE)),
};

const TABLE: Table = Table {
    features: &[
        conv(96, 11, 4, 2),
        POOL,
        conv(256, 5, 1, 2),
        POOL,
        conv(384, 3, 1, 1),
        conv(384, 3, 1, 1),
        conv(256, 3, 1, 1),
        POOL,
    ],
    pooled_side: 6,
    classifier: [
        HiddenLayer {
            index: 1,
            dropout: true,
        },
        HiddenLayer {
            index: 4,
            dropout: true,
        },
    ],
};

const POOL: Row = Row::MaxPool(Window {
    kernel: 3,
    stride: 2,
    padding: 0,
});

const fn conv(filters: i64, kernel: i64, stride: i64, padding: i64) -> Row {
    Row::Conv {
        filters,
        window: Window {
            kernel,
            stride,
            padding,
        },
    }
}
