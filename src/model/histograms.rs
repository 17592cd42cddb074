//! Histograms of an image's colours and gradients: what hand-made descriptors are made of.

use std::f32::consts::PI;

/// Bins of hue, saturation and value.
const COLOURS: [usize; 3] = [8, 4, 4];
pub(super) const COLOUR_BINS: usize = COLOURS[0] * COLOURS[1] * COLOURS[2];
/// Directions of gradients, of which opposite ones are one.
pub(super) const DIRECTIONS: usize = 9;

/// An image in 0..1.
pub(super) struct Image<'a> {
    /// `[height, width, channels]`
    pub pixels: &'a [f32],
    pub channels: usize,
    pub width: usize,
}

impl Image<'_> {
    pub fn height(&self) -> usize {
        self.pixels.len() / (self.width * self.channels)
    }

    /// Adds each pixel of a colour image to its bin of hue, saturation and value, of [`COLOUR_BINS`].
    pub fn add_colours(&self, bins: &mut [f32]) {
        for pixel in self.pixels.chunks_exact(3) {
            bins[colour_bin([pixel[0], pixel[1], pixel[2]])] += 1.0;
        }
    }

    /// Adds the lengths of the gradients to `bins` `[cells, cells, DIRECTIONS]`; of the channels the one that
    /// changes most counts, and a direction between two bins goes to both.
    pub fn add_gradients(&self, cells: usize, bins: &mut [f32]) {
        let (channels, width, height) = (self.channels, self.width, self.height());
        for y in 1..height - 1 {
            for x in 1..width - 1 {
                let at = (y * width + x) * channels;
                let (mut across, mut down, mut most) = (0.0, 0.0, 0.0);
                for channel in at..at + channels {
                    let step = width * channels;
                    let dx = self.pixels[channel + channels] - self.pixels[channel - channels];
                    let dy = self.pixels[channel + step] - self.pixels[channel - step];
                    let length = dx * dx + dy * dy;
                    if length > most {
                        (across, down, most) = (dx, dy, length);
                    }
                }
                if most == 0.0 {
                    continue;
                }
                let half_turns = down.atan2(across) / PI + 1.0;
                let place = half_turns.fract() * DIRECTIONS as f32;
                let (bin, share) = (place as usize % DIRECTIONS, place.fract());
                let cell = (y * cells / height) * cells + x * cells / width;
                let cell = &mut bins[cell * DIRECTIONS..][..DIRECTIONS];
                cell[bin] += most.sqrt() * (1.0 - share);
                cell[(bin + 1) % DIRECTIONS] += most.sqrt() * share;
            }
        }
    }
}

fn colour_bin([red, green, blue]: [f32; 3]) -> usize {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    let saturation = if value > 0.0 { range / value } else { 0.0 };
    let sixths = match range {
        range if range <= 0.0 => 0.0,
        range if value == red => ((green - blue) / range).rem_euclid(6.0),
        range if value == green => (blue - red) / range + 2.0,
        range => (red - green) / range + 4.0,
    };
    let bin = |share: f32, bins: usize| ((share * bins as f32) as usize).min(bins - 1);
    let [hues, saturations, values] = COLOURS;
    (bin(sixths / 6.0, hues) * saturations + bin(saturation, saturations)) * values
        + bin(value, values)
}

/// Counts become the roots of their shares, whose products compare histograms as Hellinger's kernel does.
pub(super) fn roots_of_shares(bins: &mut [f32]) {
    let sum: f32 = bins.iter().sum();
    if sum > 0.0 {
        bins.iter_mut().for_each(|bin| *bin = (*bin / sum).sqrt());
    }
}

/// The pixels of images `[b, c, h, w]` of any kind and device, as [`Image`] wants them, and what divides them.
pub(super) struct Images {
    pixels: Vec<f32>,
    channels: usize,
    width: usize,
    each: usize,
}

impl Images {
    pub fn new(images: &tch::Tensor) -> Self {
        let size: Vec<usize> = images
            .size()
            .iter()
            .map(|&length| length as usize)
            .collect();
        Self {
            pixels: crate::tensors::to_f32(&images.permute([0, 2, 3, 1])),
            channels: size[1],
            width: size[3],
            each: size[1..].iter().product(),
        }
    }

    pub fn get(&self, row: usize) -> Image<'_> {
        Image {
            pixels: &self.pixels[row * self.each..][..self.each],
            channels: self.channels,
            width: self.width,
        }
    }
}
