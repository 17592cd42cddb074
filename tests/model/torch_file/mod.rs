//! PyTorch's files, against PyTorch and against harm.

mod by_hand;
mod damaged;
mod fixtures;
mod hostile;
mod odd;

use std::io::Cursor;

use ssl_cluster::model::weights::torch_file::{self, TorchFile, TorchFileError};

/// Reads `bytes`; the names alone must tell the same.
fn read(bytes: &[u8]) -> Result<TorchFile, TorchFileError> {
    let whole = torch_file::read(bytes);
    let names = torch_file::names(Cursor::new(bytes));
    match (&whole, names) {
        (Ok(file), Ok(names)) => {
            let of_file = file.tensors.iter();
            let of_file =
                of_file.map(|(name, tensor)| (name.clone(), (tensor.dtype, tensor.shape.clone())));
            assert_eq!(of_file.collect::<std::collections::BTreeMap<_, _>>(), names);
        }
        (Err(error), Err(same)) => assert_eq!(error.to_string(), same.to_string()),
        (whole, names) => panic!("read: {whole:?}, but names: {names:?}"),
    }
    whole
}

/// Reads `bytes`, which must fail with a message that has `part` in it.
fn refused(bytes: &[u8], part: &str) {
    let message = match read(bytes) {
        Ok(file) => panic!("read {:?}, not: {part}", file.tensors.keys()),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(part), "{part} is not in: {message}");
}
