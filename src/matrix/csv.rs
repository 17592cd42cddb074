//! Numbers separated by commas, a row a line; a first line without any is a heading.

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use super::rows::Rows;

/// The matrix in `text`, as numbers of `kind`.
pub(super) fn read(text: &[u8], kind: Kind) -> Result<Tensor> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text);
    let mut rows = Rows::default();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|error| anyhow::anyhow!("{error}"))?;
        let line = record.position().map_or(0, |place| place.line());
        let numbers: Vec<Option<f64>> = record.iter().map(|field| field.parse().ok()).collect();
        if number == 0 && numbers.iter().all(Option::is_none) {
            continue; // a heading
        }
        if let Some(column) = numbers.iter().position(Option::is_none) {
            bail!(
                "line {line}, column {}: '{}' is no number",
                column + 1,
                &record[column]
            );
        }
        rows.add(numbers.into_iter().flatten().collect(), line)?;
    }
    rows.matrix(kind)
}
