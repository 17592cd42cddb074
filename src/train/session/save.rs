//! A run's state on disk, and back.

use anyhow::{Context as _, Result, bail};
use tch::Tensor;

use super::Session;
use crate::method::{BACKBONE, Position, State};
use crate::model::weights::{self, named_variables};
use crate::random::fingerprint;
use crate::record::Record;
use crate::run_dir::replace;
use crate::train::checkpoint::{Checkpoint, Place};
use crate::train::output::model_bytes;

/// The checkpoint's group of what is the session's own, and its entry.
const SESSION: &str = "session";
const LABELS: &str = "labels";

impl Session<'_> {
    /// Goes on from the run's checkpoint.
    pub fn restore(&mut self) -> Result<()> {
        let path = self.run.checkpoint();
        let mut saved = Checkpoint::read(&path).context("this run cannot be resumed")?;
        if saved.place.images != fingerprint(self.stage.data.names()) {
            bail!(
                "the images of '{}' are not those that this run began with (files were added, \
                 removed or renamed): put them back, or start a new run",
                self.stage.config.run.input
            );
        }
        weights::load_into(
            &named_variables(&self.stage.network.store),
            &saved.take(BACKBONE),
            &path,
        )?;
        self.position = saved.place.position;
        // First, because modules may have another size since.
        if self.position != Position::default() {
            let tensors = saved.take("method").into_iter().collect();
            let values = std::mem::take(&mut saved.place.method);
            self.method.restore(State { tensors, values })?;
        }
        for module in self.method.modules() {
            let variables = named_variables(module.store);
            weights::load_into(&variables, &saved.take(module.name), &path)?;
            self.optimiser.reset(module.name, module.store);
        }
        self.optimiser.restore(saved.take("optimiser"));
        // Not those of labels.jsonl, which a killed run may have written after its checkpoint.
        if let Some(labels) = saved.take(SESSION).get(LABELS) {
            let labels: Vec<i64> = Vec::try_from(labels)?;
            self.labels = Some(labels.into_iter().map(|label| label as u32).collect());
        }
        self.meter.restore(&saved.place.meter);
        self.parts = self.parts.max(saved.place.parts);
        if self.position != Position::default() {
            let (images, steps) = saved.place.order;
            self.make_order(images, steps);
        }
        self.records = self.run.read_metrics()?;
        let seen = self.position.images;
        self.records.retain(|record| match record {
            Record::Epoch(epoch) => epoch.images_seen <= seen,
            Record::Labels(step) => step.step <= self.position.label_steps,
        });
        Ok(())
    }

    /// Saves the state that `--resume` needs, the model and the metrics.
    ///
    /// # Errors
    /// A network that has diverged: the last good state stays.
    pub fn save(&self) -> Result<()> {
        self.check_loss()?;
        if !weights::all_finite(&named_variables(&self.stage.network.store)) {
            return Err(self.diverged());
        }
        let State { tensors, values } = self.method.state();
        let mut checkpoint = Checkpoint::new(Place {
            position: self.position,
            order: self.order_place.unwrap_or_default(),
            meter: self.meter.sums(),
            parts: self.parts,
            images: fingerprint(self.stage.data.names()),
            method: values,
        });
        checkpoint.add(BACKBONE, named_variables(&self.stage.network.store));
        for module in self.method.modules() {
            checkpoint.add(module.name, named_variables(module.store));
        }
        checkpoint.add("optimiser", self.optimiser.state());
        checkpoint.add("method", tensors);
        if let Some(labels) = &self.labels {
            let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
            checkpoint.add(SESSION, vec![(LABELS.into(), Tensor::from_slice(&labels))]);
        }
        self.run.write_metrics(&self.records)?;
        replace(
            &self.run.model(),
            &model_bytes(self.stage.network, self.method.as_ref(), self.stage.config)?,
        )?;
        replace(&self.run.checkpoint(), &checkpoint.to_bytes()?)
    }
}
