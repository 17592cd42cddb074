//! Views of a whole batch by operations on tensors: for devices to which many small steps are slow.

use tch::{Kind, Tensor};

use super::{
    GREY, LUMINANCE, NOISE, Operation, Recipe, SOLARISE_FROM, blur_radius, blur_weights, noise,
    to_unit,
};
use crate::device::send;

/// See [`super::cook`]. Memory is that of a few batches.
pub(super) fn cook(pixels: &Tensor, recipes: &[Recipe], size: i64) -> Tensor {
    let mut views = crops(&to_unit(pixels), recipes, size, false);
    let steps = recipes.iter().map(|recipe| recipe.operations.len()).max();
    for step in 0..steps.unwrap_or(0) {
        for kind in KINDS {
            views = change_some(views, recipes, step, kind);
        }
        for (image, recipe) in (0..).zip(recipes) {
            let Some(&operation) = recipe.operations.get(step) else {
                continue;
            };
            if let Some(changed) = change_one(&views.get(image), operation) {
                views.get(image).copy_(&changed);
            }
        }
    }
    views
}

/// Crop, resize and mirror `[b, c, side, side]` by one `grid_sample`: see [`super::crops`].
pub(super) fn crops(images: &Tensor, recipes: &[Recipe], size: i64, nearest: bool) -> Tensor {
    const BILINEAR: i64 = 0;
    const NEAREST: i64 = 1;
    const BORDER: i64 = 1;
    let mode = if nearest { NEAREST } else { BILINEAR };
    let (b, channels, side) = (images.size()[0], images.size()[1], images.size()[3] as f64);
    let count = recipes.len() as i64;
    let each = count / b.max(1);
    // Row-major 2x3 matrices from output to input coordinates in [-1, 1].
    let affine: Vec<f32> = recipes
        .iter()
        .flat_map(|recipe| {
            let crop = &recipe.crop;
            let mirror = if crop.mirror { -1.0 } else { 1.0 };
            let (sin, cos) = crop.angle.sin_cos();
            [
                mirror * crop.width * cos / side,
                -crop.height * sin / side,
                (2.0 * crop.left + crop.width) / side - 1.0,
                mirror * crop.width * sin / side,
                crop.height * cos / side,
                (2.0 * crop.top + crop.height) / side - 1.0,
            ]
        })
        .map(|value| value as f32)
        .collect();
    let affine = send(&affine, images.device()).view([count, 2, 3]);
    let grid = Tensor::affine_grid_generator(&affine, [count, channels, size, size], false);
    if each == 1 {
        return images.grid_sampler(&grid, mode, BORDER, false);
    }
    // The views of an image below each other, so that it is there once.
    images
        .grid_sampler(&grid.view([b, each * size, size, 2]), mode, BORDER, false)
        .view([b, channels, each, size, size])
        .transpose(1, 2)
        .reshape([count, channels, size, size])
}

/// One kind of operation on images `[b, 3, h, w]`: which numbers it takes, and what it does with them
/// as `[b]`.
struct Kinds {
    number: fn(&Operation) -> Option<f32>,
    change: fn(&Tensor, &[f32]) -> Tensor,
}

/// The operations that are done image by image: rare, or different for each.
fn change_one(image: &Tensor, operation: Operation) -> Option<Tensor> {
    let size = image.size();
    match operation {
        Operation::DropColours { keep, seed } => {
            let kept = image.get(i64::from(keep));
            let deviation = kept.std(false) * f64::from(NOISE);
            let count = (size[1] * size[2]) as usize;
            let channels: Vec<Tensor> = (0..3)
                .map(|channel| match channel == usize::from(keep) {
                    true => kept.shallow_clone(),
                    false => {
                        let noise = send(&noise(seed, channel, count), image.device());
                        noise.view([size[1], size[2]]) * &deviation + f64::from(GREY)
                    }
                })
                .collect();
            Some(Tensor::stack(&channels, 0))
        }
        Operation::Coarse(side) => {
            let small = image.unsqueeze(0).adaptive_avg_pool2d([side as i64; 2]);
            let large = small.upsample_bilinear2d([size[1], size[2]], false, None, None);
            Some(large.squeeze_dim(0))
        }
        _ => None,
    }
}

