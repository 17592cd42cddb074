//! What processes that hold a share of the rows each tell each other. Its only form today is one process that
//! holds them all.

use std::fmt::Debug;

use tch::{Device, Kind, Tensor};

/// The processes of a run, which all call the same of these in the same order. Each has some of the rows; they
/// live as long as the program.
pub trait Comm: Debug + Send + Sync {
    /// Which of them this is, from 0.
    fn rank(&self) -> usize;

    /// How many they are.
    fn size(&self) -> usize;

    /// Replaces numbers, as many in each process, by their sums over all, which are the same to the bit in each.
    fn sum(&self, numbers: &mut [f64]);

    /// The rows of all processes `[n, d]` (as many columns in each), those of rank 0 first.
    fn gather(&self, rows: &Tensor) -> Tensor;

    /// The sum of a number.
    fn sum_of(&self, number: f64) -> f64 {
        let mut numbers = [number];
        self.sum(&mut numbers);
        numbers[0]
    }

    /// Whether it holds in any of them.
    fn any(&self, here: bool) -> bool {
        self.sum_of(f64::from(u8::from(here))) > 0.0
    }

    /// The sums of counts.
    fn sum_counts(&self, counts: &[usize]) -> Vec<usize> {
        // Exact up to 2^53.
        let mut numbers: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        self.sum(&mut numbers);
        numbers.into_iter().map(|number| number as usize).collect()
    }

    /// The sum of a tensor, added up in f64, where it lies and in its kind.
    fn sum_tensor(&self, tensor: Tensor) -> Tensor {
        if self.size() == 1 {
            return tensor;
        }
        let here = tensor.to_device(Device::Cpu).to_kind(Kind::Double);
        let mut numbers = Vec::try_from(&here.contiguous().view(-1)).unwrap_or_default();
        self.sum(&mut numbers);
        Tensor::from_slice(&numbers)
            .view_as(&tensor)
            .to_kind(tensor.kind())
            .to_device(tensor.device())
    }
}

/// All rows are here.
#[derive(Debug)]
pub struct OneProcess;

impl Comm for OneProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _numbers: &mut [f64]) {}

    fn gather(&self, rows: &Tensor) -> Tensor {
        rows.shallow_clone()
    }
}
