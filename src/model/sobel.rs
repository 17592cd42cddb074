//! The fixed edge filters that DeepCluster feeds its networks instead of colour.
//!
//! Caron et al.: "Deep Clustering for Unsupervised Learning of Visual Features",
//! section 3.4, <https://arxiv.org/abs/1807.05520>; signs and padding as in
//! `facebookresearch/deepcluster`, `models/alexnet.py`.

use tch::Tensor;

/// Channel 0 falls across a row, channel 1 down a column.
const FILTERS: [[f32; 9]; 2] = [
    [1., 0., -1., 2., 0., -2., 1., 0., -1.],
    [1., 2., 1., 0., 0., 0., -1., -2., -1.],
];

/// Edges `[b, 2, h, w]` of images `[b, c, h, w]`: the channels' mean, filtered with two
/// 3x3 Sobel filters and a border of zeros. Channel 0 is left minus right, channel 1
/// above minus below; device and dtype are kept.
pub fn sobel(images: &Tensor) -> Tensor {
    let grey = images.mean_dim(1, true, None);
    let filters = Tensor::from_slice(&FILTERS.concat())
        .view([2, 1, 3, 3])
        .to_device(images.device())
        .to_kind(images.kind());
    grey.conv2d(&filters, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
}
