//! A matrix that grows row by row.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Rows of equal length, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Rows {
    values: Vec<f64>,
    columns: Option<usize>,
}

impl Rows {
    /// Adds the row of a line of the file.
    pub fn add(&mut self, row: Vec<f64>, line: u64) -> Result<()> {
        let columns = *self.columns.get_or_insert(row.len());
        ensure!(
            row.len() == columns,
            "line {line} has {} numbers, those before it have {columns}",
            row.len()
        );
        self.values.extend(row);
        Ok(())
    }

    /// All rows, as numbers of `kind`.
    pub fn matrix(self, kind: Kind) -> Result<Tensor> {
        let columns = self.columns.unwrap_or(0);
        ensure!(columns > 0, "it holds no numbers");
        let matrix = Tensor::from_slice(&self.values).view([-1, columns as i64]);
        Ok(matrix.to_kind(kind))
    }
}
