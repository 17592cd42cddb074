//! Where the computation runs: CUDA found at run time ([`cuda`]), what networks compute in
//! ([`precision`]), memory ([`memory`]), and the numbers of tensors as slices ([`rows`]).

mod cuda;
mod memory;
mod precision;
mod rows;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::Device;

pub use cuda::{cuda_devices, name as cuda_name};
pub use memory::{
    OutOfMemory, available_memory, device_memory, holds, is_out_of_memory, keep_freed_memory,
    panic_text, within_memory,
};
pub use precision::{Precision, PrecisionChoice, precision};
pub use rows::{append_rows, filled_rows, numbers, send};

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

/// A device's name in messages.
pub fn describe(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}
