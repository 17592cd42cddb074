//! Steps down the gradient, by a rule of its own for each module, with a state that can be saved:
//! tch's optimisers cannot do that, and a resumed run must go on exactly.

mod flat;
mod rule;

use std::collections::BTreeMap;

use tch::{Tensor, nn};

pub use crate::method::Rule;
use crate::model::weights::named_variables;
use flat::Flat;

/// How a module is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    pub rule: Rule,
    /// Times the run's learning rate.
    pub lr: f64,
    pub weight_decay: f64,
}

/// The parameters of one module.
#[derive(Debug)]
struct Group {
    name: String,
    training: Training,
    /// Parameters that no loss has reached yet, by name.
    waiting: Vec<(String, Tensor)>,
    /// Gradients of those that a loss has reached since the last step.
    arrived: BTreeMap<String, Tensor>,
    /// The others, together for each time that some came to their first gradient.
    flats: Vec<Flat>,
    /// What a checkpoint knows of parameters that are waiting.
    saved: BTreeMap<String, Tensor>,
}

impl Group {
    /// The trained variables of `store`.
    fn new(name: &str, store: &nn::VarStore, training: Training) -> Self {
        let variables = named_variables(store).into_iter();
        Self {
            name: name.into(),
            training,
            waiting: variables
                .filter(|(_, variable)| variable.requires_grad())
                .collect(),
            arrived: BTreeMap::new(),
            flats: Vec::new(),
            saved: BTreeMap::new(),
        }
    }

    fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let waiting = self.waiting.iter().map(|(_, parameter)| parameter);
        waiting.chain(self.flats.iter().flat_map(Flat::parameters))
    }

    /// Adds gradients, in the order of [`Self::parameters`]; undefined where the loss does not depend on
    /// the parameter.
    fn add(&mut self, gradients: &mut impl Iterator<Item = Tensor>) {
        for (name, _) in &self.waiting {
            let Some(gradient) = gradients.next().filter(Tensor::defined) else {
                continue;
            };
            let sum = match self.arrived.remove(name) {
                Some(before) => before + gradient,
                None => gradient,
            };
            self.arrived.insert(name.clone(), sum);
        }
        self.flats.iter_mut().for_each(|flat| flat.add(gradients));
    }

    fn forget(&mut self) {
        self.arrived.clear();
        self.flats.iter_mut().for_each(|flat| flat.gradients = None);
    }

    fn step(&mut self, lr: f64) {
        let mut gradients = std::mem::take(&mut self.arrived);
        if !gradients.is_empty() {
            let mut reached = Vec::new();
            self.waiting.retain(|(name, parameter)| {
                let gradient = gradients.remove(name);
                let stays = gradient.is_none();
                reached.extend(gradient.map(|it| (name.clone(), parameter.shallow_clone(), it)));
                stays
            });
            let flat = Flat::new(reached, self.training.rule.slots(), &mut self.saved);
            self.flats.push(flat);
        }
        for flat in &mut self.flats {
            if let Some(gradients) = flat.gradients.take() {
                self.training
                    .rule
                    .update(flat, gradients, &self.training, lr);
            }
        }
    }
}

/// Every module's optimiser.
#[derive(Debug, Default)]
pub struct Optimiser {
    groups: Vec<Group>,
}

impl Optimiser {
    /// Adds the trained variables of `store` as a module.
    pub fn add(&mut self, name: &str, store: &nn::VarStore, training: Training) {
        self.groups.push(Group::new(name, store, training));
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        self.groups.iter_mut().for_each(Group::forget);
    }

    /// Adds the gradient of `loss` by the modules named in `updated` (all when empty) to what has come
    /// since [`Self::zero_grad`].
    pub fn backward(&mut self, loss: &Tensor, updated: &[&str]) {
        let mut groups: Vec<&mut Group> = self
            .groups
            .iter_mut()
            .filter(|group| is_among(&group.name, updated))
            .collect();
        let parameters: Vec<&Tensor> = groups.iter().flat_map(|group| group.parameters()).collect();
        let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
        let mut gradients = gradients.into_iter();
        tch::no_grad(|| {
            groups
                .iter_mut()
                .for_each(|group| group.add(&mut gradients))
        });
    }

    /// One step down the gradient for the modules named in `updated` (all when empty), at the run's
    /// learning rate `lr`.
    pub fn step(&mut self, updated: &[&str], lr: f64) {
        tch::no_grad(|| {
            for group in &mut self.groups {
                if is_among(&group.name, updated) {
                    group.step(lr);
                }
            }
        });
    }

    /// Begins a module afresh, whose parameters were drawn anew: `store` may hold others than before.
    pub fn reset(&mut self, name: &str, store: &nn::VarStore) {
        for group in self.groups.iter_mut().filter(|group| group.name == name) {
            *group = Group::new(name, store, group.training);
        }
    }

    /// What the rules remember, by `module/parameter`; see [`Rule::slots`].
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for group in &self.groups {
            let mut own: Vec<_> = group.flats.iter().flat_map(Flat::state).collect();
            let saved = group.saved.iter();
            own.extend(saved.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
            let named = own.into_iter();
            state.extend(named.map(|(name, tensor)| (format!("{}/{name}", group.name), tensor)));
        }
        state
    }

    /// Takes over what [`Self::state`] gave, before the first step.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>) {
        for (name, tensor) in state {
            for group in &mut self.groups {
                if let Some(own) = name.strip_prefix(&format!("{}/", group.name)) {
                    group.saved.insert(own.into(), tensor.shallow_clone());
                }
            }
        }
    }
}

/// Whether a module is one of those, which are all when none is named.
fn is_among(module: &str, updated: &[&str]) -> bool {
    updated.is_empty() || updated.contains(&module)
}
