//! Layers as the papers initialise them, where tch's defaults differ.

use tch::nn::ModuleT;
use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use tch::{Device, Kind, Tensor, nn};

/// N(0, sqrt(2 / (k² c_out))): He et al., "Delving Deep into Rectifiers",
/// <https://arxiv.org/abs/1502.01852>, with the fan of the outputs. Both torchvision
/// and DeepCluster (`models/alexnet.py`, `_initialize_weights`) use it.
const CONV_INIT: nn::Init = nn::Init::Kaiming {
    dist: NormalOrUniform::Normal,
    fan: FanInOut::FanOut,
    non_linearity: NonLinearity::ReLU,
};

/// What batch norm adds to the variance.
const NORM_EPSILON: f64 = 1e-5;

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
fn batch_norm(path: nn::Path, channels: i64) -> nn::BatchNorm {
    let config = nn::BatchNormConfig {
        ws_init: nn::Init::Const(1.),
        bs_init: nn::Init::Const(0.),
        eps: NORM_EPSILON,
        momentum: 0.1,
        ..Default::default()
    };
    nn::batch_norm2d(path, channels, config)
}

/// A convolution and the batch norm behind it. It computes in the kind of the map that it is given;
/// its parameters and batch norm's statistics stay f32.
#[derive(Debug)]
pub struct ConvBn {
    /// `[c_out, c_in, k, k]`
    weight: Tensor,
    /// `[c_out]`
    bias: Option<Tensor>,
    window: Window,
    /// Channels are in so many groups, each convolved by itself.
    groups: i64,
    /// None once it is folded into the convolution.
    norm: Option<nn::BatchNorm>,
}

impl ConvBn {
    /// Channels of the output.
    pub fn channels(&self) -> i64 {
        self.weight.size()[0]
    }

    /// From `c_in` to `c_out` channels, weights N(0, sqrt(2 / (k² c_out))) under `conv`, batch norm
    /// under `norm`.
    pub fn new(
        conv: nn::Path,
        norm: nn::Path,
        (c_in, c_out): (i64, i64),
        window: Window,
        bias: Bias,
    ) -> Self {
        let shape = [c_out, c_in, window.kernel, window.kernel];
        Self {
            bias: (bias == Bias::Zero).then(|| conv.var("bias", &[c_out], nn::Init::Const(0.))),
            weight: conv.var("weight", &shape, CONV_INIT),
            window,
            groups: 1,
            norm: Some(batch_norm(norm, c_out)),
        }
    }

    /// Each of the channels by itself, without a bias.
    pub fn depthwise(conv: nn::Path, norm: nn::Path, channels: i64, window: Window) -> Self {
        Self {
            groups: channels,
            ..Self::new(conv, norm, (1, channels), window, Bias::None)
        }
    }

    /// Map `[b, c_out, h', w']` of a map `[b, c_in, h, w]`, in its kind.
    pub fn forward(&self, map: &Tensor, train: bool) -> Tensor {
        let Window {
            stride, padding, ..
        } = self.window;
        let kind = map.kind();
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(kind));
        let map = map.conv2d(
            &self.weight.to_kind(kind),
            bias,
            [stride; 2],
            [padding; 2],
            [1, 1],
            self.groups,
        );
        match &self.norm {
            Some(norm) => norm.forward_t(&map, train),
            None => map,
        }
    }

    /// The ReLU of [`Self::forward`], to which `shortcut` is added before where there is one.
    pub fn forward_relu(&self, map: &Tensor, shortcut: Option<&Tensor>, train: bool) -> Tensor {
        if let Some(fused) = self.fused(map, shortcut) {
            return fused;
        }
        let map = self.forward(map, train);
        let mut sum = match shortcut {
            Some(shortcut) => map + shortcut,
            None => map,
        };
        sum.relu_()
    }

    /// [`Self::forward`] cut to 0..6.
    pub fn forward_relu6(&self, map: &Tensor, train: bool) -> Tensor {
        self.forward(map, train).clamp_(0.0, 6.0)
    }

    /// [`Self::forward_relu`] in one kernel of cuDNN in place of three or four, for a folded convolution on CUDA.
    fn fused(&self, map: &Tensor, shortcut: Option<&Tensor>) -> Option<Tensor> {
        if self.norm.is_some() || !matches!(map.device(), Device::Cuda(_)) {
            return None;
        }
        let (stride, padding) = ([self.window.stride; 2], [self.window.padding; 2]);
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        match shortcut {
            None => {
                map.f_cudnn_convolution_relu(weight, bias, stride, padding, [1, 1], self.groups)
            }
            Some(shortcut) => map.f_cudnn_convolution_add_relu(
                weight,
                shortcut,
                1.0,
                bias,
                stride,
                padding,
                [1, 1],
                self.groups,
            ),
        }
        .ok()
    }

    /// The same function at evaluation as one convolution, for maps of `kind`: batch norm's scale
    /// and shift, which its running statistics fix, are folded into weights and bias.
    pub fn folded(&self, kind: Kind) -> Self {
        let Some(norm) = &self.norm else {
            return Self {
                weight: self.weight.to_kind(kind),
                bias: self.bias.as_ref().map(|bias| bias.to_kind(kind)),
                norm: None,
                ..*self
            };
        };
        tch::no_grad(|| {
            let mut scale = (&norm.running_var + NORM_EPSILON).rsqrt();
            if let Some(weight) = &norm.ws {
                scale *= weight;
            }
            let mean = match &self.bias {
                Some(bias) => &norm.running_mean - bias,
                None => norm.running_mean.shallow_clone(),
            };
            let shift = match &norm.bs {
                Some(shift) => shift - mean * &scale,
                None => -mean * &scale,
            };
            Self {
                weight: (&self.weight * scale.view([-1, 1, 1, 1])).to_kind(kind),
                bias: Some(shift.to_kind(kind)),
                norm: None,
                ..*self
            }
        })
    }
}

/// The largest value in each window of a map `[b, c, h, w]`.
pub fn max_pool(map: &Tensor, window: Window) -> Tensor {
    let Window {
        kernel,
        stride,
        padding,
    } = window;
    // libtorch's pooling also finds where each maximum lies, which costs several times as much as
    // the maximum; without gradients nobody asks.
    let quick = padding == 0 && map.device() == Device::Cpu && !map.requires_grad();
    if !quick {
        return map.max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1, 1], false);
    }
    [2, 3].iter().fold(map.shallow_clone(), |map, &dim| {
        let windows = (map.size()[dim] - kernel) / stride + 1;
        let lines = |offset: i64| {
            let end = offset + (windows - 1) * stride + 1;
            map.slice(dim as i64, offset, end, stride)
        };
        (1..kernel).fold(lines(0), |most, offset| most.maximum(&lines(offset)))
    })
}

/// `layer` of `features` `[b, d_in]`, in their kind.
pub fn linear_in_kind(features: &Tensor, layer: &nn::Linear) -> Tensor {
    let kind = features.kind();
    let bias = layer.bs.as_ref().map(|bias| bias.to_kind(kind));
    features.linear(&layer.ws.to_kind(kind), bias)
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
