//! Hand-made descriptors, from what they are defined as.

use tch::{Kind, Tensor};

use crate::*;

/// Numbers of the colours; those of the gradients follow.
const COLOURS: i64 = 128;

fn described(image: &Tensor) -> Tensor {
    let size = image.size()[2];
    let (store, backbone) = build("descriptors", size, 3);
    assert!(store.variables().is_empty());
    let maps = backbone.maps(&image.unsqueeze(0), false);
    let row = backbone.hidden(&maps, false);
    assert_eq!(row.size(), [1, backbone.dim()]);
    row.get(0)
}

fn plain(red: f64, green: f64, blue: f64) -> Tensor {
    let channel = |value: f64| Tensor::full([1, 32, 32], value, (Kind::Float, Device::Cpu));
    Tensor::cat(&[channel(red), channel(green), channel(blue)], 0)
}

/// Places of numbers that are not 0.
fn places(numbers: &Tensor) -> Vec<i64> {
    Vec::try_from(numbers.nonzero().flatten(0, -1)).unwrap()
}

#[test]
fn a_plain_colour_is_one_bin_and_has_no_gradients() {
    for (colour, bin) in [
        // Hue in eighths, saturation and value in quarters.
        ((1.0, 0.0, 0.0), [0, 3, 3]),
        ((0.0, 1.0, 0.0), [2, 3, 3]),
        ((0.0, 0.0, 1.0), [5, 3, 3]),
        ((0.3, 0.3, 0.3), [0, 0, 1]),
        ((0.0, 0.0, 0.0), [0, 0, 0]),
    ] {
        let (red, green, blue) = colour;
        let row = described(&plain(red, green, blue));
        let [hue, saturation, value] = bin;
        assert_eq!(
            places(&row),
            [(hue * 4 + saturation) * 4 + value],
            "{colour:?}"
        );
        assert!(row.isfinite().all().int64_value(&[]) != 0);
    }
}

#[test]
fn a_ramp_points_one_way_in_every_cell() {
    let ramp = Tensor::arange(32, (Kind::Float, Device::Cpu)) / 64.0;
    let right = ramp
        .view([1, 1, 32])
        .expand([3, 32, 32], false)
        .contiguous();
    let gradients = |image: &Tensor| {
        let row = described(image);
        row.narrow(0, COLOURS, row.size()[0] - COLOURS)
    };
    let directions = |image: &Tensor| -> Vec<i64> {
        let mut found: Vec<i64> = places(&gradients(image)).iter().map(|at| at % 9).collect();
        found.dedup();
        found
    };
    assert_eq!(directions(&right), [0]);
    // A right angle lies between two of nine bins, and opposite directions are one.
    assert_eq!(directions(&right.transpose(1, 2).contiguous())[..2], [4, 5]);
    assert_eq!(directions(&right.flip([2])), [0]);
    // Shares, so that contrast does not count, and their roots have a norm of 1.
    let (strong, weak) = (gradients(&right), gradients(&(&right * 0.25)));
    assert!((strong.square().sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-5);
    assert!((strong - weak).abs().max().double_value(&[]) < 1e-4);
}

#[test]
fn edges_alone_are_described_too() {
    let (_, backbone) = build("descriptors", 32, 2);
    let images = Tensor::randn([2, 2, 32, 32], (Kind::Float, Device::Cpu));
    let row = backbone.hidden(&backbone.maps(&images, false), false);
    assert_eq!(row.size(), [2, backbone.dim()]);
    assert_eq!(backbone.dim(), 6 * 6 * 9);
}
