//! How images are decoded and served, and properties of the random views.

use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use ssl_cluster::config::Interpolation;
use ssl_cluster::data::augment::{Augmentation, ViewKey, centre};
use ssl_cluster::data::cache::Pixels;
use ssl_cluster::data::cache::decoding::decode as decode_block;
use ssl_cluster::data::decode::{self, DecodeError, centre_square};
use ssl_cluster::data::image_batch::ImageBatch;
use ssl_cluster::data::items::Layout;
use ssl_cluster::data::loader::{batches, equal_lengths, training_lengths};
use ssl_cluster::data::source::ImageSet;
use tch::{Kind, Tensor};
use tempfile::TempDir;

use super::{ramp, save};

fn decode(path: &Path) -> Result<RgbImage, DecodeError> {
    decode::decode(&decode::read(path)?)
}

fn square(path: &Path, side: u32) -> Result<(), DecodeError> {
    let mut square = vec![0; (side * side * 3) as usize];
    decode::square_into(
        &decode::read(path)?,
        side,
        Interpolation::Bilinear,
        &mut square,
    )
}

fn dimensions(path: &Path) -> Result<(u32, u32), DecodeError> {
    decode::dimensions(&decode::read(path)?)
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200),
                                                  magic in 0..4_usize) {
        let head: &[u8] = [&b"\x89PNG\r\n\x1a\n"[..], b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"][magic];
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.png");
        std::fs::write(&path, [head, &bytes].concat()).unwrap();
        prop_assert!(square(&path, 8).is_err());
    }

    #[test]
    fn batch_lengths_cover_every_image_once(count in 0..500_usize, size in 1..70_usize) {
        for lengths in [equal_lengths(count, size), training_lengths(count, size)] {
            prop_assert_eq!(lengths.iter().sum::<usize>(), count);
            prop_assert!(lengths.iter().all(|&length| length > 0 && length < size + size / 4 + 1));
        }
    }
}

#[test]
fn every_kind_of_pixel_becomes_rgb() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let grey16 = image::ImageBuffer::<Luma<u16>, Vec<u16>>::from_pixel(3, 3, Luma([0x8000]));
    save(
        &path("grey16.png"),
        DynamicImage::ImageLuma16(grey16),
        ImageFormat::Png,
    );
    assert_eq!(
        decode(&path("grey16.png")).unwrap().get_pixel(1, 1).0,
        [128; 3]
    );
    // Half transparent black over white.
    let clear = RgbaImage::from_pixel(3, 3, Rgba([0, 0, 0, 128]));
    save(&path("clear.png"), clear, ImageFormat::Png);
    assert_eq!(
        decode(&path("clear.png")).unwrap().get_pixel(1, 1).0,
        [127; 3]
    );
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("a.webp", ImageFormat::WebP),
        ("a.gif", ImageFormat::Gif),
        ("a.bmp", ImageFormat::Bmp),
        ("a.tiff", ImageFormat::Tiff),
    ] {
        save(&path(name), ramp(20, 10), format);
        assert_eq!(
            decode(&path(name)).unwrap().dimensions(),
            (20, 10),
            "{name}"
        );
        assert_eq!(dimensions(&path(name)).unwrap(), (20, 10), "{name}");
    }
    // The content decides, not the name.
    std::fs::copy(path("a.jpg"), path("really-a-jpeg.png")).unwrap();
    assert!(decode(&path("really-a-jpeg.png")).is_ok());
}

#[test]
fn exif_orientation_turns_the_image() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jpg");
    save(&path, ramp(20, 10), ImageFormat::Jpeg);
    let plain = std::fs::read(&path).unwrap();
    // APP1 with one entry: orientation (0x0112) = 6, turn right by 90 degrees.
    let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut exif = b"\xff\xe1".to_vec();
    exif.extend(((tiff.len() + 8) as u16).to_be_bytes());
    exif.extend(b"Exif\0\0");
    exif.extend(tiff);
    std::fs::write(&path, [&plain[..2], &exif, &plain[2..]].concat()).unwrap();
    assert_eq!(decode(&path).unwrap().dimensions(), (10, 20));
    assert_eq!(dimensions(&path).unwrap(), (10, 20));
}

