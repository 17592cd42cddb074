//! Images in: what is found, how it is decoded and kept, what the random views are.

mod augment;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod decode;
mod images;
mod items;
mod planes;
mod sources;

use std::path::Path;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use ssl_cluster::data::source::ImageSet;

fn save(path: &Path, image: impl Into<DynamicImage>, format: ImageFormat) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save_with_format(path, format).unwrap();
}

fn ramp(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 5) as u8, (y * 5) as u8, 100])
    })
}

/// The names of a set, in its order.
fn names(set: &ImageSet) -> Vec<&str> {
    set.files.iter().map(|file| &*file.name).collect()
}
