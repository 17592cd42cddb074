//! Items that are not image files: several planes, groups, names of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssl_cluster::config::CacheChoice;
use ssl_cluster::data::Dataset;
use ssl_cluster::data::augment::{Crop, Recipe, cook, crops};
use ssl_cluster::data::cache::Cache;
use ssl_cluster::data::decode::DecodeError;
use ssl_cluster::data::items::{Depth, Items, Layout, Plane};
use ssl_cluster::data::loader::PixelBatch;
use ssl_cluster::monitor::Silent;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Ramps that rise to the right as colours, to the right and down as depth in 16 bits, and as a mask that is
/// 9 in the right half. The fourth cannot be read.
#[derive(Debug)]
struct Ramps {
    names: Vec<String>,
    kind: &'static str,
    /// How often an item was read.
    reads: AtomicUsize,
}

const PLANES: &[Plane] = &[
    Plane::RGB,
    Plane {
        name: "depth",
        channels: 2,
        depth: Depth::U16,
        discrete: false,
    },
    Plane {
        name: "mask",
        channels: 1,
        depth: Depth::U8,
        discrete: true,
    },
];
const SIDE: usize = 16;
const UNREADABLE: usize = 3;

impl Ramps {
    fn new(kind: &'static str) -> Arc<Self> {
        Arc::new(Self {
            names: (0..6).map(|item| format!("ramp {item}")).collect(),
            kind,
            reads: AtomicUsize::new(0),
        })
    }
}

impl Items for Ramps {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn name(&self, item: usize) -> &str {
        &self.names[item]
    }

    fn group(&self, item: usize) -> u32 {
        item as u32 / 2
    }

    fn planes(&self) -> &[Plane] {
        PLANES
    }

    fn read(&self, item: usize, side: usize, out: &mut [u8]) -> Result<(), DecodeError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if item == UNREADABLE {
            return Err(DecodeError::NoFile);
        }
        let layout = Layout::of(self, side);
        let steps = |at: usize| (item + 4 * at) as u8;
        for (at, pixel) in out[layout.range(0)].chunks_exact_mut(3).enumerate() {
            pixel.fill(steps(at % side));
        }
        for (at, pair) in out[layout.range(1)].chunks_exact_mut(4).enumerate() {
            let value = |at: usize| u16::from(steps(at)) * 257;
            pair[..2].copy_from_slice(&value(at % side).to_le_bytes());
            pair[2..].copy_from_slice(&value(at / side).to_le_bytes());
        }
        for (at, pixel) in out[layout.range(2)].iter_mut().enumerate() {
            *pixel = if at % side >= side / 2 { 9 } else { 0 };
        }
        Ok(())
    }

    fn kind(&self) -> &str {
        self.kind
    }

    fn stamp(&self, item: usize) -> Option<String> {
        Some(self.names[item].clone())
    }
}

fn load(choice: CacheChoice, directory: &TempDir) -> Dataset {
    load_these(Ramps::new("ramps"), choice, directory)
}

fn load_these(items: Arc<Ramps>, choice: CacheChoice, directory: &TempDir) -> Dataset {
    let cache = Cache {
        choice,
        directory: Some(directory.path().into()),
    };
    Dataset::load(items, SIDE, &cache, None, &Silent).unwrap()
}

#[test]
fn every_cache_gives_all_planes_of_what_can_be_read() {
    let directory = TempDir::new().unwrap();
    for choice in [
        CacheChoice::Ram,
        CacheChoice::Disk,
        CacheChoice::Disk,
        CacheChoice::Off,
    ] {
        let data = load(choice, &directory);
        let names: Vec<&str> = data.names().collect();
        let expected = ["ramp 0", "ramp 1", "ramp 2", "ramp 4", "ramp 5"];
        assert_eq!(names, expected, "{choice:?}");
        assert_eq!(data.skipped[0].path, "ramp 3", "{choice:?}");
        let groups: Vec<u32> = (0..data.len()).map(|image| data.group(image)).collect();
        assert_eq!(groups, [0, 0, 1, 2, 2], "{choice:?}");
        let rows = [4, 0];
        let colours = data.pixels.gather(&rows).unwrap();
        assert_eq!(colours.size(), [2, 16, 16, 3]);
        assert_eq!(colours.int64_value(&[0, 7, 2, 1]), 5 + 8, "{choice:?}");
        let depth = data.pixels.plane(1, &rows).unwrap();
        assert_eq!(depth.size(), [2, 2, 16, 16]);
        let found = [[0, 0, 7, 2], [0, 1, 7, 2], [1, 1, 7, 2]].map(|at| depth.double_value(&at));
        for (found, steps) in found.into_iter().zip([5 + 8, 5 + 28, 28]) {
            let expected = f64::from(steps * 257) / 65_535.0;
            assert!((found - expected).abs() < 1e-7, "{choice:?}: {found}");
        }
        let mask = data.pixels.plane(2, &rows).unwrap();
        assert_eq!(mask.double_value(&[1, 0, 3, 7]), 0.0);
        assert!((mask.double_value(&[1, 0, 3, 8]) - 9.0 / 255.0).abs() < 1e-7);
    }
}

#[test]
fn pixels_on_disk_are_found_by_what_made_them() {
    let directory = TempDir::new().unwrap();
    let reads = |kind| {
        let items = Ramps::new(kind);
        load_these(Arc::clone(&items), CacheChoice::Disk, &directory);
        items.reads.load(Ordering::Relaxed)
    };
    assert_eq!(reads("ramps"), 6);
    assert_eq!(reads("ramps"), 0, "found, not made again");
    assert_eq!(reads("steps"), 6, "the same stamps, made into other pixels");
}

#[test]
fn planes_are_seen_through_the_same_windows_as_colours() {
    let data = load(CacheChoice::Ram, &TempDir::new().unwrap());
    let rows = [0, 2];
    let batch = PixelBatch::new(&data.pixels, &rows, Device::Cpu).unwrap();
    let recipe = |left, mirror, angle| Recipe {
        crop: Crop {
            mirror,
            angle,
            ..Crop::upright(left, 3.0, 9.0, 7.5)
        },
        operations: Vec::new(),
    };
    // Two views of each.
    let recipes = [
        recipe(2.5, false, 0.0),
        recipe(4.0, true, 0.0),
        recipe(3.0, false, 0.4),
        recipe(3.5, true, -0.3),
    ];
    let colours = cook(&batch.images, &recipes, 8);
    let depth = crops(&data.pixels.plane(1, &rows).unwrap(), &recipes, 8, false);
    assert_eq!(depth.size(), [4, 2, 8, 8]);
    let off = (colours.narrow(1, 0, 1) - depth.narrow(1, 0, 1))
        .abs()
        .max();
    assert!(off.double_value(&[]) < 1e-5, "{off}");
    // Of a mask the nearest pixel, never a value between two: 9 from where the ramp's eighth column is nearest.
    let mask = crops(&data.pixels.plane(2, &rows).unwrap(), &recipes, 8, true) * 255.0;
    let items = Tensor::from_slice(&[0.0_f32, 0.0, 2.0, 2.0]).view([4, 1, 1, 1]);
    let column = (depth.narrow(1, 0, 1) * 255.0 - items) / 4.0;
    let clear = (&column - 7.5).abs().gt(0.01);
    let expected = column.gt(7.5).to_kind(Kind::Float) * 9.0;
    let wrong = (mask - expected).abs().gt(0.01).logical_and(&clear);
    assert_eq!(wrong.sum(Kind::Int64).int64_value(&[]), 0);
    assert!(clear.sum(Kind::Int64).int64_value(&[]) > 200);
}
