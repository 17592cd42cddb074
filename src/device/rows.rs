//! The numbers of CPU tensors where they lie.

use std::mem::MaybeUninit;

use rayon::prelude::*;
use tch::{Device, Tensor};

/// The numbers of a contiguous CPU tensor of that kind, in their order in memory.
///
/// # Panics
/// When the tensor is another one.
#[allow(unsafe_code)]
pub fn numbers<T: tch::kind::Element>(tensor: &Tensor) -> &[T] {
    let fits = tensor.device() == Device::Cpu && tensor.kind() == T::KIND && tensor.is_contiguous();
    assert!(fits, "not a contiguous {:?} tensor on the CPU", T::KIND);
    match tensor.numel() {
        0 => &[],
        // SAFETY: the memory holds `count` numbers of this kind one after the other, for as long as
        // the tensor, which is borrowed.
        count => unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const T, count) },
    }
}

/// `numbers` as a tensor on `device`. A CUDA device fetches them from pinned memory: for others the program
/// would have to wait until the device has done all that it was told before.
pub fn send<T: tch::kind::Element>(numbers: &[T], device: Device) -> Tensor {
    let tensor = Tensor::from_slice(numbers);
    match device {
        Device::Cuda(_) => {
            tensor
                .internal_pin_memory(device)
                .to_device_(device, T::KIND, true, false)
        }
        _ => tensor,
    }
}

/// Bytes for which a task of its own pays.
const SMALLEST_TASK: usize = 1 << 16;

/// A CPU tensor of `shape` `[n, ...]` whose rows `fill` writes, in parallel: it is given the number of
/// a row and the row, all zeros. The numbers are written where they stay, which for a batch of
/// images of 224 pixels saves a copy of 150 MB.
#[allow(unsafe_code)]
pub fn filled_rows<T>(shape: &[i64], fill: impl Fn(usize, &mut [T]) + Sync) -> Tensor
where
    T: tch::kind::Element + Copy + Send,
{
    let tensor = Tensor::empty(shape, (T::KIND, Device::Cpu));
    let width: usize = shape[1..].iter().map(|&length| length as usize).product();
    let count = tensor.numel();
    if count == 0 {
        return tensor;
    }
    // SAFETY: the tensor is new, contiguous and known to nobody else; its memory holds `count`
    // numbers of this kind, which need not be initialised to be `MaybeUninit`.
    let places =
        unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut MaybeUninit<T>, count) };
    let least = (SMALLEST_TASK / (width * size_of::<T>())).max(1);
    fill_rows(places, width, least, fill);
    tensor
}

/// Appends `count` rows of `width` numbers that `fill` writes, in parallel: it is given the number of a
/// row and the row, all zeros. Where `numbers` has room, each thread is the first to touch the memory of
/// its rows: to zero hundreds of megabytes beforehand is work of one thread alone.
#[allow(unsafe_code)]
pub fn append_rows<T>(
    numbers: &mut Vec<T>,
    count: usize,
    width: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) where
    T: tch::kind::Element + Copy + Send,
{
    let length = count * width;
    numbers.reserve(length);
    fill_rows(&mut numbers.spare_capacity_mut()[..length], width, 1, fill);
    // SAFETY: `fill_rows` has initialised all of the `length` numbers behind the present ones.
    unsafe { numbers.set_len(numbers.len() + length) };
}

/// Initialises `places`, of which rows of `width` are zeroed and then given to `fill`, in tasks of at least
/// so many.
#[allow(unsafe_code)]
fn fill_rows<T>(
    places: &mut [MaybeUninit<T>],
    width: usize,
    least: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) where
    T: tch::kind::Element + Copy + Send,
{
    assert_eq!(places.len() % width, 0);
    places
        .par_chunks_exact_mut(width)
        .with_min_len(least)
        .enumerate()
        .for_each(|(row, places)| {
            places.fill(MaybeUninit::new(T::ZERO));
            // SAFETY: all of this row was initialised in the line before.
            let numbers = unsafe { &mut *(std::ptr::from_mut(places) as *mut [T]) };
            fill(row, numbers);
        });
}
