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

/// Parameters begin at multiples of so many numbers, 64 bytes, as tensors of their own do: libraries take
/// other instructions for others, which round in other ways, and a resumed run would not go on exactly.
const ALIGNMENT: usize = 16;

/// Numbers that a parameter takes, with what fills it up.
fn room(parameter: &Tensor) -> i64 {
    parameter.numel().next_multiple_of(ALIGNMENT) as i64
}

/// `tensors` one behind the other, each in the order of its parameter and filled up with zeros: `[m]`.
fn joined(tensors: &[Tensor], parameters: &[Tensor]) -> Tensor {
    let Some(first) = parameters.first() else {
        return Tensor::new();
    };
    let zeros = Tensor::zeros([ALIGNMENT as i64], (first.kind(), first.device()));
    let mut flat = Vec::with_capacity(2 * tensors.len());
    for (tensor, like) in tensors.iter().zip(parameters) {
        flat.push(flattened(tensor, like));
        flat.push(zeros.narrow(0, 0, room(like) - like.numel() as i64));
    }
    Tensor::cat(&flat, 0)
}

/// The inverse of [`flattened`], a view of `numbers`.
fn shaped(numbers: &Tensor, like: &Tensor) -> Tensor {
    match like.size()[..] {
        [a, b, c, d] if is_channels_last(like) => numbers.view([a, c, d, b]).permute([0, 3, 1, 2]),
        _ => numbers.view_as(like),
    }
}

/// Some parameters, which live on as views of `values`.
#[derive(Debug)]
pub struct Flat {
    names: Vec<String>,
    /// The parameters themselves, shared with the network.
    parameters: Vec<Tensor>,
    /// All numbers `[m] f32`, with zeros between them.
    pub values: Tensor,
    /// `[m] f32`, where there are some.
    pub gradients: Option<Tensor>,
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
    /// Moves parameters, each with its name and gradient, behind each other. What a checkpoint has `saved`
    /// of their slots is taken over; the rest begins at zero.
    pub fn new(
        reached: Vec<(String, Tensor, Tensor)>,
        slots: &[&'static str],
        saved: &mut BTreeMap<String, Tensor>,
    ) -> Self {
        let (mut names, mut parameters, mut gradients) = (Vec::new(), Vec::new(), Vec::new());
        for (name, parameter, gradient) in reached {
            names.push(name);
            parameters.push(parameter);
            gradients.push(gradient);
        }
        let mut flat = Self {
            names,
            values: joined(&parameters, &parameters),
            gradients: Some(joined(&gradients, &parameters)),
            slots: Vec::new(),
            steps: 0,
            parameters,
        };
        let values = flat.views(&flat.values);
        for (parameter, view) in flat.parameters.iter_mut().zip(&values) {
            parameter.set_data(view);
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
                let view = of.narrow(0, start, parameter.numel() as i64);
                start += room(parameter);
                shaped(&view, parameter)
            })
            .collect()
    }

    /// `of` `[p]`, a number for each parameter, for each of its numbers: `[m]`.
    pub fn spread(&self, of: &Tensor) -> Tensor {
        let counts: Vec<i64> = self.parameters.iter().map(room).collect();
        let counts = Tensor::from_slice(&counts).to_device(of.device());
        of.repeat_interleave_self_tensor(&counts, None, self.values.size()[0])
    }

    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.parameters.iter()
    }

    /// Adds the next gradients to what there is; undefined ones count as zeros, and all of them undefined
    /// as nothing.
    pub fn add(&mut self, gradients: &mut impl Iterator<Item = Tensor>) {
        let gradients: Vec<Tensor> = gradients.take(self.parameters.len()).collect();
        if !gradients.iter().any(Tensor::defined) {
            return;
        }
        let filled: Vec<Tensor> = gradients
            .into_iter()
            .zip(&self.parameters)
            .map(|(gradient, parameter)| match gradient.defined() {
                true => gradient,
                false => parameter.zeros_like(),
            })
            .collect();
        let more = joined(&filled, &self.parameters);
        self.gradients = Some(match self.gradients.take() {
            Some(before) => before + more,
            None => more,
        });
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
