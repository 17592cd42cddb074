//! Layers as the papers initialise them, where tch's defaults differ.

use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use tch::nn::{Module, ModuleT};
use tch::{Tensor, nn};

/// N(0, sqrt(2 / (k² c_out))): He et al., "Delving Deep into Rectifiers",
/// <https://arxiv.org/abs/1502.01852>, with the fan of the outputs. Both torchvision
/// and DeepCluster (`models/alexnet.py`, `_initialize_weights`) use it.
const CONV_INIT: nn::Init = nn::Init::Kaiming {
    dist: NormalOrUniform::Normal,
    fan: FanInOut::FanOut,
    non_linearity: NonLinearity::ReLU,
};

/// Standard deviation of a linear layer's initial weights, in DeepCluster, SeLa and
/// torchvision's VGG.
pub const LINEAR_STDEV: f64 = 0.01;

/// Window of a convolution or pooling layer, in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub kernel: i64,
    pub stride: i64,
    pub padding: i64,
}

/// Whether a convolution adds a bias of its own; a batch norm behind it makes one
/// superfluous, but AlexNet's and VGG's checkpoints have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    Zero,
    None,
}

/// Batch norm over `channels` that starts as the identity (scale 1, shift 0), as in
/// PyTorch since 1.0; tch would draw the scale from U(0, 1).
pub fn batch_norm(path: nn::Path, channels: i64) -> nn::BatchNorm {
    let config = nn::BatchNormConfig {
        ws_init: nn::Init::Const(1.),
        bs_init: nn::Init::Const(0.),
        eps: 1e-5,
        momentum: 0.1,
        ..Default::default()
    };
    nn::batch_norm2d(path, channels, config)
}

/// A convolution and the batch norm behind it.
#[derive(Debug)]
pub struct ConvBn {
    pub conv: nn::Conv2D,
    pub bn: nn::BatchNorm,
}

impl ConvBn {
    /// Map `[b, c_out, h', w']` of a map `[b, c_in, h, w]`.
    pub fn forward(&self, map: &Tensor, train: bool) -> Tensor {
        self.bn.forward_t(&self.conv.forward(map), train)
    }
}

/// Convolution from `c_in` to `c_out` channels, weights N(0, sqrt(2 / (k² c_out))).
pub fn conv(path: nn::Path, c_in: i64, c_out: i64, window: Window, bias: Bias) -> nn::Conv2D {
    let config = nn::ConvConfig {
        stride: window.stride,
        padding: window.padding,
        bias: bias == Bias::Zero,
        ws_init: CONV_INIT,
        bs_init: nn::Init::Const(0.),
        ..Default::default()
    };
    nn::conv2d(path, c_in, c_out, window.kernel, config)
}

/// Linear layer from `d_in` to `d_out`, weights N(0, 0.01), bias 0.
pub fn linear(path: nn::Path, d_in: i64, d_out: i64) -> nn::Linear {
    let config = nn::LinearConfig {
        ws_init: nn::Init::Randn {
            mean: 0.,
            stdev: LINEAR_STDEV,
        },
        bs_init: Some(nn::Init::Const(0.)),
        bias: true,
    };
    nn::linear(path, d_in, d_out, config)
}
