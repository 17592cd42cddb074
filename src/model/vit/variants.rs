//! The published networks, under timm's names.

use super::adapt::adapt;
use super::{Activation, Design, Positions, Vit};
use crate::config::Interpolation;
use crate::model::{BackboneEntry, InputSpec, Published};

/// One line of the registry for each design. (A function pointer takes no design along, so that each needs its own.)
macro_rules! entries {
    ($($(#[$about:meta])* $constant:ident = name: $name:expr, help: $help:expr, paper: $paper:expr,
       smaller: $smaller:expr, input: $input:expr,
       products: $products:expr, published: $published:expr, design: $design:expr;)*) => {
        $($(#[$about])* pub const $constant: BackboneEntry = BackboneEntry {
            name: $name,
            help: $help,
            paper: $paper,
            input: $input,
            min_size: 2 * $design.patch as usize,
            multiple_of: $design.patch as usize,
            smaller: $smaller,
            billion_products: $products,
            published: $published,
            adapt: |tensors, shape| adapt(tensors, shape, &$design),
            build: |path, shape| Box::new(Vit::new(path, shape, &$design)),
        };)*
    };
}

const DINO: &str = "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, https://arxiv.org/abs/2104.14294";
const DINOV2: &str = "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, https://arxiv.org/abs/2304.07193";
const REGISTERS: &str =
    "Darcet et al., Vision Transformers Need Registers, https://arxiv.org/abs/2309.16588";
const DINOV3: &str = "Siméoni et al., DINOv3, https://arxiv.org/abs/2508.10104";
const CLIP: &str = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, \
                    https://arxiv.org/abs/2103.00020";

/// What OpenAI normalises images by (`clip/clip.py`), and open_clip too.
const OF_CLIP: InputSpec = InputSpec {
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    ..bicubic(224)
};

/// DINO's: the centre of 224 pixels of a square that timm resizes to 248 (`crop_pct` 0.9).
const OF_DINO: InputSpec = InputSpec {
    resized: 248,
    ..bicubic(224)
};

/// Whole squares of so many pixels.
const fn bicubic(size: usize) -> InputSpec {
    InputSpec {
        interpolation: Interpolation::Bicubic,
        ..InputSpec::whole(size)
    }
}

const SMALL: Design = Design {
    patch: 16,
    width: 384,
    depth: 12,
    heads: 6,
    positions: Positions::WithClass,
    registers: 0,
    layer_scale: false,
    norm_first: false,
    activation: Activation::Gelu,
    epsilon: 1e-6,
};

impl Design {
    const fn base(self) -> Self {
        Self {
            width: 768,
            heads: 12,
            ..self
        }
    }

    const fn large(self) -> Self {
        Self {
            width: 1024,
            depth: 24,
            heads: 16,
            ..self
        }
    }

    const fn patch8(self) -> Self {
        Self { patch: 8, ..self }
    }

    const fn dinov2(self) -> Self {
        Self {
            patch: 14,
            layer_scale: true,
            ..self
        }
    }

    const fn dinov2_with_registers(self) -> Self {
        Self {
            registers: 4,
            positions: Positions::OfPatches,
            ..self.dinov2()
        }
    }

    const fn dinov3(self) -> Self {
        Self {
            registers: 4,
            positions: Positions::Rotary,
            layer_scale: true,
            epsilon: 1e-5,
            ..self
        }
    }

    const fn clip(self, activation: Activation) -> Self {
        Self {
            norm_first: true,
            activation,
            epsilon: 1e-5,
            ..self
        }
    }
}

entries! {
    SMALL_PATCH16 =
        name: "vit_small_patch16_224",
        help: "ViT-S/16, 384 features: DINO's weights, timm's names",
        paper: DINO, smaller: None, input: OF_DINO,
        products: 4.6, published: &[Published { file: "vit_small_patch16_224.dino", about: "ImageNet without labels, DINO", rank: 50 }, Published { file: "dino_deitsmall16_pretrain", about: "ImageNet without labels, DINO", rank: 50 }],
        design: SMALL;
    SMALL_PATCH8 =
        name: "vit_small_patch8_224",
        help: "ViT-S/8, 384 features: DINO's weights; slow, for its patches are four times as many",
        paper: DINO, smaller: Some(&SMALL_PATCH16), input: OF_DINO,
        products: 22.0, published: &[Published { file: "vit_small_patch8_224.dino", about: "ImageNet without labels, DINO", rank: 53 }, Published { file: "dino_deitsmall8_pretrain", about: "ImageNet without labels, DINO", rank: 53 }],
        design: SMALL.patch8();
    BASE_PATCH16 =
        name: "vit_base_patch16_224",
        help: "ViT-B/16, 768 features: DINO's weights",
        paper: DINO, smaller: Some(&SMALL_PATCH16), input: OF_DINO,
        products: 17.6, published: &[Published { file: "vit_base_patch16_224.dino", about: "ImageNet without labels, DINO", rank: 51 }, Published { file: "dino_vitbase16_pretrain", about: "ImageNet without labels, DINO", rank: 51 }],
        design: SMALL.base();
    BASE_PATCH8 =
        name: "vit_base_patch8_224",
        help: "ViT-B/8, 768 features: DINO's weights; slow, for its patches are four times as many",
        paper: DINO, smaller: Some(&SMALL_PATCH16), input: OF_DINO,
        products: 78.0, published: &[Published { file: "vit_base_patch8_224.dino", about: "ImageNet without labels, DINO", rank: 52 }, Published { file: "dino_vitbase8_pretrain", about: "ImageNet without labels, DINO", rank: 52 }],
        design: SMALL.base().patch8();

    SMALL_DINOV2 =
        name: "vit_small_patch14_dinov2",
        help: "ViT-S/14 as DINOv2 trained it, 384 features",
        paper: DINOV2, smaller: None, input: bicubic(224),
        products: 5.5, published: &[Published { file: "vit_small_patch14_dinov2.", about: "142 million pictures without labels, DINOv2", rank: 60 }, Published { file: "dinov2_vits14_pretrain", about: "142 million pictures without labels, DINOv2", rank: 60 }],
        design: SMALL.dinov2();
    BASE_DINOV2 =
        name: "vit_base_patch14_dinov2",
        help: "ViT-B/14 as DINOv2 trained it, 768 features",
        paper: DINOV2, smaller: Some(&SMALL_DINOV2), input: bicubic(224),
        products: 22.0, published: &[Published { file: "vit_base_patch14_dinov2.", about: "142 million pictures without labels, DINOv2", rank: 70 }, Published { file: "dinov2_vitb14_pretrain", about: "142 million pictures without labels, DINOv2", rank: 70 }],
        design: SMALL.base().dinov2();
    LARGE_DINOV2 =
        name: "vit_large_patch14_dinov2",
        help: "ViT-L/14 as DINOv2 trained it, 1024 features",
        paper: DINOV2, smaller: Some(&SMALL_DINOV2), input: bicubic(224),
        products: 78.0, published: &[Published { file: "vit_large_patch14_dinov2.", about: "142 million pictures without labels, DINOv2", rank: 80 }, Published { file: "dinov2_vitl14_pretrain", about: "142 million pictures without labels, DINOv2", rank: 80 }],
        design: SMALL.large().dinov2();
    SMALL_REG4_DINOV2 =
        name: "vit_small_patch14_reg4_dinov2",
        help: "the same ViT-S/14 with 4 registers, which leave its maps clean",
        paper: REGISTERS, smaller: None, input: bicubic(224),
        products: 5.6, published: &[Published { file: "vit_small_patch14_reg4_dinov2.", about: "142 million pictures without labels, DINOv2", rank: 61 }, Published { file: "dinov2_vits14_reg4_pretrain", about: "142 million pictures without labels, DINOv2", rank: 61 }],
        design: SMALL.dinov2_with_registers();
    BASE_REG4_DINOV2 =
        name: "vit_base_patch14_reg4_dinov2",
        help: "the same ViT-B/14 with 4 registers",
        paper: REGISTERS, smaller: Some(&SMALL_REG4_DINOV2), input: bicubic(224),
        products: 22.0, published: &[Published { file: "vit_base_patch14_reg4_dinov2.", about: "142 million pictures without labels, DINOv2", rank: 71 }, Published { file: "dinov2_vitb14_reg4_pretrain", about: "142 million pictures without labels, DINOv2", rank: 71 }],
        design: SMALL.base().dinov2_with_registers();
    LARGE_REG4_DINOV2 =
        name: "vit_large_patch14_reg4_dinov2",
        help: "the same ViT-L/14 with 4 registers",
        paper: REGISTERS, smaller: Some(&SMALL_REG4_DINOV2), input: bicubic(224),
        products: 79.0, published: &[Published { file: "vit_large_patch14_reg4_dinov2.", about: "142 million pictures without labels, DINOv2", rank: 81 }, Published { file: "dinov2_vitl14_reg4_pretrain", about: "142 million pictures without labels, DINOv2", rank: 81 }],
        design: SMALL.large().dinov2_with_registers();

    SMALL_DINOV3 =
        name: "vit_small_patch16_dinov3",
        help: "ViT-S/16 as DINOv3 distilled it, 384 features: rotary positions, 4 registers",
        paper: DINOV3, smaller: None, input: bicubic(256),
        products: 6.0, published: &[Published { file: "vit_small_patch16_dinov3.", about: "1,689 million pictures without labels, DINOv3", rank: 62 }, Published { file: "dinov3_vits16_pretrain_lvd", about: "1,689 million pictures without labels, DINOv3", rank: 62 }],
        design: SMALL.dinov3();
    BASE_DINOV3 =
        name: "vit_base_patch16_dinov3",
        help: "ViT-B/16 as DINOv3 distilled it, 768 features",
        paper: DINOV3, smaller: Some(&SMALL_DINOV3), input: bicubic(256),
        products: 23.0, published: &[Published { file: "vit_base_patch16_dinov3.", about: "1,689 million pictures without labels, DINOv3", rank: 72 }, Published { file: "dinov3_vitb16_pretrain_lvd", about: "1,689 million pictures without labels, DINOv3", rank: 72 }],
        design: SMALL.base().dinov3();
    LARGE_DINOV3 =
        name: "vit_large_patch16_dinov3",
        help: "ViT-L/16 as DINOv3 distilled it, 1024 features",
        paper: DINOV3, smaller: Some(&SMALL_DINOV3), input: bicubic(256),
        products: 80.0, published: &[Published { file: "vit_large_patch16_dinov3.", about: "1,689 million pictures without labels, DINOv3", rank: 82 }, Published { file: "dinov3_vitl16_pretrain_lvd", about: "1,689 million pictures without labels, DINOv3", rank: 82 }],
        design: SMALL.large().dinov3();

    BASE_CLIP =
        name: "vit_base_patch16_clip_224",
        help: "ViT-B/16 of CLIP, 768 features before the projection: open_clip's weights with GELU",
        paper: CLIP, smaller: None, input: OF_CLIP,
        products: 17.6, published: &[Published { file: "vit_base_patch16_clip_224.", about: "pictures with captions, CLIP", rank: 45 }],
        design: SMALL.base().clip(Activation::Gelu);
    BASE_CLIP_QUICKGELU =
        name: "vit_base_patch16_clip_quickgelu_224",
        help: "the same with QuickGELU: OpenAI's weights",
        paper: CLIP, smaller: Some(&BASE_CLIP), input: OF_CLIP,
        products: 17.6, published: &[Published { file: "vit_base_patch16_clip_quickgelu_224.", about: "pictures with captions, CLIP", rank: 45 }],
        design: SMALL.base().clip(Activation::QuickGelu);
}
