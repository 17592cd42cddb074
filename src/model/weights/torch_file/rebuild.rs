//! The functions and classes that make containers and tensors: those that are known here.
//! Any other stands for itself, whatever is asked of it.

use super::TorchFileError;
use super::dtype::{Dtype, Element};
use super::value::{Heap, Object, Storage, Tensor, Value};

/// What `function(*arguments)` makes.
pub(super) fn call(
    heap: &mut Heap,
    function: Value,
    arguments: Value,
) -> Result<Value, TorchFileError> {
    let Some(Object::Global(name)) = heap.get(function) else {
        return Err(TorchFileError::damaged("it calls what is no function"));
    };
    let made = match &**name {
        "collections.OrderedDict" => ordered_dict(heap, arguments)?,
        "collections.defaultdict" => Some(heap.add(Object::Dict(Vec::new()))?),
        "torch._tensor._rebuild_from_type_v2" | "torch.tensor._rebuild_from_type_v2" => {
            match heap.tuple(arguments) {
                Some(&[inner, _, arguments, _]) => tensor(heap, inner, arguments)?,
                _ => None,
            }
        }
        "torch.Size"
        | "torch._utils._rebuild_parameter"
        | "torch._utils._rebuild_parameter_with_state"
        | "torch.nn.parameter.Parameter" => {
            heap.tuple(arguments).and_then(|all| all.first().copied())
        }
        "torch._utils._rebuild_tensor"
        | "torch._utils._rebuild_tensor_v2"
        | "torch._utils._rebuild_tensor_v3" => tensor(heap, function, arguments)?,
        _ => Some(function),
    };
    made.ok_or_else(|| match heap.get(function) {
        Some(Object::Global(name)) => TorchFileError::Damaged(format!("{name} lacks arguments")),
        _ => TorchFileError::damaged("a function in it lacks arguments"),
    })
}

/// Python 2 gives the items as an argument, Python 3 sets them afterwards. The argument is
/// used up: a copy for each of a million calls would fill the memory.
fn ordered_dict(heap: &mut Heap, arguments: Value) -> Result<Option<Value>, TorchFileError> {
    let items = match heap.tuple(arguments) {
        Some([]) => Vec::new(),
        Some(&[items]) => match heap.get_mut(items) {
            Some(Object::List(items)) => std::mem::take(items),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let pair = |&item| match heap.get(item)? {
        Object::List(pair) => <[Value; 2]>::try_from(pair.as_slice()).ok(),
        Object::Tuple(pair) => <[Value; 2]>::try_from(&**pair).ok(),
        _ => None,
    };
    let Some(pairs) = items.iter().map(pair).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let pairs = pairs.into_iter().map(|[key, value]| (key, value));
    let dict = Object::Dict(pairs.collect());
    heap.add(dict).map(Some)
}

/// A tensor, or in its place the class that makes it one to ignore. Arguments:
/// `(storage, offset, size, stride)`, then from version 2 on `requires_grad` and hooks,
/// in version 3 the dtype, and at last perhaps a dictionary of metadata.
fn tensor(
    heap: &mut Heap,
    function: Value,
    arguments: Value,
) -> Result<Option<Value>, TorchFileError> {
    let (Some(Object::Global(name)), Some(arguments)) = (heap.get(function), heap.tuple(arguments))
    else {
        return Ok(None);
    };
    let &[storage, offset, shape, strides, ref rest @ ..] = arguments else {
        return Ok(None);
    };
    let (dtype, metadata) = match (&**name, rest) {
        ("torch._utils._rebuild_tensor", _) => (None, None),
        ("torch._utils._rebuild_tensor_v2", [_, _, metadata @ ..]) => (None, metadata.first()),
        ("torch._utils._rebuild_tensor_v3", &[_, _, dtype, ref metadata @ ..]) => {
            (Some(dtype), metadata.first())
        }
        ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor_v3", _) => {
            return Ok(None);
        }
        _ => return Ok(Some(function)),
    };
    let stored = match heap.get(storage) {
        Some(Object::Storage(stored)) => stored,
        Some(Object::Global(_)) => return Ok(Some(storage)),
        _ => return Ok(None),
    };
    // The numbers may be meant negated or conjugated.
    if let Some(Object::Dict(metadata)) = metadata.and_then(|&metadata| heap.get(metadata))
        && !metadata.is_empty()
    {
        return Ok(Some(function));
    }
    let dtype = match (dtype.and_then(|dtype| heap.get(dtype)), stored.element) {
        (Some(Object::Global(name)), _) => Dtype::of_python(name),
        (None, Element::Number(dtype)) => Some(dtype),
        _ => None,
    };
    let (Some(dtype), Value::Object(storage)) = (dtype, storage) else {
        return Ok(Some(stored.class));
    };
    let tensor = Object::Tensor(Box::new(Tensor {
        storage,
        dtype,
        offset,
        shape,
        strides,
    }));
    heap.add(tensor).map(Some)
}

/// What a persistent identifier names: `("storage", class, key, device, count)`, in the
/// old format with one more, `None` or `(key, start, count)` of a part; or
/// `("module", class, ...)` with the class's source.
pub(super) fn persistent(heap: &mut Heap, id: Value) -> Result<Value, TorchFileError> {
    let wrong = || TorchFileError::damaged("a storage in it is not described as one");
    let all = heap.tuple(id).ok_or_else(wrong)?;
    let (&kind, rest) = all.split_first().ok_or_else(wrong)?;
    let (&class, rest) = rest.split_first().ok_or_else(wrong)?;
    match heap.text(kind) {
        Some("storage") => {}
        Some("module") => return Ok(class),
        _ => return Err(wrong()),
    }
    let &[key, _device, Value::Int(whole), ref part @ ..] = rest else {
        return Err(wrong());
    };
    let (start, count) = match part.first() {
        None | Some(Value::None) => (0, whole),
        Some(&part) => match heap.tuple(part) {
            Some(&[_, Value::Int(start), Value::Int(count)]) => (start, count),
            _ => return Err(wrong()),
        },
    };
    let natural = |int| u64::try_from(int).map_err(|_| wrong());
    let Some(Object::Global(name)) = heap.get(class) else {
        return Err(wrong());
    };
    let element = Element::of_storage(name)
        .ok_or_else(|| TorchFileError::Damaged(format!("PyTorch has no {name:?}")))?;
    heap.text(key).ok_or_else(wrong)?;
    let storage = Storage {
        key,
        class,
        element,
        whole: natural(whole)?,
        start: natural(start)?,
        count: natural(count)?,
    };
    heap.add(Object::Storage(Box::new(storage)))
}
