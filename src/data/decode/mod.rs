//! One image file to one square of RGB pixels. JPEG is the affair of [`jpeg`], which decodes small what
//! is wanted small and may make the square from the [`planes`] alone; all else is that of the `image`
//! crate ([`other`]), and of [`resize`].

mod error;
mod jpeg;
mod limits;
mod other;
mod planes;
mod resize;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::{ImageDecoder, ImageReader, RgbImage};

use crate::config::Interpolation;
pub use error::DecodeError;
pub(super) use limits::checked_length;
pub use resize::centre_square;

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

/// The whole image of a file's `bytes` as 8-bit RGB, turned as its EXIF data say; transparency is
/// laid over white, 16 bits become 8, of an animation the first frame is taken.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    guarded(bytes, || match jpeg::is_jpeg(bytes) {
        true => jpeg::decode(bytes),
        false => other::decode(bytes),
    })
}

/// The centre square of an image file's `bytes`, `[side, side, 3]`, into `target`.
pub fn square_into(
    bytes: &[u8],
    side: u32,
    interpolation: Interpolation,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    guarded(bytes, || match jpeg::is_jpeg(bytes) {
        true => jpeg::square_into(bytes, side, interpolation, target),
        false => resize::centre_square_into(&other::decode(bytes)?, side, interpolation, target),
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
