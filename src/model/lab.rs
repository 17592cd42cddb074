//! CIE L*a*b*, in which distances are about those that people see: lightness, and two axes of colour.
//! sRGB with the white D65 (IEC 61966-2-1; CIE 15:2004).

use tch::{Kind, Tensor};

/// From linear RGB to XYZ, each row divided by the white's.
const TO_XYZ: [[f32; 3]; 3] = [
    [
        0.412_453 / 0.950_47,
        0.357_58 / 0.950_47,
        0.180_423 / 0.950_47,
    ],
    [0.212_671, 0.715_16, 0.072_169],
    [
        0.019_334 / 1.088_83,
        0.119_193 / 1.088_83,
        0.950_227 / 1.088_83,
    ],
];
/// Where the cube root ends and a line begins: (6/29)³, and the line's slope.
const DARK: f64 = 0.008_856;
const SLOPE: f64 = 7.787;
const OFFSET: f64 = 16.0 / 116.0;

/// Images `[b, 3, h, w] f32` of sRGB in 0..1 as L (0..100), a and b (about -110..110).
pub fn rgb_to_lab(images: &Tensor) -> Tensor {
    let linear = ((images + 0.055) / 1.055)
        .pow_tensor_scalar(2.4)
        .where_self(&images.gt(0.04045), &(images / 12.92));
    let xyz = mix(&linear, &matrix(images));
    let root = xyz
        .clamp_min(DARK)
        .pow_tensor_scalar(1.0 / 3.0)
        .where_self(&xyz.gt(DARK), &(&xyz * SLOPE + OFFSET));
    let [x, y, z] = channels(&root);
    Tensor::cat(&[&y * 116.0 - 16.0, (x - &y) * 500.0, (y - z) * 200.0], 1)
}

/// The inverse of [`rgb_to_lab`]; colours that no screen shows are cut off.
pub fn lab_to_rgb(lab: &Tensor) -> Tensor {
    let [l, a, b] = channels(lab);
    let y = (l + 16.0) / 116.0;
    let root = Tensor::cat(&[a / 500.0 + &y, y.shallow_clone(), &y - b / 200.0], 1);
    let cube = root.pow_tensor_scalar(3.0);
    let xyz = cube.where_self(&cube.gt(DARK), &((root - OFFSET) / SLOPE));
    let linear = mix(&xyz, &matrix(lab).inverse()).clamp(0.0, 1.0);
    let bright = linear.clamp_min(1e-6).pow_tensor_scalar(1.0 / 2.4) * 1.055 - 0.055;
    bright
        .where_self(&linear.gt(0.003_130_8), &(&linear * 12.92))
        .clamp(0.0, 1.0)
}

fn matrix(beside: &Tensor) -> Tensor {
    Tensor::from_slice2(&TO_XYZ)
        .to_device(beside.device())
        .to_kind(Kind::Float)
}

/// Each pixel of `[b, 3, h, w]` times a matrix.
fn mix(images: &Tensor, matrix: &Tensor) -> Tensor {
    Tensor::einsum("ij,bjhw->bihw", &[matrix, images], None::<i64>)
}

fn channels(images: &Tensor) -> [Tensor; 3] {
    [0, 1, 2].map(|channel| images.narrow(1, channel, 1))
}

#[cfg(test)]
mod tests {
    use super::{lab_to_rgb, rgb_to_lab};
    use tch::Tensor;

    /// Values of scikit-image's `rgb2lab`.
    #[test]
    fn colours_have_their_published_places() {
        for (rgb, lab) in [
            ([1.0, 1.0, 1.0], [100.0, -0.0, 0.0]),
            ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
            ([1.0, 0.0, 0.0], [53.24, 80.09, 67.20]),
            ([0.0, 1.0, 0.0], [87.73, -86.18, 83.18]),
            ([0.0, 0.0, 1.0], [32.30, 79.19, -107.86]),
            ([0.2, 0.4, 0.6], [42.01, -0.15, -32.85]),
        ] {
            let image = Tensor::from_slice(&rgb.map(|v: f64| v as f32)).view([1, 3, 1, 1]);
            let found = rgb_to_lab(&image);
            for (channel, expected) in lab.into_iter().enumerate() {
                let value = found.double_value(&[0, channel as i64, 0, 0]);
                assert!(
                    (value - expected).abs() < 0.03,
                    "{rgb:?}: {value}, not {expected}"
                );
            }
            let back = lab_to_rgb(&found) - image;
            assert!(back.abs().max().double_value(&[]) < 2e-3, "{rgb:?}");
        }
    }
}
