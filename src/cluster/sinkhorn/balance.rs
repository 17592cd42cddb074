//! Labels of exactly equal sizes.
//!
//! `argmax_j (log P_ij + π_j)`, with π the logarithms of the column scalings over λ, gives sizes that
//! differ a little, and it is the cheapest assignment *of those sizes*, because π are dual variables.
//! From there points are moved along cheapest chains (one leaves a cluster that is too large for
//! another, one of whose points leaves for a third, ...): successive shortest paths in the graph of
//! clusters, in which an edge a → b costs what the cheapest point of a loses in b (Ahuja, Magnanti,
//! Orlin: Network Flows, 1993, section 9.7). With π no edge costs less than nothing, so Dijkstra's
//! search, which looks at a few clusters only, finds each chain. Where k does not divide n, one more
//! node, the *rest*, takes and gives the points by which clusters may differ. The result is an exact
//! optimum of the assignment problem, whatever λ was and however well the scalings had converged.
//!
//! Time: for each point that is one too many, k times the clusters that the search looks at, and the
//! points of a few clusters times the edges that they led. Memory: k² edges of 16 bytes.

/// Moves points until the sizes of the `k` clusters differ by one at most. Costs are
/// `−log P`, row-major `[n, k]`; −∞ in `log_p` forbids. `labels` must be `argmax_j (log P_ij + π_j)` of
/// `potentials` π `[k]`.
///
/// Returns how many points have another label; `None` where what is forbidden leaves no such labels (then `labels` have
/// come as near as it could).
pub fn equalise(
    log_p: &[f32],
    k: usize,
    potentials: Vec<f64>,
    labels: &mut [u32],
) -> Option<usize> {
    let mut graph = Graph::new(log_p, k, potentials, labels);
    let before = labels.to_vec();
    while let Some(start) = (0..graph.excess.len()).find(|&node| graph.excess[node] > 0) {
        let chain = graph.cheapest(start)?;
        graph.shift(&chain, labels);
    }
    // A point may have been moved more than once, and back again.
    Some(labels.iter().zip(&before).filter(|(a, b)| a != b).count())
}

/// What moving some point of one cluster to another costs, and the cheapest such point.
type Edge = (f64, u32);

/// Clusters, and after them the rest; the cheapest way of a point from each to each.
struct Graph<'a> {
    log_p: &'a [f32],
    k: usize,
    members: Vec<Vec<u32>>,
    /// `[k, k]`
    edges: Vec<Edge>,
    /// π, of the rest as well: an edge a → b costs `cost + π_a − π_b`, which is not negative.
    potentials: Vec<f64>,
    /// Clusters whose wanted size is the larger one.
    larger: Vec<bool>,
    /// Points beyond the wanted size.
    excess: Vec<i64>,
    /// Whether sizes may differ, because k does not divide n.
    uneven: bool,
}

