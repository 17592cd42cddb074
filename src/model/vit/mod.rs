//! Vision transformers: an image as a sequence of patches.
//!
//! Dosovitskiy et al., "An Image is Worth 16x16 Words", <https://arxiv.org/abs/2010.11929>. Names and geometry are
//! timm's (`vision_transformer.py`; DINOv3's `eva.py`).
//!
//! Parameters: `patch_embed.proj.*`, `cls_token`, `reg_token`, `pos_embed`, `norm_pre.*`,
//! `blocks.{i}.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}.*`, `blocks.{i}.ls{1,2}.gamma` (DINOv3:
//! `blocks.{i}.gamma_{1,2}`), `norm.*`, as far as a network has them. `pos_embed` has the positions of the input
//! that the network is built for; those of a file are resampled to it (`adapt.rs`).

mod adapt;
mod block;
mod positions;
mod variants;

use tch::{Kind, Tensor, nn};

use super::tokens::{Activation, LayerNorm, Patches, STDEV};
use super::{Backbone, LayerWatch, Maps, MiddleLayer, Shape};
use block::Block;
use positions::{Rotary, resampled};
pub use variants::*;

/// What tells a patch where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Positions {
    /// Learned vectors, one of them for the class token.
    WithClass,
    /// Learned vectors of patches alone.
    OfPatches,
    Rotary,
}

/// What sets one of these networks apart from another.
#[derive(Debug, Clone, Copy)]
struct Design {
    /// Side of a patch, in pixels.
    patch: i64,
    width: i64,
    depth: i64,
    heads: i64,
    positions: Positions,
    /// Darcet et al., "Vision Transformers Need Registers", <https://arxiv.org/abs/2309.16588>.
    registers: i64,
    /// Whether what a block adds is scaled, channel by channel.
    layer_scale: bool,
    /// Whether there is a norm before the first block; then patches have no bias.
    norm_first: bool,
    activation: Activation,
    /// What layer norm adds to the variance.
    epsilon: f64,
}

impl Design {
    /// timm has networks of rotary positions in `eva.py`, where names and initial weights differ.
    fn is_eva(&self) -> bool {
        self.positions == Positions::Rotary
    }

    /// How many of the learned positions are not a patch's.
    fn first_positions(&self) -> i64 {
        i64::from(self.positions == Positions::WithClass)
    }

    /// Patches along both sides of an image of that side.
    fn grid(&self, size: i64) -> (i64, i64) {
        let side = size / self.patch;
        (side, side)
    }
}

#[derive(Debug)]
struct Vit {
    patches: Patches,
    /// `[1, 1, width]`
    class: Tensor,
    /// `[1, registers, width]`
    registers: Option<Tensor>,
    /// `[1, first + patches, width]`
    positions: Option<Tensor>,
    first_positions: i64,
    rotary: Option<Rotary>,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    in_channels: i64,
}

impl Vit {
    fn new(path: &nn::Path, shape: &Shape, design: &Design) -> Self {
        let width = design.width;
        let normal = |stdev| nn::Init::Randn { mean: 0., stdev };
        // PyTorch's convolutions, which timm leaves as they are: U(±1 / √fan in).
        let bound = ((shape.in_channels * design.patch * design.patch) as f64).powf(-0.5);
        let uniform = nn::Init::Uniform {
            lo: -bound,
            up: bound,
        };
        let token = normal(if design.is_eva() { STDEV } else { 1e-6 });
        let grid = design.grid(shape.size);
        let count = design.first_positions() + grid.0 * grid.1;
        Self {
            patches: Patches::new(
                path / "patch_embed" / "proj",
                (shape.in_channels, width),
                design.patch,
                (uniform, (!design.norm_first).then_some(uniform)),
            ),
            class: path.var("cls_token", &[1, 1, width], token),
            registers: (design.registers > 0)
                .then(|| path.var("reg_token", &[1, design.registers, width], token)),
            positions: (!design.is_eva())
                .then(|| path.var("pos_embed", &[1, count, width], normal(STDEV))),
            first_positions: design.first_positions(),
            rotary: design
                .is_eva()
                .then(|| Rotary::new(grid, width / design.heads)),
            norm_pre: design
                .norm_first
                .then(|| LayerNorm::new(path / "norm_pre", width, design.epsilon)),
            blocks: (0..design.depth)
                .map(|i| Block::new(&(path / "blocks" / i), design, i))
                .collect(),
            norm: LayerNorm::new(path / "norm", width, design.epsilon),
            in_channels: shape.in_channels,
        }
    }

