//! Files with random damage. Whatever comes out, it comes out soon, and no larger than it
//! may be.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;

use super::{fixtures, read};

static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    fixtures::all()
        .into_iter()
        .map(|(_, bytes, _)| bytes)
        .collect()
});

#[derive(Debug, Clone)]
enum Damage {
    Byte(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Bytes of the file, to elsewhere in it.
    Copy(Index, Index, usize),
    /// An integer in its place.
    Int(Index, u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        at().prop_map(Damage::Cut),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, b)| Damage::Insert(at, b)),
        (at(), 1usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), at(), 1usize..80).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        (
            at(),
            prop_oneof![Just(u64::MAX), Just(i64::MAX as u64), any::<u64>()]
        )
            .prop_map(|(at, int)| Damage::Int(at, int)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    let put = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
        let end = length.min(at + new.len());
        bytes[at..end].copy_from_slice(&new[..end - at]);
    };
    match damage {
        Damage::Byte(at, byte) => bytes[at.index(length)] = *byte,
        Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
        Damage::Cut(at) => bytes.truncate(at.index(length)),
        Damage::Insert(at, new) => {
            let at = at.index(length);
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Remove(at, count) => {
            let at = at.index(length);
            bytes.drain(at..length.min(at + count));
        }
        Damage::Copy(from, to, count) => {
            let from = from.index(length);
            let part = bytes[from..length.min(from + count)].to_vec();
            put(bytes, to.index(length), &part);
        }
        Damage::Int(at, int) => put(bytes, at.index(length), &int.to_le_bytes()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn damage_never_hurts(
        file in any::<Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let mut bytes = file.get(&FILES).clone();
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        let start = Instant::now();
        if let Ok(file) = read(&bytes) {
            let total: usize = file.tensors.values().map(|tensor| tensor.bytes.len()).sum();
            prop_assert!(total <= 16 * bytes.len() + (16 << 20));
        }
        prop_assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn noise_never_hurts(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        for start in [&b""[..], b"PK\x03\x04", b"\x80\x02"] {
            prop_assert!(read(&[start, &noise].concat()).is_err());
        }
    }
}
