//! Files that PyTorch wrote (`tests/fixtures/make_torch_files.py`).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{read, refused};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Each file's name, bytes, and what is expected of it.
pub fn all() -> Vec<(String, Vec<u8>, Value)> {
    let expected = std::fs::read(folder().join("torch_files.json")).unwrap();
    let Value::Object(expected) = serde_json::from_slice(&expected).unwrap() else {
        panic!("torch_files.json is no object");
    };
    let files = expected.into_iter().map(|(name, expected)| {
        let bytes = std::fs::read(folder().join("torch_files").join(&name)).unwrap();
        (name, bytes, expected)
    });
    files.collect()
}

#[test]
fn every_tensor_is_read_as_pytorch_reads_it() {
    for (file, bytes, expected) in all() {
        let Value::Object(expected) = expected else {
            continue;
        };
        let read = read(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
        let names: Vec<&String> = read.tensors.keys().collect();
        assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{file}");
        for (name, tensor) in &read.tensors {
            let hex: String = tensor
                .bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let read = serde_json::json!([format!("{:?}", tensor.dtype), tensor.shape, hex]);
            assert_eq!(read, expected[name], "{file}: {name}");
            let count: usize = tensor.shape.iter().product();
            assert_eq!(tensor.bytes.len(), count * tensor.dtype.size());
        }
    }
}

#[test]
fn what_has_no_named_tensors_is_refused_with_the_cure() {
    for (_, bytes, expected) in all() {
        if let Value::String(message) = expected {
            refused(&bytes, &message);
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for (file, bytes, expected) in all() {
        if !expected.is_object() {
            continue;
        }
        // The last storage in the old format may be empty, but its length is there.
        for length in (0..bytes.len()).step_by(7) {
            assert!(read(&bytes[..length]).is_err(), "{file} cut at {length}");
        }
    }
}
