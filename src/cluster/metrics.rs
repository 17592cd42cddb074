//! How two labelings of the same points agree, and how even the clusters are.
//!
//! Labels are any `u32`; the measures look at their contingency table only. Definitions as in
//! scikit-learn's `metrics.cluster` (natural logarithms; NMI with the arithmetic mean).

use std::collections::BTreeMap;

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

/// Counts of the pairs (label in `a`, label in `b`), and of each label, with labels numbered in
/// ascending order.
struct Contingency {
    cells: BTreeMap<(usize, usize), usize>,
    a: Vec<usize>,
    b: Vec<usize>,
    n: usize,
}

impl Contingency {
    fn new(a: &[u32], b: &[u32]) -> Self {
        let n = a.len().min(b.len());
        let (a, b) = (&a[..n], &b[..n]);
        let (index_a, index_b) = (number(a), number(b));
        let mut table = Self {
            cells: BTreeMap::new(),
            a: vec![0; index_a.len()],
            b: vec![0; index_b.len()],
            n,
        };
        for (label_a, label_b) in a.iter().zip(b) {
            let (row, column) = (index_a[label_a], index_b[label_b]);
            *table.cells.entry((row, column)).or_default() += 1;
            table.a[row] += 1;
            table.b[column] += 1;
        }
        table
    }
}

fn number(labels: &[u32]) -> BTreeMap<u32, usize> {
    let mut index: BTreeMap<u32, usize> = labels.iter().map(|&label| (label, 0)).collect();
    for (position, value) in index.values_mut().enumerate() {
        *value = position;
    }
    index
}

fn entropy_of(counts: &[usize], n: usize) -> f64 {
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = count as f64 / n as f64;
            -share * share.ln()
        })
        .sum()
}

/// Normalised mutual information, from 0 (independent) to 1 (the same division of the points).
/// Two labelings that each have a single label agree: 1.
pub fn nmi(a: &[u32], b: &[u32]) -> f64 {
    let table = Contingency::new(a, b);
    if table.a.len() <= 1 && table.b.len() <= 1 {
        return 1.0;
    }
    let n = table.n as f64;
    let mutual: f64 = table
        .cells
        .iter()
        .map(|(&(row, column), &count)| {
            let joint = count as f64 / n;
            joint * (count as f64 * n / (table.a[row] as f64 * table.b[column] as f64)).ln()
        })
        .sum();
    let mean = 0.5 * (entropy_of(&table.a, table.n) + entropy_of(&table.b, table.n));
    if mean <= 0.0 {
        0.0
    } else {
        (mutual / mean).clamp(0.0, 1.0)
    }
}

/// Adjusted Rand index: 1 for the same division, about 0 for independent ones (Hubert and Arabie
/// 1985).
pub fn ari(a: &[u32], b: &[u32]) -> f64 {
    let table = Contingency::new(a, b);
    let pairs = |count: usize| count as f64 * (count as f64 - 1.0) / 2.0;
    let both: f64 = table.cells.values().map(|&count| pairs(count)).sum();
    let in_a: f64 = table.a.iter().map(|&count| pairs(count)).sum();
    let in_b: f64 = table.b.iter().map(|&count| pairs(count)).sum();
    let expected = if table.n > 1 {
        in_a * in_b / pairs(table.n)
    } else {
        0.0
    };
    let most = 0.5 * (in_a + in_b);
    if (most - expected).abs() < f64::EPSILON {
        1.0
    } else {
        (both - expected) / (most - expected)
    }
}

/// The share of points that are right under the best one-to-one matching of clusters to classes
/// (Hungarian method). With more clusters than classes, only one cluster for each class counts.
pub fn matched_accuracy(clusters: &[u32], classes: &[u32]) -> f64 {
    let table = Contingency::new(clusters, classes);
    if table.n == 0 {
        return 0.0;
    }
    // The method wants no more rows than columns.
    let transpose = table.a.len() > table.b.len();
    let (rows, columns) = if transpose {
        (table.b.len(), table.a.len())
    } else {
        (table.a.len(), table.b.len())
    };
    let mut weights = Matrix::new(rows, columns, 0_i64);
    for (&(row, column), &count) in &table.cells {
        let place = if transpose {
            (column, row)
        } else {
            (row, column)
        };
        weights[place] = count as i64;
    }
    kuhn_munkres(&weights).0 as f64 / table.n as f64
}

/// The share of points that belong to the commonest class of their cluster.
pub fn purity(clusters: &[u32], classes: &[u32]) -> f64 {
    let table = Contingency::new(clusters, classes);
    let mut best = vec![0; table.a.len()];
    for (&(row, _), &count) in &table.cells {
        best[row] = best[row].max(count);
    }
    if table.n == 0 {
        0.0
    } else {
        best.iter().sum::<usize>() as f64 / table.n as f64
    }
}

/// Entropy of the cluster sizes over its maximum `ln k`: 1 when all `k` are equally large, 0 when
/// one holds everything.
pub fn balance(sizes: &[usize]) -> f64 {
    let n = sizes.iter().sum();
    if sizes.len() < 2 || n == 0 {
        return 1.0;
    }
    entropy_of(sizes, n) / (sizes.len() as f64).ln()
}
