//! Images as Pillow reads and resizes them (`tests/fixtures/make.py: make_images`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::Deserialize;
use ssl_cluster::config::Interpolation;
use ssl_cluster::data::decode::{decode, dimensions, read, square_into};

/// One file, and every 97th of its numbers as Pillow has them.
#[derive(Deserialize)]
struct Case {
    file: String,
    width: u32,
    height: u32,
    numbers: Vec<u8>,
    /// The centre square at several sides.
    squares: BTreeMap<u32, Vec<u8>>,
}

const STEP: usize = 97;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(fixtures().join("images.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Largest and mean difference in grey levels.
fn differences(ours: &RgbImage, theirs: &[u8]) -> (u8, f64) {
    let ours: Vec<u8> = ours.as_raw().iter().copied().step_by(STEP).collect();
    assert_eq!(ours.len(), theirs.len());
    let off = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = off.clone().map(f64::from).sum();
    (off.max().unwrap(), sum / theirs.len() as f64)
}

#[test]
fn every_format_has_the_pixels_that_pillow_reads() {
    for case in cases() {
        let path = fixtures().join("images").join(&case.file);
        let size = (case.width, case.height);
        let bytes = read(&path).unwrap();
        assert_eq!(dimensions(&bytes).unwrap(), size, "{}", case.file);
        let image = decode(&bytes).unwrap();
        assert_eq!(image.dimensions(), size, "{}", case.file);
        let (largest, _) = differences(&image, &case.numbers);
        assert!(largest <= 1, "{}: {largest} grey levels off", case.file);
    }
}

#[test]
fn squares_are_those_of_pillow() {
    for case in cases() {
        let path = fixtures().join("images").join(&case.file);
        for (&side, numbers) in &case.squares {
            let mut square = RgbImage::new(side, side);
            square_into(
                &read(&path).unwrap(),
                side,
                Interpolation::Bilinear,
                &mut square,
            )
            .unwrap();
            let (largest, mean) = differences(&square, numbers);
            // A JPEG wanted at half its size or less is decoded at a smaller scale, by another filter
            // than Pillow's.
            let scaled = case.file.ends_with("jpg") && 2 * side <= case.width.min(case.height);
            let (most, mean_most) = if scaled { (24, 3.0) } else { (1, 0.5) };
            assert!(
                largest <= most && mean <= mean_most,
                "{} at {side}: {largest} grey levels off, {mean:.2} in the mean",
                case.file
            );
        }
    }
}
