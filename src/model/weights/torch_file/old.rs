//! The format before PyTorch 1.6, which `_use_new_zipfile_serialization=False` still
//! writes: pickles of a magic number, a version, the machine, the object, and a list of
//! storages' keys; then of each storage the number of elements (i64) and its bytes.

use std::collections::HashMap;
use std::io::{Read, Seek};

use super::input::Input;
use super::value::{Heap, Object, Value};
use super::{Contents, TorchFileError, pickle};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: Value = Value::Int(1001);

pub(super) fn open<R: Read + Seek>(mut input: Input<R>) -> Result<Contents, TorchFileError> {
    let length = input.left();
    let (heap, magic) = pickle::load(&mut input)?;
    if !matches!(heap.get(magic), Some(Object::Long(bytes)) if **bytes == MAGIC) {
        return Err(TorchFileError::Foreign(
            "it is a pickle without PyTorch's magic number",
        ));
    }
    let (_, version) = pickle::load(&mut input)?;
    if version != VERSION {
        return Err(TorchFileError::damaged("its version is not 1001"));
    }
    let (heap, machine) = pickle::load(&mut input)?;
    if is_big_endian(&heap, machine) {
        return Err(TorchFileError::BigEndian);
    }
    let (heap, root) = pickle::load(&mut input)?;
    let (key_heap, keys) = pickle::load(&mut input)?;
    let Some(Object::List(keys)) = key_heap.get(keys) else {
        return Err(TorchFileError::damaged("it has no list of storages"));
    };

    let element_sizes = element_sizes(&heap)?;
    let mut storages = HashMap::new();
    for &key in keys {
        let key = key_heap.text(key);
        let (key, size) = key
            .and_then(|key| element_sizes.get_key_value(key))
            .ok_or_else(|| TorchFileError::damaged("it lists a storage that nothing uses"))?;
        let count = u64::from_le_bytes(input.array()?);
        let size = count.checked_mul(*size).ok_or(TorchFileError::Cut)?;
        let start = length - input.left();
        input.skip(size)?;
        storages.insert((*key).to_owned(), start..start + size);
    }
    Ok(Contents {
        heap,
        root,
        storages,
    })
}

fn is_big_endian(heap: &Heap, machine: Value) -> bool {
    let Some(Object::Dict(items)) = heap.get(machine) else {
        return false;
    };
    items
        .iter()
        .any(|&(key, value)| heap.text(key) == Some("little_endian") && value == Value::Bool(false))
}

/// Bytes of an element, by the storage's key.
fn element_sizes(heap: &Heap) -> Result<HashMap<&str, u64>, TorchFileError> {
    let mut sizes = HashMap::new();
    for object in heap.iter() {
        if let Object::Storage(storage) = object
            && let Some(key) = heap.text(storage.key)
        {
            let size = storage.element.size();
            if *sizes.entry(key).or_insert(size) != size {
                return Err(TorchFileError::damaged("a storage in it has two types"));
            }
        }
    }
    Ok(sizes)
}
