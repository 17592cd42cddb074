//! Visual words, from what they are defined as: `tests/fixtures/make_vlad.py`.

use serde_json::Value;
use ssl_cluster::method::learn_from;
use tch::{IndexOp, Kind, Tensor};

use crate::*;

/// The words' part; the hand-made descriptors of the whole image follow.
const PROJECTED: i64 = 256;

fn features(backbone: &dyn Backbone, images: &Tensor) -> Tensor {
    tch::no_grad(|| backbone.hidden(&backbone.maps(images, false), false))
}

fn words(backbone: &dyn Backbone, images: &Tensor) -> Tensor {
    features(backbone, images).narrow(1, 0, PROJECTED)
}

fn learned(images: &Tensor) -> (nn::VarStore, Box<dyn Backbone>) {
    let (store, backbone) = build("vlad", images.size()[2], 3);
    learn_from(backbone.dictionary().unwrap(), images).unwrap();
    (store, backbone)
}

#[test]
fn images_are_encoded_as_defined() {
    let text = std::fs::read_to_string(fixture("vlad.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let size = expected["size"].as_i64().unwrap();
    let (store, backbone) = build("vlad", size, 3);
    fill(&store);
    let numbers: Vec<f32> = noise("image", (2 * 3 * size * size) as usize)
        .map(|value| value as f32)
        .collect();
    let images = (Tensor::from_slice(&numbers).view([2, 3, size, size]) + 1.0) / 2.0;
    let found = words(backbone.as_ref(), &images);
    for row in 0..2 {
        let of_row = found.get(row as i64);
        let length = expected["lengths"][row].as_f64().unwrap();
        let norm = of_row.norm().double_value(&[]);
        assert!(close(norm, length, 1e-4), "{norm} {length}");
        let first = expected["first"][row].as_array().unwrap();
        for (own, theirs) in values(&of_row).iter().zip(first) {
            let theirs = theirs.as_f64().unwrap();
            assert!(close(f64::from(*own), theirs, 1e-4), "{own} {theirs}");
        }
    }
}

/// Pictures `[2 * each, 3, 48, 48]`: a small sign at some place, of one of two kinds by turns.
fn signs(each: i64) -> Tensor {
    let pictures = Tensor::full([2 * each, 3, 48, 48], 0.9, (Kind::Float, Device::Cpu));
    let places: Vec<f64> = noise("places", 4 * each as usize).collect();
    for picture in 0..2 * each {
        let place = |number: i64| ((places[(2 * picture + number) as usize] + 1.0) * 15.0) as i64;
        let (top, left) = (2 + place(0), 2 + place(1));
        for at in 0..14 {
            let inside = pictures.i((picture, .., top..top + 14, left..left + 14));
            // A cross of diagonals, or a square of lines.
            let mut dots = match picture % 2 {
                0 => vec![(at, at), (at, 13 - at)],
                _ => vec![(at, 3), (at, 10), (3, at), (10, at)],
            };
            dots.extend(dots.clone().iter().map(|(y, x)| (*y, (x + 1).min(13))));
            for (y, x) in dots {
                let _ = inside.i((.., y, x)).fill_(0.1);
            }
        }
    }
    pictures
}

#[test]
fn what_is_somewhere_is_recognised_elsewhere() {
    let pictures = signs(40);
    let (_, backbone) = learned(&pictures);
    let rows = words(backbone.as_ref(), &pictures);
    let near = rows.matmul(&rows.transpose(0, 1));
    let _ = near.shallow_clone().fill_diagonal_(-1e9, false);
    let nearest = values(&near.argmax(1, false).to_kind(Kind::Float));
    let same = |(own, other): (usize, &f32)| own % 2 == *other as usize % 2;
    let right = nearest
        .iter()
        .enumerate()
        .filter(|&pair| same(pair))
        .count();
    assert!(right >= 72, "{right} of 80");
}

#[test]
fn a_dictionary_is_learned_from_its_images_and_from_nothing_else() {
    // Nothing is quite plain, so that no two words are equally near.
    let numbers: Vec<f32> = noise("pictures", 40 * 3 * 48 * 48)
        .map(|value| 0.03 * value as f32)
        .collect();
    let pictures = signs(20) + Tensor::from_slice(&numbers).view([40, 3, 48, 48]);
    let ((one, backbone), (other, _)) = (learned(&pictures), learned(&pictures));
    let learned = named_variables(&one);
    assert!(!learned.is_empty());
    for ((name, own), (_, theirs)) in learned.iter().zip(named_variables(&other)) {
        assert!(own.equal(&theirs), "{name}");
        assert!(!own.requires_grad(), "{name}");
    }
    let rows = words(backbone.as_ref(), &pictures).to_kind(Kind::Double);
    // Principal components of these very images: no mean, and variances that fall.
    let mean = rows.mean_dim(0, false, Kind::Double);
    assert!(mean.abs().max().double_value(&[]) < 1e-3);
    let variances = values(&rows.square().mean_dim(0, false, Kind::Double));
    assert!(variances[0] > 1e-3);
    assert!(variances.windows(2).all(|pair| pair[0] >= pair[1] - 1e-7));
    // An image is described alike whoever comes with it.
    let all = features(backbone.as_ref(), &pictures);
    let alone = features(backbone.as_ref(), &pictures.narrow(0, 7, 1));
    assert!((all.narrow(0, 7, 1) - alone).abs().max().double_value(&[]) < 1e-3);
    // The whole image's part has the length of the words' at most.
    let whole = all.narrow(1, PROJECTED, all.size()[1] - PROJECTED);
    let lengths = values(&whole.square().sum_dim_intlist(1, false, Kind::Float));
    assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-4));
}

#[test]
fn images_in_which_there_is_nothing_are_described_too() {
    let blank = Tensor::full([3, 3, 48, 48], 0.5, (Kind::Float, Device::Cpu));
    for images in [&blank, &blank.narrow(0, 0, 1), &signs(1)] {
        let (_, backbone) = learned(images);
        for seen in [&blank, &signs(2)] {
            let rows = features(backbone.as_ref(), seen);
            assert_eq!(rows.size(), [seen.size()[0], backbone.dim()]);
            assert_eq!(rows.isfinite().all().int64_value(&[]), 1);
        }
    }
    let (_, unlearned) = build("vlad", 96, 2);
    let edges = Tensor::randn([2, 2, 96, 96], (Kind::Float, Device::Cpu));
    let rows = features(unlearned.as_ref(), &edges);
    assert_eq!(rows.size(), [2, PROJECTED + 6 * 6 * 9]);
    assert_eq!(rows.isfinite().all().int64_value(&[]), 1);
}
