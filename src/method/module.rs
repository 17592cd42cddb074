//! What is trained, by which rule, and when.

use tch::nn;

/// A rule with its constants. `p` are the parameters, `g` the gradient, `wd` the weight decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// `g += wd·p; v = momentum·v + g; p −= lr·v` (`torch.optim.SGD`).
    Sgd { momentum: f64 },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019; `torch.optim.AdamW`).
    AdamW { betas: [f64; 2] },
    /// SGD whose gradient is scaled, parameter by parameter, to `trust · ‖p‖ / (‖g‖ + wd·‖p‖)` of itself
    /// (You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks, 2017; apex `LARC` without
    /// clipping, as SwAV and DeepCluster-v2 use it). Where either norm is 0, plain SGD without decay.
    Larc { momentum: f64, trust: f64 },
}

/// One step of the optimisers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Names of the modules that it trains; all, with the backbone, when empty.
    pub modules: Vec<String>,
}

/// Parameters with the options of their optimiser.
#[derive(Debug)]
pub struct Module<'a> {
    /// Names of a task's modules begin with the task's.
    pub name: String,
    pub store: &'a nn::VarStore,
    /// Where it differs from the run's.
    pub training: ModuleTraining,
}

/// How a module is trained, where it differs from the backbone.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ModuleTraining {
    pub rule: Option<Rule>,
    /// Times the run's learning rate; 1 where not given.
    pub lr: Option<f64>,
    pub weight_decay: Option<f64>,
    /// Epochs for which it stays as it is at first.
    pub frozen_for: f64,
}

impl<'a> Module<'a> {
    /// One that is trained as the backbone is.
    pub fn new(name: &str, store: &'a nn::VarStore) -> Self {
        Self {
            name: name.into(),
            store,
            training: ModuleTraining::default(),
        }
    }

    /// The same by another rule.
    pub fn by(mut self, rule: Rule) -> Self {
        self.training.rule = Some(rule);
        self
    }
}

/// The name under which the backbone is trained beside the methods' modules.
pub const BACKBONE: &str = "backbone";