const KINDS: &[Kinds] = &[
    Kinds {
        number: |operation| match operation {
            Operation::Brightness(factor) => Some(*factor),
            _ => None,
        },
        change: |images, factors| (images * column(factors, images)).clamp(0.0, 1.0),
    },
    Kinds {
        number: |operation| match operation {
            Operation::Contrast(factor) => Some(*factor),
            _ => None,
        },
        change: |images, factors| {
            let mean = luminance(images).mean_dim([1_i64, 2, 3].as_slice(), true, Kind::Float);
            mix(images, &mean, factors)
        },
    },
    Kinds {
        number: |operation| match operation {
            Operation::Saturation(factor) => Some(*factor),
            _ => None,
        },
        change: |images, factors| mix(images, &luminance(images), factors),
    },
    Kinds {
        number: |operation| match operation {
            Operation::Hue(turn) => Some(*turn),
            _ => None,
        },
        change: hue,
    },
    Kinds {
        number: |operation| (*operation == Operation::Greyscale).then_some(0.0),
        change: |images, _| luminance(images).expand_as(images),
    },
    Kinds {
        number: |operation| match operation {
            Operation::Blur(sigma) => Some(*sigma),
            _ => None,
        },
        change: blur,
    },
    Kinds {
        number: |operation| (*operation == Operation::Projection).then_some(0.0),
        change: |images, _| {
            let a = send(&[-1.0_f32, 2.0, -1.0], images.device()).view([1, 3, 1, 1]);
            let off = (images * &a).sum_dim_intlist(1, true, Kind::Float) / 6.0;
            (images - off * a).clamp(0.0, 1.0)
        },
    },
    Kinds {
        number: |operation| (*operation == Operation::Solarise).then_some(0.0),
        change: |images, _| {
            let turned: Tensor = 1.0 - images;
            turned.where_self(&images.ge(f64::from(SOLARISE_FROM)), images)
        },
    },
];

/// Applies `kind` to the images whose recipe has it at `step`.
fn change_some(mut images: Tensor, recipes: &[Recipe], step: usize, kind: &Kinds) -> Tensor {
    let (mut picked, mut numbers) = (Vec::new(), Vec::new());
    for (image, recipe) in (0_i64..).zip(recipes) {
        if let Some(number) = recipe.operations.get(step).and_then(kind.number) {
            picked.push(image);
            numbers.push(number);
        }
    }
    if picked.is_empty() {
        return images;
    }
    let index = send(&picked, images.device());
    let changed = (kind.change)(&images.index_select(0, &index), &numbers);
    images.index_copy_(0, &index, &changed)
}

/// `[b, 1, 1, 1]` beside `images`.
fn column(numbers: &[f32], images: &Tensor) -> Tensor {
    send(numbers, images.device()).view([-1, 1, 1, 1])
}

/// `factors` of `images` and the rest of `other`.
fn mix(images: &Tensor, other: &Tensor, factors: &[f32]) -> Tensor {
    (other + (images - other) * column(factors, images)).clamp(0.0, 1.0)
}

fn luminance(images: &Tensor) -> Tensor {
    let weights = send(&LUMINANCE, images.device()).view([1, 3, 1, 1]);
    (images * weights).sum_dim_intlist(1, true, Kind::Float)
}

/// Turns the hue by shares of a full circle: to HSV and back, as torchvision does.
fn hue(images: &Tensor, turns: &[f32]) -> Tensor {
    let value = images.amax([1_i64].as_slice(), true);
    let chroma = &value - images.amin([1_i64].as_slice(), true);
    let safe = chroma.where_self(&chroma.gt(0.0), &Tensor::ones_like(&chroma));
    let channel = |index: i64| images.narrow(1, index, 1);
    let (r, g, b) = (channel(0), channel(1), channel(2));
    // Hue in sixths of a turn; the largest channel decides the sector.
    let sector =
        ((&b - &r) / &safe + 2.0).where_self(&g.eq_tensor(&value), &((&r - &g) / &safe + 4.0));
    let sector = ((&g - &b) / &safe).where_self(&r.eq_tensor(&value), &sector);
    let turned = (sector + column(turns, images) * 6.0).remainder(6.0);
    // f(n) = V − C·max(0, min(m, 4 − m, 1)) with m = (n + H) mod 6, for R, G, B: n = 5, 3, 1.
    let rebuild = |n: f64| {
        let m = (&turned + n).remainder(6.0);
        let ramp = m.minimum(&(4.0 - &m)).clamp(0.0, 1.0);
        &value - &chroma * ramp
    };
    Tensor::cat(&[rebuild(5.0), rebuild(3.0), rebuild(1.0)], 1)
}

/// Two passes of a one-dimensional kernel, another one for each image: a convolution whose groups
/// are all channels of all images.
fn blur(images: &Tensor, sigmas: &[f32]) -> Tensor {
    let shape = images.size();
    let (size, radius) = (shape[2], blur_radius(shape[2]));
    let weights: Vec<f32> = sigmas
        .iter()
        .flat_map(|&sigma| [(); 3].map(|()| blur_weights(sigma, size)).concat())
        .collect();
    let groups = 3 * shape[0];
    let weights = send(&weights, images.device()).view([groups, 1, 1, 2 * radius + 1]);
    let flat = images
        .contiguous()
        .view([1, groups, size, size])
        .reflection_pad2d([radius; 4]);
    let none = None::<Tensor>;
    let across = flat.conv2d(&weights, none.as_ref(), [1, 1], [0, 0], [1, 1], groups);
    let down = weights.transpose(2, 3);
    let both = across.conv2d(&down, none.as_ref(), [1, 1], [0, 0], [1, 1], groups);
    both.view(&shape[..])
}
