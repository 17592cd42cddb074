//! Clusters within clusters.

use crate::cluster::ClusterError;

/// Two clusters that become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merge {
    /// As SciPy numbers them: points from 0 to n − 1, then n + i for what the i-th merge made; `left` is
    /// the smaller one.
    pub left: u32,
    pub right: u32,
    /// √(2ab/(a + b)) times the distance of the centroids of clusters of weight a and b: for two points
    /// their distance.
    pub height: f64,
    /// Of all points in the new cluster.
    pub weight: f64,
}

/// All merges of n points, as SciPy's `linkage(points, "ward")` has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// `[n − 1]`, by rising height.
    pub merges: Vec<Merge>,
    /// `[n]`
    weights: Vec<f64>,
}

impl Tree {
    /// From n − 1 merges of clusters, each named by a member; of equal height in the order given.
    pub(super) fn new(weights: &[f64], mut merges: Vec<(u32, u32, f64)>) -> Self {
        merges.sort_by(|a, b| a.2.total_cmp(&b.2));
        let n = weights.len() as u32;
        let mut sets = Sets::new(weights.len());
        let mut ids: Vec<u32> = (0..n).collect();
        let mut sums = weights.to_vec();
        let named = (n..).zip(merges).map(|(id, (a, b, height))| {
            let (a, b) = (sets.find(a), sets.find(b));
            let kept = sets.join(a, b);
            let (left, right) = (ids[a as usize], ids[b as usize]);
            let weight = sums[a as usize] + sums[b as usize];
            ids[kept as usize] = id;
            sums[kept as usize] = weight;
            Merge {
                left: left.min(right),
                right: left.max(right),
                height,
                weight,
            }
        });
        Self {
            merges: named.collect(),
            weights: weights.to_vec(),
        }
    }

    /// The number of points.
    pub fn points(&self) -> usize {
        self.weights.len()
    }

    /// `[n]`: the labels of k clusters, by falling weight, of equal weight that with the first member
    /// first.
    ///
    /// # Errors
    /// k is 0 or larger than n.
    pub fn cut(&self, k: usize) -> Result<Vec<u32>, ClusterError> {
        let n = self.points();
        if k == 0 {
            return Err(ClusterError::NoClusters);
        }
        if k > n {
            return Err(ClusterError::TooFewPoints {
                points: n,
                clusters: k,
            });
        }
        let mut sets = Sets::new(n);
        // A member of each cluster.
        let mut members: Vec<u32> = (0..n as u32).collect();
        for merge in &self.merges[..n - k] {
            let (a, b) = (members[merge.left as usize], members[merge.right as usize]);
            let (a, b) = (sets.find(a), sets.find(b));
            members.push(sets.join(a, b));
        }
        let mut sums = vec![0.0; n];
        let mut firsts = Vec::with_capacity(k);
        let roots: Vec<u32> = (0..n as u32).map(|i| sets.find(i)).collect();
        for (&root, weight) in roots.iter().zip(&self.weights) {
            if sums[root as usize] == 0.0 {
                firsts.push(root);
            }
            sums[root as usize] += weight;
        }
        firsts.sort_by(|&a, &b| sums[b as usize].total_cmp(&sums[a as usize]));
        let mut labels = vec![0; n];
        for (label, &root) in (0..).zip(&firsts) {
            labels[root as usize] = label;
        }
        Ok(roots
            .into_iter()
            .map(|root| labels[root as usize])
            .collect())
    }

    /// The number of clusters that are left once all merges up to this height are done.
    pub fn clusters_at(&self, height: f64) -> usize {
        let done = self.merges.partition_point(|merge| merge.height <= height);
        self.points() - done
    }
}

/// Disjoint sets of points.
struct Sets {
    parents: Vec<u32>,
    sizes: Vec<u32>,
}

impl Sets {
    fn new(n: usize) -> Self {
        Self {
            parents: (0..n as u32).collect(),
            sizes: vec![1; n],
        }
    }

    /// The root of the set that holds `member`.
    fn find(&mut self, mut member: u32) -> u32 {
        while self.parents[member as usize] != member {
            let above = self.parents[self.parents[member as usize] as usize];
            self.parents[member as usize] = above;
            member = above;
        }
        member
    }

    /// Joins the sets of two roots; returns which one is the root now.
    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (small, large) = match self.sizes[a as usize] < self.sizes[b as usize] {
            true => (a, b),
            false => (b, a),
        };
        self.sizes[large as usize] += self.sizes[small as usize];
        self.parents[small as usize] = large;
        large
    }
}
