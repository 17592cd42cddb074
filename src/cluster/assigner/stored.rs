//! What a rule is made of on disk: tensors and short texts by name.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use tch::{Kind, Tensor};

/// The name of the text that tells the rule.
pub(super) const KIND: &str = "kind";

/// The content of `clustering.safetensors`.
#[derive(Debug, Default)]
pub struct Stored {
    pub tensors: BTreeMap<String, Tensor>,
    pub metadata: BTreeMap<String, String>,
}

impl Stored {
    /// Puts a tensor away.
    pub fn put(&mut self, name: &str, tensor: &Tensor) {
        self.tensors.insert(name.into(), tensor.shallow_clone());
    }

    /// Puts a value away.
    pub fn put_text(&mut self, name: &str, value: impl Display) {
        self.metadata.insert(name.into(), value.to_string());
    }

    /// Takes a tensor of so many dimensions out, as `kind`.
    ///
    /// # Errors
    /// It is missing, or has others.
    pub fn take(&mut self, name: &str, dims: usize, kind: Kind) -> Result<Tensor, String> {
        let tensor = self.tensors.remove(name).ok_or_else(|| missing(name))?;
        if tensor.dim() == dims {
            Ok(tensor.to_kind(kind))
        } else {
            Err(format!("'{name}' has shape {:?}", tensor.size()))
        }
    }

    /// A value.
    ///
    /// # Errors
    /// It is missing, or something else.
    pub fn text<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let value = self.metadata.get(name);
        let value = value.and_then(|value| value.parse().ok());
        value.ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> String {
    format!("it has no '{name}'")
}
