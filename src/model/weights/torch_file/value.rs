//! What a pickle builds, as far as it matters for tensors.

use super::TorchFileError;
use super::dtype::{Dtype, Element};

/// A place in the [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

/// A Python value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Object(Id),
    /// A number, bytes or a set: nothing that a tensor hangs on.
    Ignored,
}

#[derive(Debug)]
pub(super) enum Object {
    Text(Box<str>),
    /// An integer beyond `i64`: little-endian, two's complement.
    Long(Box<[u8]>),
    /// A function or class by its whole name, and equally whatever it would have made.
    Global(Box<str>),
    Tuple(Box<[Value]>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
}

/// A run of numbers in the file.
#[derive(Debug)]
pub(super) struct Storage {
    /// A text, by which the file names the run.
    pub key: Value,
    /// The Python class, by which a tensor that cannot be read is named.
    pub class: Value,
    pub element: Element,
    /// Of the whole run, in elements.
    pub whole: u64,
    /// The part of the run that this storage is, in elements.
    pub start: u64,
    pub count: u64,
}

/// A tensor as its pickle describes it, not yet checked.
#[derive(Debug)]
pub(super) struct Tensor {
    pub storage: Id,
    pub dtype: Dtype,
    /// In numbers of `dtype`, as the strides.
    pub offset: Value,
    pub shape: Value,
    pub strides: Value,
}

/// All objects of one pickle. They name each other by place, so that neither a cycle nor a
/// chain of a million can hurt when they are dropped.
#[derive(Debug, Default)]
pub(super) struct Heap(Vec<Object>);

impl Heap {
    pub fn add(&mut self, object: Object) -> Result<Value, TorchFileError> {
        let place = u32::try_from(self.0.len())
            .map_err(|_| TorchFileError::damaged("it holds too many objects"))?;
        self.0.push(object);
        Ok(Value::Object(Id(place)))
    }

    pub fn at(&self, id: Id) -> &Object {
        &self.0[id.0 as usize]
    }

    pub fn get(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(id) => Some(self.at(id)),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, value: Value) -> Option<&mut Object> {
        match value {
            Value::Object(id) => self.0.get_mut(id.0 as usize),
            _ => None,
        }
    }

    pub fn text(&self, value: Value) -> Option<&str> {
        match self.get(value)? {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn tuple(&self, value: Value) -> Option<&[Value]> {
        match self.get(value)? {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.0.iter()
    }
}
