//! Parameters one behind the other in a single tensor, so that a step takes a few operations however
//! many parameters a network has: ResNet-50's 161 need 1,100 small kernels otherwise, a sixth of the
//! time of a batch on an H100.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

/// Whether a tensor's numbers lie in libtorch's channels-last order.
fn is_channels_last(tensor: &Tensor) -> bool {
    tensor.dim() == 4 && !tensor.is_contiguous() && tensor.permute([0, 2, 3, 1]).is_contiguous()
}

/// The numbers of `tensor` in the order in which those of `like`, of the same shape, lie.
fn flattened(tensor: &Tensor, like: &Tensor) -> Tensor {
    let tensor = tensor.detach();
    match is_channels_last(like) {
        true => tensor.permute([0, 2, 3, 1]).reshape([-1]),
        false => tensor.reshape([-1]),
    }
}

/// The inverse of [`flattened`], a view of `numbers`.
fn shaped(numbers: &Tensor, like: &Tensor) -> Tensor {
    match like.size()[..] {
        [a, b, c, d] if is_channels_last(like) => numbers.view([a, c, d, b]).permute([0, 3, 1, 2]),
        _ => numbers.view_as(like),
    }
}

/// Some parameters, which live on as views of `values`, as do their gradients of `gradients`.
#[derive(Debug)]
pub struct Flat {
    names: Vec<String>,
    /// The parameters themselves, shared with the network.
    parameters: Vec<Tensor>,
    /// All `m` numbers `[m] f32`.
    pub values: Tensor,
    /// `[m] f32`
    pub gradients: Tensor,
    /// What the rule remembers of each number: its name, empty for a rule that remembers one thing
    /// alone, and `[m] f32`.
    pub slots: Vec<(&'static str, Tensor)>,
    /// Steps made.
    pub steps: i64,
}

/// The name of a slot's part in a checkpoint.
fn key(parameter: &str, slot: &str) -> String {
    if slot.is_empty() {
        parameter.into()
    } else {
        format!("{parameter}.{slot}")
    }
}

impl Flat {
    /// Moves `parameters`, all of which have gradients, behind each other. What a checkpoint has `saved`
    /// of their slots is taken over; the rest begins at zero.
    pub fn new(
        parameters: Vec<(String, Tensor)>,
        slots: &[&'static str],
        saved: &mut BTreeMap<String, Tensor>,
    ) -> Self {
        let (names, mut parameters): (Vec<_>, Vec<_>) = parameters.into_iter().unzip();
        let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::grad).collect();
        let joined = |tensors: &[Tensor]| {
            let like = tensors.iter().zip(&parameters);
            let flat: Vec<Tensor> = like.map(|(tensor, like)| flattened(tensor, like)).collect();
            Tensor::cat(&flat, 0)
        };
        let mut flat = Self {
            values: joined(&parameters),
            gradients: joined(&gradients),
            slots: Vec::new(),
            steps: 0,
            parameters: parameters.iter().map(Tensor::shallow_clone).collect(),
            names,
        };
        let values = flat.views(&flat.values);
        let slopes = flat.views(&flat.gradients);
        for (parameter, view) in parameters.iter_mut().zip(&values) {
            parameter.set_data(view);
        }
        // Further gradients are added where these lie.
        for (gradient, view) in gradients.iter_mut().zip(&slopes) {
            gradient.set_data(view);
        }
        for &slot in slots {
            let all = flat.values.zeros_like();
            for (name, mut view) in flat.names.iter().zip(flat.views(&all)) {
                let found = saved.remove(&key(name, slot));
                if let Some(found) = found.filter(|found| found.size() == view.size()) {
                    view.copy_(&found);
                }
            }
            flat.slots.push((slot, all));
        }
        for name in &flat.names {
            if let Some(steps) = saved.remove(&key(name, "steps")) {
                flat.steps = flat.steps.max(steps.int64_value(&[0]));
            }
        }
        flat
    }

    /// `of` `[m]` in the shapes of the parameters.
    pub fn views(&self, of: &Tensor) -> Vec<Tensor> {
        let mut start = 0;
        let parameters = self.parameters.iter();
        parameters
            .map(|parameter| {
                let count = parameter.numel() as i64;
                start += count;
                shaped(&of.narrow(0, start - count, count), parameter)
            })
            .collect()
    }

    /// `of` `[p]`, a number for each parameter, for each of its numbers: `[m]`.
    pub fn spread(&self, of: &Tensor) -> Tensor {
        let counts: Vec<i64> = self.parameters.iter().map(|p| p.numel() as i64).collect();
        let counts = Tensor::from_slice(&counts).to_device(of.device());
        of.repeat_interleave_self_tensor(&counts, None, self.values.size()[0])
    }

    pub fn zero_grad(&mut self) {
        let _ = self.gradients.zero_();
    }

    /// The slots by parameter, and the steps made where several slots say that a rule counts them.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for (slot, all) in &self.slots {
            let parts = self.names.iter().zip(self.views(all));
            state.extend(parts.map(|(name, part)| (key(name, slot), part)));
        }
        if self.slots.len() > 1 {
            let steps = Tensor::from_slice(&[self.steps]).to_kind(Kind::Int64);
            let names = self.names.iter();
            state.extend(names.map(|name| (key(name, "steps"), steps.shallow_clone())));
        }
        state
    }
}
