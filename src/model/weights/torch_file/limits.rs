//! What no file of weights needs. A pickle of a few bytes can ask for any amount of memory
//! or time, so each of these bounds one way to ask.

use super::TorchFileError;

/// Pickle operations, of which a tensor takes about thirty.
pub(super) const MAX_OPERATIONS: usize = 1 << 22;
/// Values on a path from the outermost container to a tensor.
pub(super) const MAX_DEPTH: usize = 64;
/// Values that are looked at for tensors. A container may stand in many places, so that
/// without this few operations would make no end of them.
pub(super) const MAX_VALUES: usize = 1 << 22;
pub(super) const MAX_TENSORS: usize = 1 << 17;
/// Sides of a tensor; libtorch's own limit.
pub(super) const MAX_DIMENSIONS: usize = 64;
/// Bytes of a tensor's whole name.
pub(super) const MAX_NAME: usize = 1024;
/// Bytes of the name of a Python class or function. A few bytes of a pickle may make one.
pub(super) const MAX_GLOBAL: usize = 256;
/// Bytes of a text that is kept: longer ones, such as a training log, name nothing.
pub(super) const MAX_TEXT: u64 = MAX_NAME as u64;
/// Bytes of an integer that is kept: the longest of interest is the format's magic number.
pub(super) const MAX_LONG: u64 = 16;

/// The bytes that the tensors of a file of `length` bytes may take. Tensors may share
/// numbers (a layer that is used twelve times has twelve names), so this is more than
/// `length`, but a view may also repeat one number without end.
pub(super) fn max_tensor_bytes(length: u64) -> u64 {
    length.saturating_mul(16).saturating_add(16 << 20)
}

/// Fails where `count` is above `most`.
pub(super) fn check(count: usize, most: usize, what: &'static str) -> Result<(), TorchFileError> {
    if count > most {
        return Err(TorchFileError::TooMany { what, most });
    }
    Ok(())
}
