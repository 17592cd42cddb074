//! Labels of exactly equal sizes.
//!
//! `argmax_j r_j P_ij^λ` gives sizes that differ a little, and it is the cheapest assignment *of those
//! sizes*, because the scalings are dual variables. From there points are moved along cheapest chains
//! (one leaves a cluster that is too large for another, one of whose points leaves for a third, ...):
//! successive shortest paths in the graph of clusters, in which an edge a → b costs what the cheapest
//! point of a loses in b (Ahuja, Magnanti, Orlin: Network Flows, 1993, section 9.7). Every chain keeps
//! the assignment the cheapest of its sizes. Where k does not divide n, chains that gain then settle
//! which clusters have one point more. The result is an exact optimum of the assignment problem,
//! whatever λ was and however well the scalings had converged.
//!
//! Time: for each point that is one too many k² comparisons and the points of a few clusters times k.
//! Memory: k² numbers.

/// What rounding may make of a cycle that costs nothing.
const SLACK: f64 = 1e-9;

/// Moves points until the sizes of the `k` clusters differ by one at most. Costs are
/// `−log P`, row-major `[n, k]`; −∞ in `log_p` forbids.
///
/// Returns the points moved; `None` where what is forbidden leaves no such labels (then `labels` have
/// come as near as it could).
pub fn equalise(log_p: &[f32], k: usize, labels: &mut [u32]) -> Option<usize> {
    let mut graph = Graph::new(log_p, k, labels);
    let (low, high) = (labels.len() / k, labels.len().div_ceil(k));
    let mut moved = 0;
    loop {
        let sizes = graph.sizes();
        let full = sizes.iter().any(|&size| size > high);
        let empty = sizes.iter().any(|&size| size < low);
        let chain = match (full, empty) {
            (true, true) => graph.cheapest(|size| size > high, |size| size < low),
            (true, false) => graph.cheapest(|size| size > high, |size| size < high),
            (false, true) => graph.cheapest(|size| size > low, |size| size < low),
            // The sizes are right: what is left may gain.
            (false, false) => match graph.cheapest(|size| size > low, |size| size < high) {
                Some((cost, chain)) if cost < -SLACK => Some((cost, chain)),
                _ => return Some(moved),
            },
        };
        let (_, chain) = chain?;
        moved += graph.shift(&chain, labels);
    }
}

/// A point of one cluster with what moving it to another costs.
type Edge = (f64, u32);

/// Clusters, and the cheapest way of a point from each to each.
struct Graph<'a> {
    log_p: &'a [f32],
    k: usize,
    members: Vec<Vec<u32>>,
    /// `[k, k]`
    edges: Vec<Edge>,
}

impl<'a> Graph<'a> {
    fn new(log_p: &'a [f32], k: usize, labels: &[u32]) -> Self {
        let mut members = vec![Vec::new(); k];
        for (point, &label) in (0..).zip(labels) {
            members[label as usize].push(point);
        }
        let mut graph = Self {
            log_p,
            k,
            members,
            edges: vec![(f64::INFINITY, 0); k * k],
        };
        (0..k).for_each(|cluster| graph.renew(cluster));
        graph
    }

    fn sizes(&self) -> Vec<usize> {
        self.members.iter().map(Vec::len).collect()
    }

    /// Finds the cheapest way out of a cluster again.
    fn renew(&mut self, from: usize) {
        let edges = &mut self.edges[from * self.k..][..self.k];
        edges.fill((f64::INFINITY, 0));
        for &point in &self.members[from] {
            let row = &self.log_p[point as usize * self.k..][..self.k];
            let here = f64::from(row[from]);
            for (to, (edge, &there)) in edges.iter_mut().zip(row).enumerate() {
                let cost = here - f64::from(there);
                if to != from && cost < edge.0 {
                    *edge = (cost, point);
                }
            }
        }
    }

    /// The cheapest chain of clusters from one whose size is `too_large` to one that is `too_small`, with
    /// its cost, by Bellman and Ford: moves may gain, but no cycle of them does.
    fn cheapest(
        &self,
        too_large: impl Fn(usize) -> bool,
        too_small: impl Fn(usize) -> bool,
    ) -> Option<(f64, Vec<usize>)> {
        let sizes = self.sizes();
        let start = |size: &usize| if too_large(*size) { 0.0 } else { f64::INFINITY };
        let mut costs: Vec<f64> = sizes.iter().map(start).collect();
        let mut before = vec![usize::MAX; self.k];
        let mut active: Vec<usize> = (0..self.k).filter(|&c| costs[c] == 0.0).collect();
        for _ in 0..self.k {
            let mut next = Vec::new();
            for &from in &active {
                let edges = &self.edges[from * self.k..][..self.k];
                for (to, edge) in edges.iter().enumerate() {
                    let cost = costs[from] + edge.0;
                    if cost < costs[to] - SLACK {
                        (costs[to], before[to]) = (cost, from);
                        next.push(to);
                    }
                }
            }
            next.sort_unstable();
            next.dedup();
            if next.is_empty() {
                break;
            }
            active = next;
        }
        let end = (0..self.k)
            .filter(|&cluster| too_small(sizes[cluster]) && costs[cluster].is_finite())
            .min_by(|&a, &b| costs[a].total_cmp(&costs[b]))?;
        let mut chain = vec![end];
        while before[chain[chain.len() - 1]] != usize::MAX && chain.len() <= self.k {
            chain.push(before[chain[chain.len() - 1]]);
        }
        chain.reverse();
        Some((costs[end], chain))
    }

    /// Moves a point along each link of a chain. Returns how many.
    fn shift(&mut self, chain: &[usize], labels: &mut [u32]) -> usize {
        let links: Vec<(usize, usize, u32)> = chain
            .windows(2)
            .map(|pair| (pair[0], pair[1], self.edges[pair[0] * self.k + pair[1]].1))
            .collect();
        for &(from, to, point) in &links {
            self.members[from].retain(|&member| member != point);
            self.members[to].push(point);
            labels[point as usize] = to as u32;
        }
        chain.iter().for_each(|&cluster| self.renew(cluster));
        links.len()
    }
}
