//! Thumbnails: fitted into a square, and as data URIs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder, ImageResult, RgbImage};

/// Images up to this side are shown with their pixels as they are.
pub(super) const TINY: u32 = 64;

const JPEG_QUALITY: u8 = 82;

/// The longer side.
pub(super) fn side(image: &RgbImage) -> u32 {
    image.width().max(image.height())
}

/// Whether there is anything to show.
pub(super) fn has_pixels(image: &RgbImage) -> bool {
    image.width() > 0 && image.height() > 0
}

/// The image scaled so that its longer side is `target`: tiny images keep hard pixels.
pub(super) fn fit(image: &RgbImage, target: u32) -> RgbImage {
    let longer = side(image).max(1);
    let scaled = |n: u32| (u64::from(n) * u64::from(target) / u64::from(longer)).max(1) as u32;
    let filter = if longer <= target {
        FilterType::Nearest
    } else {
        FilterType::CatmullRom
    };
    imageops::resize(image, scaled(image.width()), scaled(image.height()), filter)
}

/// The image as a `data:` URI, no longer than `most` on a side: PNG where it is tiny or
/// where that is smaller, JPEG otherwise.
pub(super) fn data_uri(image: &RgbImage, most: u32) -> ImageResult<String> {
    let small;
    let image = if side(image) > most {
        small = fit(image, most);
        &small
    } else {
        image
    };
    let png = png(image)?;
    let (kind, bytes) = if side(image) <= TINY {
        ("png", png)
    } else {
        let jpeg = jpeg(image)?;
        if jpeg.len() < png.len() {
            ("jpeg", jpeg)
        } else {
            ("png", png)
        }
    };
    Ok(format!(
        "data:image/{kind};base64,{}",
        BASE64_STANDARD.encode(bytes)
    ))
}

fn png(image: &RgbImage) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, PngFilter::Adaptive);
    let (width, height) = image.dimensions();
    // Grey pictures, common among small ones, take less than half as one channel.
    if image.pixels().all(|p| p[0] == p[1] && p[1] == p[2]) {
        let grey: Vec<u8> = image.pixels().map(|p| p[0]).collect();
        encoder.write_image(&grey, width, height, ExtendedColorType::L8)?;
    } else {
        encoder.write_image(image, width, height, ExtendedColorType::Rgb8)?;
    }
    Ok(bytes)
}

fn jpeg(image: &RgbImage) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(image)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn fitting_keeps_the_shape() {
        assert_eq!(fit(&RgbImage::new(200, 100), 50).dimensions(), (50, 25));
        assert_eq!(fit(&RgbImage::new(7, 14), 56).dimensions(), (28, 56));
        assert_eq!(fit(&RgbImage::new(1000, 1), 50).dimensions(), (50, 1));
    }

    #[test]
    fn tiny_images_are_png_and_noisy_large_ones_jpeg() {
        let noise = |n| {
            RgbImage::from_fn(n, n, |x, y| {
                let bits = (x * 7919 + y + 1).wrapping_mul(2_654_435_761);
                let bits = (bits ^ (bits >> 15)).wrapping_mul(2_246_822_519);
                Rgb([(bits >> 24) as u8, (bits >> 16) as u8, (bits >> 8) as u8])
            })
        };
        assert!(data_uri(&noise(28), 144).is_ok_and(|u| u.starts_with("data:image/png;")));
        assert!(data_uri(&noise(144), 144).is_ok_and(|u| u.starts_with("data:image/jpeg;")));
    }
}
