//! VLAD: an image as the differences of its local descriptors from the visual words of a dictionary, which is learned
//! from the images themselves, beside the hand-made descriptors of the whole image.
//!
//! Lowe: "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004 (4 x 4 cells of directions, cut at
//! 0.2); Jégou, Douze, Schmid, Pérez: "Aggregating local descriptors into a compact image representation", CVPR 2010;
//! Arandjelović, Zisserman: "All about VLAD", CVPR 2013 (each word's part of unit length). Christlein et al.:
//! "Unsupervised Feature Learning for Writer Identification and Writer Retrieval", ICDAR 2017, encode images so.

use anyhow::Result;
use rand::seq::index;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor, nn};

use super::descriptors::{self, DESCRIPTORS};
use super::histograms::{DIRECTIONS, Image, Images};
use super::{Backbone, BackboneEntry, Dictionary, LayerWatch, Maps, MiddleLayer, Quantiser, Shape};
use crate::device::filled_rows;
use crate::random::{Purpose, stream};
use crate::tensors::{from_labels, l2_rows};

/// The registry entry.
pub const VLAD: BackboneEntry = BackboneEntry {
    name: "vlad",
    help: "no network: local gradients by visual words that are learned from the images, beside `descriptors`",
    paper: "Jégou et al., Aggregating local descriptors into a compact image representation, CVPR 2010, https://doi.org/10.1109/CVPR.2010.5540039",
    min_size: 48,
    billion_products: 0.01,
    build: |path, shape| Box::new(Vlad::new(path, *shape)),
    ..DESCRIPTORS
};

/// Cells along each side at the finest scale, and how many of them are one at each scale.
const FINEST: usize = 24;
const SCALES: [usize; 3] = [1, 2, 3];
/// Cells along each side of a local descriptor, and its numbers.
const WINDOW: usize = 4;
const LOCAL: usize = WINDOW * WINDOW * DIRECTIONS;
/// Entries of a local descriptor of unit length are at most this: one strong edge does not speak for all.
const MOST: f32 = 0.2;
/// What is added to a local descriptor's length before it is divided by it: noise in a plain place stays small.
const PLAIN: f32 = 0.05;
/// Principal components of local descriptors, and words.
const COMPONENTS: i64 = 48;
const WORDS: i64 = 64;
/// Principal components of all differences.
const PROJECTED: i64 = 256;
/// Local descriptors that a dictionary is learned from, at each scale.
const SAMPLE: usize = 50_000;

/// Local descriptors along each side, at a scale.
const fn places(scale: usize) -> usize {
    FINEST / scale - WINDOW + 1
}

/// A linear map to principal components.
#[derive(Debug)]
struct Projection {
    /// `[d]`
    mean: Tensor,
    /// `[r, d]`
    directions: Tensor,
}

impl Projection {
    fn new(path: &nn::Path, from: i64, to: i64) -> Self {
        Self {
            mean: path.zeros_no_train("mean", &[from]),
            directions: path.zeros_no_train("directions", &[to, from]),
        }
    }

    fn shared(&self) -> Self {
        Self {
            mean: self.mean.shallow_clone(),
            directions: self.directions.shallow_clone(),
        }
    }

    /// `[.., d]` to `[.., r]`
    fn apply(&self, rows: &Tensor) -> Tensor {
        (rows - &self.mean).matmul(&self.directions.transpose(0, 1))
    }

    /// Learns the components of `rows` `[n, d]`; where they have fewer, the others are 0.
    fn learn(&self, rows: &Tensor, clusterer: &dyn Quantiser) -> Result<()> {
        let (mut mean, mut directions) =
            (self.mean.shallow_clone(), self.directions.shallow_clone());
        let (centre, components) = clusterer.components(rows, directions.size()[0] as usize)?;
        mean.copy_(&centre);
        let _ = directions.zero_();
        directions
            .narrow(0, 0, components.size()[0])
            .copy_(&components);
        Ok(())
    }
}

/// The dictionary of a scale.
#[derive(Debug)]
struct Words {
    /// Local descriptors along each side.
    places: usize,
    local: Projection,
    /// `[WORDS, COMPONENTS]`
    words: Tensor,
}

impl Words {
    fn new(path: &nn::Path, places: usize) -> Self {
        Self {
            places,
            local: Projection::new(path, LOCAL as i64, COMPONENTS),
            words: path.zeros_no_train("words", &[WORDS, COMPONENTS]),
        }
    }

    fn shared(&self) -> Self {
        Self {
            places: self.places,
            local: self.local.shared(),
            words: self.words.shallow_clone(),
        }
    }

