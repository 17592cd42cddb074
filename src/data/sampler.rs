//! The order in which images are seen, and how clusters of unequal size are balanced.

use rand::Rng;
use rand::seq::SliceRandom;

/// Every image once, shuffled.
pub fn shuffled(n: usize, rng: &mut impl Rng) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(rng);
    order
}

/// `n` draws that are uniform over the clusters: `n / k' + 1` from each of the `k'` non-empty ones,
/// with replacement only where the cluster is no larger than that; shuffled and cut to `n`
/// (facebookresearch/deepcluster `util.py: UnifLabelSampler`).
pub fn uniform_over_labels(labels: &[u32], rng: &mut impl Rng) -> Vec<u32> {
    let clusters = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); clusters];
    for (image, &label) in labels.iter().enumerate() {
        members[label as usize].push(image as u32);
    }
    members.retain(|cluster| !cluster.is_empty());
    if members.is_empty() {
        return Vec::new();
    }
    let draws = labels.len() / members.len() + 1;
    let mut order = Vec::with_capacity(draws * members.len());
    for cluster in &mut members {
        if cluster.len() <= draws {
            order.extend((0..draws).map(|_| cluster[rng.gen_range(0..cluster.len())]));
        } else {
            order.extend_from_slice(cluster.partial_shuffle(rng, draws).0);
        }
    }
    order.shuffle(rng);
    order.truncate(labels.len());
    order
}

/// Loss weight of each cluster: inverse to its size, with mean 1 over the images
/// (DeepCluster, section 3.3). An empty cluster weighs 0.
pub fn inverse_size_weights(sizes: &[usize]) -> Vec<f64> {
    let n: usize = sizes.iter().sum();
    let filled = sizes.iter().filter(|&&size| size > 0).count();
    sizes
        .iter()
        .map(|&size| {
            if size == 0 {
                0.0
            } else {
                n as f64 / (filled * size) as f64
            }
        })
        .collect()
}
