//! What is too large to be an image: a small file may claim to be 60,000 pixels wide.

use super::error::DecodeError;

/// Largest side that is decoded.
pub(super) const MAX_SIDE: u32 = 32_768;
/// The memory that one image may take.
pub(super) const MAX_ALLOC: u64 = 1 << 30;

/// The length of an image's file, where it can be one.
pub(in crate::data) fn checked_length(length: u64) -> Result<usize, DecodeError> {
    match length {
        0 => Err(DecodeError::NoBytes),
        1..=MAX_ALLOC => Ok(length as usize),
        _ => Err(DecodeError::TooLong(length)),
    }
}
