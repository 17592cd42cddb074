//! Squares in memory, group by group as they were decoded: so one group can be worked on while the next
//! one is made.

use std::sync::Arc;

/// Squares of the same size, in groups of any length.
#[derive(Debug)]
pub(super) struct Groups {
    /// Bytes of a square.
    square: usize,
    /// The number of the first square of each group.
    starts: Vec<usize>,
    groups: Vec<Arc<Vec<u8>>>,
    count: usize,
}

impl Groups {
    /// No squares of so many bytes.
    pub fn new(square: usize) -> Self {
        Self {
            square,
            starts: Vec::new(),
            groups: Vec::new(),
            count: 0,
        }
    }

    /// Puts a group behind the others, one square behind the other.
    pub fn push(&mut self, squares: Arc<Vec<u8>>) {
        if !squares.is_empty() {
            self.starts.push(self.count);
            self.count += squares.len() / self.square;
            self.groups.push(squares);
        }
    }

    /// Puts the groups of others behind these, without a copy.
    pub fn append(&mut self, others: &Self) {
        for group in &others.groups {
            self.push(Arc::clone(group));
        }
    }

    /// The number of squares.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A square.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn square(&self, at: usize) -> &[u8] {
        let group = self.starts.partition_point(|&start| start <= at) - 1;
        let place = (at - self.starts[group]) * self.square;
        &self.groups[group][place..place + self.square]
    }

    /// The squares of each group, one behind the other.
    pub fn groups(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter().map(|group| group.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Groups;

    #[test]
    fn squares_are_found_in_their_groups() {
        let mut groups = Groups::new(2);
        for (first, count) in [(0, 3), (3, 0), (3, 1), (4, 2)] {
            let squares = (first..first + count).flat_map(|at| [at, 100 + at]);
            groups.push(Arc::new(squares.collect()));
        }
        assert_eq!(groups.count(), 6);
        for at in 0..6 {
            assert_eq!(groups.square(at), [at as u8, 100 + at as u8]);
        }
        let mut twice = Groups::new(2);
        twice.append(&groups);
        twice.append(&groups);
        assert_eq!((twice.count(), twice.square(7)), (12, &[1, 101][..]));
    }
}
