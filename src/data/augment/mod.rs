//! Random views of images.
//!
//! What happens to an image, its [`Recipe`], is drawn from (seed, images seen before it, image, view)
//! alone, so it depends neither on the batch that the image is in nor on threads, and an image that
//! is drawn twice in an epoch is seen in two ways. The operations follow torchvision's
//! `RandomResizedCrop` (without antialiasing; beyond a crop's edge lies the image, where torchvision
//! repeats the edge), `RandomHorizontalFlip`, `ColorJitter`,
//! `RandomGrayscale`, `GaussianBlur` and `RandomSolarize`.
//!
//! On a CPU each image is cooked by itself, in parallel ([`single`]); on other devices operations
//! work on the whole batch ([`batch`]). Both give the same views, but for rounding.

mod batch;
pub mod multi_crop;
mod single;

use rand::Rng;
use rand::seq::SliceRandom;
use tch::{Kind, Tensor};

use super::image_batch::ImageBatch;
use crate::config::{DataConfig, PlainView};
use crate::random::{Purpose, stream};

/// Weights of R, G and B in the luminance that contrast, saturation and greyscale use (ITU-R 601, as
/// torchvision rounds them).
const LUMINANCE: [f32; 3] = [0.2989, 0.587, 0.114];
/// Draws of a crop's shape before the centre is taken (torchvision's number).
const CROP_TRIES: usize = 10;
/// Standard deviations of the blur, in pixels, from, to (SwAV and SimCLR at 224 pixels).
const BLUR_SIGMA: [f32; 2] = [0.1, 2.0];
/// Solarising turns what is at least this bright (128 of 255).
const SOLARISE_FROM: f32 = 128.0 / 255.0;

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
    /// Probability of a Gaussian blur.
    pub blur: f64,
    /// Probability that bright values are turned to dark ones.
    pub solarise: f64,
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

/// A rectangle of an image in its pixels, and whether it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    pub mirror: bool,
    /// By which the rectangle is turned about its centre, clockwise, in radians.
    pub angle: f64,
}

impl Crop {
    /// A rectangle as it lies.
    pub fn upright(left: f64, top: f64, width: f64, height: f64) -> Self {
        Self {
            left,
            top,
            width,
            height,
            mirror: false,
            angle: 0.0,
        }
    }
}

/// A change of an image in 0..1; the result is in 0..1 again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Times this.
    Brightness(f32),
    /// So much of the image, the rest its mean luminance.
    Contrast(f32),
    /// So much of the image, the rest its luminance.
    Saturation(f32),
    /// The hue turned by this share of a full circle.
    Hue(f32),
    Greyscale,
    /// Gaussian of this standard deviation in pixels, cut at a radius of a twentieth of the side (at
    /// least 1), with the image mirrored at its border.
    Blur(f32),
    /// 1 − v where v is at least 128/255.
    Solarise,
    /// Green and magenta moved to grey, so that nothing is left of a lens's colour fringes: each pixel times
    /// I − aᵀa / aaᵀ with a = (−1, 2, −1) (Doersch, Gupta, Efros, ICCV 2015, section 3.2).
    Projection,
    /// One channel alone is kept; the others are grey with noise of a hundredth of its deviation (ibid.).
    DropColours {
        keep: u8,
        seed: u64,
    },
    /// Averaged down to this side in pixels, and up again (ibid.).
    Coarse(usize),
}

/// Everything that is drawn for one view: the crop, then the operations in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    pub crop: Crop,
    pub operations: Vec<Operation>,
}

impl Augmentation {
    /// That of a run.
    pub fn of(data: &DataConfig) -> Self {
        Self {
            size: data.size as i64,
            crop_scale: data.crop_scale,
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: data.flip,
            jitter: (data.jitter > 0.0)
                .then(|| [data.jitter, data.jitter, data.jitter, data.jitter.min(0.5)]),
            greyscale: data.greyscale,
            blur: data.blur,
            solarise: data.solarise,
        }
    }

    /// Views `[b, 3, size, size] f32` in 0..1; `rows` says which images they are. On the CPU memory is
    /// that of the result, elsewhere that of a few batches.
    pub fn apply(&self, images: &ImageBatch, rows: &[u32], key: ViewKey) -> Tensor {
        let side = images.side();
        let recipes: Vec<Recipe> = rows
            .iter()
            .zip(key.seen..)
            .map(|(&row, seen)| self.draw(row, ViewKey { seen, ..key }, side as f64))
            .collect();
        cook(images, &recipes, self.size)
    }

