//! Random views of images, made on the device for a whole batch at once.
//!
//! What happens to an image is drawn from (seed, images seen before it, image, view) alone, so it
//! depends neither on the batch that the image is in nor on threads, and an image that is drawn
//! twice in an epoch is seen in two ways. The operations follow torchvision's
//! `RandomResizedCrop`, `RandomHorizontalFlip`, `ColorJitter` and `RandomGrayscale`; crops are
//! sampled bilinearly, by one `grid_sample` for crop, resize and flip.

use rand::Rng;
use rand::seq::SliceRandom;
use tch::{Kind, Tensor};

use crate::random::{Purpose, stream};

/// Weights of R, G and B in the luminance that contrast, saturation and greyscale use (ITU-R 601).
const LUMINANCE: [f32; 3] = [0.299, 0.587, 0.114];
/// Draws of a crop's shape before the centre is taken (torchvision's number).
const CROP_TRIES: usize = 10;

/// Which random changes are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmentation {
    /// Side of the result, in pixels.
    pub size: i64,
    /// Share of the area that a crop covers, from, to.
    pub crop_scale: [f64; 2],
    /// Width over height of a crop, from, to (log-uniform).
    pub crop_ratio: [f64; 2],
    /// Mirror left and right with probability 1/2.
    pub flip: bool,
    /// Strengths of brightness, contrast, saturation (factor 1 ± s) and hue (± s of a turn).
    pub jitter: Option<[f64; 4]>,
    /// Probability of greyscale.
    pub greyscale: f64,
}

/// Identifies a view for the random numbers.
#[derive(Debug, Clone, Copy)]
pub struct ViewKey {
    pub seed: u64,
    /// Images seen before the first one of the batch.
    pub seen: u64,
    /// 0 for the first view of an image, 1 for the next ...
    pub view: u64,
}

/// Everything that is drawn for one image.
struct Draw {
    /// Row-major 2x3 matrix from output to input coordinates in `[-1, 1]`.
    affine: [f32; 6],
    factors: [f32; 4],
    order: [usize; 4],
    grey: bool,
}

impl Augmentation {
    /// Views `[b, 3, size, size] f32` in 0..1 of images `[b, side, side, 3] u8`; `rows` says which
    /// images they are. Memory is that of a few batches.
    pub fn apply(&self, pixels: &Tensor, rows: &[u32], key: ViewKey) -> Tensor {
        let side = pixels.size()[1];
        let draws: Vec<Draw> = rows
            .iter()
            .zip(key.seen..)
            .map(|(&row, seen)| self.draw(row, ViewKey { seen, ..key }, side as f64))
            .collect();
        let images = to_unit(pixels);
        let (b, device) = (rows.len() as i64, pixels.device());
        let affine: Vec<f32> = draws.iter().flat_map(|draw| draw.affine).collect();
        let affine = Tensor::from_slice(&affine)
            .view([b, 2, 3])
            .to_device(device);
        let grid = Tensor::affine_grid_generator(&affine, [b, 3, self.size, self.size], false);
        const BILINEAR: i64 = 0;
        const BORDER: i64 = 1;
        let mut views = images.grid_sampler(&grid, BILINEAR, BORDER, false);
        if self.jitter.is_some() {
            for position in 0..4 {
                for (operation, change) in JITTER.iter().enumerate() {
                    let chosen = |draw: &Draw| draw.order[position] == operation;
                    views = change_some(views, &draws, chosen, |images, draws| {
                        let factors: Vec<f32> =
                            draws.iter().map(|d| d.factors[operation]).collect();
                        let shape = [draws.len() as i64, 1, 1, 1];
                        change(
                            images,
                            &Tensor::from_slice(&factors).view(shape).to_device(device),
                        )
                    });
                }
            }
        }
        change_some(
            views,
            &draws,
            |draw| draw.grey,
            |images, _| luminance(images).expand_as(images),
        )
    }

    fn draw(&self, row: u32, key: ViewKey, side: f64) -> Draw {
        let image = (key.view << 32) | u64::from(row);
        let mut rng = stream(key.seed, Purpose::Augmentation, key.seen, image);
        let (width, height) = self.crop_shape(side, &mut rng);
        let left = rng.gen_range(0.0..=side - width);
        let top = rng.gen_range(0.0..=side - height);
        let mirror = if self.flip && rng.r#gen::<bool>() {
            -1.0
        } else {
            1.0
        };
        let affine = [
            mirror * width / side,
            0.0,
            (2.0 * left + width) / side - 1.0,
            0.0,
            height / side,
            (2.0 * top + height) / side - 1.0,
        ]
        .map(|value| value as f32);
        let mut order = [0, 1, 2, 3];
        let mut factors = [1.0, 1.0, 1.0, 0.0];
        if let Some(strengths) = self.jitter {
            for (factor, strength) in factors.iter_mut().zip(strengths) {
                *factor = (f64::from(*factor) + rng.gen_range(-strength..=strength)) as f32;
            }
            order.shuffle(&mut rng);
        }
        Draw {
            affine,
            factors,
            order,
            grey: rng.gen_range(0.0..1.0) < self.greyscale,
        }
    }

    /// Width and height of a crop of a square of `side` pixels.
    fn crop_shape(&self, side: f64, rng: &mut impl Rng) -> (f64, f64) {
        let [low, high] = self.crop_ratio.map(f64::ln);
        for _ in 0..CROP_TRIES {
            let area = side * side * rng.gen_range(self.crop_scale[0]..=self.crop_scale[1]);
            let ratio = rng.gen_range(low..=high).exp();
            let (width, height) = ((area * ratio).sqrt(), (area / ratio).sqrt());
            if width <= side && height <= side {
                return (width, height);
            }
        }
        (side, side)
    }
}

