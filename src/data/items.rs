//! What is learned from: images in files, or anything else that gives pixels by number (patches of a page,
//! frames of a clip, pairs of colour and depth, rendered scenes).

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;

use super::decode::DecodeError;
use super::source::Skipped;

/// The kind of the numbers of a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 0 to 255.
    U8,
    /// 0 to 65,535, little-endian.
    U16,
}

/// One kind of pixels of an item: colours, depth, the next frame, a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    pub name: &'static str,
    pub channels: usize,
    pub depth: Depth,
    /// Whether a value between two of its values means nothing (numbers of objects): views take the nearest
    /// pixel.
    pub discrete: bool,
}

impl Plane {
    /// What a network sees; the first plane of all items.
    pub const RGB: Self = Self {
        name: "rgb",
        channels: 3,
        depth: Depth::U8,
        discrete: false,
    };

    /// Bytes of `[side, side, channels]`.
    pub fn bytes(&self, side: usize) -> usize {
        let each = match self.depth {
            Depth::U8 => 1,
            Depth::U16 => 2,
        };
        side * side * self.channels * each
    }
}

/// Things that can be learned from. The cache, the loader and the samplers serve any of them.
pub trait Items: Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What an item is called in labels: the same name for the same item in every run.
    fn name(&self, item: usize) -> &str;

    /// Where it lies, for messages.
    fn origin(&self, item: usize) -> String {
        self.name(item).into()
    }

    /// The same for the same item, however it is named; `None` where it is gone.
    fn identity(&self, item: usize) -> Option<PathBuf> {
        Some(self.origin(item).into())
    }

    /// Index into [`Self::classes`]; `None` where none is known.
    fn class(&self, _item: usize) -> Option<u32> {
        None
    }

    /// Names of the classes.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// What it belongs to (a page, a clip): items with the same number do so together. Alone unless said.
    fn group(&self, item: usize) -> u32 {
        item as u32
    }

    /// What [`Self::read`] gives, in this order; the first is [`Plane::RGB`].
    fn planes(&self) -> &[Plane] {
        &[Plane::RGB]
    }

    /// The planes of an item, `[side, side, channels]` each, one behind the other.
    ///
    /// # Errors
    /// What cannot be read is left out of a data set, with this as the reason.
    fn read(&self, item: usize, side: usize, out: &mut [u8]) -> Result<(), DecodeError>;

    /// What makes pixels of what the stamps stand for, where it is not the decoding of image files: with the
    /// stamps it says which pixels these are.
    fn kind(&self) -> &str {
        ""
    }

    /// Changes when the item does; `None` where it is gone. Decoded pixels on disk are found again by it.
    fn stamp(&self, item: usize) -> Option<String>;

    /// Inputs that are no items.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }
}

/// How the planes of an item lie in memory and on disk, at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In pixels.
    pub side: usize,
    pub planes: Vec<Plane>,
}

impl Layout {
    /// That of `items` at `side` pixels.
    pub fn of(items: &dyn Items, side: usize) -> Self {
        Self {
            side,
            planes: items.planes().to_vec(),
        }
    }

    /// Bytes of an item.
    pub fn bytes(&self) -> usize {
        self.planes.iter().map(|plane| plane.bytes(self.side)).sum()
    }

    /// Which of these bytes are the plane of that number.
    ///
    /// # Panics
    /// If there is no such plane.
    pub fn range(&self, plane: usize) -> Range<usize> {
        let before = &self.planes[..plane];
        let start = before.iter().map(|plane| plane.bytes(self.side)).sum();
        start..start + self.planes[plane].bytes(self.side)
    }
}
