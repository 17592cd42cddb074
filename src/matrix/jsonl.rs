//! JSON Lines: an array of numbers a line.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::rows::Rows;

/// The matrix in `text`, as numbers of `kind`.
pub(super) fn read(text: &str, kind: Kind) -> Result<Tensor> {
    let mut rows = Rows::default();
    for (line, json) in (1..).zip(text.lines()) {
        if json.trim().is_empty() {
            continue;
        }
        let row: Vec<f64> = serde_json::from_str(json)
            .map_err(|error| anyhow::anyhow!("line {line} is no array of numbers: {error}"))?;
        rows.add(row, line)?;
    }
    rows.matrix(kind)
}
