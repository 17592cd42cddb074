//! One image file to one square of RGB pixels.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

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
    #[error("it ends before its end-of-image marker: truncated")]
    Truncated,
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
pub fn dimensions(path: &Path) -> Result<(u32, u32), DecodeError> {
    catch_unwind(AssertUnwindSafe(|| read_dimensions(path))).unwrap_or(Err(DecodeError::Panic))
}

fn read_dimensions(path: &Path) -> Result<(u32, u32), DecodeError> {
    let mut decoder = ImageReader::open(path)?
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

/// The whole image as 8-bit RGB, turned as its EXIF data say; transparency is laid over white, 16
/// bits become 8, of an animation the first frame is taken.
pub fn decode(path: &Path) -> Result<RgbImage, DecodeError> {
    // Decoders are third-party code that meets arbitrary bytes: a panic in one of them is a bad
    // file, not the end of the program.
    catch_unwind(AssertUnwindSafe(|| decode_file(path))).unwrap_or(Err(DecodeError::Panic))
}

fn decode_file(path: &Path) -> Result<RgbImage, DecodeError> {
    let mut file = std::fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Err(DecodeError::NoBytes);
    }
    let mut reader = ImageReader::new(BufReader::new(&mut file)).with_guessed_format()?;
    let format = reader.format();
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    if image.width() == 0 || image.height() == 0 {
        return Err(DecodeError::Empty);
    }
    // The JPEG decoder fills what is missing with grey and reports nothing.
    if format == Some(ImageFormat::Jpeg) && !ends_as_jpeg(&mut file)? {
        return Err(DecodeError::Truncated);
    }
    Ok(if image.color().has_alpha() {
        over_white(&image)
    } else {
        image.into_rgb8()
    })
}

/// Whether the image's end is there: near the end of the file (cameras pad theirs), or anywhere
/// behind its first scan (phones append a film). Coded pixels cannot hold that marker, and those of
/// embedded thumbnails stand before the scan.
fn ends_as_jpeg(file: &mut std::fs::File) -> std::io::Result<bool> {
    const END: [u8; 2] = [0xFF, 0xD9];
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(1024)))?;
    let mut bytes = Vec::new();
    file.take(1024).read_to_end(&mut bytes)?;
    let has_end = |bytes: &[u8]| bytes.windows(2).any(|pair| pair == END);
    if has_end(&bytes) {
        return Ok(true);
    }
    bytes.clear();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(first_scan(&bytes).is_some_and(|start| has_end(&bytes[start..])))
}

/// Where the first scan's header ends and coded pixels begin: segments are skipped by their lengths.
fn first_scan(jpeg: &[u8]) -> Option<usize> {
    const SCAN: u8 = 0xDA;
    let mut at = 2;
    loop {
        let [0xFF, marker, high, low] = *jpeg.get(at..at + 4)? else {
            return None;
        };
        if marker == 0xFF {
            at += 1; // padding
            continue;
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == SCAN {
            return Some(at);
        }
    }
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

/// The centre square of an image, resized to `side` x `side` with antialiasing (bilinear, as
/// Pillow's): the short side is scaled to `side` and the long one cropped.
pub fn centre_square(image: RgbImage, side: u32) -> Result<RgbImage, DecodeError> {
    let (width, height) = image.dimensions();
    if (width, height) == (side, side) {
        return Ok(image);
    }
    let short = f64::from(width.min(height));
    let refused = |error: &dyn std::fmt::Display| DecodeError::Resize(error.to_string());
    let pixels = image.as_raw();
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, pixels)
        .map_err(|error| refused(&error))?;
    let mut square = vec![0; side as usize * side as usize * 3];
    let mut target = TypedImage::<U8x3>::from_buffer(side, side, &mut square)
        .map_err(|error| refused(&error))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(
            (f64::from(width) - short) / 2.0,
            (f64::from(height) - short) / 2.0,
            short,
            short,
        );
    // The typed call: the other one compiles the convolutions of every pixel type into this crate.
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .map_err(|error| refused(&error))?;
    RgbImage::from_raw(side, side, square).ok_or(DecodeError::Empty)
}

/// The centre square of the file's image at `side` x `side` pixels.
pub fn square(path: &Path, side: u32) -> Result<RgbImage, DecodeError> {
    centre_square(decode(path)?, side)
}
