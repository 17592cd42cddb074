//! Where the computation runs: CUDA found at run time, threads, memory.

use std::fmt;
use std::mem::MaybeUninit;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What the user asked for with `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("'{other}' is no device: auto, cpu, cuda or cuda:INDEX")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What the user asked for with `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 where the processor multiplies in it, else f32.
    #[default]
    Auto,
    F32,
    Bf16,
}

impl FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("'{other}' is no precision: auto, f32 or bf16")),
        }
    }
}

/// What networks compute in. Parameters, batch norm's statistics, features and losses are f32
/// either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    F32,
    Bf16,
}

impl Precision {
    /// The kind of a network's maps.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// Resolves `choice` for `device`. Nothing is timed: the same machine must give the same labels
/// each time.
pub fn precision(choice: PrecisionChoice, device: Device) -> Precision {
    match choice {
        PrecisionChoice::F32 => Precision::F32,
        PrecisionChoice::Bf16 => Precision::Bf16,
        PrecisionChoice::Auto if multiplies_bf16(device) => Precision::Bf16,
        PrecisionChoice::Auto => Precision::F32,
    }
}

/// Whether `device` multiplies bf16 faster than f32.
fn multiplies_bf16(device: Device) -> bool {
    match device {
        #[cfg(target_arch = "x86_64")]
        Device::Cpu => is_x86_feature_detected!("avx512bf16"),
        // From NVIDIA's Ampere on (compute capability 8).
        Device::Cuda(index) => compute_capability(index).is_some_and(|major| major >= 8),
        _ => false,
    }
}

/// First number of a CUDA device's compute capability, from the driver.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn compute_capability(index: usize) -> Option<i32> {
    use libloading::{Library, Symbol};
    use std::ffi::c_int;
    type Init = unsafe extern "C" fn(c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    /// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` of the driver's `cuda.h`.
    const MAJOR: c_int = 75;
    let device = c_int::try_from(index).ok()?;
    let mut major = 0;
    // SAFETY: this is the driver's library, which libtorch has loaded already where it has found a
    // device; the two functions have had these signatures since CUDA 2, and the second writes one
    // int to where it is told.
    let status = unsafe {
        let driver = Library::new("libcuda.so.1").ok()?;
        let init: Symbol<Init> = driver.get(b"cuInit\0").ok()?;
        let attribute: Symbol<Attribute> = driver.get(b"cuDeviceGetAttribute\0").ok()?;
        match init(0) {
            0 => attribute(&mut major, MAJOR, device),
            failed => failed,
        }
    };
    (status == 0).then_some(major)
}

#[cfg(not(target_os = "linux"))]
fn compute_capability(_index: usize) -> Option<i32> {
    None
}

/// No such device on this machine.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "no CUDA device: {0} (use `--device cpu`; `ssl-cluster doctor` shows what this machine offers)"
    )]
    NoCuda(String),
    #[error("there is no cuda:{asked}: this machine has {count} CUDA device(s), from cuda:0 on")]
    NoSuchCuda { asked: usize, count: usize },
}

/// Resolves `choice` on this machine. Loads libtorch's CUDA library at the first call, so call it
/// before the first tensor is made.
pub fn select(choice: DeviceChoice) -> Result<Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(if cuda_devices().unwrap_or(0) > 0 {
            Device::Cuda(0)
        } else {
            Device::Cpu
        }),
        DeviceChoice::Cuda(index) => match cuda_devices() {
            Err(reason) => Err(DeviceError::NoCuda(reason)),
            Ok(0) => Err(DeviceError::NoCuda("the driver reports none".into())),
            Ok(count) if index >= count => Err(DeviceError::NoSuchCuda {
                asked: index,
                count,
            }),
            Ok(_) => Ok(Device::Cuda(index)),
        },
    }
}

/// The number of CUDA devices, or the loader's reason why libtorch's CUDA library is not there.
pub fn cuda_devices() -> Result<usize, String> {
    load_cuda_library()?;
    Ok(usize::try_from(tch::Cuda::device_count()).unwrap_or(0))
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn load_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    use std::sync::OnceLock;

    // The binary links only the CPU library, so that it starts where there is no CUDA; loading the
    // CUDA library registers its kernels with libtorch. It must stay loaded for good.
    static CUDA: OnceLock<Result<Library, String>> = OnceLock::new();
    CUDA.get_or_init(|| {
        // SAFETY: the library is libtorch's own, made to be loaded beside the libtorch_cpu that
        // this process links; its initialisers only register kernels.
        unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) }.map_err(
            |error| {
                let reason = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                if reason.starts_with("libtorch_cuda.so: cannot open") {
                    return "this libtorch is for the CPU alone, \
                            `scripts/libtorch.sh --cuda` fetches the other"
                        .into();
                }
                reason
            },
        )
    })
    .as_ref()
    .map(|_| ())
    .map_err(Clone::clone)
}

#[cfg(not(target_os = "linux"))]
fn load_cuda_library() -> Result<(), String> {
    Err("CUDA is used on Linux only".into())
}

/// Tells glibc to keep freed memory: libtorch allocates and frees the same large blocks for every
/// batch, and giving them back to the system each time costs a fifth of a training epoch in page
/// faults (measured with conv4 at 28 px). Call it before the first tensor.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    const MIB: libc::c_int = 1 << 20;
    // SAFETY: mallopt only sets parameters of the allocator, and no other thread runs yet. An
    // unknown parameter or value is refused and changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1024 * MIB);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2047 * MIB);
        libc::mallopt(libc::M_TOP_PAD, 64 * MIB);
    }
}

/// Other allocators have settings of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() {}

/// Sets the threads of libtorch and of rayon alike. `None` means one for each core.
pub fn set_threads(threads: Option<usize>) -> usize {
    let threads = threads.unwrap_or_else(cores).max(1);
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    // A second call in one process (tests) finds the pool built already, which is harmless.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
    threads
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Memory that is available now, in bytes, where the system tells (Linux): of the machine, or of
/// the container where that has less.
pub fn available_memory() -> Option<u64> {
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let container = number("memory.max")
        .zip(number("memory.current"))
        .map(|(most, used)| most.saturating_sub(used));
    [machine_memory(), container].into_iter().flatten().min()
}

fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

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

/// Ends the process without running destructors: those of libtorch's static objects would run while
/// its threads still use them.
#[allow(unsafe_code)]
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` touches nothing of the process; the system takes back what it held.
    unsafe { libc::_exit(code) }
}

/// Waits until a CUDA device has done what it was told; a CPU has.
pub fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Whether a panic says that memory was not enough, of the device or the machine.
pub fn is_out_of_memory(panic: &(dyn std::any::Any + Send)) -> bool {
    let text = panic_text(panic);
    text.contains("out of memory") || text.contains("can't allocate memory")
}

/// What a panic says.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown")
}

/// A device's name in messages.
pub fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}
