//! Memory: what there is, how the allocator keeps it, and what is said where it does not suffice.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tch::Device;

use super::{cuda, describe};

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

/// Whether a panic says that memory was not enough, of the device or the machine.
pub fn is_out_of_memory(panic: &(dyn Any + Send)) -> bool {
    let text = panic_text(panic);
    text.contains("out of memory") || text.contains("can't allocate memory")
}

/// What a panic says.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown")
}

/// All the memory of a device that has its own, in bytes, where the driver tells.
pub fn device_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => cuda::memory(index),
        _ => None,
    }
}

/// The share of a device's own memory up to which features lie there: a bank of them beside, and half is
/// left for the network.
const FEATURE_SHARE: f64 = 0.3;

/// Whether features of so many bytes should lie on `device`; always where it has no memory of its own, or
/// nobody tells how much.
pub fn holds(device: Device, bytes: f64) -> bool {
    device_memory(device).is_none_or(|memory| bytes <= FEATURE_SHARE * memory as f64)
}

/// Work that asked for more memory than there is.
#[derive(Debug, thiserror::Error)]
#[error("out of memory on {device} {doing}{figures}: {cure}")]
pub struct OutOfMemory {
    device: String,
    doing: String,
    /// What libtorch says was asked for, and what there is.
    figures: String,
    cure: String,
}

impl OutOfMemory {
    /// Where `panic` says so of work that was `doing` this ("in a batch of 256"); `cure` is what the user
    /// can do.
    pub fn of(
        panic: &(dyn Any + Send),
        device: Device,
        doing: impl Into<String>,
        cure: impl Into<String>,
    ) -> Option<Self> {
        is_out_of_memory(panic).then(|| Self {
            device: describe(device),
            doing: doing.into(),
            figures: figures(panic_text(panic)),
            cure: cure.into(),
        })
    }
}

/// ` (12.00 GiB more were asked for; of 79.18 GiB 3.21 GiB were free)`, after libtorch's words.
fn figures(text: &str) -> String {
    let between = |start: &str, end: &str| {
        let rest = text.split_once(start)?.1;
        Some(rest.split_once(end)?.0.trim())
    };
    let asked = between("Tried to allocate ", "B").map(|size| format!("{size}B"));
    let all = between("total capacity of ", " of which");
    let free = between(" of which ", " is free");
    match (asked, all, free) {
        (Some(asked), Some(all), Some(free)) => {
            format!(" ({asked} more were asked for; of {all}, {free} were free)")
        }
        (Some(asked), ..) => format!(" ({asked} more were asked for)"),
        _ => String::new(),
    }
}

/// Does `work`. libtorch's failure for want of memory, which arrives as a panic, becomes an error that says
/// what was `doing` and what would help.
///
/// # Errors
/// [`OutOfMemory`].
pub fn within_memory<T>(
    device: Device,
    doing: impl FnOnce() -> String,
    cure: &str,
    work: impl FnOnce() -> T,
) -> Result<T, OutOfMemory> {
    catch_unwind(AssertUnwindSafe(work)).or_else(|panic| {
        match OutOfMemory::of(panic.as_ref(), device, doing(), cure) {
            Some(error) => Err(error),
            None => resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{OutOfMemory, within_memory};
    use tch::Device;

    const TEXT: &str = "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of \
                        79.18 GiB of which 3.21 GiB is free. Process 7 has 75.00 GiB memory in use.";

    #[test]
    fn the_figures_of_libtorch_are_told_with_the_cure() {
        let panic: Box<dyn std::any::Any + Send> = Box::new(TEXT.to_string());
        let cure = "lower --batch-size";
        let error = OutOfMemory::of(panic.as_ref(), Device::Cuda(0), "in a batch of 9", cure);
        assert_eq!(
            error.unwrap().to_string(),
            "out of memory on cuda:0 in a batch of 9 (20.50 GiB more were asked for; of 79.18 GiB, \
             3.21 GiB were free): lower --batch-size"
        );
    }

    #[test]
    fn another_panic_goes_on() {
        let work = || -> () { panic!("something else") };
        let caught = std::panic::catch_unwind(|| within_memory(Device::Cpu, String::new, "", work));
        assert!(caught.is_err());
    }
}
