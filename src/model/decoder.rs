//! From a map to an image: what tasks with dense answers (colours, missing pixels, depth) put behind a
//! backbone.

use tch::{Kind, Tensor, nn};

/// Filters of the layers between the map and the answer, each at twice the side of the one before.
const FILTERS: [i64; 2] = [128, 64];

/// 3x3 convolutions with ReLUs, between which maps grow bilinearly; an image of `outputs` channels
/// comes out. Parameters: `layers.{0..2}.{weight,bias}`.
#[derive(Debug)]
pub struct Decoder {
    layers: Vec<nn::Conv2D>,
}

impl Decoder {
    /// For maps of `channels`, under `path`.
    pub fn new(path: &nn::Path, channels: i64, outputs: i64) -> Self {
        let mut from = channels;
        let mut layers = Vec::new();
        for (number, to) in FILTERS.into_iter().chain([outputs]).enumerate() {
            let last = number == FILTERS.len();
            // The first answer is nearly nothing, so that the backbone is not shaken by it.
            let stdev = if last {
                1e-3
            } else {
                (2.0 / (9 * from) as f64).sqrt()
            };
            let config = nn::ConvConfig {
                padding: 1,
                ws_init: nn::Init::Randn { mean: 0.0, stdev },
                bs_init: nn::Init::Const(0.0),
                ..Default::default()
            };
            layers.push(nn::conv2d(path / "layers" / number, from, to, 3, config));
            from = to;
        }
        Self { layers }
    }

    /// `[b, outputs, side, side] f32` of a map `[b, channels, h, w]` of any kind.
    pub fn forward(&self, map: &Tensor, side: i64) -> Tensor {
        let mut map = map.to_kind(Kind::Float).contiguous();
        let (last, first) = self.layers.split_last().expect("one layer at least");
        for layer in first {
            map = map.apply(layer).relu();
            let grown = (2 * map.size()[2]).min(side);
            map = map.upsample_bilinear2d([grown, grown], false, None, None);
        }
        if map.size()[2] != side {
            map = map.upsample_bilinear2d([side, side], false, None, None);
        }
        map.apply(last)
    }
}
