//! Room for features, which may be larger than memory.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::data::cache::store;
use crate::device;

/// The share of the available memory from which on a file takes its place.
const MEMORY_SHARE: f64 = 0.5;

/// An uninitialised `[rows, columns] f32` tensor for features that are computed on `device`: there where
/// they take little of its memory, else on the CPU. Where it would take more than half of the available
/// memory there, it lies in a file of the cache directory that has no name any more, so that the
/// system may write parts out; where that cannot be, in memory all the same.
pub fn room(shape: [i64; 2], device: Device) -> Tensor {
    let bytes = 4.0 * (shape[0] * shape[1]) as f64;
    if device != Device::Cpu && device::holds(device, bytes) {
        return Tensor::empty(shape, (Kind::Float, device));
    }
    let large =
        device::available_memory().is_some_and(|available| bytes > MEMORY_SHARE * available as f64);
    let folder = large.then(store::directory).flatten();
    folder
        .and_then(|folder| in_file(shape, &folder))
        .unwrap_or_else(|| Tensor::empty(shape, (Kind::Float, Device::Cpu)))
}

/// The same in a file of `folder`, which goes when the tensor does; `None` where there is no room.
fn in_file(shape: [i64; 2], folder: &Path) -> Option<Tensor> {
    std::fs::create_dir_all(folder).ok()?;
    let file = tempfile::NamedTempFile::new_in(folder).ok()?;
    let numbers = shape[0] * shape[1];
    allocate(&file, 4 * numbers as u64)?;
    let options = (Kind::Float, Device::Cpu);
    let all = Tensor::f_from_file(file.path().to_str()?, true, numbers, options).ok()?;
    Some(all.view(shape))
}

/// Makes a file so large that writing to its mapping cannot fail for want of space.
#[cfg(target_os = "linux")]
fn allocate(file: &tempfile::NamedTempFile, bytes: u64) -> Option<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
    // Some file systems would fill the disk before they give up.
    let disk = fstatvfs(file).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes > free / 2 {
        return None;
    }
    fallocate(file, FallocateFlags::empty(), 0, bytes).ok()
}

/// Elsewhere memory is the safer place.
#[cfg(not(target_os = "linux"))]
fn allocate(_: &tempfile::NamedTempFile, _: u64) -> Option<()> {
    None
}

#[cfg(test)]
mod tests {
    use super::{in_file, room};
    use tch::{Device, Kind, Tensor};

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_written_to_a_file_without_a_name_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let expected = Tensor::arange(30_000, (Kind::Float, Device::Cpu)).view([300, 100]);
        let tensor = in_file([300, 100], folder.path()).unwrap();
        tensor.narrow(0, 0, 300).copy_(&expected);
        assert_eq!(tensor, expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_disk_is_that_large() {
        let folder = tempfile::tempdir().unwrap();
        assert!(in_file([1 << 40, 1 << 10], folder.path()).is_none());
        assert_eq!(room([3, 4], Device::Cpu).size(), [3, 4]);
    }
}
