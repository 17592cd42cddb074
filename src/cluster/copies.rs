//! Points that are there more than once.

use std::collections::HashSet;

use tch::Tensor;

use super::{CHUNK_BYTES, chunks};
use crate::tensors::to_f32;

/// The first of all equal rows of `points` `[n, d] f32`, in their order; `None` where no two are equal. Rows are
/// compared by a hash of 256 bits.
pub fn without_copies(points: &Tensor) -> Option<Vec<u32>> {
    let mut seen = HashSet::new();
    let mut first = Vec::new();
    for (start, rows) in chunks(points, CHUNK_BYTES) {
        let width = rows.size()[1] as usize;
        for (number, row) in to_f32(&rows).chunks_exact(width).enumerate() {
            if seen.insert(blake3::hash(bytemuck::cast_slice(row))) {
                first.push((start + number) as u32);
            }
        }
    }
    (first.len() < points.size()[0] as usize).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::without_copies;
    use tch::Tensor;

    #[test]
    fn the_first_of_equal_rows_stays() {
        let points = |values: &[f32]| Tensor::from_slice(values).view([-1, 2]);
        let some = points(&[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 2.0, 1.0, 3.0, 4.0]);
        assert_eq!(without_copies(&some), Some(vec![0, 1, 3]));
        assert_eq!(without_copies(&points(&[1.0, 2.0, 2.0, 1.0])), None);
        assert_eq!(without_copies(&points(&[])), None);
    }
}
