//! How parameters follow their gradients, as PyTorch's optimisers do it.

use tch::{Kind, Tensor};

use super::Training;
use super::flat::Flat;
use crate::method::Rule;

/// What AdamW and LARC add to a divisor.
const EPSILON: f64 = 1e-8;

impl Rule {
    /// What the rule remembers of each number: the velocity, or the two moments of the gradient.
    pub(super) fn slots(&self) -> &'static [&'static str] {
        match *self {
            Self::Sgd { momentum } | Self::Larc { momentum, .. } if momentum > 0.0 => &[""],
            Self::Sgd { .. } | Self::Larc { .. } => &[],
            Self::AdamW { .. } => &["first", "second"],
        }
    }

    /// One step at the run's learning rate `lr`.
    pub(super) fn update(&self, flat: &mut Flat, gradient: Tensor, training: &Training, lr: f64) {
        let lr = lr * training.lr;
        let decay = training.weight_decay;
        flat.steps += 1;
        match *self {
            Self::Sgd { momentum } => {
                let gradient = match decay > 0.0 {
                    true => gradient + &flat.values * decay,
                    false => gradient,
                };
                descend(flat, gradient, momentum, lr);
            }
            Self::Larc { momentum, trust } => {
                let gradient = scaled(flat, &gradient, decay, trust);
                descend(flat, gradient, momentum, lr);
            }
            Self::AdamW { betas } => adapt(flat, &gradient, betas, decay, lr),
        }
    }
}

/// `v = momentum·v + gradient; p −= lr·v`
fn descend(flat: &mut Flat, gradient: Tensor, momentum: f64, lr: f64) {
    let direction = match flat.slots.first_mut() {
        Some((_, velocity)) => {
            *velocity *= momentum;
            *velocity += gradient;
            velocity.shallow_clone()
        }
        None => gradient,
    };
    flat.values -= direction * lr;
}

/// The gradient with weight decay, scaled as LARC does.
fn scaled(flat: &Flat, gradient: &Tensor, decay: f64, trust: f64) -> Tensor {
    let norms = |of: &Tensor| {
        let each: Vec<Tensor> = flat.views(of).iter().map(Tensor::norm).collect();
        Tensor::stack(&each, 0)
    };
    let (parameters, gradients) = (norms(&flat.values), norms(gradient));
    let some = parameters.gt(0.0).logical_and(&gradients.gt(0.0));
    let rate = &parameters * trust / (gradients + &parameters * decay + EPSILON);
    let rate = rate.where_self(&some, &rate.ones_like());
    let decay = some.to_kind(Kind::Float) * decay;
    (gradient + &flat.values * flat.spread(&decay)) * flat.spread(&rate)
}

fn adapt(flat: &mut Flat, gradient: &Tensor, [first, second]: [f64; 2], decay: f64, lr: f64) {
    let steps = flat.steps as i32;
    let [(_, mean), (_, square)] = &mut flat.slots[..] else {
        return;
    };
    *mean += (gradient - &*mean) * (1.0 - first);
    *square *= second;
    *square += gradient.square() * (1.0 - second);
    let root = (1.0 - second.powi(steps)).sqrt();
    let divisor = square.sqrt() / root + EPSILON;
    let step = &*mean / divisor * (lr / (1.0 - first.powi(steps)));
    flat.values *= 1.0 - lr * decay;
    flat.values -= step;
}
