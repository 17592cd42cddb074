//! Layers that look at one position at a time: linear layers, layer norm and what transformers and ConvNeXt
//! do between them. Tokens are `[.., channels]`, in memory one after the other.
//!
//! Like those of `layers.rs` they compute in the kind of what they are given; their parameters are f32.

use tch::{Device, Kind, Tensor, nn};

use super::layers::Bias;

/// Standard deviation of initial weights in timm and torchvision, which truncate at ±2: a hundred deviations,
/// so that nothing is ever cut off.
pub const STDEV: f64 = 0.02;

/// What stands between the two linear layers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x): Hendrycks and Gimpel, "Gaussian Error Linear Units", <https://arxiv.org/abs/1606.08415>.
    Gelu,
    /// x σ(1.702 x), their approximation, with which OpenAI trained CLIP (`clip/model.py`: `QuickGELU`).
    QuickGelu,
}

impl Activation {
    pub fn of(self, tokens: &Tensor) -> Tensor {
        match self {
            Self::Gelu => tokens.gelu("none"),
            Self::QuickGelu => (tokens * 1.702).sigmoid() * tokens,
        }
    }
}

/// A linear layer.
#[derive(Debug)]
pub struct Linear {
    /// `[c_out, c_in]`
    weight: Tensor,
    /// `[c_out]`
    bias: Option<Tensor>,
}

impl Linear {
    /// From `c_in` to `c_out` channels, weights N(0, `stdev`).
    pub fn new(path: nn::Path, (c_in, c_out): (i64, i64), bias: Bias, stdev: f64) -> Self {
        let init = nn::Init::Randn { mean: 0., stdev };
        Self {
            weight: path.var("weight", &[c_out, c_in], init),
            bias: (bias == Bias::Zero).then(|| path.zeros("bias", &[c_out])),
        }
    }

    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let kind = tokens.kind();
        let weight = self.weight.to_kind(kind);
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(kind));
        if tokens.device() != Device::Cpu {
            return tokens.linear(&weight, bias);
        }
        // As a convolution of one position, which libtorch leaves to oneDNN: it adds the bias on the way, where
        // libtorch's linear layer first writes it into the whole result, and on processors that are not
        // Intel's it multiplies f32 twice as fast as MKL does.
        let mut shape = tokens.size();
        let [c_out, c_in] = weight.size()[..] else {
            unreachable!("a linear layer's weight is a matrix");
        };
        let map = tokens.reshape([1, 1, -1, c_in]).permute([0, 3, 1, 2]);
        let map = map.conv2d(
            &weight.view([c_out, c_in, 1, 1]),
            bias,
            [1, 1],
            [0, 0],
            [1, 1],
            1,
        );
        if let Some(channels) = shape.last_mut() {
            *channels = c_out;
        }
        map.permute([0, 2, 3, 1]).reshape(shape)
    }

    /// The same for tokens of `kind`, and then scaled by `gamma` `[c_out]`.
    pub fn folded(&self, gamma: Option<&Tensor>, kind: Kind) -> Self {
        let scaled = |tensor: &Tensor, shape: &[i64]| {
            let tensor = tensor.detach();
            match gamma {
                Some(gamma) => tensor * gamma.detach().view(shape),
                None => tensor,
            }
            .to_kind(kind)
        };
        Self {
            weight: scaled(&self.weight, &[-1, 1]),
            bias: self.bias.as_ref().map(|bias| scaled(bias, &[-1])),
        }
    }
}

/// Layer norm over the channels: Ba et al., <https://arxiv.org/abs/1607.06450>.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// It starts with scale 1 and shift 0.
    pub fn new(path: nn::Path, channels: i64, epsilon: f64) -> Self {
        Self {
            weight: path.ones("weight", &[channels]),
            bias: path.zeros("bias", &[channels]),
            epsilon,
        }
    }

    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let [weight, bias] = [&self.weight, &self.bias].map(|t| t.to_kind(tokens.kind()));
        tokens.layer_norm(
            weight.size(),
            Some(&weight),
            Some(&bias),
            self.epsilon,
            true,
        )
    }

    pub fn folded(&self, kind: Kind) -> Self {
        Self {
            weight: self.weight.detach().to_kind(kind),
            bias: self.bias.detach().to_kind(kind),
            epsilon: self.epsilon,
        }
    }
}

/// A convolution `[c_out, c_in, k, k]` of stride `k`, which cuts a map into patches that do not overlap.
#[derive(Debug)]
pub struct Patches {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Patches {
    /// `init` is that of the weights, and of a bias other than zero.
    pub fn new(
        path: nn::Path,
        (c_in, c_out): (i64, i64),
        side: i64,
        (weights, bias): (nn::Init, Option<nn::Init>),
    ) -> Self {
        Self {
            weight: path.var("weight", &[c_out, c_in, side, side], weights),
            bias: bias.map(|init| path.var("bias", &[c_out], init)),
        }
    }

    /// Map `[b, c_out, h / k, w / k]` of a map `[b, c_in, h, w]`.
    pub fn forward(&self, map: &Tensor) -> Tensor {
        let kind = map.kind();
        let side = self.side();
        map.conv2d(
            &self.weight.to_kind(kind),
            self.bias.as_ref().map(|bias| bias.to_kind(kind)),
            [side; 2],
            [0, 0],
            [1, 1],
            1,
        )
    }

    pub fn side(&self) -> i64 {
        self.weight.size()[2]
    }

    pub fn folded(&self, kind: Kind) -> Self {
        let in_kind = |tensor: &Tensor| tensor.detach().to_kind(kind);
        Self {
            weight: in_kind(&self.weight),
            bias: self.bias.as_ref().map(in_kind),
        }
    }
}

/// A map `[b, c, h, w]` as tokens `[b, h, w, c]`.
pub fn to_tokens(map: &Tensor) -> Tensor {
    map.permute([0, 2, 3, 1]).contiguous()
}

/// Tokens `[b, h, w, c]` as a map `[b, c, h, w]`.
pub fn to_map(tokens: &Tensor) -> Tensor {
    tokens.permute([0, 3, 1, 2])
}
