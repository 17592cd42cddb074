//! Views against torchvision's (`tests/fixtures/make.py: make_views`), and the two ways of making
//! them against each other.

use ssl_cluster::data::augment::multi_crop::MultiCrop;
use ssl_cluster::data::augment::{
    Augmentation, Crop, Operation, Recipe, ViewKey, cook, cook_batch,
};
use ssl_cluster::data::image_batch::ImageBatch;
use tch::{Kind, Tensor};

use super::common::noise;

/// Side of the fixture's image, and which of its numbers are kept.
const SIDE: usize = 48;
const STEP: usize = 31;

/// The image of `make_views`: `[1, 48, 48, 3] u8`.
fn image() -> Tensor {
    let mut pixels: Vec<u8> = noise("view", SIDE * SIDE * 3)
        .map(|v| ((v + 1.0) * 128.0).floor() as u8)
        .collect();
    let line = SIDE * 3;
    for pair in pixels.chunks_exact_mut(2 * line) {
        let (first, second) = pair.split_at_mut(line);
        first.copy_from_slice(second);
    }
    for pixel in pixels[..4 * line].chunks_exact_mut(3) {
        pixel.fill(pixel[0]);
    }
    Tensor::from_slice(&pixels).view([1, SIDE as i64, SIDE as i64, 3])
}

fn operation(value: &serde_json::Value) -> Operation {
    let (name, number) = value.as_object().unwrap().iter().next().unwrap();
    let number = number.as_f64().unwrap() as f32;
    match name.as_str() {
        "brightness" => Operation::Brightness(number),
        "contrast" => Operation::Contrast(number),
        "saturation" => Operation::Saturation(number),
        "hue" => Operation::Hue(number),
        "greyscale" => Operation::Greyscale,
        "blur" => Operation::Blur(number),
        "solarise" => Operation::Solarise,
        other => panic!("{other}"),
    }
}

#[test]
fn views_are_torchvisions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/views.json");
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let image = image();
    for case in &cases {
        let crop = case["crop"].as_array().unwrap();
        let [left, top, width, height] = [0, 1, 2, 3].map(|i| crop[i].as_f64().unwrap());
        let operations = case["operations"].as_array().unwrap();
        let recipe = Recipe {
            crop: Crop {
                left,
                top,
                width,
                height,
                mirror: case["mirror"].as_bool().unwrap(),
                angle: 0.0,
            },
            operations: operations.iter().map(operation).collect(),
        };
        let size = case["size"].as_i64().unwrap();
        let expected: Vec<f64> = serde_json::from_value(case["numbers"].clone()).unwrap();
        let recipes = std::slice::from_ref(&recipe);
        for (way, view) in [
            ("single", cook(&ImageBatch::from(&image), recipes, size)),
            ("batch", cook_batch(&image, recipes, size)),
        ] {
            assert_eq!(view.size(), [1, 3, size, size]);
            let numbers: Vec<f32> =
                Vec::try_from(&view.permute([0, 2, 3, 1]).contiguous().flatten(0, -1)).unwrap();
            let ours: Vec<f32> = numbers.into_iter().step_by(STEP).collect();
            assert_eq!(ours.len(), expected.len());
            for (at, (&ours, &theirs)) in ours.iter().zip(&expected).enumerate() {
                // Beyond a crop's edge we see the image, torchvision the edge again.
                let pixel = at * STEP / 3;
                let place = [pixel % size as usize, pixel / size as usize];
                let near_edge = [width, height].iter().zip(place).any(|(&length, at)| {
                    let margin = (size as f64 / length / 2.0).ceil() as usize;
                    at < margin || at >= size as usize - margin
                });
                if near_edge && (width, height) != (SIDE as f64, SIDE as f64) {
                    continue;
                }
                let off = (f64::from(ours) - theirs).abs();
                assert!(
                    off < 2e-4 || near_a_step(&recipe, theirs),
                    "{way}, {recipe:?}, number {at}: {ours}, torchvision's {theirs}"
                );
            }
        }
    }
}

/// Solarising jumps: a number that rounds to the other side of its threshold has another result.
fn near_a_step(recipe: &Recipe, theirs: f64) -> bool {
    let jumps = recipe.operations.contains(&Operation::Solarise);
    jumps && recipe.operations.len() > 1 && (theirs - 0.5).abs() < 0.01
}