    /// For each word the sum of differences from it of the local descriptors `[b, l, LOCAL]` that are nearest to it, of
    /// unit length: `[b, WORDS * COMPONENTS]`.
    fn encode(&self, locals: &Tensor) -> Tensor {
        let points = self.local.apply(locals);
        let halves = self.words.square().sum_dim_intlist(1, false, Kind::Float) / 2.0;
        let nearest = (points.matmul(&self.words.transpose(0, 1)) - halves).argmax(2, true);
        let shape = [points.size()[0], points.size()[1], WORDS];
        let chosen =
            Tensor::zeros(shape, (Kind::Float, points.device())).scatter_value(2, &nearest, 1.0);
        // A product in place of a sum by index, whose order a GPU does not keep.
        let sums = chosen.transpose(1, 2).matmul(&points);
        let counts = chosen.sum_dim_intlist(1, false, Kind::Float).unsqueeze(2);
        let differences = sums - counts * &self.words;
        let lengths = differences
            .square()
            .sum_dim_intlist(2, true, Kind::Float)
            .sqrt();
        (differences / lengths.clamp_min(1e-6)).flatten(1, 2)
    }

    /// Learns the words of `locals` `[n, LOCAL]`.
    fn learn(&self, locals: &Tensor, clusterer: &dyn Quantiser) -> Result<()> {
        self.local.learn(locals, clusterer)?;
        let points = self.local.apply(locals);
        let clusters = WORDS.min(points.size()[0]);
        let found = clusterer.centroids(&points, clusters as usize)?;
        let mut words = self.words.shallow_clone();
        // Of equal words the first is the nearest: those that are missing are never chosen.
        words.copy_(&found.narrow(0, 0, 1).expand_as(&words));
        words.narrow(0, 0, clusters).copy_(&found);
        Ok(())
    }
}

/// A backbone whose parameters no gradient reaches.
#[derive(Debug)]
struct Vlad {
    shape: Shape,
    scales: Vec<Words>,
    all: Projection,
}

impl Vlad {
    fn new(path: &nn::Path, shape: Shape) -> Self {
        let scales = SCALES.iter().enumerate();
        let scales =
            scales.map(|(number, &scale)| Words::new(&(path / "scales" / number), places(scale)));
        Self {
            shape,
            scales: scales.collect(),
            all: Projection::new(path, SCALES.len() as i64 * WORDS * COMPONENTS, PROJECTED),
        }
    }

    /// The words' parts of images, roots of their entries' sizes, of unit length: `[b, SCALES * WORDS * COMPONENTS]`.
    fn encode(&self, images: &[Cells], device: Device) -> Tensor {
        let counts: Vec<usize> = self
            .scales
            .iter()
            .map(|words| words.places.pow(2))
            .collect();
        let width = counts.iter().sum::<usize>() * LOCAL;
        let shape = [images.len() as i64, width as i64];
        let locals = filled_rows::<f32>(&shape, |row, out| images[row].write_locals(out));
        let locals = locals.to_device(device);
        let mut start = 0;
        let mut parts = Vec::new();
        for (words, &count) in self.scales.iter().zip(&counts) {
            let length = (count * LOCAL) as i64;
            let own = locals.narrow(1, start, length);
            parts.push(words.encode(&own.reshape([-1, count as i64, LOCAL as i64])));
            start += length;
        }
        let all = Tensor::cat(&parts, 1);
        l2_rows(&(all.sign() * all.abs().sqrt()))
    }
}

/// Images that are encoded at a time while a dictionary is learned.
const BLOCK: usize = 64;

impl Dictionary for Vlad {
    fn learn(&self, images: &Tensor, clusterer: &dyn Quantiser) -> Result<()> {
        let cells = Cells::of_all(&Images::new(images), images.size()[0]);
        for (&scale, words) in SCALES.iter().zip(&self.scales) {
            let sampled = sample(&cells, scale);
            words.learn(&sampled.to_device(images.device()), clusterer)?;
        }
        let blocks = cells.chunks(BLOCK);
        let encode = |block| self.encode(block, images.device());
        let encoded: Vec<Tensor> = blocks.map(encode).collect();
        self.all.learn(&Tensor::cat(&encoded, 0), clusterer)
    }
}

/// Local descriptors `[n, LOCAL]` of images at a scale, drawn evenly from all places: [`SAMPLE`] at most.
fn sample(images: &[Cells], scale: usize) -> Tensor {
    let each = places(scale).pow(2);
    let all = images.len() * each;
    // One dictionary for every seed.
    let mut rng = stream(0, Purpose::Clustering, scale as u64, all as u64);
    let mut drawn = index::sample(&mut rng, all, SAMPLE.min(all)).into_vec();
    drawn.sort_unstable();
    let rows = [drawn.len() as i64, LOCAL as i64];
    // Neighbours in the list are of one image, whose cells they share.
    let of_image = drawn.chunk_by(|a, b| a / each == b / each);
    let of_image: Vec<&[usize]> = of_image.collect();
    let parts: Vec<Tensor> = of_image
        .chunks(BLOCK)
        .map(|block| {
            let width = each * LOCAL;
            let locals = filled_rows::<f32>(&[block.len() as i64, width as i64], |row, out| {
                let cells = &images[block[row][0] / each];
                cells.coarser(scale).write_windows(out);
            });
            let places = block.iter().zip(0..).flat_map(|(drawn, row)| {
                drawn.iter().map(move |at| (row * each + at % each) as u32)
            });
            let places = from_labels(&places.collect::<Vec<u32>>());
            locals.view([-1, LOCAL as i64]).index_select(0, &places)
        })
        .collect();
    Tensor::cat(&parts, 0).view(rows)
}

