//! Images to squares of the working size.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use super::error::DecodeError;
use crate::config::Interpolation;

/// The centre square of an image, resized to `side` x `side` with antialiasing (as Pillow's): the short
/// side is scaled to `side` and the long one cropped.
pub fn centre_square(
    image: &RgbImage,
    side: u32,
    interpolation: Interpolation,
) -> Result<RgbImage, DecodeError> {
    let mut square = vec![0; side as usize * side as usize * 3];
    centre_square_into(image, side, interpolation, &mut square)?;
    RgbImage::from_raw(side, side, square).ok_or(DecodeError::Empty)
}

/// The same into `target`, `[side, side, 3]`.
pub(super) fn centre_square_into(
    image: &RgbImage,
    side: u32,
    interpolation: Interpolation,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let (width, height) = image.dimensions();
    if (width, height) == (side, side) {
        target.copy_from_slice(image.as_raw());
        return Ok(());
    }
    let short = f64::from(width.min(height));
    let refused = |error: &dyn std::fmt::Display| DecodeError::Resize(error.to_string());
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, image.as_raw())
        .map_err(|error| refused(&error))?;
    let mut target =
        TypedImage::<U8x3>::from_buffer(side, side, target).map_err(|error| refused(&error))?;
    let filter = match interpolation {
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        .crop(
            (f64::from(width) - short) / 2.0,
            (f64::from(height) - short) / 2.0,
            short,
            short,
        );
    // The typed call: the other one compiles the convolutions of every pixel type into this crate.
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| refused(&error))
}
