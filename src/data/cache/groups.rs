//! Items in memory, group by group as they were decoded: so one group can be worked on while the next
//! one is made.

use std::sync::Arc;

/// Items of the same size, in groups of any length.
#[derive(Debug)]
pub(super) struct Groups {
    /// Bytes of an item.
    length: usize,
    /// The number of the first item of each group.
    starts: Vec<usize>,
    groups: Vec<Arc<Vec<u8>>>,
    count: usize,
}

impl Groups {
    /// No items of so many bytes.
    pub fn new(length: usize) -> Self {
        Self {
            length,
            starts: Vec::new(),
            groups: Vec::new(),
            count: 0,
        }
    }

    /// Puts a group behind the others, one item behind the other.
    pub fn push(&mut self, items: Arc<Vec<u8>>) {
        if !items.is_empty() {
            self.starts.push(self.count);
            self.count += items.len() / self.length;
            self.groups.push(items);
        }
    }

    /// Puts the groups of others behind these, without a copy.
    pub fn append(&mut self, others: &Self) {
        for group in &others.groups {
            self.push(Arc::clone(group));
        }
    }

    /// The number of items.
    pub fn count(&self) -> usize {
        self.count
    }

    /// An item.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn item(&self, at: usize) -> &[u8] {
        let group = self.starts.partition_point(|&start| start <= at) - 1;
        let place = (at - self.starts[group]) * self.length;
        &self.groups[group][place..place + self.length]
    }

    /// The items of each group, one behind the other.
    pub fn groups(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter().map(|group| group.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Groups;

    #[test]
    fn items_are_found_in_their_groups() {
        let mut groups = Groups::new(2);
        for (first, count) in [(0, 3), (3, 0), (3, 1), (4, 2)] {
            let items = (first..first + count).flat_map(|at| [at, 100 + at]);
            groups.push(Arc::new(items.collect()));
        }
        assert_eq!(groups.count(), 6);
        for at in 0..6 {
            assert_eq!(groups.item(at), [at as u8, 100 + at as u8]);
        }
        let mut twice = Groups::new(2);
        twice.append(&groups);
        twice.append(&groups);
        assert_eq!((twice.count(), twice.item(7)), (12, &[1, 101][..]));
    }
}
