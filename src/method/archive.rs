//! What a method keeps between steps, saved and restored by one function for both ways, so that the two
//! cannot drift apart.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

use crate::tensors::{from_labels, to_labels};

/// Tensors and values by name; names of a [`child`](Archive::child) begin with its own.
#[derive(Debug, Default)]
pub struct State {
    pub tensors: BTreeMap<String, Tensor>,
    pub values: BTreeMap<String, serde_json::Value>,
}

/// A state that is being filled, or read.
#[derive(Debug)]
pub struct Archive<'a> {
    state: &'a mut State,
    restores: bool,
    prefix: String,
}

impl<'a> Archive<'a> {
    /// One that takes what it is given into `state`.
    pub fn saving(state: &'a mut State) -> Self {
        Self {
            state,
            restores: false,
            prefix: String::new(),
        }
    }

    /// One that gives what it is asked for from `state`.
    pub fn restoring(state: &'a mut State) -> Self {
        Self {
            state,
            restores: true,
            prefix: String::new(),
        }
    }

    /// Whether what it is given is overwritten.
    pub fn restores(&self) -> bool {
        self.restores
    }

    /// The part of it that has a name of its own.
    pub fn child(&mut self, name: &str) -> Archive<'_> {
        Archive {
            prefix: format!("{}{name}.", self.prefix),
            state: self.state,
            restores: self.restores,
        }
    }

    /// A tensor, which keeps its shape, kind and device.
    ///
    /// # Errors
    /// It is missing, or of another shape.
    pub fn tensor(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        let key = self.key(name);
        if !self.restores {
            let saved = tensor.detach().to_device(Device::Cpu);
            self.state.tensors.insert(key, saved);
            return Ok(());
        }
        let saved = self.take(&key)?;
        if saved.size() != tensor.size() {
            bail!(
                "the checkpoint's '{key}' has shape {:?} where {:?} is needed",
                saved.size(),
                tensor.size()
            );
        }
        *tensor = saved.to_device(tensor.device()).to_kind(tensor.kind());
        Ok(())
    }

    /// A tensor of any shape, on the CPU when it is restored.
    ///
    /// # Errors
    /// It is missing.
    pub fn any_tensor(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        let key = self.key(name);
        if self.restores {
            *tensor = self.take(&key)?;
        } else {
            let saved = tensor.detach().to_device(Device::Cpu);
            self.state.tensors.insert(key, saved);
        }
        Ok(())
    }

    /// Labels of images, or their numbers.
    ///
    /// # Errors
    /// They are missing.
    pub fn labels(&mut self, name: &str, labels: &mut Vec<u32>) -> Result<()> {
        let key = self.key(name);
        if self.restores {
            *labels = to_labels(&self.take(&key)?);
        } else {
            self.state.tensors.insert(key, from_labels(labels));
        }
        Ok(())
    }

    /// Anything that JSON holds.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn value<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        value: &mut T,
    ) -> Result<()> {
        let key = self.key(name);
        if !self.restores {
            self.state.values.insert(key, serde_json::to_value(value)?);
            return Ok(());
        }
        let saved = self.state.values.get(&key).cloned();
        let saved = saved.with_context(|| missing(&key))?;
        *value = serde_json::from_value(saved)
            .with_context(|| format!("the checkpoint's '{key}' is something else"))?;
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn take(&mut self, key: &str) -> Result<Tensor> {
        let saved = self.state.tensors.remove(key);
        // Checkpoints leave empty tensors out.
        saved.with_context(|| missing(key))
    }
}

fn missing(key: &str) -> String {
    format!("the checkpoint has no '{key}'")
}

#[cfg(test)]
mod tests {
    use super::{Archive, State};
    use tch::{Device, Kind, Tensor};

    #[derive(Debug, PartialEq)]
    struct Thing {
        bank: Tensor,
        labels: Vec<u32>,
        next: u64,
    }

    impl Thing {
        fn new() -> Self {
            Self {
                bank: Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)),
                labels: Vec::new(),
                next: 0,
            }
        }

        fn archive(&mut self, archive: &mut Archive) -> anyhow::Result<()> {
            archive.tensor("bank", &mut self.bank)?;
            archive.labels("labels", &mut self.labels)?;
            archive.value("next", &mut self.next)
        }
    }

    fn saved(names: &[&str]) -> (Thing, State) {
        let mut thing = Thing {
            bank: Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]),
            labels: vec![4, 0, 7],
            next: 9,
        };
        let mut state = State::default();
        for name in names {
            thing
                .archive(&mut Archive::saving(&mut state).child(name))
                .unwrap();
        }
        (thing, state)
    }

    #[test]
    fn what_was_saved_comes_back_under_its_own_name() {
        let (thing, mut state) = saved(&["one", "other"]);
        assert!(state.tensors.contains_key("one.bank"));
        let mut again = Thing::new();
        let mut archive = Archive::restoring(&mut state);
        again.archive(&mut archive.child("other")).unwrap();
        assert_eq!(again, thing);
        again.archive(&mut archive.child("one")).unwrap();
    }

    #[test]
    fn what_is_missing_or_of_another_shape_is_named() {
        let (_, mut state) = saved(&["one"]);
        let mut wide = Thing::new();
        wide.bank = Tensor::zeros([3, 3], (Kind::Float, Device::Cpu));
        let mut archive = Archive::restoring(&mut state);
        let error = wide.archive(&mut archive.child("one")).unwrap_err();
        assert!(
            error.to_string().contains("'one.bank' has shape [2, 3]"),
            "{error}"
        );
        let error = wide.archive(&mut archive.child("two")).unwrap_err();
        assert!(error.to_string().contains("no 'two.bank'"), "{error}");
    }
}