#[test]
fn both_ways_make_the_same_views() {
    let images = Tensor::rand([40, 30, 30, 3], (Kind::Float, tch::Device::Cpu)) * 255.0;
    let images = images.to_kind(Kind::Uint8);
    let augmentation = Augmentation {
        size: 26,
        crop_scale: [0.1, 1.0],
        crop_ratio: [0.75, 4.0 / 3.0],
        flip: true,
        jitter: Some([0.4, 0.4, 0.4, 0.1]),
        greyscale: 0.3,
        blur: 0.5,
        // It jumps, so that rounding would show: the fixtures check it.
        solarise: 0.0,
    };
    let key = ViewKey {
        seed: 5,
        seen: 0,
        view: 0,
    };
    let recipes: Vec<Recipe> = (0..40_u32)
        .map(|row| {
            let seen = u64::from(row);
            augmentation.draw(row, ViewKey { seen, ..key }, 30.0)
        })
        .collect();
    let single = cook(&ImageBatch::from(&images), &recipes, 26);
    let batch = cook_batch(&images, &recipes, 26);
    let off = (single - batch).abs().max().double_value(&[]);
    assert!(off < 5e-4, "{off}");
}

#[test]
fn several_views_of_an_image_turned_and_changed_are_the_same_both_ways() {
    let images = Tensor::rand([5, 40, 40, 3], (Kind::Float, tch::Device::Cpu)) * 255.0;
    let images = images.to_kind(Kind::Uint8);
    let changes = [
        Operation::Projection,
        Operation::DropColours { keep: 1, seed: 9 },
        Operation::Coarse(7),
    ];
    let recipes: Vec<Recipe> = (0..15)
        .map(|number| Recipe {
            crop: Crop {
                mirror: number % 2 == 0,
                angle: 0.3 * f64::from(number) - 1.0,
                ..Crop::upright(3.0 + f64::from(number), 8.0, 17.0, 20.0)
            },
            operations: vec![changes[number as usize % 3]],
        })
        .collect();
    let single = cook(&ImageBatch::from(&images), &recipes, 24);
    let batch = cook_batch(&images, &recipes, 24);
    assert_eq!(single.size(), [15, 3, 24, 24]);
    let off = (single - batch).abs().max().double_value(&[]);
    assert!(off < 5e-4, "{off}");
}

#[test]
fn a_quarter_turn_is_that_of_the_pixels() {
    let image = image();
    let side = SIDE as f64;
    let recipe = |angle| Recipe {
        crop: Crop {
            angle,
            ..Crop::upright(0.0, 0.0, side, side)
        },
        operations: Vec::new(),
    };
    let view = |angle| cook(&ImageBatch::from(&image), &[recipe(angle)], SIDE as i64);
    let turned = view(std::f64::consts::FRAC_PI_2);
    let off = (turned - view(0.0).rot90(1, [2, 3])).abs().max();
    assert!(off.double_value(&[]) < 1e-4, "{off:?}");
}

#[test]
fn colour_fringes_are_gone_after_a_cure() {
    let image = Tensor::from_slice(&[200u8, 40, 90]).view([1, 1, 1, 3]);
    let image = image.expand([1, 8, 8, 3], false).contiguous();
    let cured = |operation| {
        let recipe = Recipe {
            crop: Crop::upright(0.0, 0.0, 8.0, 8.0),
            operations: vec![operation],
        };
        let view = cook(&ImageBatch::from(&image), &[recipe], 8);
        [0, 1, 2].map(|channel| view.double_value(&[0, channel, 4, 4]))
    };
    // Nothing is left along (-1, 2, -1).
    let [r, g, b] = cured(Operation::Projection);
    assert!((2.0 * g - r - b).abs() < 1e-6, "{r} {g} {b}");
    let [r, g, b] = cured(Operation::DropColours { keep: 2, seed: 1 });
    assert!((r - 0.5).abs() < 0.01 && (g - 0.5).abs() < 0.01, "{r} {g}");
    assert!((b - 90.0 / 255.0).abs() < 1e-6, "{b}");
}

#[test]
fn several_crops_are_views_of_their_own_numbers() {
    let images = image().repeat([5, 1, 1, 1]);
    let squares = ImageBatch::from(&images);
    let base = Augmentation {
        size: 28,
        crop_scale: [0.3, 1.0],
        crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
        flip: true,
        jitter: None,
        greyscale: 0.0,
        blur: 0.0,
        solarise: 0.0,
    };
    let key = ViewKey {
        seed: 1,
        seen: 10,
        view: 4,
    };
    let crops = MultiCrop::swav(&base, 28);
    let rows: Vec<u32> = (0..5).collect();
    let views = crops.apply(&squares, &rows, key);
    let sizes: Vec<i64> = views.iter().map(|view| view.size()[3]).collect();
    assert_eq!(sizes, [28, 28, 12, 12, 12, 12, 12, 12]);
    for (number, view) in views.iter().enumerate() {
        let augmentation = &crops.0[usize::from(number >= 2)].augmentation;
        let key = ViewKey {
            view: key.view + number as u64,
            ..key
        };
        assert_eq!(*view, augmentation.apply(&squares, &rows, key));
        assert!(views[..number].iter().all(|other| other != view));
    }
}
