//! Bytes with a known end.

use std::io::{BufReader, Read, Seek};

use super::TorchFileError;
use super::limits::MAX_GLOBAL;

/// A reader that checks each length against what is left before it takes any memory.
pub(super) struct Input<R> {
    reader: BufReader<R>,
    left: u64,
}

impl<R: Read + Seek> Input<R> {
    /// The next `length` bytes of `reader`.
    pub fn new(reader: R, length: u64) -> Self {
        Self {
            reader: BufReader::new(reader),
            left: length,
        }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    pub fn byte(&mut self) -> Result<u8, TorchFileError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchFileError> {
        self.spend(N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub fn bytes(&mut self, length: u64) -> Result<Vec<u8>, TorchFileError> {
        self.spend(length)?;
        let mut bytes = Vec::new();
        self.reader.by_ref().take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub fn skip(&mut self, length: u64) -> Result<(), TorchFileError> {
        self.spend(length)?;
        let length = i64::try_from(length).map_err(|_| TorchFileError::Cut)?;
        Ok(self.reader.seek_relative(length)?)
    }

    /// Up to the next line feed, which is dropped.
    pub fn line(&mut self) -> Result<String, TorchFileError> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if line.len() == MAX_GLOBAL => {
                    return Err(TorchFileError::damaged("a name in it has no end"));
                }
                byte => line.push(byte),
            }
        }
        String::from_utf8(line).map_err(|_| TorchFileError::damaged("a name in it is no text"))
    }

    fn spend(&mut self, length: u64) -> Result<(), TorchFileError> {
        self.left = self.left.checked_sub(length).ok_or(TorchFileError::Cut)?;
        Ok(())
    }
}
