//! Pickles and files, put together from parts.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Opcodes that make one value.
pub type Code = Vec<u8>;

pub fn text(text: &str) -> Code {
    [
        &[b'X'][..],
        &(text.len() as u32).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

/// Python 2's.
pub fn short_string(bytes: &[u8]) -> Code {
    [&[b'U', bytes.len() as u8][..], bytes].concat()
}

pub fn int(int: i64) -> Code {
    [&[0x8a, 8][..], &int.to_le_bytes()].concat()
}

pub fn none() -> Code {
    b"N".to_vec()
}

pub fn tuple(items: &[Code]) -> Code {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub fn ints(ints: &[i64]) -> Code {
    tuple(&ints.iter().map(|&each| int(each)).collect::<Vec<_>>())
}

pub fn list(items: &[Code]) -> Code {
    [b"](", &items.concat()[..], b"e"].concat()
}

pub fn dict(items: &[(&str, Code)]) -> Code {
    let items = items
        .iter()
        .map(|(key, item)| [text(key), item.clone()].concat());
    [b"}(", &items.collect::<Vec<_>>().concat()[..], b"u"].concat()
}

pub fn global(module: &str, name: &str) -> Code {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn call(function: Code, arguments: &[Code]) -> Code {
    [&function[..], &tuple(arguments), b"R"].concat()
}

/// The global `torch.CLASS` as the storage `key` of `count` elements.
pub fn storage(class: &str, key: &str, count: i64) -> Code {
    let class = global("torch", class);
    let id = tuple(&[text("storage"), class, text(key), text("cpu"), int(count)]);
    [&id[..], b"Q"].concat()
}

/// Arguments of `_rebuild_tensor_v2`.
pub fn layout(storage: Code, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<Code> {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    vec![
        storage,
        int(offset),
        ints(shape),
        ints(strides),
        b"\x89".to_vec(),
        hooks,
    ]
}

pub fn rebuild(version: &str, arguments: &[Code]) -> Code {
    call(
        global("torch._utils", &format!("_rebuild_tensor{version}")),
        arguments,
    )
}

/// A view of the storage "0", which holds four f32.
pub fn view(offset: i64, shape: &[i64], strides: &[i64]) -> Code {
    rebuild(
        "_v2",
        &layout(storage("FloatStorage", "0", 4), offset, shape, strides),
    )
}

pub fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

pub fn floats() -> Vec<u8> {
    (0..4)
        .flat_map(|each| (each as f32).to_le_bytes())
        .collect()
}

/// A file of the old format up to the storages' keys.
pub fn old_start(object: &[u8], little_endian: bool) -> Vec<u8> {
    let magic = [
        &b"\x8a\x0a"[..],
        &0x1950a86a20f9469cfc6cu128.to_le_bytes()[..10],
    ]
    .concat();
    let order = if little_endian { b"\x88" } else { b"\x89" }.to_vec();
    let machine = dict(&[("protocol_version", int(1001)), ("little_endian", order)]);
    [magic, int(1001), machine, object.to_vec()]
        .map(|value| pickle(&value))
        .concat()
}

/// A file of the old format: storages are keys, numbers of elements, and bytes.
pub fn old(object: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let mut file = old_start(object, true);
    let keys: Vec<Code> = storages.iter().map(|(key, ..)| text(key)).collect();
    file.extend(pickle(&list(&keys)));
    for (_, count, bytes) in storages {
        file.extend(count.to_le_bytes());
        file.extend(*bytes);
    }
    file
}

/// A file of the old format with four f32 in the storage "0".
pub fn old_floats(object: &[u8]) -> Vec<u8> {
    old(object, &[("0", 4, &floats())])
}

/// A zip archive of entries in the folder `x`.
pub fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("x/{name}"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A file of the zip format with four f32 in the storage "0".
pub fn zip_floats(object: &[u8]) -> Vec<u8> {
    archive(
        &[("data.pkl", &pickle(object)), ("data/0", &floats())],
        CompressionMethod::Stored,
    )
}
