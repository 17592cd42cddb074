//! Steps down the gradient, by a rule of its own for each module, with a state that can be saved:
//! tch's optimisers cannot do that, and a resumed run must go on exactly.

mod flat;
mod rule;

use std::collections::BTreeMap;

use tch::{Tensor, nn};

use crate::model::weights::named_variables;
use flat::Flat;
pub use rule::Rule;

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
    /// Parameters that have had no gradient yet, by name.
    waiting: Vec<(String, Tensor)>,
    /// Those that have, together for each time that some came to their first one.
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
            flats: Vec::new(),
            saved: BTreeMap::new(),
        }
    }

    fn zero_grad(&mut self) {
        self.waiting
            .iter_mut()
            .for_each(|(_, parameter)| parameter.zero_grad());
        self.flats.iter_mut().for_each(Flat::zero_grad);
    }

    fn step(&mut self, lr: f64) {
        let waiting = std::mem::take(&mut self.waiting);
        let (arrived, waiting) = waiting
            .into_iter()
            .partition(|(_, parameter)| parameter.grad().defined());
        self.waiting = waiting;
        if !Vec::is_empty(&arrived) {
            let flat = Flat::new(arrived, self.training.rule.slots(), &mut self.saved);
            self.flats.push(flat);
        }
        for flat in &mut self.flats {
            self.training.rule.update(flat, &self.training, lr);
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
        self.groups.iter_mut().for_each(Group::zero_grad);
    }

    /// One step down the gradient for the modules named in `updated` (all when empty), at the run's
    /// learning rate `lr`.
    pub fn step(&mut self, updated: &[&str], lr: f64) {
        tch::no_grad(|| {
            for group in &mut self.groups {
                if updated.is_empty() || updated.contains(&group.name.as_str()) {
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
