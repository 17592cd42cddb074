//! Published weights of vision transformers under other names than timm's, and for other sizes of the input.
//!
//! The same as timm's `checkpoint_filter_fn` in `vision_transformer.py` and `eva.py`, for these layouts:
//!
//! - Meta's DINOv2 with registers (`dinov2_vits14_reg4_pretrain.pth`): `register_tokens`, and a position of the
//!   class token, which timm adds to the token;
//! - Meta's DINOv3 (`dinov3_vits16_pretrain_lvd1689m.pth`): `storage_tokens`, `ls1.gamma`, biases of zero;
//! - OpenAI's CLIP, as open_clip has it (`visual.transformer.resblocks.*`), and open_clip around timm's networks
//!   (`visual.trunk.*`).
//!
//! DINO's files, and Meta's DINOv2 without registers, have timm's names. What has no place in the network keeps its
//! name and is left to the report of loading: heads, `mask_token`, CLIP's text tower.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::positions::resampled;
use super::{Design, Shape};

type Tensors = BTreeMap<String, Tensor>;

/// Weights under timm's names, and positions for inputs of `shape`. Those of a network like ours pass through.
pub fn adapt(tensors: Tensors, shape: &Shape, design: &Design) -> Tensors {
    let mut tensors = if tensors.contains_key("visual.class_embedding") {
        tensors.into_iter().map(of_clip).collect()
    } else if tensors.contains_key("storage_tokens") {
        tensors.into_iter().filter_map(of_dinov3).collect()
    } else {
        tensors.into_iter().map(of_trunk).collect()
    };
    move_registers(&mut tensors);
    if let Some(positions) = tensors.get_mut("pos_embed") {
        let grid = design.grid(shape.size);
        *positions = resampled(positions, design.first_positions(), grid);
    }
    tensors
}

fn of_trunk((name, tensor): (String, Tensor)) -> (String, Tensor) {
    match name.strip_prefix("visual.trunk.") {
        Some(ours) => (ours.into(), tensor),
        None => (name, tensor),
    }
}

/// In this order: the later ones would find parts of the earlier.
const CLIP: &[(&str, &str)] = &[
    ("conv1", "patch_embed.proj"),
    ("positional_embedding", "pos_embed"),
    ("class_embedding", "cls_token"),
    ("transformer.resblocks.", "blocks."),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("ln_", "norm"),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

fn of_clip((name, tensor): (String, Tensor)) -> (String, Tensor) {
    let theirs = match name.strip_prefix("visual.") {
        // The projection to what images and texts share.
        None | Some("proj") => return (name, tensor),
        Some(theirs) => theirs.to_owned(),
    };
    let rename = |name: String, (theirs, ours): &(&str, &str)| name.replace(theirs, ours);
    let ours = CLIP.iter().fold(theirs, rename);
    let tensor = match ours.as_str() {
        "cls_token" => tensor.reshape([1, 1, -1]),
        "pos_embed" => tensor.unsqueeze(0),
        _ => tensor,
    };
    (ours, tensor)
}

/// None where nothing is lost: the published networks have biases of queries, keys and values, but all are zero (and
/// `bias_mask` takes those of keys away).
fn of_dinov3((name, tensor): (String, Tensor)) -> Option<(String, Tensor)> {
    if name.ends_with("attn.qkv.bias") {
        let parts = tensor.chunk(3, 0);
        let zero = |part: &Tensor| part.count_nonzero(None).int64_value(&[]) == 0;
        if [parts.first(), parts.last()]
            .into_iter()
            .flatten()
            .all(zero)
        {
            return None;
        }
    }
    if name.ends_with("attn.qkv.bias_mask") || name == "rope_embed.periods" {
        return None;
    }
    let name = name
        .replace("ls1.gamma", "gamma_1")
        .replace("ls2.gamma", "gamma_2")
        .replace("storage_tokens", "reg_token");
    Some((name, tensor))
}

/// Positions of patches alone, where those of Meta's DINOv2 with registers have the class token's before them.
fn move_registers(tensors: &mut Tensors) {
    let Some(registers) = tensors.remove("register_tokens") else {
        return;
    };
    tensors.insert("reg_token".into(), registers);
    let [Some(class), Some(positions)] = ["cls_token", "pos_embed"].map(|name| tensors.get(name))
    else {
        return;
    };
    let (width, size) = (class.size(), positions.size());
    if size.len() != 3 || width != [1, 1, size[2]] || size[1] == 0 {
        return;
    }
    let moved = class.to_kind(Kind::Float) + positions.narrow(1, 0, 1).to_kind(Kind::Float);
    let rest = positions.narrow(1, 1, size[1] - 1);
    tensors.insert("cls_token".into(), moved);
    tensors.insert("pos_embed".into(), rest);
}
