//! One image file to one square of RGB pixels. JPEG is the affair of [`jpeg`], all else of the
//! `image` crate.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

use super::jpeg;
use super::resize::centre_square_into;

/// Largest side that is decoded, and the memory that one image may take: a small file may claim to
/// be 60,000 pixels wide.
const MAX_SIDE: u32 = 32_768;
const MAX_ALLOC: u64 = 1 << 30;

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Image(#[from] image::ImageError),
    #[error("{0}")]
    Jpeg(#[from] libjpeg_turbo_rs::JpegError),
    #[error("the file is larger than any image: {} MB", .0 >> 20)]
    TooLong(u64),
    #[error("it is no regular file")]
    NoFile,
    #[error("its pixels would take {} MB", .0 >> 20)]
    TooLarge(u64),
    #[error("the file is empty")]
    NoBytes,
    #[error("it has no pixels")]
    Empty,
    #[error("cannot resize: {0}")]
    Resize(String),
    #[error("the decoder failed on it")]
    Panic,
}

/// Size in pixels `(width, height)` as it will be shown, without decoding the pixels.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    catch_unwind(AssertUnwindSafe(|| read_dimensions(bytes))).unwrap_or(Err(DecodeError::Panic))
}

fn read_dimensions(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let mut decoder = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()?
        .into_decoder()?;
    let (width, height) = decoder.dimensions();
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let turned = matches!(
        decoder.orientation(),
        Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
    );
    Ok(if turned {
        (height, width)
    } else {
        (width, height)
    })
}

/// The bytes of an image file.
///
/// # Errors
/// What is no file, or an unreadable, empty or enormous one.
pub fn read(path: &Path) -> Result<Vec<u8>, DecodeError> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        // A pipe would be waited for, a device never end.
        return Err(DecodeError::NoFile);
    }
    checked_length(metadata.len())?;
    Ok(std::fs::read(path)?)
}

/// The length of an image's file, where it can be one.
pub(super) fn checked_length(length: u64) -> Result<usize, DecodeError> {
    match length {
        0 => Err(DecodeError::NoBytes),
        1..=MAX_ALLOC => Ok(length as usize),
        _ => Err(DecodeError::TooLong(length)),
    }
}

/// The whole image of a file's `bytes` as 8-bit RGB, turned as its EXIF data say; transparency is
/// laid over white, 16 bits become 8, of an animation the first frame is taken.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    guarded(bytes, || match jpeg::is_jpeg(bytes) {
        true => jpeg::decode(bytes, MAX_SIDE, MAX_ALLOC),
        false => decode_other(bytes),
    })
}

/// Decoders are third-party code that meets arbitrary bytes: a panic in one of them is a bad file, not
/// the end of the program.
fn guarded<T>(
    bytes: &[u8],
    decode: impl FnOnce() -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::NoBytes);
    }
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or(Err(DecodeError::Panic))
}

/// Any format but JPEG.
fn decode_other(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    // The limits above are those of what the decoder takes beside the pixels.
    if decoder.total_bytes() > MAX_ALLOC {
        return Err(DecodeError::TooLarge(decoder.total_bytes()));
    }
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    if image.width() == 0 || image.height() == 0 {
        return Err(DecodeError::Empty);
    }
    Ok(if image.color().has_alpha() {
        over_white(&image)
    } else {
        image.into_rgb8()
    })
}

fn over_white(image: &DynamicImage) -> RgbImage {
    let rgba = image.to_rgba8();
    let mut flat = RgbImage::new(rgba.width(), rgba.height());
    for (target, source) in flat.pixels_mut().zip(rgba.pixels()) {
        let [r, g, b, alpha] = source.0.map(u32::from);
        let blend = |value: u32| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        target.0 = [blend(r), blend(g), blend(b)];
    }
    flat
}

/// The centre square of an image file's `bytes`, `[side, side, 3]`, into `target`.
pub fn square_into(bytes: &[u8], side: u32, target: &mut [u8]) -> Result<(), DecodeError> {
    guarded(bytes, || match jpeg::is_jpeg(bytes) {
        true => jpeg::square_into(bytes, side, MAX_SIDE, MAX_ALLOC, target),
        false => centre_square_into(&decode_other(bytes)?, side, target),
    })
}
