//! The stack of pickle's machine.

use super::TorchFileError;
use super::value::Value;

/// Values, with marks between them below which only [`Stack::pop_mark`] reaches.
#[derive(Debug, Default)]
pub(super) struct Stack {
    values: Vec<Value>,
    /// Numbers of values below each mark, rising.
    marks: Vec<usize>,
}

impl Stack {
    pub fn push(&mut self, value: Value) {
        self.values.push(value);
    }

    pub fn mark(&mut self) {
        self.marks.push(self.values.len());
    }

    pub fn pop(&mut self) -> Result<Value, TorchFileError> {
        let top = self.top()?;
        self.values.pop();
        Ok(top)
    }

    pub fn top(&self) -> Result<Value, TorchFileError> {
        let below = self.marks.last().copied().unwrap_or(0);
        let open = self.values.get(below..).unwrap_or_default();
        open.last().copied().ok_or_else(missing)
    }

    /// The values above the last mark, which goes too.
    pub fn pop_mark(&mut self) -> Result<Vec<Value>, TorchFileError> {
        let mark = self.marks.pop().ok_or_else(missing)?;
        Ok(self.values.split_off(mark))
    }

    /// Drops the top value, or the mark that lies above it.
    pub fn drop_top(&mut self) -> Result<(), TorchFileError> {
        if self.marks.last() == Some(&self.values.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }
}

fn missing() -> TorchFileError {
    TorchFileError::damaged("its pickle takes more values than it made")
}
