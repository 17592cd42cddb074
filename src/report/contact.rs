//! All clusters in one picture: a row for each, its number and its typical images.

use std::ops::RangeInclusive;

use image::{Rgb, RgbImage, imageops};

use super::Sheet;
use super::thumbs::{fit, has_pixels};

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([28, 30, 33]);
const TRACK: Rgb<u8> = Rgb([230, 230, 227]);
const ACCENT: Rgb<u8> = Rgb([15, 118, 110]);

const COLUMNS: RangeInclusive<usize> = 1..=64;
const CELL: RangeInclusive<u32> = 8..=512;

/// Digits of 3 x 5 pixels, a row in three bits: numbers need no font.
const DIGITS: [[u8; 5]; 10] = [
    [7, 5, 5, 5, 7],
    [2, 6, 2, 2, 7],
    [7, 1, 7, 4, 7],
    [7, 1, 7, 1, 7],
    [5, 5, 7, 1, 1],
    [7, 4, 7, 1, 7],
    [7, 4, 7, 5, 7],
    [7, 1, 1, 1, 1],
    [7, 5, 7, 5, 7],
    [7, 5, 7, 1, 7],
];

/// One picture with a row for each cluster, in the order given: its number over a bar for
/// its size, then its first `columns` images in squares of `cell` pixels.
///
/// `columns` is held within 1 and 64, `cell` within 8 and 512. Without clusters the
/// picture is an empty margin.
pub fn contact_sheet(clusters: &[Sheet], columns: usize, cell: u32) -> RgbImage {
    let columns = columns.clamp(*COLUMNS.start(), *COLUMNS.end());
    let cell = cell.clamp(*CELL.start(), *CELL.end());
    let layout = Layout::new(clusters, cell);
    let pitch = cell + layout.gap;
    let width = layout.strip + columns as u32 * pitch + layout.gap;
    let height = clusters.len() as u32 * pitch + 2 * layout.gap;
    let mut sheet = RgbImage::from_pixel(width, height, PAPER);

    let largest = clusters.iter().map(|c| c.size).max().unwrap_or(0).max(1);
    for (row, cluster) in clusters.iter().enumerate() {
        let top = layout.gap + row as u32 * pitch;
        layout.strip(&mut sheet, cluster, largest, top);
        let shown = cluster
            .thumbs
            .iter()
            .filter(|t| has_pixels(&t.image))
            .take(columns);
        for (column, thumb) in shown.enumerate() {
            let image = fit(&thumb.image, cell);
            let left = layout.strip + column as u32 * pitch + (cell - image.width()) / 2;
            let top = top + (cell - image.height()) / 2;
            imageops::replace(&mut sheet, &image, left.into(), top.into());
        }
    }
    sheet
}

struct Layout {
    cell: u32,
    gap: u32,
    /// Side of a digit's pixel.
    dot: u32,
    /// Width of the part before the images.
    strip: u32,
}

impl Layout {
    fn new(clusters: &[Sheet], cell: u32) -> Self {
        let dot = (cell / 18).max(1);
        let gap = (cell / 14).max(1);
        let digits = clusters
            .iter()
            .map(|c| c.label.to_string().len())
            .max()
            .unwrap_or(0);
        // Room for three digits at least: the bar needs some length to be read.
        let digits = digits.max(3);
        let strip = 4 * dot * digits as u32 + 4 * gap;
        Self {
            cell,
            gap,
            dot,
            strip,
        }
    }

    /// The number, set to the right, above a bar as long as the cluster is large.
    fn strip(&self, sheet: &mut RgbImage, cluster: &Sheet, largest: usize, top: u32) {
        let text = cluster.label.to_string();
        let right = self.strip - 2 * self.gap;
        let mut left = right - 4 * self.dot * text.len() as u32 + self.dot;
        let number_top = top + (self.cell - 7 * self.dot) / 2;
        for digit in text.bytes() {
            self.digit(sheet, digit - b'0', left, number_top);
            left += 4 * self.dot;
        }
        let (from, bar_top) = (2 * self.gap, number_top + 6 * self.dot);
        let track = right - from;
        let length = (cluster.size as f64 / largest as f64 * f64::from(track)).round() as u32;
        fill(sheet, from, bar_top, track, self.dot, TRACK);
        fill(
            sheet,
            right - length.min(track),
            bar_top,
            length.min(track),
            self.dot,
            ACCENT,
        );
    }

    fn digit(&self, sheet: &mut RgbImage, digit: u8, left: u32, top: u32) {
        for (y, bits) in (0..).zip(DIGITS[usize::from(digit)]) {
            for x in (0..3).filter(|x| bits >> (2 - x) & 1 == 1) {
                fill(
                    sheet,
                    left + x * self.dot,
                    top + y * self.dot,
                    self.dot,
                    self.dot,
                    INK,
                );
            }
        }
    }
}

fn fill(sheet: &mut RgbImage, left: u32, top: u32, width: u32, height: u32, colour: Rgb<u8>) {
    for y in top..top + height {
        for x in left..left + width {
            sheet.put_pixel(x, y, colour);
        }
    }
}
