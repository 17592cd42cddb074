//! Where decoded pixels are kept.

use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use ssl_cluster::config::CacheChoice;
use ssl_cluster::data::cache::decoding::decode_ahead;
use ssl_cluster::data::cache::{Cache, Pixels, Read, store};
use ssl_cluster::data::items::Items;
use ssl_cluster::data::loader::batches;
use ssl_cluster::data::source::ImageSet;
use ssl_cluster::monitor::{Interrupted, Silent};
use tempfile::TempDir;

use super::save;

const SIDE: usize = 6;

/// Ten images of different colours, of which those at 3 and 4 cannot be read.
fn images(folder: &Path) -> Arc<dyn Items> {
    for index in 0..10_u8 {
        let image = RgbImage::from_pixel(8, 8, Rgb([index * 20, 0, 0]));
        save(
            &folder.join(format!("{index}.png")),
            image,
            ImageFormat::Png,
        );
    }
    std::fs::write(folder.join("3.png"), b"no image").unwrap();
    std::fs::write(folder.join("4.png"), b"").unwrap();
    find(folder)
}

fn find(folder: &Path) -> Arc<dyn Items> {
    Arc::new(ImageSet::find(folder).unwrap())
}

/// The first channel of the first pixel of each image.
fn reds(read: &Read) -> Vec<i64> {
    let rows: Vec<u32> = (0..read.pixels.len() as u32).collect();
    let all = read.pixels.gather(&rows).unwrap();
    (0..rows.len() as i64)
        .map(|row| all.int64_value(&[row, 0, 0, 0]))
        .collect()
}

#[test]
fn every_cache_gives_the_same_images_and_the_one_on_disk_is_found_again() {
    let (folder, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let open_at = |set: &Arc<dyn Items>, side, choice| {
        let cache = Cache {
            choice,
            directory: Some(cache.path().into()),
        };
        Pixels::open(set, side, &cache, None, &Silent).unwrap()
    };
    let open = |set: &Arc<dyn Items>, choice| open_at(set, SIDE, choice);
    let set = images(folder.path());
    let expected = [0, 20, 40, 100, 120, 140, 160, 180];
    for choice in [
        CacheChoice::Ram,
        CacheChoice::Disk,
        CacheChoice::Disk,
        CacheChoice::Off,
        CacheChoice::Auto,
    ] {
        let read = open(&set, choice);
        assert_eq!(reds(&read), expected, "{choice:?}");
        assert_eq!(read.kept, [0, 1, 2, 5, 6, 7, 8, 9], "{choice:?}");
        let skipped: Vec<&str> = read.skipped.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(skipped, ["3.png", "4.png"], "{choice:?}");
    }
    let files = || store::files(cache.path()).unwrap();
    assert_eq!(files().len(), 1, "found again, not written again");

    // Another size, or other content, is another file.
    open_at(&set, SIDE + 1, CacheChoice::Disk);
    let other = RgbImage::from_pixel(9, 9, Rgb([250, 0, 0]));
    save(&folder.path().join("9.png"), other, ImageFormat::Png);
    let read = open(&find(folder.path()), CacheChoice::Disk);
    assert_eq!(reds(&read).last(), Some(&250));
    assert_eq!(files().len(), 3);

    // What could not be opened this time may be there the next: nothing is kept of it.
    let gone = folder.path().join("gone.png");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &gone).unwrap();
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "0.png\ngone.png\n").unwrap();
    let listed = ImageSet::find_from(&[&list], folder.path()).unwrap();
    let listed: Arc<dyn Items> = Arc::new(listed);
    let read = open(&listed, CacheChoice::Disk);
    assert_eq!((reds(&read), read.skipped.len()), (vec![0], 1));
    assert_eq!(files().len(), 3);
    std::fs::remove_file(gone).unwrap();
    std::fs::remove_file(list).unwrap();

    // A damaged file is made anew.
    let before = files();
    for (path, length) in &before {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(length / 2).unwrap();
    }
    let read = open(&find(folder.path()), CacheChoice::Disk);
    assert_eq!(reds(&read).last(), Some(&250));
    let whole = |file: &&(std::path::PathBuf, u64)| before.contains(file);
    assert_eq!(files().iter().filter(whole).count(), 1);
}

#[test]
fn an_image_that_vanishes_is_named_and_ends_the_batches() {
    let folder = TempDir::new().unwrap();
    let off = Cache {
        choice: CacheChoice::Off,
        directory: None,
    };
    let read = Pixels::open(&images(folder.path()), SIDE, &off, None, &Silent).unwrap();
    std::fs::remove_file(folder.path().join("7.png")).unwrap();
    let pixels = Arc::new(read.pixels);
    let served: Vec<_> = batches(&pixels, (0..8).collect(), vec![4, 4], tch::Device::Cpu).collect();
    assert!(served[0].is_ok());
    let error = served[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("7.png"), "{error}");
}

#[test]
fn blocks_cover_the_set_once_and_a_failure_ends_them() {
    let folder = TempDir::new().unwrap();
    let set = images(folder.path());
    let (mut kept, mut skipped, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    decode_ahead::<Interrupted>(set.as_ref(), SIDE, 4, &mut |read, rows| {
        assert_eq!(read.pixels.len(), read.kept.len());
        kept.extend(read.kept);
        skipped.extend(read.skipped);
        counts.push(rows.len());
        Ok(())
    })
    .unwrap();
    assert_eq!(kept, [0, 1, 2, 5, 6, 7, 8, 9]);
    assert_eq!((skipped.len(), counts), (2, vec![4, 4, 2]));
    let mut blocks = 0;
    let result = decode_ahead(set.as_ref(), SIDE, 1, &mut |_, _| {
        blocks += 1;
        Err(Interrupted)
    });
    assert_eq!((result, blocks), (Err(Interrupted), 1));
}