#[test]
fn truncated_files_are_refused() {
    let folder = TempDir::new().unwrap();
    for (name, format) in [("a.jpg", ImageFormat::Jpeg), ("a.png", ImageFormat::Png)] {
        let path = folder.path().join(name);
        save(&path, ramp(200, 200), format);
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 10, whole.len() / 2, whole.len() * 9 / 10] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                square(&path, 32).is_err(),
                "{name} cut to {length} of {}",
                whole.len()
            );
        }
    }
}

#[test]
fn photographs_with_a_film_behind_them_are_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jpg");
    save(&path, ramp(200, 200), ImageFormat::Jpeg);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([b'm'; 5000]);
    std::fs::write(&path, &bytes).unwrap();
    assert!(decode(&path).is_ok());
    // An end of the embedded thumbnail is none of the image.
    let comment = [&[0xFF, 0xFE, 0, 4, 0xFF, 0xD9][..], &bytes[2..2000]].concat();
    std::fs::write(&path, [&bytes[..2], &comment].concat()).unwrap();
    assert!(decode(&path).is_err());
}

#[test]
fn the_square_is_the_centre_and_antialiased() {
    // Three vertical stripes; the centre square of 30x10 is the middle one.
    let stripes = RgbImage::from_fn(30, 10, |x, _| Rgb([[10, 200, 90][x as usize / 10]; 3]));
    let middle = centre_square(&stripes, 5, Interpolation::Bilinear).unwrap();
    // The filter of the outermost columns reaches a pixel over the edge.
    assert!((1..4).all(|x| (0..5).all(|y| middle.get_pixel(x, y).0 == [200; 3])));
    assert!(middle.pixels().all(|pixel| pixel.0[0] > 150));
    // A fine chessboard becomes grey; without antialiasing it would stay black or white.
    let chess = RgbImage::from_fn(64, 64, |x, y| Rgb([((x + y) % 2 * 255) as u8; 3]));
    let small = centre_square(&chess, 8, Interpolation::Bilinear).unwrap();
    assert!(small.pixels().all(|pixel| (120..136).contains(&pixel.0[0])));
    let same = ramp(12, 12);
    assert_eq!(
        centre_square(&same, 12, Interpolation::Bilinear).unwrap(),
        same
    );
}

fn pixels(count: usize, side: usize) -> (Arc<Pixels>, Tensor) {
    let folder = TempDir::new().unwrap();
    for index in 0..count {
        let image = RgbImage::from_fn(side as u32, side as u32, |x, y| {
            Rgb([index as u8, (x * 7) as u8, (y * 7) as u8])
        });
        save(
            &folder.path().join(format!("{index}.png")),
            image,
            ImageFormat::Png,
        );
    }
    let set = ImageSet::find(folder.path()).unwrap();
    let read = decode_block(&set, 0..count, &Layout::of(&set, side));
    assert_eq!((read.kept.len(), read.skipped.len()), (count, 0));
    let rows: Vec<u32> = (0..count as u32).collect();
    let all = read.pixels.gather(&rows).unwrap();
    (Arc::new(read.pixels), all)
}

#[test]
fn batches_come_in_the_order_asked_for() {
    let (pixels, _) = pixels(23, 4);
    let order: Vec<u32> = (0..23).rev().chain([5, 5]).collect();
    let mut seen = Vec::new();
    for batch in batches(
        &pixels,
        order.clone(),
        equal_lengths(order.len(), 4),
        tch::Device::Cpu,
    ) {
        let batch = batch.unwrap();
        let squares = batch.images.here().unwrap();
        let place = 3 * (batch.images.side() + 2);
        for (square, row) in squares.iter().zip(&batch.indices) {
            // The red channel of image i is i.
            assert_eq!(u32::from(square[place]), *row);
        }
        seen.extend(batch.indices);
    }
    assert_eq!(seen, order);
}

fn augmentation() -> Augmentation {
    Augmentation {
        size: 12,
        crop_scale: [0.3, 1.0],
        crop_ratio: [0.75, 4.0 / 3.0],
        flip: true,
        jitter: Some([0.4, 0.4, 0.4, 0.1]),
        greyscale: 0.2,
        blur: 0.5,
        solarise: 0.2,
    }
}

const KEY: ViewKey = ViewKey {
    seed: 3,
    seen: 100,
    view: 0,
};

