//! What PyTorch 2 no longer writes, but older versions did.

use ssl_cluster::model::weights::torch_file::{Dtype, TorchFileError};
use zip::CompressionMethod;

use super::by_hand::*;
use super::{read, refused};

fn numbers(bytes: &[u8], name: &str) -> Vec<f32> {
    let file = read(bytes).unwrap();
    let tensor = &file.tensors[name];
    assert_eq!(tensor.dtype, Dtype::F32);
    let numbers = tensor.bytes.chunks_exact(4);
    numbers
        .map(|number| f32::from_le_bytes(number.try_into().unwrap()))
        .collect()
}

#[test]
fn python_2_writes_names_as_bytes_and_dictionaries_as_pairs() {
    let pairs = [
        list(&[short_string(b"w"), view(0, &[4], &[1])]),
        list(&[short_string(b"\xff"), view(0, &[4], &[1])]),
        tuple(&[short_string(b"n"), b"I10000000000\n".to_vec()]),
        list(&[short_string(b"yes"), b"I01\n".to_vec()]),
        list(&[
            short_string(b"old"),
            [b"(", &global("train", "Old")[..], b"o}b"].concat(),
        ]),
    ];
    let object = call(global("collections", "OrderedDict"), &[list(&pairs)]);
    let bytes = old_floats(&object);
    assert_eq!(numbers(&bytes, "w"), [0., 1., 2., 3.]);
    assert_eq!(read(&bytes).unwrap().tensors.len(), 1);
}

#[test]
fn a_default_dictionary_is_a_dictionary() {
    let empty = call(
        global("collections", "defaultdict"),
        &[global("builtins", "dict")],
    );
    let object = [empty, text("w"), view(1, &[2], &[1]), b"s".to_vec()].concat();
    assert_eq!(numbers(&zip_floats(&object), "w"), [1., 2.]);
}

#[test]
fn every_way_to_rebuild_a_tensor_is_known() {
    let first = layout(storage("FloatStorage", "0", 4), 2, &[2], &[1]);
    let plain = rebuild("", &first[..4]);
    let parameter = call(
        global("torch.nn.parameter", "Parameter"),
        std::slice::from_ref(&plain),
    );
    let untyped = storage("UntypedStorage", "0", 16);
    let mut third = layout(untyped, 2, &[2], &[1]);
    third.push(global("torch", "float32"));
    let of_type = [
        global("torch._utils", "_rebuild_tensor_v2"),
        global("torch", "Tensor"),
        tuple(&first),
        dict(&[]),
    ];
    let of_type = call(global("torch._tensor", "_rebuild_from_type_v2"), &of_type);
    let with_state = [plain.clone(), b"\x88".to_vec(), dict(&[]), dict(&[])];
    let with_state = call(
        global("torch._utils", "_rebuild_parameter_with_state"),
        &with_state,
    );
    let sized = {
        let mut arguments = first.clone();
        arguments[2] = call(global("torch", "Size"), &[ints(&[2])]);
        rebuild("_v2", &arguments)
    };
    let all = [
        plain,
        parameter,
        rebuild("_v3", &third),
        of_type,
        with_state,
        sized,
    ];
    for (position, object) in all.iter().enumerate() {
        let object = dict(&[("w", object.clone())]);
        assert_eq!(numbers(&zip_floats(&object), "w"), [2., 3.], "{position}");
    }
}

#[test]
fn metadata_of_a_tensor_makes_it_one_to_ignore() {
    for (metadata, count) in [(dict(&[]), 2), (dict(&[("neg", b"\x88".to_vec())]), 1)] {
        let mut arguments = layout(storage("FloatStorage", "0", 4), 0, &[4], &[1]);
        arguments.push(metadata);
        let object = dict(&[
            ("w", view(0, &[1], &[1])),
            ("n", rebuild("_v2", &arguments)),
        ]);
        assert_eq!(read(&zip_floats(&object)).unwrap().tensors.len(), count);
    }
}

#[test]
fn a_storage_may_be_part_of_another() {
    let part = |start: i64, count: i64| {
        let id = tuple(&[
            text("storage"),
            global("torch", "FloatStorage"),
            text("0"),
            text("cpu"),
            int(4),
            tuple(&[text("1"), int(start), int(count)]),
        ]);
        let storage = [&id[..], b"Q"].concat();
        dict(&[("w", rebuild("_v2", &layout(storage, 1, &[2], &[1])))])
    };
    assert_eq!(numbers(&old_floats(&part(1, 3)), "w"), [2., 3.]);
    refused(&old_floats(&part(1, 2)), "outside of its storage");
    refused(&old_floats(&part(2, 3)), "shorter than announced");
    refused(&old_floats(&part(-1, 3)), "not described as one");
}

#[test]
fn shared_containers_and_numbers_are_followed() {
    // The list is kept as 0, and recalled.
    let object = [
        &b"}(X\x01\x00\x00\x00a]q\x00"[..],
        &view(0, &[1], &[1]),
        b"a",
        &text("b"),
        b"h\x00u",
    ];
    let file = read(&zip_floats(&object.concat())).unwrap();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["a.0", "b.0"]);
}

#[test]
fn big_endian_files_and_other_formats_are_refused_with_the_cure() {
    let object = dict(&[("w", view(0, &[4], &[1]))]);
    let order = |order: &[u8]| {
        let pickle = pickle(&object);
        let entries = [
            ("byteorder", order),
            ("data.pkl", &pickle),
            ("data/0", &floats()),
        ];
        archive(&entries, CompressionMethod::Stored)
    };
    assert_eq!(numbers(&order(b"little"), "w").len(), 4);
    refused(&order(b"big"), "big-endian");
    let mut file = old_start(&object, false);
    file.extend(pickle(&list(&[])));
    refused(&file, "big-endian");

    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    refused(&tar, "before 0.1.10");
    refused(
        b"\x08\x00\x00\x00\x00\x00\x00\x00{}",
        "neither a zip archive nor a pickle",
    );
    refused(b"", "neither a zip archive nor a pickle");
    refused(&pickle(&object), "without PyTorch's magic number");
    let other = archive(&[("weights.npy", b"..")], CompressionMethod::Stored);
    refused(&other, "without data.pkl");
    let script = archive(
        &[("data.pkl", b""), ("constants.pkl", b"")],
        CompressionMethod::Stored,
    );
    assert!(matches!(read(&script), Err(TorchFileError::TorchScript)));
}
