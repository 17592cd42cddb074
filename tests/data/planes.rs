//! ImageBatch that are made from the planes of a JPEG, beside those of the whole image.

use image::RgbImage;
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
use ssl_cluster::config::Interpolation;
use ssl_cluster::data::decode::{centre_square, decode, square_into};

/// A picture without edges, in colours that stay away from the limits.
fn picture(width: u32, height: u32) -> RgbImage {
    let wave = |x: u32, y: u32, along: f64, across: f64| {
        let (x, y) = (f64::from(x) / 40.0, f64::from(y) / 40.0);
        (128.0 + 70.0 * (along * x + across * y).sin()) as u8
    };
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([
            wave(x, y, 1.0, 0.3),
            wave(x, y, -0.4, 1.1),
            wave(x, y, 0.7, 0.8),
        ])
    })
}

fn jpeg(picture: &RgbImage, subsampling: Subsampling) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let (width, height) = (width as usize, height as usize);
    compress(
        picture.as_raw(),
        width,
        height,
        PixelFormat::Rgb,
        92,
        subsampling,
    )
    .unwrap()
}

#[test]
fn squares_from_planes_are_those_of_the_whole_image() {
    let kinds = [
        Subsampling::S444,
        Subsampling::S422,
        Subsampling::S440,
        Subsampling::S420,
        Subsampling::S411,
    ];
    let sizes = [
        (500, 375),
        (375, 501),
        (129, 128),
        (200, 83),
        (67, 300),
        (31, 17),
        (2, 3),
        (1, 1),
        (1, 40),
    ];
    for (width, height) in sizes {
        let picture = picture(width, height);
        for kind in kinds {
            let bytes = jpeg(&picture, kind);
            let whole = decode(&bytes).unwrap();
            // Smaller, cut strips and chunks, the same, larger.
            for side in [256, 200, 130, 83, 65, 17, 9, 300] {
                if width.min(height).div_ceil(2) >= side {
                    // That is decoded at a smaller scale.
                    continue;
                }
                let expected = centre_square(&whole, side, Interpolation::Bilinear).unwrap();
                let mut square = RgbImage::new(side, side);
                square_into(&bytes, side, Interpolation::Bilinear, &mut square).unwrap();
                let pairs = square.as_raw().iter().zip(expected.as_raw());
                let off = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(
                    off <= 3,
                    "{width} x {height} {kind:?} to {side}: {off} grey levels"
                );
            }
        }
    }
}

#[test]
fn saturated_edges_keep_their_colours() {
    // Red letters on white: where RGB is clipped after the pixels are averaged, not before.
    let stripes = RgbImage::from_fn(96, 96, |x, y| {
        if (x / 5 + y / 7) % 2 == 0 {
            image::Rgb([255, 255, 255])
        } else {
            image::Rgb([230, 0, 0])
        }
    });
    let bytes = jpeg(&stripes, Subsampling::S420);
    let expected = centre_square(&decode(&bytes).unwrap(), 64, Interpolation::Bilinear).unwrap();
    let mut square = RgbImage::new(64, 64);
    square_into(&bytes, 64, Interpolation::Bilinear, &mut square).unwrap();
    let off = || {
        let pairs = square.as_raw().iter().zip(expected.as_raw());
        pairs.map(|(a, b)| f64::from(a.abs_diff(*b)))
    };
    let mean = off().sum::<f64>() / (64.0 * 64.0 * 3.0);
    let largest = off().fold(0.0, f64::max);
    assert!(
        mean < 4.0 && largest < 60.0,
        "{mean:.2} in the mean, {largest} at most"
    );
}
