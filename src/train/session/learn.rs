//! Learning from a batch.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, anyhow};
use tch::{Device, Tensor};

use super::Session;
use crate::data::loader::PixelBatch;
use crate::device::{OutOfMemory, is_out_of_memory};
use crate::method::{Archive, BACKBONE, Batch, Kept, Loss, State, Update};
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
    images: u64,
    /// Without its graph.
    loss: Loss,
    kept: Kept,
}

impl Session<'_> {
    /// Learns from one batch.
    pub fn learn(&mut self, batch: PixelBatch) -> Result<()> {
        let profile = self.env.profile;
        let batch = profile.time(Part::Copy, || Batch::new(batch, self.env.network));
        let lr = self.lr(self.position.images as f64 / self.all_images() as f64);
        for (number, update) in self.method.updates(self.position).iter().enumerate() {
            let modules = self.modules_of(update);
            let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
            let learned = self.gradient_that_fits(&batch, number, &modules)?;
            profile.time(Part::Optimiser, || self.optimiser.step(&modules, lr));
            let mut kept = Vec::new();
            for part in learned {
                self.meter.add(number, &part.loss, part.images);
                kept.push(part.kept);
            }
            let context = self.env.at(self.position);
            self.method.after_update(&context, number, kept)?;
        }
        self.position.images += batch.indices.len() as u64;
        self.position.batches += 1;
        self.segment_batches += 1;
        self.segment_images += batch.indices.len() as u64;
        self.env.monitor.advance(batch.indices.len() as u64);
        if self.position.batches.is_multiple_of(LOSS_EVERY) {
            self.check_loss()?;
        }
        if !self.forecast_given && self.segment_batches >= WARM_UP {
            self.forecast();
        }
        Ok(())
    }

    /// The modules that an update trains here: those that it names, or all; without those that are still
    /// frozen.
    fn modules_of(&self, update: &Update) -> Vec<String> {
        let epoch = self.epoch();
        let backbone = (BACKBONE.to_string(), self.method.backbone());
        let own = self.method.modules();
        let own = own
            .iter()
            .map(|module| (module.name.clone(), module.training));
        std::iter::once(backbone)
            .chain(own)
            .filter(|(_, training)| training.frozen_for <= epoch)
            .map(|(name, _)| name)
            .filter(|name| update.modules.is_empty() || update.modules.contains(name))
            .collect()
    }

    /// The gradient of a batch, in as many parts as the device's memory asks for: where a CUDA device
    /// has too little, they are doubled, from here on.
    fn gradient_that_fits(
        &mut self,
        batch: &Batch,
        update: usize,
        modules: &[&str],
    ) -> Result<Vec<Learned>> {
        loop {
            // libtorch's exceptions arrive as panics; of what a failed attempt has computed nothing is
            // kept but batch norm's running statistics, which have seen a batch once more.
            let attempt = catch_unwind(AssertUnwindSafe(|| self.gradient(batch, update, modules)));
            let panic = match attempt {
                Ok(gradient) => return gradient,
                Err(panic) => panic,
            };
            let device = self.env.network.device();
            let cuda = device != Device::Cpu;
            if !(cuda
                && is_out_of_memory(panic.as_ref())
                && 4 * self.micro_batches <= batch.indices.len())
            {
                let (doing, cure) = (self.tenants(batch), "a smaller --size or --arch takes less");
                match OutOfMemory::of(panic.as_ref(), device, doing, cure) {
                    Some(error) => return Err(error.into()),
                    None => resume_unwind(panic),
                }
            }
            self.micro_batches *= 2;
            self.env.monitor.note(&format!(
                "a batch of {} does not fit: it is sent through in {} parts (--accumulate {})",
                batch.indices.len(),
                self.micro_batches,
                self.micro_batches
            ));
        }
    }

    /// What takes the device's memory in a batch, in words.
    fn tenants(&mut self, batch: &Batch) -> String {
        let numbers = |tensors: &[(String, Tensor)]| -> usize {
            tensors.iter().map(|(_, tensor)| tensor.numel()).sum()
        };
        let modules = self.method.modules();
        let modules = modules
            .iter()
            .map(|module| numbers(&named_variables(module.store)));
        let parameters =
            numbers(&named_variables(&self.env.network.store)) + modules.sum::<usize>();
        let mut state = State::default();
        // What cannot be said is left out of the message.
        let _ = self.method.archive(&mut Archive::saving(&mut state));
        let own: usize = state.tensors.values().map(Tensor::numel).sum();
        format!(
            "where {} of {} images went through at a time; parameters with gradients and optimiser take \
             {:.1} GB, what the method keeps {:.1} GB",
            batch.indices.len().div_ceil(self.micro_batches),
            batch.indices.len(),
            4e-9 * (2 * parameters + numbers(&self.optimiser.state())) as f64,
            4e-9 * own as f64,
        )
    }

    /// Leaves the gradient of a batch in the optimiser.
    fn gradient(&mut self, batch: &Batch, update: usize, modules: &[&str]) -> Result<Vec<Learned>> {
        // Dropout draws from libtorch's generator: seeded for each batch, it needs no saving.
        let seed = key(
            self.env.config.train.seed,
            Purpose::Step,
            self.position.batches,
            update as u64,
        );
        tch::manual_seed(seed as i64);
        let profile = self.env.profile;
        self.optimiser.zero_grad();
        let mut learned = Vec::new();
        let mut position = self.position;
        for part in batch.split(self.micro_batches) {
            let context = self.env.at(position);
            let forward = || self.method.loss(&context, &part, update);
            let mut loss = profile.time(Part::Forward, forward)?;
            let images = part.indices.len() as u64;
            let share = images as f64 / batch.indices.len() as f64;
            let value = &loss.value * share;
            profile.time(Part::Backward, || self.optimiser.backward(&value, modules));
            loss.value = loss.value.detach();
            learned.push(Learned {
                images,
                kept: Kept {
                    indices: part.indices,
                    tensors: std::mem::take(&mut loss.kept),
                },
                loss,
            });
            position.images += images;
        }
        Ok(learned)
    }

    /// The learning rate at this share of the run.
    pub(super) fn lr(&self, progress: f64) -> f64 {
        self.env.config.train.lr_at(progress)
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
            self.env.config.train.lr
        )
    }

    /// Says once how long the run will take.
    fn forecast(&mut self) {
        self.forecast_given = true;
        let an_image = self.segment_start.elapsed().as_secs_f64() / self.segment_images as f64;
        let left = (self.all_images() - self.position.images) as f64;
        let seconds = left * an_image + self.env.config.train.epochs as f64 * self.seconds_a_step;
        if seconds > 90.0 {
            // A run that goes on keeps its options.
            let begun_here = self.position.images == self.segment_images;
            let epochs = (self.env.config.train.epochs / 3).max(1);
            let shorter = match begun_here {
                true => format!("; shorter with `--epochs {epochs}` or a smaller --size"),
                false => String::new(),
            };
            self.env.monitor.note(&format!(
                "about {} to go at {:.0} images/s{shorter}",
                duration(seconds),
                1.0 / an_image,
            ));
        }
    }
}
