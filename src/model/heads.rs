//! Classification heads: one score for each cluster.
//!
//! DeepCluster (<https://arxiv.org/abs/1807.05520>) has one linear layer, drawn anew
//! each time the clusters change; SeLa (<https://arxiv.org/abs/1911.05371>) has several,
//! each with its own labels. Weights are N(0, 0.01), biases 0, in both.

use tch::{Device, Tensor, nn};

use super::layers::LINEAR_STDEV;
use crate::tensors::l2_rows;

const WEIGHT_INIT: nn::Init = nn::Init::Randn {
    mean: 0.,
    stdev: LINEAR_STDEV,
};
const BIAS_INIT: nn::Init = nn::Init::Const(0.);

/// `weight` `[rows, d]` and `bias` `[rows]`, both trained.
#[derive(Debug)]
struct Rows {
    weight: Tensor,
    bias: Tensor,
}

impl Rows {
    fn new(path: &nn::Path, dim: i64, rows: i64) -> Self {
        Self {
            weight: path.var("weight", &[rows, dim], WEIGHT_INIT),
            bias: path.var("bias", &[rows], BIAS_INIT),
        }
    }

    fn forward(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }

    fn reset(&mut self) {
        // Drawn on the CPU, as the first weights are.
        let drawn = |like: &Tensor, init| nn::init::init(init, &like.size(), Device::Cpu);
        tch::no_grad(|| {
            self.weight.copy_(&drawn(&self.weight, WEIGHT_INIT));
            self.bias.copy_(&drawn(&self.bias, BIAS_INIT));
        });
    }
}

/// Linear scores. Parameters: `weight` `[k, d]`, `bias` `[k]`.
#[derive(Debug)]
pub struct LinearHead(Rows);

impl LinearHead {
    /// A head from `dim` features to `clusters` scores, registered under `path`.
    pub fn new(path: &nn::Path, dim: i64, clusters: i64) -> Self {
        Self(Rows::new(path, dim, clusters))
    }

    /// Scores `[b, k]` of features `[b, d]`.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        self.0.forward(features)
    }

    /// Draws the weights anew, in place, and zeroes the bias: the optimiser and the
    /// variable store keep the same tensors. An optimiser's momentum is its own matter.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// `[k, d]`.
    pub fn weight(&self) -> &Tensor {
        &self.0.weight
    }

    /// `[k]`.
    pub fn bias(&self) -> &Tensor {
        &self.0.bias
    }
}

/// Several linear heads of equal size on the same features, stored as one layer so that
/// all scores come from one matrix product. Parameters: `weight` `[heads * k, d]`,
/// `bias` `[heads * k]`; head h owns the k rows from h * k on.
#[derive(Debug)]
pub struct MultiHead {
    rows: Rows,
    heads: i64,
    clusters: i64,
}

impl MultiHead {
    /// `heads` heads from `dim` features to `clusters` scores each, under `path`.
    pub fn new(path: &nn::Path, dim: i64, heads: i64, clusters: i64) -> Self {
        Self {
            rows: Rows::new(path, dim, heads * clusters),
            heads,
            clusters,
        }
    }

    /// Heads that nothing trains: the scores of points of unit length are their cosines with `directions`
    /// `[heads, k, d] f32`, divided by `temperature`.
    pub fn of_directions(directions: &Tensor, temperature: f64) -> Self {
        let [heads, clusters, dim] = directions.size()[..] else {
            unreachable!("directions have three dimensions");
        };
        let weight = l2_rows(&directions.view([heads * clusters, dim])) / temperature;
        let bias = weight.new_zeros([heads * clusters], (weight.kind(), weight.device()));
        Self {
            rows: Rows { weight, bias },
            heads,
            clusters,
        }
    }

    /// Scores `[b, heads, k]` of features `[b, d]`.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        self.rows
            .forward(features)
            .view([-1, self.heads, self.clusters])
    }

    /// Scores `[b, k]` of one head alone.
    ///
    /// # Panics
    /// When there is no such head.
    pub fn forward_head(&self, features: &Tensor, head: i64) -> Tensor {
        features.linear(&self.weight(head), Some(&self.bias(head)))
    }

    /// Draws every head anew, in place, and zeroes the biases.
    pub fn reset(&mut self) {
        self.rows.reset();
    }

    /// Number of heads.
    pub fn heads(&self) -> i64 {
        self.heads
    }

    /// Scores of each head, k.
    pub fn clusters(&self) -> i64 {
        self.clusters
    }

    /// `[k, d]`, a view of one head's weights.
    ///
    /// # Panics
    /// When there is no such head.
    pub fn weight(&self, head: i64) -> Tensor {
        self.part(&self.rows.weight, head)
    }

    /// `[k]`, a view of one head's bias.
    ///
    /// # Panics
    /// When there is no such head.
    pub fn bias(&self, head: i64) -> Tensor {
        self.part(&self.rows.bias, head)
    }

    fn part(&self, of: &Tensor, head: i64) -> Tensor {
        assert!(
            (0..self.heads).contains(&head),
            "head {head} of {}",
            self.heads
        );
        of.narrow(0, head * self.clusters, self.clusters)
    }
}

/// Two linear layers with a ReLU between them, for tasks that a single one cannot answer. Parameters:
/// `hidden.{weight,bias}`, `output.{weight,bias}`.
#[derive(Debug)]
pub struct TwoLayerHead {
    hidden: nn::Linear,
    output: nn::Linear,
}

impl TwoLayerHead {
    /// From `dim` features over `width` hidden ones to `outputs` scores, under `path`.
    pub fn new(path: &nn::Path, dim: i64, width: i64, outputs: i64) -> Self {
        let layer = |name: &str, from: i64, to: i64| {
            // He et al.: the variance stays behind a ReLU.
            let stdev = (2.0 / from as f64).sqrt();
            let config = nn::LinearConfig {
                ws_init: nn::Init::Randn { mean: 0.0, stdev },
                bs_init: Some(BIAS_INIT),
                bias: true,
            };
            nn::linear(path / name, from, to, config)
        };
        Self {
            hidden: layer("hidden", dim, width),
            output: layer("output", width, outputs),
        }
    }

    /// Scores `[b, outputs]` of features `[b, dim]`.
    pub fn forward(&self, features: &Tensor) -> Tensor {
        features.apply(&self.hidden).relu().apply(&self.output)
    }
}
