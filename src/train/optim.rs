//! Stochastic gradient descent with momentum, whose state can be saved: tch's optimisers cannot do
//! that, and a resumed run must go on exactly.

use std::collections::BTreeMap;

use tch::{Tensor, nn};

use crate::model::weights::named_variables;

/// Parameters that share their options.
#[derive(Debug)]
struct Group {
    name: String,
    momentum: f64,
    /// Trained parameters with their momentum buffers, which appear at the first step.
    parameters: Vec<(String, Tensor, Option<Tensor>)>,
}

/// The trained variables of `store`, without momentum.
fn parameters(store: &nn::VarStore) -> Vec<(String, Tensor, Option<Tensor>)> {
    named_variables(store)
        .into_iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .map(|(name, tensor)| (name, tensor, None))
        .collect()
}

/// SGD as PyTorch's: `g += wd·p; v = m·v + g; p −= lr·v`.
#[derive(Debug)]
pub struct Sgd {
    weight_decay: f64,
    groups: Vec<Group>,
}

impl Sgd {
    /// An optimiser without parameters.
    pub fn new(weight_decay: f64) -> Self {
        Self {
            weight_decay,
            groups: Vec::new(),
        }
    }

    /// Adds the trained variables of `store` as a group.
    pub fn add(&mut self, name: &str, store: &nn::VarStore, momentum: f64) {
        self.groups.push(Group {
            name: name.into(),
            momentum,
            parameters: parameters(store),
        });
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        for group in &mut self.groups {
            for (_, parameter, _) in &mut group.parameters {
                parameter.zero_grad();
            }
        }
    }

    /// One step down the gradient for the groups named in `trains` (all when empty).
    pub fn step(&mut self, trains: &[&str], lr: f64) {
        let weight_decay = self.weight_decay;
        tch::no_grad(|| {
            for group in &mut self.groups {
                if !trains.is_empty() && !trains.contains(&group.name.as_str()) {
                    continue;
                }
                for (_, parameter, velocity) in &mut group.parameters {
                    let gradient = parameter.grad();
                    if gradient.defined() {
                        update(
                            parameter,
                            velocity,
                            gradient,
                            group.momentum,
                            weight_decay,
                            lr,
                        );
                    }
                }
            }
        });
    }

    /// Begins a group afresh, whose parameters were drawn anew: `store` may hold others than before.
    pub fn reset(&mut self, name: &str, store: &nn::VarStore) {
        for group in self.groups.iter_mut().filter(|group| group.name == name) {
            group.parameters = parameters(store);
        }
    }

    /// The momentum buffers by `group/parameter`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for group in &self.groups {
            for (name, _, velocity) in &group.parameters {
                if let Some(velocity) = velocity {
                    state.push((format!("{}/{name}", group.name), velocity.shallow_clone()));
                }
            }
        }
        state
    }

    /// Takes over what [`Self::state`] gave.
    pub fn restore(&mut self, mut state: BTreeMap<String, Tensor>) {
        for group in &mut self.groups {
            for (name, parameter, velocity) in &mut group.parameters {
                *velocity = state
                    .remove(&format!("{}/{name}", group.name))
                    .filter(|saved| saved.size() == parameter.size())
                    .map(|saved| saved.to_device(parameter.device()));
            }
        }
    }
}

fn update(
    parameter: &mut Tensor,
    velocity: &mut Option<Tensor>,
    gradient: Tensor,
    momentum: f64,
    weight_decay: f64,
    lr: f64,
) {
    let gradient = if weight_decay > 0.0 {
        gradient + &*parameter * weight_decay
    } else {
        gradient
    };
    let direction = if momentum > 0.0 {
        let next = match velocity.take() {
            Some(before) => before * momentum + gradient,
            None => gradient.copy(),
        };
        velocity.insert(next).shallow_clone()
    } else {
        gradient
    };
    *parameter -= direction * lr;
}
