//! Files made to harm.

use ssl_cluster::model::weights::torch_file::TorchFileError;
use zip::CompressionMethod;

use super::by_hand::*;
use super::{read, refused};

fn weight() -> Code {
    view(0, &[4], &[1])
}

#[test]
fn code_is_named_but_never_run() {
    let system = call(global("os", "system"), &[text("touch /tmp/harm")]);
    refused(
        &zip_floats(&system),
        "no readable tensors, but \"os.system\" (Python's",
    );
    refused(
        &old(&list(std::slice::from_ref(&system)), &[]),
        "\"os.system\"",
    );

    // Its result is called, built, appended to and filled like a dictionary.
    let used = [
        &system[..],
        b")R}b",
        &weight(),
        b"a",
        &text("w"),
        &weight(),
        b"s",
    ]
    .concat();
    refused(&zip_floats(&used), "\"os.system\"");
    let object = dict(&[("a", used), ("w", weight())]);
    let file = read(&zip_floats(&object)).unwrap();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["w"]);

    let terminal = global("os\u{1b}[2J", "system");
    refused(&zip_floats(&terminal), r#""os\u{1b}[2J.system""#);
}

#[test]
fn nesting_ends() {
    let nested = |depth: usize| {
        let mut object = weight();
        for _ in 0..depth {
            object = list(&[object]);
        }
        zip_floats(&object)
    };
    assert_eq!(read(&nested(64)).unwrap().tensors.len(), 1);
    refused(&nested(65), "more than 64 containers in each other");
    let chain = [&weight()[..], &b"\x85".repeat(1_000_000)].concat();
    refused(&zip_floats(&chain), "more than 64 containers in each other");

    for cycle in [
        &b"]q\x00h\x00a"[..],
        b"}q\x00K\x01h\x00s",
        b"]q\x00(h\x00ta",
    ] {
        let object = dict(&[("cycle", cycle.to_vec()), ("w", weight())]);
        refused(&zip_floats(&object), "holds itself");
    }
}

#[test]
fn a_container_that_doubles_forty_times_ends() {
    let mut object = b"]q\x00".to_vec();
    for place in 0..40u8 {
        object.extend([b']', b'q', place + 1, b'(', b'h', place, b'h', place, b'e']);
    }
    refused(&zip_floats(&object), "more than 4194304 values");
}

#[test]
fn operations_end() {
    refused(
        &zip_floats(&b"N".repeat(1 << 22)),
        "more than 4194304 pickle operations",
    );
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    let most = u64::MAX.to_le_bytes();
    for opcode in [0x8du8, 0x8e, 0x96] {
        refused(&zip_floats(&[&[opcode], &most[..]].concat()), "cut short");
        let signed = (i64::MAX as u64).to_le_bytes();
        refused(&old_floats(&[&[opcode], &signed[..]].concat()), "cut short");
    }
    for opcode in [b'X', b'T', b'B', 0x8b] {
        refused(&zip_floats(&[opcode, 0xff, 0xff, 0xff, 0xff]), "cut short");
    }
    let endless = [b"c", &b"m".repeat(5_000)[..]].concat();
    refused(&zip_floats(&endless), "has no end");
}

#[test]
fn every_opcode_takes_any_stack() {
    let stacks: [&[u8]; 9] = [
        b"",
        b"(",
        b"N",
        b"NN",
        b"NNN",
        b"(N",
        b"}N",
        b"]NN",
        b"cos\nsystem\nN",
    ];
    let operands: [&[u8]; 4] = [
        b"",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\n\n",
        b"\xff\xff\xff\xff",
    ];
    for opcode in 0..=u8::MAX {
        for stack in stacks {
            for operand in operands {
                let object = [stack, &[opcode], operand].concat();
                assert!(read(&zip_floats(&object)).is_err(), "{object:?}");
            }
        }
    }
    for opcode in [0x82u8, 0x97, 0x98, b'P'] {
        refused(&zip_floats(&[opcode]), "never writes the pickle opcode");
    }
    refused(&zip_floats(b"\x80\x06"), "protocol does not exist");
    refused(&zip_floats(b"h\x07"), "never kept");
    refused(&zip_floats(b"}(NNNu"), "has no value");
    refused(&zip_floats(b"NNa"), "no list");
    refused(&zip_floats(b"N)R"), "no function");
}