#[test]
fn a_view_depends_on_seed_place_image_and_view_alone() {
    let (_, images) = pixels(8, 16);
    let rows: Vec<u32> = (0..8).collect();
    let together = augmentation().apply(&ImageBatch::from(&images), &rows, KEY);
    assert_eq!(together.size(), [8, 3, 12, 12]);
    for row in 0..8_i64 {
        let here = ViewKey {
            seen: KEY.seen + row as u64,
            ..KEY
        };
        let alone = augmentation().apply(
            &ImageBatch::from(&images.narrow(0, row, 1)),
            &[row as u32],
            here,
        );
        let difference = (alone - together.narrow(0, row, 1))
            .abs()
            .max()
            .double_value(&[]);
        assert!(
            difference < 1e-6,
            "image {row} differs by {difference} in other company"
        );
    }
    for other in [
        ViewKey { seed: 4, ..KEY },
        ViewKey { seen: 200, ..KEY },
        ViewKey { view: 1, ..KEY },
    ] {
        assert!(augmentation().apply(&ImageBatch::from(&images), &rows, other) != together);
    }
}

#[test]
fn without_changes_a_view_is_the_image() {
    let (_, images) = pixels(3, 12);
    let none = Augmentation {
        crop_scale: [1.0, 1.0],
        crop_ratio: [1.0, 1.0],
        flip: false,
        jitter: None,
        greyscale: 0.0,
        blur: 0.0,
        solarise: 0.0,
        ..augmentation()
    };
    let view = none.apply(&ImageBatch::from(&images), &[0, 1, 2], KEY);
    let difference = (view - centre(&ImageBatch::from(&images), 12))
        .abs()
        .max()
        .double_value(&[]);
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn half_of_the_views_are_mirrored_and_a_fifth_is_grey() {
    let (_, image) = pixels(1, 12);
    let images = image.expand([400, 12, 12, 3], false);
    let rows: Vec<u32> = (0..400).collect();
    let whole = Augmentation {
        crop_scale: [1.0, 1.0],
        crop_ratio: [1.0, 1.0],
        jitter: None,
        blur: 0.0,
        solarise: 0.0,
        ..augmentation()
    };
    let views = whole.apply(&ImageBatch::from(&images), &rows, KEY);
    let grey = (views.select(1, 1) - views.select(1, 2))
        .abs()
        .amax([1_i64, 2].as_slice(), false)
        .lt(1e-6);
    let grey = grey.sum(Kind::Int64).int64_value(&[]);
    assert!((50..110).contains(&grey), "{grey} of 400 are grey");
    // Green grows to the right in the original.
    let mirrored = views.select(1, 1).select(1, 6).narrow(1, 0, 1)
        - views.select(1, 1).select(1, 6).narrow(1, 11, 1);
    let mirrored = mirrored.gt(0.0).sum(Kind::Int64).int64_value(&[]);
    assert!(
        (160..240).contains(&mirrored),
        "{mirrored} of 400 are mirrored"
    );
}

#[test]
fn jitter_stays_in_range_and_turns_hue_as_hsv_does() {
    let (_, images) = pixels(6, 12);
    let rows: Vec<u32> = (0..6).collect();
    let views = augmentation().apply(&ImageBatch::from(&images), &rows, KEY);
    let (low, high) = (views.min().double_value(&[]), views.max().double_value(&[]));
    assert!(low >= 0.0 && high <= 1.0, "{low} to {high}");
    // A third of a turn either way leaves the largest and smallest channel of each pixel as they are.
    let hue = Augmentation {
        crop_scale: [1.0, 1.0],
        crop_ratio: [1.0, 1.0],
        flip: false,
        greyscale: 0.0,
        jitter: Some([0.0, 0.0, 0.0, 0.5]),
        blur: 0.0,
        solarise: 0.0,
        ..augmentation()
    };
    let turned = hue.apply(&ImageBatch::from(&images), &rows, KEY);
    let plain = centre(&ImageBatch::from(&images), 12);
    for (before, after) in [
        (
            plain.amax([1_i64].as_slice(), false),
            turned.amax([1_i64].as_slice(), false),
        ),
        (
            plain.amin([1_i64].as_slice(), false),
            turned.amin([1_i64].as_slice(), false),
        ),
    ] {
        assert!((before - after).abs().max().double_value(&[]) < 1e-4);
    }
    assert!(
        (plain - turned).abs().max().double_value(&[]) > 0.1,
        "no hue was turned"
    );
}