impl<'a> Graph<'a> {
    fn new(log_p: &'a [f32], k: usize, mut potentials: Vec<f64>, labels: &[u32]) -> Self {
        let mut members = vec![Vec::new(); k];
        for (point, &label) in (0..).zip(labels) {
            members[label as usize].push(point);
        }
        // The clusters of which points want to be most (their scalings hold points off) are the larger.
        let (low, surplus) = (labels.len() / k, labels.len() % k);
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| potentials[a].total_cmp(&potentials[b]));
        let mut larger = vec![false; k];
        order[..surplus].iter().for_each(|&c| larger[c] = true);
        let sizes = members.iter().zip(&larger);
        let mut excess: Vec<i64> = sizes
            .map(|(members, &larger)| members.len() as i64 - (low + usize::from(larger)) as i64)
            .collect();
        excess.push(0);
        potentials.push(potentials[order[surplus]]);
        let mut graph = Self {
            log_p,
            k,
            members,
            edges: vec![(f64::INFINITY, u32::MAX); k * k],
            potentials,
            larger,
            excess,
            uneven: surplus > 0,
        };
        for (point, &label) in (0..).zip(labels) {
            graph.offer(label as usize, point);
        }
        graph
    }

    /// Lets a point compete for the ways out of its cluster.
    fn offer(&mut self, from: usize, point: u32) {
        let row = &self.log_p[point as usize * self.k..][..self.k];
        let here = f64::from(row[from]);
        let edges = &mut self.edges[from * self.k..][..self.k];
        for (to, (edge, &there)) in edges.iter_mut().zip(row).enumerate() {
            let cost = here - f64::from(there);
            if cost < edge.0 && to != from {
                *edge = (cost, point);
            }
        }
    }

    /// Takes a point out of its cluster, and finds those that follow it on its ways.
    fn withdraw(&mut self, from: usize, point: u32) {
        self.members[from].retain(|&member| member != point);
        let edges = &mut self.edges[from * self.k..][..self.k];
        let led: Vec<usize> = (0..self.k).filter(|&to| edges[to].1 == point).collect();
        led.iter()
            .for_each(|&to| edges[to] = (f64::INFINITY, u32::MAX));
        for &member in &self.members[from] {
            let row = &self.log_p[member as usize * self.k..][..self.k];
            let here = f64::from(row[from]);
            for &to in &led {
                let cost = here - f64::from(row[to]);
                if cost < edges[to].0 {
                    edges[to] = (cost, member);
                }
            }
        }
    }

    /// What a step costs with the potentials. Rounding may take it a little below nothing.
    fn cost(&self, from: usize, to: usize) -> f64 {
        let rest = self.k;
        let cost = match (from == rest, to == rest) {
            (true, true) => f64::INFINITY,
            // A cluster gives the rest a point by wanting one more, and takes one by wanting one less.
            (true, false) if self.uneven && self.larger[to] => 0.0,
            (false, true) if self.uneven && !self.larger[from] => 0.0,
            (false, false) => self.edges[from * self.k + to].0,
            _ => f64::INFINITY,
        };
        (cost + self.potentials[from] - self.potentials[to]).max(0.0)
    }

    /// The cheapest chain from `start` to a node that has too few points, by Dijkstra; `None` if there is
    /// none. The potentials become those for which every step of it costs nothing.
    fn cheapest(&mut self, start: usize) -> Option<Vec<usize>> {
        let count = self.excess.len();
        let mut costs = vec![f64::INFINITY; count];
        let mut before = vec![usize::MAX; count];
        let mut open: Vec<usize> = (0..count).collect();
        let mut settled = Vec::new();
        costs[start] = 0.0;
        let end = loop {
            let next = (0..open.len()).min_by(|&a, &b| {
                let (a, b) = (open[a], open[b]);
                costs[a].total_cmp(&costs[b]).then(a.cmp(&b))
            })?;
            let node = open.swap_remove(next);
            if costs[node].is_infinite() {
                return None;
            }
            if self.excess[node] < 0 {
                break node;
            }
            settled.push(node);
            for &to in &open {
                let cost = costs[node] + self.cost(node, to);
                if cost < costs[to] {
                    (costs[to], before[to]) = (cost, node);
                }
            }
        };
        for node in settled {
            self.potentials[node] += costs[node] - costs[end];
        }
        let mut chain = vec![end];
        while chain[chain.len() - 1] != start {
            chain.push(before[chain[chain.len() - 1]]);
        }
        chain.reverse();
        Some(chain)
    }

    /// Moves a point along each link of a chain.
    fn shift(&mut self, chain: &[usize], labels: &mut [u32]) {
        let mut moved = Vec::new();
        for pair in chain.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            self.excess[from] -= 1;
            self.excess[to] += 1;
            if to == self.k {
                self.larger[from] = true;
            } else if from == self.k {
                self.larger[to] = false;
            } else {
                moved.push((from, to, self.edges[from * self.k + to].1));
            }
        }
        for &(from, to, point) in &moved {
            self.withdraw(from, point);
            self.members[to].push(point);
            self.offer(to, point);
            labels[point as usize] = to as u32;
        }
    }
}
