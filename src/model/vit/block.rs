//! One block of a transformer: attention, then two linear layers, each added to what it saw.

use tch::{Kind, Tensor, nn};

use super::Design;
use super::positions::Rotary;
use crate::model::layers::Bias;
use crate::model::tokens::{Activation, LayerNorm, Linear, STDEV};

/// Width of the layer between the two linear ones, for each channel.
const EXPANSION: i64 = 4;
/// Initial layer scale: Touvron et al., "Going deeper with Image Transformers",
/// <https://arxiv.org/abs/2103.17239>, take it for 24 blocks, DINOv2 and DINOv3 at any depth.
const LAYER_SCALE: f64 = 1e-5;

/// Pre-norm, as in Dosovitskiy et al., section 3.1.
#[derive(Debug)]
pub struct Block {
    heads: i64,
    activation: Activation,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    /// Of the attention's result; None where there is none, or once it is folded into `proj`.
    scale1: Option<Tensor>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Option<Tensor>,
}

impl Block {
    /// The block of that number, from 0.
    pub fn new(path: &nn::Path, design: &Design, number: i64) -> Self {
        let width = design.width;
        // timm's `fix_init_weight`: what is added stays of the same size, however deep.
        let (bias, added) = match design.is_eva() {
            true => (Bias::None, STDEV / (2. * (number + 1) as f64).sqrt()),
            false => (Bias::Zero, STDEV),
        };
        let scale = |i: i64| {
            let (path, name) = match design.is_eva() {
                true => (path.clone(), format!("gamma_{i}")),
                false => (path / format!("ls{i}"), "gamma".into()),
            };
            let init = nn::Init::Const(LAYER_SCALE);
            design.layer_scale.then(|| path.var(&name, &[width], init))
        };
        let (attention, mlp) = (path / "attn", path / "mlp");
        let hidden = EXPANSION * width;
        Self {
            heads: design.heads,
            activation: design.activation,
            norm1: LayerNorm::new(path / "norm1", width, design.epsilon),
            qkv: Linear::new(&attention / "qkv", (width, 3 * width), bias, STDEV),
            proj: Linear::new(&attention / "proj", (width, width), Bias::Zero, added),
            scale1: scale(1),
            norm2: LayerNorm::new(path / "norm2", width, design.epsilon),
            fc1: Linear::new(&mlp / "fc1", (width, hidden), Bias::Zero, STDEV),
            fc2: Linear::new(&mlp / "fc2", (hidden, width), Bias::Zero, added),
            scale2: scale(2),
        }
    }

    /// Tokens `[b, n, width]` of tokens `[b, n, width]`.
    pub fn forward(&self, tokens: &Tensor, rotary: Option<&Rotary>) -> Tensor {
        let attended = self.attention(&self.norm1.forward(tokens), rotary);
        let tokens = tokens + scaled(attended, self.scale1.as_ref());
        let hidden = self.fc1.forward(&self.norm2.forward(&tokens));
        let mixed = self.fc2.forward(&self.activation.of(&hidden));
        tokens + scaled(mixed, self.scale2.as_ref())
    }

    fn attention(&self, tokens: &Tensor, rotary: Option<&Rotary>) -> Tensor {
        let [b, n, width] = tokens.size()[..] else {
            unreachable!("tokens are [b, n, width]");
        };
        let qkv = self.qkv.forward(tokens);
        let qkv = qkv.view([b, n, 3, self.heads, width / self.heads]);
        let (queries_keys, values) = (qkv.narrow(2, 0, 2), qkv.select(2, 2));
        let queries_keys = match rotary {
            Some(rotary) => rotary.turn(&queries_keys),
            None => queries_keys,
        };
        let [queries, keys, values] =
            [queries_keys.select(2, 0), queries_keys.select(2, 1), values]
                .map(|heads| heads.transpose(1, 2));
        let seen = Tensor::scaled_dot_product_attention(
            &queries,
            &keys,
            &values,
            None::<Tensor>,
            0.,
            false,
            None,
            false,
        );
        self.proj
            .forward(&seen.transpose(1, 2).reshape([b, n, width]))
    }

    /// The same for tokens of `kind`, with layer scale folded into the linear layers before it.
    pub fn folded(&self, kind: Kind) -> Self {
        Self {
            heads: self.heads,
            activation: self.activation,
            norm1: self.norm1.folded(kind),
            qkv: self.qkv.folded(None, kind),
            proj: self.proj.folded(self.scale1.as_ref(), kind),
            scale1: None,
            norm2: self.norm2.folded(kind),
            fc1: self.fc1.folded(None, kind),
            fc2: self.fc2.folded(self.scale2.as_ref(), kind),
            scale2: None,
        }
    }
}

fn scaled(tokens: Tensor, scale: Option<&Tensor>) -> Tensor {
    match scale {
        Some(scale) => &tokens * scale.to_kind(tokens.kind()),
        None => tokens,
    }
}