#[test]
fn functions_without_their_arguments_are_refused() {
    for (module, name) in [
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._tensor", "_rebuild_from_type_v2"),
    ] {
        let function = global(module, name);
        let missing = format!("{module}.{name} lacks arguments");
        refused(&zip_floats(&[&function[..], b"NR"].concat()), &missing);
        if name != "OrderedDict" {
            refused(&zip_floats(&call(function.clone(), &[])), &missing);
        }
        if name.contains("tensor") {
            let arguments = [none(), none(), none(), none(), none(), none()];
            refused(&zip_floats(&call(function, &arguments)), &missing);
        }
    }
    let of_type = global("torch._tensor", "_rebuild_from_type_v2");
    let of_itself = call(
        of_type.clone(),
        &[of_type, none(), tuple(&[none()]), none()],
    );
    refused(&zip_floats(&of_itself), "lacks arguments");
}

#[test]
fn views_stay_in_their_storage() {
    let most = i64::MAX;
    for (offset, shape, strides, part) in [
        (0, &[5][..], &[1][..], "outside of its storage"),
        (4, &[1], &[1], "outside of its storage"),
        (0, &[2, 2], &[1, 3], "outside of its storage"),
        (most, &[1], &[1], "outside of its storage"),
        (1, &[2], &[most], "outside of its storage"),
        (0, &[3, 3], &[most / 2, most / 2], "outside of its storage"),
        (-1, &[1], &[1], "offset is no position"),
        (0, &[-1], &[1], "shape is no tuple"),
        (0, &[1], &[-1], "strides are no tuple"),
        (0, &[1; 65], &[1; 65], "shape is no tuple"),
        (0, &[1, 1], &[1], "differ in length"),
        (0, &[most, most], &[0, 0], "shape is too large"),
        (0, &[0, most, most], &[0, 0, 0], "shape is too large"),
        (0, &[1 << 61], &[0], "shape is too large"),
    ] {
        let object = dict(&[("w", view(offset, shape, strides))]);
        refused(&zip_floats(&object), part);
        refused(&old_floats(&object), part);
    }
    for (offset, shape, strides) in [
        (most, &[0][..], &[most][..]),
        (3, &[1, 1, 1], &[most, most, most]),
        (0, &[2, 0, 2], &[most, most, most]),
        (0, &[1; 64], &[most; 64]),
    ] {
        let object = dict(&[("w", view(offset, shape, strides))]);
        let file = read(&zip_floats(&object)).unwrap();
        let count: i64 = shape.iter().product();
        assert_eq!(file.tensors["w"].bytes.len(), count as usize * 4);
    }
}

#[test]
fn repeated_numbers_do_not_fill_the_memory() {
    let huge = dict(&[("w", view(0, &[1 << 40], &[0]))]);
    refused(&zip_floats(&huge), "many times the file's own size");
    let large = view(0, &[1 << 20], &[0]);
    let few = zip_floats(&list(&vec![large.clone(); 4]));
    assert_eq!(read(&few).unwrap().tensors.len(), 4);
    let many = zip_floats(&list(&vec![large; 8]));
    refused(&many, "many times the file's own size");
}

#[test]
fn what_is_recalled_a_million_times_is_not_copied() {
    let calls = 300_000;
    // The pairs are kept as 0, the class as 1.
    let pairs = [b"]q\x00(", &b"(NNt".repeat(calls / 2)[..], b"e0"].concat();
    let class = [&global("collections", "OrderedDict")[..], b"q\x010"].concat();
    let object = [&pairs[..], &class, &b"h\x01h\x00\x85R0".repeat(calls), b"N"].concat();
    refused(&zip_floats(&object), "no readable tensors");

    let long = text(&"n".repeat(1_000));
    let id = [
        text("storage"),
        global("torch", "FloatStorage"),
        long.clone(),
        none(),
        int(4),
    ];
    let object = [&tuple(&id)[..], b"q\x000", &b"h\x00Q".repeat(calls), b"N"].concat();
    refused(&zip_floats(&object), "no readable tensors");
    let object = [&long[..], b"q\x000", &b"h\x00h\x00\x93".repeat(calls)].concat();
    refused(
        &zip_floats(&object),
        "more than 256 bytes in the name of a class",
    );
}

