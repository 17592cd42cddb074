//! JPEG, by a port of libjpeg-turbo: pixels are those of libjpeg-turbo, thus of Pillow and
//! torchvision, and a photograph that is wanted small is decoded small.
//!
//! Measured on two cores of a Zen 5, photographs of 500 x 375: 0.46 ms for each; `zune-jpeg`, which
//! the `image` crate uses, 0.51 ms, and it has no scaled decoding; libjpeg-turbo itself 0.44 ms, and
//! it needs cmake and nasm to build.

use image::RgbImage;
use libjpeg_turbo_rs::{
    ColorSpace, ComponentInfo, DecodeLimits, Decoder, FrameHeader, PixelFormat, ScalingFactor,
};

use super::error::DecodeError;
use super::limits::{MAX_ALLOC, MAX_SIDE};
use super::planes;
use super::resize::centre_square_into;
use crate::config::Interpolation;

/// Whether a file's first bytes are those of a JPEG.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0xD8, 0xFF])
}

/// The image as RGB, turned as its EXIF data say.
///
/// # Errors
/// Corrupt or truncated files, and what exceeds the limits.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    rgb(decoder(bytes)?)
}

/// The centre square of the image, `[side, side, 3]`, into `target`. What is large is decoded at the
/// smallest of the scales 1, 1/2, 1/4 and 1/8 at which both sides have at least `side` pixels (other
/// eighths, which would be nearer, take longer than a whole decoding: their transforms are not
/// vectorised); else an upright image in colour of the usual kind is made from its planes, where that is to be
/// bilinear.
///
/// # Errors
/// As [`decode`].
pub(super) fn square_into(
    bytes: &[u8],
    side: u32,
    interpolation: Interpolation,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let mut decoder = decoder(bytes)?;
    if let Some(denominator) = denominator(&decoder, side) {
        decoder.set_scale(ScalingFactor::try_new(1, denominator)?);
    } else if interpolation == Interpolation::Bilinear
        && let Some(halved) = usual(&decoder)
    {
        let raw = decoder.decode_raw()?;
        let planes = std::array::from_fn(|index| planes::Plane {
            values: &raw.planes[index],
            stride: raw.plane_widths[index],
        });
        let size = [raw.width, raw.height];
        planes::square_into(&planes, size, halved, side as usize, target);
        return Ok(());
    }
    centre_square_into(&rgb(decoder)?, side, interpolation, target)
}

fn rgb(mut decoder: Decoder) -> Result<RgbImage, DecodeError> {
    decoder.set_output_format(PixelFormat::Rgb);
    let orientation = decoder.exif_orientation();
    let mut image = decoder.decode_image()?;
    if let Some(orientation) = orientation {
        image = image.apply_orientation_value(orientation);
    }
    let (width, height) = (image.width as u32, image.height as u32);
    RgbImage::from_raw(width, height, image.into_vec())
        .filter(|image| !image.is_empty())
        .ok_or(DecodeError::Empty)
}

/// Of an upright image in YCbCr: whether its chroma planes are [`halved`].
fn usual(decoder: &Decoder) -> Option<[bool; 2]> {
    let header = decoder.header();
    let usual = decoder.jpeg_color_space() == ColorSpace::YCbCr
        && header.precision == 8
        && !header.is_lossless
        && header.width.min(header.height) > 0
        && decoder.exif_orientation().is_none_or(|turn| turn == 1);
    halved(header).filter(|_| usual)
}

/// Whether the chroma planes have half of the luma plane's columns, and half of its rows; `None` for any
/// other ratio.
fn halved(header: &FrameHeader) -> Option<[bool; 2]> {
    let [luma, blue, red] = header.components.as_slice() else {
        return None;
    };
    let factors = |of: &ComponentInfo| [of.horizontal_sampling, of.vertical_sampling];
    let (luma, blue, red) = (factors(luma), factors(blue), factors(red));
    let ratio = |axis: usize| match luma[axis] {
        of if of == blue[axis] => Some(false),
        of if of == 2 * blue[axis] => Some(true),
        _ => None,
    };
    (blue == red).then_some([ratio(0)?, ratio(1)?])
}

fn decoder(bytes: &[u8]) -> Result<Decoder<'_>, DecodeError> {
    let limits = DecodeLimits {
        max_width: MAX_SIDE as usize,
        max_height: MAX_SIDE as usize,
        max_memory: Some(MAX_ALLOC),
        ..DecodeLimits::default()
    };
    Ok(Decoder::new_with_limits(bytes, limits)?)
}

/// By how much an image is decoded smaller, for a short side of at least `least` pixels.
fn denominator(decoder: &Decoder, least: u32) -> Option<u32> {
    let header = decoder.header();
    let short = u32::from(header.width.min(header.height));
    [8, 4, 2]
        .into_iter()
        .find(|denominator| short.div_ceil(*denominator) >= least)
}