/// The plain view `[b, 3, size, size] f32` in 0..1: the centre of the stored square.
pub fn centre(pixels: &Tensor, size: i64) -> Tensor {
    let offset = (pixels.size()[1] - size).max(0) / 2;
    to_unit(&pixels.narrow(1, offset, size).narrow(2, offset, size))
}

/// `[b, h, w, 3] u8` to `[b, 3, h, w] f32` in 0..1. The result keeps the memory order of the input,
/// which is libtorch's channels-last format.
fn to_unit(pixels: &Tensor) -> Tensor {
    pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0
}

/// Applies `change` to the images whose draw is `chosen`.
fn change_some(
    mut images: Tensor,
    draws: &[Draw],
    chosen: impl Fn(&Draw) -> bool,
    change: impl Fn(&Tensor, &[&Draw]) -> Tensor,
) -> Tensor {
    let picked: Vec<i64> = (0..draws.len())
        .filter(|&i| chosen(&draws[i]))
        .map(|i| i as i64)
        .collect();
    if picked.is_empty() {
        return images;
    }
    let of_these: Vec<&Draw> = picked.iter().map(|&i| &draws[i as usize]).collect();
    let index = Tensor::from_slice(&picked).to_device(images.device());
    let changed = change(&images.index_select(0, &index), &of_these);
    images.index_copy_(0, &index, &changed)
}

/// The four operations of colour jitter, in the order of their strengths: images `[b, 3, h, w]` and
/// factors `[b, 1, 1, 1]`.
const JITTER: [fn(&Tensor, &Tensor) -> Tensor; 4] = [brightness, contrast, saturation, hue];

fn brightness(images: &Tensor, factor: &Tensor) -> Tensor {
    (images * factor).clamp(0.0, 1.0)
}

fn contrast(images: &Tensor, factor: &Tensor) -> Tensor {
    let mean = luminance(images).mean_dim([1_i64, 2, 3].as_slice(), true, Kind::Float);
    mix(images, &mean, factor)
}

fn saturation(images: &Tensor, factor: &Tensor) -> Tensor {
    mix(images, &luminance(images), factor)
}

/// `factor` of `images` and the rest of `other`.
fn mix(images: &Tensor, other: &Tensor, factor: &Tensor) -> Tensor {
    (other + (images - other) * factor).clamp(0.0, 1.0)
}

fn luminance(images: &Tensor) -> Tensor {
    let weights = Tensor::from_slice(&LUMINANCE)
        .view([1, 3, 1, 1])
        .to_device(images.device());
    (images * weights).sum_dim_intlist(1, true, Kind::Float)
}

/// Turns the hue by `factor` of a full circle: to HSV and back, as torchvision does.
fn hue(images: &Tensor, factor: &Tensor) -> Tensor {
    let value = images.amax([1_i64].as_slice(), true);
    let chroma = &value - images.amin([1_i64].as_slice(), true);
    let safe = chroma.where_self(&chroma.gt(0.0), &Tensor::ones_like(&chroma));
    let channel = |index: i64| images.narrow(1, index, 1);
    let (r, g, b) = (channel(0), channel(1), channel(2));
    // Hue in sixths of a turn; the largest channel decides the sector.
    let sector =
        ((&b - &r) / &safe + 2.0).where_self(&g.eq_tensor(&value), &((&r - &g) / &safe + 4.0));
    let sector = ((&g - &b) / &safe).where_self(&r.eq_tensor(&value), &sector);
    let turned = (sector + factor * 6.0).remainder(6.0);
    // f(n) = V − C·max(0, min(m, 4 − m, 1)) with m = (n + H) mod 6, for R, G, B: n = 5, 3, 1.
    let rebuild = |n: f64| {
        let m = (&turned + n).remainder(6.0);
        let ramp = m.minimum(&(4.0 - &m)).clamp(0.0, 1.0);
        &value - &chroma * ramp
    };
    Tensor::cat(&[rebuild(5.0), rebuild(3.0), rebuild(1.0)], 1)
}
