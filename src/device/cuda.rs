//! NVIDIA's driver, and libtorch's CUDA library beside the CPU library that is linked.

/// The number of CUDA devices, or the loader's reason why libtorch's CUDA library is not there.
pub fn cuda_devices() -> Result<usize, String> {
    load_cuda_library()?;
    Ok(usize::try_from(tch::Cuda::device_count()).unwrap_or(0))
}

/// First number of a device's compute capability.
pub(super) fn compute_capability(index: usize) -> Option<i32> {
    /// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` of the driver's `cuda.h`.
    const MAJOR: i32 = 75;
    driver::attribute(index, MAJOR)
}

/// All of a device's memory, in bytes.
pub(super) fn memory(index: usize) -> Option<u64> {
    driver::memory(index)
}

/// A device's name.
pub fn name(index: usize) -> Option<String> {
    driver::name(index)
}

/// What libtorch does not tell.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod driver {
    use std::ffi::{CStr, c_char, c_int};

    use libloading::{Library, Symbol};

    type Init = unsafe extern "C" fn(c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;

    /// Asks the driver's library `what`; its status is 0 where it knows.
    fn ask(what: impl FnOnce(&Library) -> Option<c_int>) -> Option<()> {
        // SAFETY: this is the driver's library, which libtorch has loaded already where it has found a
        // device, and `cuInit` has had this signature since CUDA 2.
        unsafe {
            let driver = Library::new("libcuda.so.1").ok()?;
            let init: Symbol<Init> = driver.get(b"cuInit\0").ok()?;
            if init(0) != 0 {
                return None;
            }
            (what(&driver)? == 0).then_some(())
        }
    }

    pub fn attribute(index: usize, which: c_int) -> Option<i32> {
        let device = c_int::try_from(index).ok()?;
        let mut value = 0;
        ask(|driver| {
            // SAFETY: the function has had this signature since CUDA 2 and writes one int to where it
            // is told.
            unsafe {
                let get: Symbol<Attribute> = driver.get(b"cuDeviceGetAttribute\0").ok()?;
                Some(get(&mut value, which, device))
            }
        })?;
        Some(value)
    }

    pub fn memory(index: usize) -> Option<u64> {
        let device = c_int::try_from(index).ok()?;
        let mut bytes = 0;
        ask(|driver| {
            // SAFETY: the function has had this signature since CUDA 3.2 and writes one size_t to
            // where it is told.
            unsafe {
                let get: Symbol<Memory> = driver.get(b"cuDeviceTotalMem_v2\0").ok()?;
                Some(get(&mut bytes, device))
            }
        })?;
        Some(bytes as u64)
    }

    pub fn name(index: usize) -> Option<String> {
        let device = c_int::try_from(index).ok()?;
        let mut text: [c_char; 128] = [0; 128];
        ask(|driver| {
            // SAFETY: the function has had this signature since CUDA 2 and writes at most so many
            // bytes, the last of them zero, to where it is told.
            unsafe {
                let get: Symbol<Name> = driver.get(b"cuDeviceGetName\0").ok()?;
                Some(get(text.as_mut_ptr(), text.len() as c_int, device))
            }
        })?;
        // SAFETY: the array was all zeros, and its last byte still is: the driver ends what it writes.
        let name = unsafe { CStr::from_ptr(text.as_ptr()) };
        Some(name.to_string_lossy().into_owned())
    }
}

#[cfg(not(target_os = "linux"))]
mod driver {
    pub fn attribute(_: usize, _: i32) -> Option<i32> {
        None
    }

    pub fn memory(_: usize) -> Option<u64> {
        None
    }

    pub fn name(_: usize) -> Option<String> {
        None
    }
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