/// The mean lengths of gradients of each direction in cells of an image: `[side, side, DIRECTIONS]`.
struct Cells {
    side: usize,
    gradients: Vec<f32>,
}

impl Cells {
    /// At the finest scale.
    fn of(image: &Image) -> Self {
        let mut gradients = vec![0.0; FINEST * FINEST * DIRECTIONS];
        image.add_gradients(FINEST, &mut gradients);
        let pixels = (image.width * image.height()) as f32 / (FINEST * FINEST) as f32;
        gradients.iter_mut().for_each(|length| *length /= pixels);
        Self {
            side: FINEST,
            gradients,
        }
    }

    /// The same of each of `count` images.
    fn of_all(images: &Images, count: i64) -> Vec<Self> {
        let rows = (0..count as usize).into_par_iter();
        rows.map(|row| Self::of(&images.get(row))).collect()
    }

    /// Writes the local descriptors at every scale, one behind the other.
    fn write_locals(&self, mut out: &mut [f32]) {
        for scale in SCALES {
            let (own, rest) = out.split_at_mut(places(scale).pow(2) * LOCAL);
            self.coarser(scale).write_windows(own);
            out = rest;
        }
    }

    /// `times` as large along each side.
    fn coarser(&self, times: usize) -> Self {
        let side = self.side / times;
        let mut gradients = vec![0.0; side * side * DIRECTIONS];
        let share = 1.0 / (times * times) as f32;
        for (at, fine) in self.gradients.chunks_exact(DIRECTIONS).enumerate() {
            let cell = (at / self.side / times) * side + at % self.side / times;
            let coarse = &mut gradients[cell * DIRECTIONS..][..DIRECTIONS];
            coarse
                .iter_mut()
                .zip(fine)
                .for_each(|(sum, length)| *sum += length * share);
        }
        Self { side, gradients }
    }

    /// Writes the local descriptors: each [`WINDOW`] x [`WINDOW`] cells, of unit length, cut, and the roots of what is
    /// left.
    fn write_windows(&self, out: &mut [f32]) {
        let along = self.side - WINDOW + 1;
        let width = WINDOW * DIRECTIONS;
        for (place, local) in out.chunks_exact_mut(LOCAL).enumerate() {
            let (top, left) = (place / along, place % along);
            for (row, own) in local.chunks_exact_mut(width).enumerate() {
                let start = ((top + row) * self.side + left) * DIRECTIONS;
                own.copy_from_slice(&self.gradients[start..][..width]);
            }
            let length = local.iter().map(|value| value * value).sum::<f32>().sqrt() + PLAIN;
            local
                .iter_mut()
                .for_each(|value| *value = (*value / length).min(MOST).sqrt());
        }
    }
}

impl Backbone for Vlad {
    /// The words' part, projected, and the whole image's descriptor, of unit length, as a map of one place.
    fn watched_maps(&self, images: &Tensor, _train: bool, _watch: &mut LayerWatch) -> Maps {
        let count = images.size()[0];
        let pixels = Images::new(images);
        let encoded = self.encode(&Cells::of_all(&pixels, count), images.device());
        let words = self.all.apply(&encoded);
        let width = descriptors::width(self.shape.in_channels);
        let whole = filled_rows::<f32>(&[count, width], |row, out| {
            descriptors::describe(&pixels.get(row), out);
        });
        let whole = l2_rows(&whole.to_device(images.device()));
        Tensor::cat(&[words, whole], 1)
            .view([count, self.dim(), 1, 1])
            .into()
    }

    fn layers(&self) -> Vec<MiddleLayer> {
        Vec::new()
    }

    fn hidden(&self, maps: &Maps, _train: bool) -> Tensor {
        maps.last.flatten(1, -1)
    }

    fn dictionary(&self) -> Option<&dyn Dictionary> {
        Some(self)
    }

    fn folded(&self, _kind: Kind) -> Box<dyn Backbone> {
        Box::new(Self {
            shape: self.shape,
            scales: self.scales.iter().map(Words::shared).collect(),
            all: self.all.shared(),
        })
    }

    fn channels(&self) -> i64 {
        self.dim()
    }

    fn dim(&self) -> i64 {
        PROJECTED + descriptors::width(self.shape.in_channels)
    }

    fn in_channels(&self) -> i64 {
        self.shape.in_channels
    }
}