    /// Tokens that are no patch: the class token and registers.
    fn prefix(&self) -> i64 {
        1 + self.registers.as_ref().map_or(0, |tokens| tokens.size()[1])
    }

    /// Tokens `[b, prefix + h w, width]` of patches `[b, width, h, w]`.
    fn embedded(&self, map: &Tensor) -> Tensor {
        let [b, width, height, columns] = map.size()[..] else {
            unreachable!("a map is [b, width, h, w]");
        };
        let kind = map.kind();
        let patches = map.flatten(2, 3).transpose(1, 2);
        let (class, patches) = match &self.positions {
            Some(positions) => {
                let first = self.first_positions;
                // Other images than it was built for, such as small crops beside large ones.
                let positions = resampled(positions, first, (height, columns));
                let class = match first {
                    0 => self.class.shallow_clone(),
                    _ => &self.class + positions.narrow(1, 0, first),
                };
                let lie = positions.narrow(1, first, height * columns);
                (class, patches + lie.to_kind(kind))
            }
            None => (self.class.shallow_clone(), patches),
        };
        let expand = |tokens: &Tensor| tokens.to_kind(kind).expand([b, -1, width], false);
        let mut tokens = vec![expand(&class)];
        tokens.extend(self.registers.as_ref().map(expand));
        tokens.push(patches);
        Tensor::cat(&tokens, 1)
    }

    /// The patches among tokens `[b, prefix + h w, width]` where they lie `[b, width, h, w]`.
    fn map(&self, tokens: &Tensor, (height, width): (i64, i64)) -> Tensor {
        let patches = tokens.narrow(1, self.prefix(), height * width);
        patches.transpose(1, 2).unflatten(2, [height, width])
    }
}

impl Backbone for Vit {
    fn watched_maps(&self, images: &Tensor, _train: bool, watch: &mut LayerWatch) -> Maps {
        let map = self.patches.forward(images);
        let grid = (map.size()[2], map.size()[3]);
        let mut tokens = self.embedded(&map);
        if let Some(norm) = &self.norm_pre {
            tokens = norm.forward(&tokens);
        }
        let rotary = self
            .rotary
            .as_ref()
            .map(|rotary| rotary.on(grid).to_device(tokens.device()));
        for (number, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(&tokens, rotary.as_ref());
            watch(number, &self.map(&tokens, grid));
        }
        let tokens = self.norm.forward(&tokens);
        Maps {
            last: self.map(&tokens, grid),
            token: Some(tokens.select(1, 0)),
        }
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        let layer = |number| MiddleLayer {
            name: format!("blocks.{number}"),
            channels: self.dim(),
        };
        (0..self.blocks.len()).map(layer).collect()
    }

    fn hidden(&self, maps: &Maps, _train: bool) -> Tensor {
        let token = maps.token.as_ref();
        token.map_or_else(
            || unreachable!("a transformer's maps have a class token"),
            Tensor::shallow_clone,
        )
    }

    fn folded(&self, kind: Kind) -> Box<dyn Backbone> {
        let in_kind = |tensor: &Tensor| tensor.detach().to_kind(kind);
        let device = self.class.device();
        Box::new(Self {
            patches: self.patches.folded(kind),
            // They are added before anything is rounded.
            class: self.class.detach().copy(),
            registers: self.registers.as_ref().map(in_kind),
            positions: self.positions.as_ref().map(|t| t.detach().copy()),
            first_positions: self.first_positions,
            rotary: self.rotary.as_ref().map(|rotary| rotary.to_device(device)),
            norm_pre: self.norm_pre.as_ref().map(|norm| norm.folded(kind)),
            blocks: self.blocks.iter().map(|block| block.folded(kind)).collect(),
            norm: self.norm.folded(kind),
            in_channels: self.in_channels,
        })
    }

    fn channels(&self) -> i64 {
        self.dim()
    }

    fn dim(&self) -> i64 {
        self.class.size()[2]
    }

    fn in_channels(&self) -> i64 {
        self.in_channels
    }
}
