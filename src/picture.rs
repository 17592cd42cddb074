//! Pictures for people: what a method sees and predicts, a row of captioned tiles for each image.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

/// Side to which tiles are enlarged, by whole factors, in pixels.
const SHOWN: u32 = 112;
const MARGIN: u32 = 8;
/// Of a letter, in pixels.
const LETTER: u32 = 8;
const LINE: u32 = 10;
/// Lines of a caption at most.
const LINES: usize = 3;
const FRAME: u32 = 3;
const RIGHT: Rgb<u8> = Rgb([30, 150, 60]);
const WRONG: Rgb<u8> = Rgb([200, 40, 40]);
const INK: Rgb<u8> = Rgb([40, 40, 40]);
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// Tiles that belong together.
#[derive(Debug, Clone)]
pub struct Panel(pub Vec<Tile>);

/// A picture with a few words below.
#[derive(Debug, Clone)]
pub struct Tile {
    pub image: RgbImage,
    pub caption: String,
    /// Whether a prediction is right: the colour of its frame.
    pub answer: Option<bool>,
}

impl Tile {
    /// Of an image `[3, h, w]` in 0..1; what lies outside is cut off.
    pub fn new(image: &Tensor, caption: impl Into<String>) -> Self {
        let size = image.size();
        let bytes = (image.detach().to_device(Device::Cpu) * 255.0)
            .round()
            .clamp(0.0, 255.0)
            .to_kind(Kind::Uint8)
            .permute([1, 2, 0])
            .contiguous()
            .flatten(0, -1);
        let bytes: Vec<u8> = Vec::try_from(&bytes).unwrap_or_default();
        let [width, height] = [size[2], size[1]].map(|side| side as u32);
        Self {
            image: RgbImage::from_raw(width, height, bytes).unwrap_or_default(),
            caption: caption.into(),
            answer: None,
        }
    }

    /// The same with a green frame where the prediction is right, and a red one where it is wrong.
    pub fn answered(self, right: bool) -> Self {
        Self {
            answer: Some(right),
            ..self
        }
    }
}

/// All panels below each other.
pub fn draw(panels: &[Panel]) -> RgbImage {
    let columns = panels.iter().map(|panel| panel.0.len()).max().unwrap_or(0) as u32;
    let rows = panels.len() as u32;
    let tall = SHOWN + 2 * FRAME + LINES as u32 * LINE + MARGIN;
    let wide = SHOWN + 2 * FRAME + MARGIN;
    let size = (columns * wide + MARGIN, rows * tall + MARGIN);
    let mut sheet = RgbImage::from_pixel(size.0.max(1), size.1.max(1), PAPER);
    for (row, panel) in (0..).zip(panels) {
        for (column, tile) in (0..).zip(&panel.0) {
            let (left, top) = (MARGIN + column * wide, MARGIN + row * tall);
            put(&mut sheet, tile, left, top);
        }
    }
    sheet
}

fn put(sheet: &mut RgbImage, tile: &Tile, left: u32, top: u32) {
    if let Some(right) = tile.answer {
        let colour = if right { RIGHT } else { WRONG };
        for y in top..top + SHOWN + 2 * FRAME {
            for x in left..left + SHOWN + 2 * FRAME {
                sheet.put_pixel(x, y, colour);
            }
        }
    }
    let (width, height) = tile.image.dimensions();
    let longest = width.max(height).max(1);
    for y in 0..SHOWN {
        for x in 0..SHOWN {
            let (from_x, from_y) = (x * longest / SHOWN, y * longest / SHOWN);
            let pixel = match from_x < width && from_y < height {
                true => *tile.image.get_pixel(from_x, from_y),
                false => PAPER,
            };
            sheet.put_pixel(left + FRAME + x, top + FRAME + y, pixel);
        }
    }
    let room = ((SHOWN + 2 * FRAME) / LETTER) as usize;
    for (line, text) in wrapped(&tile.caption, room).iter().take(LINES).enumerate() {
        let below = top + SHOWN + 2 * FRAME + 2 + line as u32 * LINE;
        write(sheet, text, left, below);
    }
}

/// The words of `text` in lines of at most `room` letters.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("one at least");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= room {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.into());
        }
    }
    lines
}

fn write(sheet: &mut RgbImage, text: &str, left: u32, top: u32) {
    for (letter, at) in text.chars().zip(0..) {
        let glyph = font8x8::BASIC_FONTS
            .get(letter)
            .or_else(|| font8x8::LATIN_FONTS.get(letter))
            .unwrap_or_default();
        for (y, line) in (0..).zip(glyph) {
            for x in 0..LETTER {
                let place = (left + at * LETTER + x, top + y);
                let inside = place.0 < sheet.width() && place.1 < sheet.height();
                if inside && line & (1 << x) != 0 {
                    sheet.put_pixel(place.0, place.1, INK);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Panel, Tile, draw, wrapped};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn tiles_keep_their_colours_and_wrong_answers_are_red() {
        let options = (Kind::Float, Device::Cpu);
        let red = Tensor::from_slice(&[1.0_f32, 0.0, 0.5]).view([3, 1, 1]);
        let image = red.expand([3, 4, 4], false) * Tensor::ones([1], options);
        let tile = Tile::new(&image, "a").answered(false);
        assert_eq!(tile.image.get_pixel(3, 3).0, [255, 0, 128]);
        let sheet = draw(&[Panel(vec![tile])]);
        assert_eq!(sheet.get_pixel(9, 9).0, super::WRONG.0);
        assert_eq!(sheet.get_pixel(60, 60).0, [255, 0, 128]);
    }

    #[test]
    fn captions_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(draw(&[]).dimensions(), (8, 8));
    }
}