    /// The recipe for image `row` of `side` x `side` pixels.
    pub fn draw(&self, row: u32, key: ViewKey, side: f64) -> Recipe {
        let image = (key.view << 32) | u64::from(row);
        let mut rng = stream(key.seed, Purpose::Augmentation, key.seen, image);
        let (width, height) = self.crop_shape(side, &mut rng);
        let crop = Crop {
            left: rng.gen_range(0.0..=side - width),
            top: rng.gen_range(0.0..=side - height),
            width,
            height,
            mirror: self.flip && rng.r#gen::<bool>(),
            angle: 0.0,
        };
        let mut operations = Vec::new();
        if let Some(strengths) = self.jitter {
            let [brightness, contrast, saturation, hue] =
                strengths.map(|strength| rng.gen_range(-strength..=strength) as f32);
            operations.extend([
                Operation::Brightness(1.0 + brightness),
                Operation::Contrast(1.0 + contrast),
                Operation::Saturation(1.0 + saturation),
                Operation::Hue(hue),
            ]);
            operations.shuffle(&mut rng);
        }
        if rng.gen_range(0.0..1.0) < self.greyscale {
            operations.push(Operation::Greyscale);
        }
        if rng.gen_range(0.0..1.0) < self.blur {
            let [low, high] = BLUR_SIGMA;
            operations.push(Operation::Blur(rng.gen_range(low..high)));
        }
        if rng.gen_range(0.0..1.0) < self.solarise {
            operations.push(Operation::Solarise);
        }
        Recipe { crop, operations }
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

/// Views `[b · m, 3, size, size] f32` in 0..1 of `b` images, those of an image one after the other: m for
/// each, as many as there are recipes; in libtorch's channels-last order where m is 1.
pub fn cook(images: &ImageBatch, recipes: &[Recipe], size: i64) -> Tensor {
    match images.here() {
        Ok(squares) => single::cook(&squares, images.side(), recipes, size),
        Err(pixels) => batch::cook(pixels, recipes, size),
    }
}

/// As [`cook`], by operations on the whole batch whatever the device.
pub fn cook_batch(pixels: &Tensor, recipes: &[Recipe], size: i64) -> Tensor {
    batch::cook(pixels, recipes, size)
}

/// The crops alone (rectangle, angle, mirror) of maps of any kind `[b, c, side, side] f32`, m for each, as many
/// as there are recipes: `[b · m, c, size, size]`, between pixels by interpolation, or the nearest pixel.
pub fn crops(maps: &Tensor, recipes: &[Recipe], size: i64, nearest: bool) -> Tensor {
    batch::crops(maps, recipes, size, nearest)
}

/// The whole stored squares, resized: `[b, 3, size, size] f32` in 0..1.
pub fn whole(images: &ImageBatch, size: i64) -> Tensor {
    let side = images.side() as f64;
    let recipe = Recipe {
        crop: Crop::upright(0.0, 0.0, side, side),
        operations: Vec::new(),
    };
    cook(images, &vec![recipe; images.len()], size)
}

/// The whole stored squares `[b, 3, size, size] f32` in 0..1, each pixel the mean of those that it stands for.
pub fn reduced(images: &ImageBatch, size: i64) -> Tensor {
    let side = images.side() as i64;
    if side <= size {
        return whole(images, size);
    }
    centre(images, side).internal_upsample_bilinear2d_aa([size, size], false, None, None)
}

/// The plain view `[b, 3, size, size] f32` in 0..1, of which features are taken.
pub fn plain(images: &ImageBatch, size: i64, view: PlainView) -> Tensor {
    match view {
        PlainView::Centre if images.side() as i64 >= size => centre(images, size),
        PlainView::Centre | PlainView::Whole => whole(images, size),
    }
}

/// The plain view `[b, 3, size, size] f32` in 0..1: the centre of the stored square, in libtorch's
/// channels-last order.
pub fn centre(images: &ImageBatch, size: i64) -> Tensor {
    match images.here() {
        Ok(squares) => single::centre(&squares, images.side(), size as usize),
        Err(pixels) => {
            let offset = (pixels.size()[1] - size).max(0) / 2;
            to_unit(&pixels.narrow(1, offset, size).narrow(2, offset, size))
        }
    }
}

/// `[b, h, w, 3] u8` to `[b, 3, h, w] f32` in 0..1. The result keeps the memory order of the input,
/// which is libtorch's channels-last format.
fn to_unit(pixels: &Tensor) -> Tensor {
    pixels.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0
}

/// Noise of deviation 1 for the numbers of a channel that [`Operation::DropColours`] drops.
fn noise(seed: u64, channel: usize, count: usize) -> Vec<f32> {
    let mut rng = stream(seed, Purpose::Augmentation, u64::MAX, channel as u64);
    // The sum of twelve numbers from 0 to 1 has a deviation of 1, and is normal enough.
    (0..count)
        .map(|_| (0..12).map(|_| rng.r#gen::<f32>()).sum::<f32>() - 6.0)
        .collect()
}

/// What noise is added to where colours are dropped.
const GREY: f32 = 0.5;
/// Deviation of that noise, of the channel's that is kept.
const NOISE: f32 = 0.01;

/// Weights of the 2r + 1 pixels of a blur, which sum to 1.
fn blur_weights(sigma: f32, size: i64) -> Vec<f32> {
    let radius = blur_radius(size);
    let weights: Vec<f32> = (-radius..=radius)
        .map(|at| (-0.5 * (at as f32 / sigma).powi(2)).exp())
        .collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// A kernel of a tenth of the side, as SimCLR's, and odd.
fn blur_radius(size: i64) -> i64 {
    (size / 20).max(1)
}
