//! Nested containers to named tensors.

use std::collections::{BTreeMap, BTreeSet};

use super::TorchFileError;
use super::limits::{MAX_DEPTH, MAX_NAME, MAX_TENSORS, MAX_VALUES, check};
use super::value::{Heap, Id, Object, Tensor, Value};

/// Names of Python code that a message lists.
const LISTED: usize = 4;

/// The tensors in `root`, by the keys and list positions that lead to them.
pub(super) fn tensors(
    heap: &Heap,
    root: Value,
) -> Result<BTreeMap<String, &Tensor>, TorchFileError> {
    if let Some(Object::Tensor(_)) = heap.get(root) {
        return Err(TorchFileError::Nameless);
    }
    let mut search = Search {
        heap,
        path: Vec::new(),
        seen: 0,
        tensors: BTreeMap::new(),
        code: BTreeSet::new(),
    };
    search.visit(root, "")?;
    if search.tensors.is_empty() {
        let found = search.code.into_iter().map(str::to_owned);
        return Err(TorchFileError::NoTensors {
            found: found.collect(),
        });
    }
    Ok(search.tensors)
}

struct Search<'a> {
    heap: &'a Heap,
    /// The containers around the value that is visited.
    path: Vec<Id>,
    seen: usize,
    tensors: BTreeMap<String, &'a Tensor>,
    code: BTreeSet<&'a str>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, value: Value, name: &str) -> Result<(), TorchFileError> {
        let Value::Object(id) = value else {
            return Ok(());
        };
        match self.heap.at(id) {
            Object::Tensor(tensor) => return self.keep(name, tensor),
            Object::Storage(storage) => self.code(storage.class),
            Object::Global(_) => self.code(value),
            Object::Text(_) | Object::Long(_) => {}
            Object::Dict(items) => {
                self.enter(id)?;
                for &(key, item) in items {
                    self.visit_in(item, name, || key_name(self.heap, key))?;
                }
                self.path.pop();
            }
            Object::List(items) => self.sequence(id, items, name)?,
            Object::Tuple(items) => self.sequence(id, items, name)?,
        }
        Ok(())
    }

    fn sequence(&mut self, id: Id, items: &[Value], name: &str) -> Result<(), TorchFileError> {
        self.enter(id)?;
        for (position, &item) in items.iter().enumerate() {
            self.visit_in(item, name, || Some(position.to_string()))?;
        }
        self.path.pop();
        Ok(())
    }

    fn visit_in(
        &mut self,
        item: Value,
        outer: &str,
        key: impl FnOnce() -> Option<String>,
    ) -> Result<(), TorchFileError> {
        self.seen += 1;
        check(self.seen, MAX_VALUES, "values")?;
        // A list may hold millions of numbers and texts, whose names nobody asks for.
        if matches!(self.heap.get(item), None | Some(Object::Text(_))) {
            return Ok(());
        }
        let Some(key) = key() else {
            return Ok(());
        };
        if self.path.len() == 1 {
            return self.visit(item, &key);
        }
        check(outer.len() + key.len(), MAX_NAME, "bytes in a name")?;
        self.visit(item, &format!("{outer}.{key}"))
    }

    fn enter(&mut self, id: Id) -> Result<(), TorchFileError> {
        if self.path.contains(&id) {
            return Err(TorchFileError::damaged("a container in it holds itself"));
        }
        self.path.push(id);
        check(self.path.len(), MAX_DEPTH, "containers in each other")
    }

    fn keep(&mut self, name: &str, tensor: &'a Tensor) -> Result<(), TorchFileError> {
        check(self.tensors.len() + 1, MAX_TENSORS, "tensors")?;
        match self.tensors.insert(name.to_owned(), tensor) {
            None => Ok(()),
            Some(_) => Err(TorchFileError::Tensor {
                name: name.to_owned(),
                reason: "another has the same name",
            }),
        }
    }

    fn code(&mut self, global: Value) {
        if let Some(Object::Global(name)) = self.heap.get(global)
            && self.code.len() < LISTED
        {
            self.code.insert(name);
        }
    }
}

/// What a dictionary's key adds to a name. Nothing under any other key is a weight.
fn key_name(heap: &Heap, key: Value) -> Option<String> {
    match key {
        Value::Int(int) => Some(int.to_string()),
        _ => heap.text(key).map(str::to_owned),
    }
}
