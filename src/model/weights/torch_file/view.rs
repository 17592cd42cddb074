//! Tensors to bytes.

use std::collections::BTreeMap;

use super::limits::{MAX_DIMENSIONS, max_tensor_bytes};
use super::value::{Heap, Object, Tensor, Value};
use super::{Contents, Dtype, RawTensor, TorchFileError};

/// Where a tensor's numbers lie in the file: all of them do.
#[derive(Debug)]
pub(super) struct View {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// In numbers, not bytes.
    strides: Vec<usize>,
    /// Product of the shape.
    count: usize,
    /// Position of the first byte in the file, and bytes to the end of the last number.
    start: usize,
    span: usize,
}

/// Finds the numbers of all `tensors` in a file of `length` bytes.
pub(super) fn locate(
    tensors: BTreeMap<String, &Tensor>,
    contents: &Contents,
    length: u64,
) -> Result<BTreeMap<String, View>, TorchFileError> {
    let most = max_tensor_bytes(length);
    let mut total = 0u64;
    let mut views = BTreeMap::new();
    for (name, tensor) in tensors {
        let view = match locate_one(tensor, contents) {
            Ok(view) => view,
            Err(reason) => return Err(TorchFileError::Tensor { name, reason }),
        };
        total = total.saturating_add((view.count as u64).saturating_mul(view.dtype.size() as u64));
        if total > most {
            return Err(TorchFileError::TooLarge { most });
        }
        views.insert(name, view);
    }
    Ok(views)
}

fn locate_one(tensor: &Tensor, contents: &Contents) -> Result<View, &'static str> {
    const OUTSIDE: &str = "its numbers lie outside of its storage";
    let heap = &contents.heap;
    let Object::Storage(storage) = heap.at(tensor.storage) else {
        return Err("it has no storage");
    };
    let key = heap.text(storage.key).unwrap_or_default();
    let bytes = contents.storages.get(key);
    let bytes = bytes.ok_or("its storage is not in the file")?;
    let size = tensor.dtype.size();

    let shape = sides(heap, tensor.shape).ok_or("its shape is no tuple of at most 64 sizes")?;
    let strides =
        sides(heap, tensor.strides).ok_or("its strides are no tuple of at most 64 sizes")?;
    let offset = natural(tensor.offset).ok_or("its offset is no position")?;
    if shape.len() != strides.len() {
        return Err("its shape and strides differ in length");
    }
    // An empty shape such as [0, 2^62, 2^62] is refused too: its strides would overflow.
    let room = shape
        .iter()
        .try_fold(size as u64, |room, &side| {
            room.checked_mul(side.max(1) as u64)
        })
        .filter(|&room| i64::try_from(room).is_ok());
    room.ok_or("its shape is too large")?;
    let count: usize = shape.iter().product();

    let of_elements = |elements: u64| elements.checked_mul(storage.element.size());
    let part = storage.start.checked_add(storage.count).ok_or(OUTSIDE)?;
    let whole = of_elements(storage.whole).ok_or(OUTSIDE)?;
    if part > storage.whole || whole > bytes.end - bytes.start {
        return Err("its storage is shorter than announced");
    }
    let last = shape
        .iter()
        .zip(&strides)
        .try_fold(offset, |last, (&side, &stride)| {
            last.checked_add(side.saturating_sub(1).checked_mul(stride)?)
        });
    let in_bytes = |numbers: usize| numbers.checked_mul(size);
    let (start, span) = if count == 0 {
        (0, 0)
    } else {
        let last = last.ok_or(OUTSIDE)?;
        let end = in_bytes(last).and_then(|last| last.checked_add(size));
        let end = end.ok_or(OUTSIDE)?;
        if of_elements(storage.count).is_none_or(|held| end as u64 > held) {
            return Err(OUTSIDE);
        }
        let first = in_bytes(offset).ok_or(OUTSIDE)?;
        let base = of_elements(storage.start).ok_or(OUTSIDE)?;
        let start = bytes.start + base + first as u64;
        (usize::try_from(start).map_err(|_| OUTSIDE)?, end - first)
    };
    Ok(View {
        dtype: tensor.dtype,
        shape,
        strides,
        count,
        start,
        span,
    })
}

/// A tuple of whole numbers from zero on.
fn sides(heap: &Heap, value: Value) -> Option<Vec<usize>> {
    let all = heap.tuple(value)?;
    if all.len() > MAX_DIMENSIONS {
        return None;
    }
    all.iter().map(|&side| natural(side)).collect()
}

fn natural(value: Value) -> Option<usize> {
    match value {
        Value::Int(int) => usize::try_from(int).ok(),
        _ => None,
    }
}

impl View {
    /// The tensor out of its file's bytes.
    pub fn gather(self, file: &[u8]) -> Result<RawTensor, TorchFileError> {
        let end = self.start.saturating_add(self.span);
        let data = file.get(self.start..end).ok_or(TorchFileError::Cut)?;
        let bytes = if self.is_contiguous() {
            data.to_vec()
        } else {
            self.gather_strided(data)
        };
        Ok(RawTensor {
            dtype: self.dtype,
            shape: self.shape,
            bytes,
        })
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape
            .iter()
            .zip(&self.strides)
            .rev()
            .all(|(&side, &stride)| {
                let fits = side == 1 || stride == expected;
                expected *= side.max(1);
                fits
            })
    }

    /// Number by number, the last side fastest.
    fn gather_strided(&self, data: &[u8]) -> Vec<u8> {
        let size = self.dtype.size();
        let mut bytes = Vec::with_capacity(self.count * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..self.count {
            bytes.extend_from_slice(&data[at * size..][..size]);
            for side in (0..index.len()).rev() {
                index[side] += 1;
                at += self.strides[side];
                if index[side] < self.shape[side] {
                    break;
                }
                at -= self.strides[side] * index[side];
                index[side] = 0;
            }
        }
        bytes
    }
}
