//! Counter-based random numbers: every draw is a function of (seed, purpose, counters), so a result
//! depends neither on the number of threads nor on what was drawn before, and a run resumed in the
//! middle draws what the uninterrupted run would have drawn.

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// What the numbers are for: two purposes never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    Augmentation = 1,
    Order,
    Clustering,
    Labels,
    Weights,
    Step,
}

/// The generator for `purpose` at the counters `(a, b)`, for example (epoch, image).
pub fn stream(seed: u64, purpose: Purpose, a: u64, b: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(key(seed, purpose, a, b))
}

/// The 64-bit key behind [`stream`], for generators that take a plain seed (libtorch's).
pub fn key(seed: u64, purpose: Purpose, a: u64, b: u64) -> u64 {
    [purpose as u64, a, b]
        .iter()
        .fold(mix(seed), |state, &word| mix(state ^ mix(word)))
}

/// A number that tells lists of texts apart.
pub fn fingerprint<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    texts.into_iter().fold(0, |state, text| {
        let of_text = text
            .bytes()
            .fold(state, |word, byte| mix(word ^ u64::from(byte)));
        mix(of_text ^ text.len() as u64)
    })
}

/// SplitMix64's step and finaliser (Steele, Lea, Flood, OOPSLA 2014): neighbouring inputs give
/// unrelated outputs.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
