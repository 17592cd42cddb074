//! Where the time of a run goes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use tch::Device;

use crate::device::wait_for;

/// A kind of work. What is done inside another one counts there alone: the views that are made for a
/// forward pass are [`Part::Augment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Reading and decoding the images, before the first epoch.
    Decode,
    /// For the next batch.
    Wait,
    /// Batches to the device.
    Copy,
    /// Making views.
    Augment,
    Forward,
    Backward,
    Optimiser,
    /// The network's forward passes for features.
    Extract,
    /// The rest of a label step.
    Cluster,
    /// Labels, metrics and checkpoints.
    Write,
}

impl Part {
    /// The key in `metrics.jsonl` and the word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Wait => "wait",
            Self::Copy => "copy",
            Self::Augment => "augment",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Optimiser => "optimiser",
            Self::Extract => "extract",
            Self::Cluster => "cluster",
            Self::Write => "write",
        }
    }
}

/// Seconds by part, where they are asked for. Each part then waits for the device, which costs some of
/// the speed on CUDA.
#[derive(Debug)]
pub struct Profile {
    device: Option<Device>,
    times: RefCell<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// Since the last look, and over the run.
    new: BTreeMap<Part, f64>,
    all: BTreeMap<Part, f64>,
    /// Seconds of what was done inside the part that runs.
    inner: f64,
}

impl Profile {
    /// One that measures nothing and costs nothing.
    pub fn off() -> Self {
        Self {
            device: None,
            times: RefCell::default(),
        }
    }

    /// One that measures work on `device`.
    pub fn of(device: Device) -> Self {
        Self {
            device: Some(device),
            times: RefCell::default(),
        }
    }

    /// Does `work`, which is of this kind.
    pub fn time<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let Some(device) = self.device else {
            return work();
        };
        wait_for(device);
        let outer = std::mem::take(&mut self.times.borrow_mut().inner);
        let start = Instant::now();
        let result = work();
        wait_for(device);
        let seconds = start.elapsed().as_secs_f64();
        let mut times = self.times.borrow_mut();
        let own = seconds - times.inner;
        *times.new.entry(part).or_default() += own;
        times.inner = outer + seconds;
        result
    }

    /// Seconds of each part since the last call; `None` where nothing is measured.
    pub fn take(&self) -> Option<BTreeMap<String, f64>> {
        self.device?;
        let mut times = self.times.borrow_mut();
        let new = std::mem::take(&mut times.new);
        for (part, seconds) in &new {
            *times.all.entry(*part).or_default() += seconds;
        }
        let named = new.into_iter();
        Some(named.map(|(part, s)| (part.name().into(), s)).collect())
    }

    /// Seconds of each part over the run, in the order of the work; empty where nothing is measured.
    pub fn total(&self) -> Vec<(Part, f64)> {
        self.take();
        let all = &self.times.borrow().all;
        all.iter()
            .map(|(part, seconds)| (*part, *seconds))
            .collect()
    }
}
