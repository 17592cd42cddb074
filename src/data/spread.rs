//! Some items in place of all.

use super::decode::DecodeError;
use super::items::{Items, Plane};

/// Some of other items, spread evenly over them.
#[derive(Debug)]
pub struct Spread<'a> {
    items: &'a dyn Items,
    rows: Vec<u32>,
}

impl<'a> Spread<'a> {
    /// At most `most` of `items`.
    pub fn over(items: &'a dyn Items, most: usize) -> Self {
        Self {
            items,
            rows: spread(items.len(), most),
        }
    }
}

/// At most `most` of the numbers below `all`, evenly apart.
pub fn spread(all: usize, most: usize) -> Vec<u32> {
    let count = all.min(most);
    (0..count).map(|at| (at * all / count) as u32).collect()
}

impl Items for Spread<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn name(&self, item: usize) -> &str {
        self.items.name(self.rows[item] as usize)
    }

    fn planes(&self) -> &[Plane] {
        self.items.planes()
    }

    fn read(&self, item: usize, side: usize, out: &mut [u8]) -> Result<(), DecodeError> {
        self.items.read(self.rows[item] as usize, side, out)
    }

    fn kind(&self) -> &str {
        self.items.kind()
    }

    fn stamp(&self, item: usize) -> Option<String> {
        self.items.stamp(self.rows[item] as usize)
    }
}
