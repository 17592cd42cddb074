//! Learning from a batch.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, anyhow};
use tch::{Device, Tensor};

use super::Session;
use crate::data::loader::PixelBatch;
use crate::device::{OutOfMemory, is_out_of_memory};
use crate::method::Batch;
use crate::model::weights::named_variables;
use crate::monitor::duration;
use crate::profile::Part;
use crate::random::{Purpose, key};

/// Batches between two looks at the loss: each waits for the device.
const LOSS_EVERY: u64 = 50;
/// Batches after which the speed is known well enough to say how long the run will take.
const WARM_UP: u64 = 8;

/// What a part of a batch has come to.
struct Learned {
    /// A scalar on the device.
    loss: Tensor,
    images: u64,
    /// Correct predictions (a scalar on the device) among how many.
    correct: Option<(Tensor, i64)>,
}

/// What stands in the parameters' gradients.
#[derive(Default)]
struct Gradient {
    learned: Vec<Learned>,
    /// The modules that it is for: see [`Loss::trains`](crate::method::Loss).
    trains: &'static [&'static str],
}

impl Session<'_> {
    /// Learns from one batch.
    pub fn learn(&mut self, batch: PixelBatch) -> Result<()> {
        let profile = self.stage.profile;
        let batch = profile.time(Part::Copy, || Batch::new(batch, self.stage.network));
        let lr = self.lr(self.position.images as f64 / self.all_images() as f64);
        for phase in 0..self.method.phases() {
            let Gradient { learned, trains } = self.gradient_that_fits(&batch, phase)?;
            profile.time(Part::Optimiser, || self.optimiser.step(trains, lr));
            if phase == 0 {
                for part in learned {
                    self.meter.add(&part.loss, part.images, part.correct);
                }
            }
        }
        self.position.images += batch.rows.len() as u64;
        self.position.batches += 1;
        self.segment_batches += 1;
        self.segment_images += batch.rows.len() as u64;
        self.stage.monitor.advance(batch.rows.len() as u64);
        if self.position.batches.is_multiple_of(LOSS_EVERY) {
            self.check_loss()?;
        }
        if !self.forecast_given && self.segment_batches >= WARM_UP {
            self.forecast();
        }
        Ok(())
    }

    /// The gradient of a batch, in as many parts as the device's memory asks for: where a CUDA device
    /// has too little, they are doubled, from here on.
    fn gradient_that_fits(&mut self, batch: &Batch, phase: usize) -> Result<Gradient> {
        loop {
            // libtorch's exceptions arrive as panics; of what a failed attempt has computed nothing is
            // kept but batch norm's running statistics, which have seen a batch once more.
            let attempt = catch_unwind(AssertUnwindSafe(|| self.gradient(batch, phase)));
            let panic = match attempt {
                Ok(gradient) => return gradient,
                Err(panic) => panic,
            };
            let device = self.stage.network.device();
            let cuda = device != Device::Cpu;
            if !(cuda && is_out_of_memory(panic.as_ref()) && 4 * self.parts <= batch.rows.len()) {
                let (doing, cure) = (self.tenants(batch), "a smaller --size or --arch takes less");
                match OutOfMemory::of(panic.as_ref(), device, doing, cure) {
                    Some(error) => return Err(error.into()),
                    None => resume_unwind(panic),
                }
            }
            self.parts *= 2;
            self.stage.monitor.note(&format!(
                "a batch of {} does not fit: it is sent through in {} parts (--accumulate {})",
                batch.rows.len(),
                self.parts,
                self.parts
            ));
        }
    }

    /// What takes the device's memory in a batch, in words.
    fn tenants(&self, batch: &Batch) -> String {
        let numbers = |tensors: &[(String, Tensor)]| -> usize {
            tensors.iter().map(|(_, tensor)| tensor.numel()).sum()
        };
        let modules = self.method.modules();
        let modules = modules
            .iter()
            .map(|module| numbers(&named_variables(module.store)));
        let parameters =
            numbers(&named_variables(&self.stage.network.store)) + modules.sum::<usize>();
        let own = numbers(&self.method.state().tensors);
        format!(
            "where {} of {} images went through at a time; parameters with gradients and optimiser take \
             {:.1} GB, what the method keeps {:.1} GB",
            batch.rows.len().div_ceil(self.parts),
            batch.rows.len(),
            4e-9 * (2 * parameters + numbers(&self.optimiser.state())) as f64,
            4e-9 * own as f64,
        )
    }

    fn gradient(&mut self, batch: &Batch, phase: usize) -> Result<Gradient> {
        // Dropout draws from libtorch's generator: seeded for each batch, it needs no saving.
        let seed = key(
            self.stage.config.train.seed,
            Purpose::Step,
            self.position.batches,
            phase as u64,
        );
        tch::manual_seed(seed as i64);
        let profile = self.stage.profile;
        self.optimiser.zero_grad();
        let mut gradient = Gradient::default();
        let mut position = self.position;
        for part in batch.split(self.parts) {
            let context = self.stage.at(position);
            let forward = || self.method.loss(&context, &part, phase);
            let loss = profile.time(Part::Forward, forward)?;
            let images = part.rows.len() as u64;
            let share = images as f64 / batch.rows.len() as f64;
            let value = &loss.value * share;
            profile.time(Part::Backward, || {
                self.optimiser.backward(&value, loss.trains)
            });
            gradient.learned.push(Learned {
                loss: loss.value.detach(),
                images,
                correct: loss.correct,
            });
            gradient.trains = loss.trains;
            position.images += images;
        }
        Ok(gradient)
    }

    /// The learning rate at this share of the run.
    pub(super) fn lr(&self, progress: f64) -> f64 {
        let train = &self.stage.config.train;
        train.lr * train.schedule.factor(progress, train.epochs)
    }

    pub(super) fn check_loss(&self) -> Result<f64> {
        let loss = self.meter.mean_loss();
        if !loss.is_finite() {
            return Err(self.diverged());
        }
        Ok(loss)
    }

    pub(super) fn diverged(&self) -> anyhow::Error {
        anyhow!(
            "the loss is no longer a number in epoch {} (batch {}): the training diverged; \
             start again with a lower --lr (now {})",
            self.position.images.saturating_sub(1) / self.images_an_epoch() + 1,
            self.position.batches,
            self.stage.config.train.lr
        )
    }

    /// Says once how long the run will take.
    fn forecast(&mut self) {
        self.forecast_given = true;
        let an_image = self.segment_start.elapsed().as_secs_f64() / self.segment_images as f64;
        let left = (self.all_images() - self.position.images) as f64;
        let seconds = left * an_image + self.stage.config.train.epochs as f64 * self.seconds_a_step;
        if seconds > 90.0 {
            let epochs = (self.stage.config.train.epochs / 3).max(1);
            self.stage.monitor.note(&format!(
                "about {} to go at {:.0} images/s; shorter with `--epochs {epochs}` or a smaller --size",
                duration(seconds),
                1.0 / an_image,
            ));
        }
    }
}
