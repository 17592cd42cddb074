//! Weighted k-nearest-neighbour classification of frozen features (Wu, Xiong, Yu, Lin: Unsupervised
//! Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.4).

use tch::{Kind, Tensor};

use crate::tensors::l2_rows;

/// Similarities held at once.
const BLOCK: i64 = 16 << 20;

/// Neighbours asked and how fast their votes fade.
#[derive(Debug, Clone, Copy)]
pub struct KnnOptions {
    pub neighbours: usize,
    /// A vote weighs exp(cosine similarity / temperature).
    pub temperature: f64,
}

impl Default for KnnOptions {
    /// k = 20 (small sets) and temperature 0.07 (Wu et al.).
    fn default() -> Self {
        Self {
            neighbours: 20,
            temperature: 0.07,
        }
    }
}

/// Classes of `queries` `[m, d]` by the votes of their nearest neighbours among `known` `[n, d]` with
/// `classes` `[n]`. `own` `[m]` is the row of `known` that is the query itself, which has no vote on
/// it, where there is one.
pub fn classify(
    known: &Tensor,
    classes: &[u32],
    queries: &Tensor,
    own: &[Option<usize>],
    options: KnnOptions,
) -> Vec<u32> {
    let (n, m) = (known.size()[0], queries.size()[0]);
    let skip = i64::from(own.iter().any(Option::is_some));
    let neighbours = (options.neighbours as i64).min(n - skip);
    if neighbours <= 0 {
        return vec![0; m as usize];
    }
    tch::no_grad(|| {
        let unit = |matrix: &Tensor| l2_rows(&matrix.to_kind(Kind::Float));
        let (known, queries) = (unit(known).transpose(0, 1), unit(queries));
        let labels: Vec<i64> = classes.iter().map(|&class| i64::from(class)).collect();
        let class_count = labels.iter().max().map_or(1, |&most| most + 1);
        let labels = Tensor::from_slice(&labels).to_device(known.device());
        let rows = (BLOCK / n).max(1);
        let mut predicted = Vec::with_capacity(m as usize);
        for start in (0..m).step_by(rows as usize) {
            let count = rows.min(m - start);
            let mut similarity = queries.narrow(0, start, count).matmul(&known);
            let own = &own[start as usize..(start + count) as usize];
            let (mut at, mut columns) = (Vec::new(), Vec::new());
            for (row, column) in own.iter().enumerate() {
                if let Some(column) = column {
                    at.push(row as i64);
                    columns.push(*column as i64);
                }
            }
            if !at.is_empty() {
                let at = [at, columns]
                    .map(|indices| Some(Tensor::from_slice(&indices).to_device(known.device())));
                let none = Tensor::full([], f64::NEG_INFINITY, (Kind::Float, known.device()));
                let _ = similarity.index_put_(&at, &none, false);
            }
            let (nearest, index) = similarity.topk(neighbours, 1, true, true);
            // The largest similarity has weight 1, so that no temperature overflows.
            let top = nearest.narrow(1, 0, 1);
            let weights = ((nearest - top) / options.temperature).exp();
            let votes = Tensor::zeros([count, class_count], (Kind::Float, known.device()))
                .scatter_add(
                    1,
                    &labels
                        .index_select(0, &index.flatten(0, -1))
                        .view_as(&index),
                    &weights,
                );
            let winners: Vec<i64> = Vec::try_from(&votes.argmax(1, false)).unwrap_or_default();
            predicted.extend(winners.into_iter().map(|class| class as u32));
        }
        predicted
    })
}

/// The share of equal entries.
pub fn accuracy(predicted: &[u32], classes: &[u32]) -> f64 {
    let right = predicted
        .iter()
        .zip(classes)
        .filter(|(a, b)| a == b)
        .count();
    right as f64 / classes.len().max(1) as f64
}