#[test]
fn too_many_tensors_and_too_long_names_are_refused() {
    let one = [
        &b"]("[..],
        &weight(),
        b"q\x07",
        &b"h\x07".repeat(1 << 17),
        b"e",
    ]
    .concat();
    refused(&zip_floats(&one), "more than 131072 tensors");
    let long = "n".repeat(1_000);
    let object = dict(&[(&long, dict(&[(&long, weight())]))]);
    refused(&zip_floats(&object), "more than 1024 bytes in a name");
    let twice = dict(&[("a.b", weight()), ("a", dict(&[("b", weight())]))]);
    refused(
        &zip_floats(&twice),
        "\"a.b\" is damaged: another has the same name",
    );
}

#[test]
fn storages_are_as_large_as_announced() {
    let of = |class: &str, key: &str, count: i64| {
        dict(&[(
            "w",
            rebuild("_v2", &layout(storage(class, key, count), 0, &[1], &[1])),
        )])
    };
    let cases = [
        (of("FloatStorage", "0", 5), "shorter than announced"),
        (of("FloatStorage", "0", i64::MAX), "outside of its storage"),
        (of("DoubleStorage", "0", 4), "shorter than announced"),
        (of("FloatStorage", "1", 4), "not in the file"),
        (of("FloatStorage", "0", -1), "not described as one"),
        (
            of("OddStorage", "0", 4),
            "PyTorch has no \"torch.OddStorage\"",
        ),
        (b"NQ".to_vec(), "not described as one"),
        (b")Q".to_vec(), "not described as one"),
        (
            of("ComplexFloatStorage", "0", 1),
            "no readable tensors, but \"torch.ComplexFloatStorage\"",
        ),
        (
            of("UntypedStorage", "0", 1),
            "no readable tensors, but \"torch.UntypedStorage\"",
        ),
    ];
    for (object, part) in cases {
        refused(&zip_floats(&object), part);
    }

    let object = of("FloatStorage", "0", 4);
    for count in [5, i64::MAX, -1] {
        refused(&old(&object, &[("0", count, &floats())]), "cut short");
    }
    refused(
        &old(&object, &[("0", 3, &floats())]),
        "shorter than announced",
    );
    refused(&old(&object, &[("1", 4, &floats())]), "nothing uses");
    let two = list(&[of("FloatStorage", "0", 4), of("LongStorage", "0", 2)]);
    refused(&old_floats(&two), "two types");
    let mut no_list = old_start(&object, true);
    no_list.extend(pickle(b"N"));
    refused(&no_list, "no list of storages");
}

#[test]
fn entries_of_the_archive_neither_overlap_nor_are_packed() {
    let object = pickle(&dict(&[("w", weight())]));
    let entries = [
        ("data.pkl", &object[..]),
        ("data/0", &floats()),
        ("data/1", b"1234567890123456"),
    ];
    let good = archive(&entries, CompressionMethod::Stored);
    assert!(read(&good).is_ok());

    let find = |part: &[u8], nth: usize| {
        let places = (0..good.len()).filter(|&at| good[at..].starts_with(part));
        places.collect::<Vec<_>>()[nth]
    };
    let central = find(b"PK\x01\x02", 1);
    let patched = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    // The entry's place in the file, then its size.
    let place_of_next = find(b"PK\x03\x04", 2) as u32;
    refused(&patched(central + 42, place_of_next), "overlap");
    refused(&patched(central + 42, 7), "zip archive is damaged");
    refused(
        &patched(central + 42, u32::MAX - 1),
        "zip archive is damaged",
    );
    refused(&patched(central + 20, 80), "overlap");
    refused(&patched(central + 20, u32::MAX - 1), "overlap");
    // Encryption, and compression by deflate.
    refused(&patched(central + 8, 1), "compressed or encrypted");
    refused(&patched(central + 10, 8), "compressed or encrypted");

    let mut twice = good.clone();
    let name = find(b"x/data/1", 1);
    twice[name + 7] = b'0';
    refused(&twice, "overlap");
    let error = read(&good[..good.len() - 30]).unwrap_err();
    assert!(matches!(error, TorchFileError::Zip(_)));
}
