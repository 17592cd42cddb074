//! Networks without shortcuts: a stack of convolutions, then two hidden layers of 4096.
//! AlexNet and VGG are tables for it.

use tch::{Kind, Tensor, nn};

use super::layers::{Bias, ConvBn, Window, linear, linear_in_kind, max_pool};
use super::{Backbone, LayerWatch, Maps, MiddleLayer, Shape};

const HIDDEN: i64 = 4096;
const DROPOUT: f64 = 0.5;

/// One row of a network's table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row {
    /// Convolution with bias, batch norm, ReLU.
    Conv {
        filters: i64,
        window: Window,
    },
    MaxPool(Window),
}

/// One hidden layer of the classifier.
#[derive(Debug)]
pub(super) struct HiddenLayer {
    /// Position in the published `classifier`, which is its parameter's name.
    pub index: usize,
    /// Dropout of 0.5 on what it sees.
    pub dropout: bool,
}

/// What sets one of these networks apart from another.
#[derive(Debug)]
pub(super) struct Table {
    pub features: &'static [Row],
    /// Side to which the last map is averaged before the classifier, in pixels.
    pub pooled_side: i64,
    pub classifier: [HiddenLayer; 2],
}

#[derive(Debug)]
enum Layer {
    Conv(Box<ConvBn>),
    MaxPool(Window),
}

/// A network built after a [`Table`]. Parameters: `features.N.{weight,bias}` with N
/// counting convolution, batch norm, ReLU and pooling; `classifier.N.{weight,bias}`.
#[derive(Debug)]
pub(super) struct Sequential {
    features: Vec<Layer>,
    channels: i64,
    in_channels: i64,
    pooled_side: i64,
    classifier: [(nn::Linear, bool); 2],
}

impl Sequential {
    pub fn new(path: &nn::Path, shape: &Shape, table: &Table) -> Self {
        let mut channels = shape.in_channels;
        let mut index = 0;
        let mut features = Vec::with_capacity(table.features.len());
        let names = path / "features";
        for &row in table.features {
            match row {
                Row::Conv { filters, window } => {
                    features.push(Layer::Conv(Box::new(ConvBn::new(
                        &names / index,
                        &names / (index + 1),
                        (channels, filters),
                        window,
                        Bias::Zero,
                    ))));
                    channels = filters;
                    index += 3;
                }
                Row::MaxPool(window) => {
                    features.push(Layer::MaxPool(window));
                    index += 1;
                }
            }
        }
        let names = path / "classifier";
        let [first, second] = &table.classifier;
        let pooled = channels * table.pooled_side * table.pooled_side;
        let classifier = [
            (linear(&names / first.index, pooled, HIDDEN), first.dropout),
            (
                linear(&names / second.index, HIDDEN, HIDDEN),
                second.dropout,
            ),
        ];
        Self {
            features,
            channels,
            in_channels: shape.in_channels,
            pooled_side: table.pooled_side,
            classifier,
        }
    }
}

impl Backbone for Sequential {
    fn watched_maps(&self, images: &Tensor, train: bool, watch: &mut LayerWatch) -> Maps {
        let mut map = images.shallow_clone();
        let mut layers = self.features.iter().peekable();
        let mut number = 0;
        while let Some(layer) = layers.next() {
            map = match (layer, layers.peek()) {
                // The ReLU of the largest is the largest ReLU, on fewer numbers.
                (Layer::Conv(layer), Some(Layer::MaxPool(_))) => {
                    map = layer.forward(&map, train);
                    continue;
                }
                (Layer::Conv(layer), _) => layer.forward_relu(&map, None, train),
                (Layer::MaxPool(window), _) => max_pool(&map, *window).relu_(),
            };
            watch(number, &map);
            number += 1;
        }
        map.into()
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        let channels = self.features.iter().filter_map(|layer| match layer {
            Layer::Conv(layer) => Some(layer.channels()),
            Layer::MaxPool(_) => None,
        });
        let layer = |(channels, number)| MiddleLayer {
            name: format!("conv{number}"),
            channels,
        };
        channels.zip(1..).map(layer).collect()
    }

    fn hidden(&self, maps: &Maps, train: bool) -> Tensor {
        let [(first, first_dropout), (second, second_dropout)] = &self.classifier;
        let pooled = maps
            .last
            .adaptive_avg_pool2d([self.pooled_side; 2])
            .flatten(1, -1);
        let seen = pooled.dropout(DROPOUT, train && *first_dropout);
        let hidden = linear_in_kind(&seen, first).relu_();
        linear_in_kind(&hidden.dropout(DROPOUT, train && *second_dropout), second)
    }

    fn activate(&self, hidden: &Tensor) -> Tensor {
        hidden.relu()
    }

    fn folded(&self, kind: Kind) -> Box<dyn Backbone> {
        let features = self.features.iter().map(|layer| match layer {
            Layer::Conv(layer) => Layer::Conv(Box::new(layer.folded(kind))),
            Layer::MaxPool(window) => Layer::MaxPool(*window),
        });
        let linear = |(layer, dropout): &(nn::Linear, bool)| {
            let in_kind = |tensor: &Tensor| tensor.detach().to_kind(kind);
            let layer = nn::Linear {
                ws: in_kind(&layer.ws),
                bs: layer.bs.as_ref().map(in_kind),
            };
            (layer, *dropout)
        };
        Box::new(Self {
            features: features.collect(),
            classifier: self.classifier.each_ref().map(linear),
            ..*self
        })
    }

    fn channels(&self) -> i64 {
        self.channels
    }

    fn dim(&self) -> i64 {
        HIDDEN
    }

    fn in_channels(&self) -> i64 {
        self.in_channels
    }
}
