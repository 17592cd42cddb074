//! A run's state on disk, and back.

use anyhow::{Context as _, Result, bail};
use tch::Kind;

use super::Session;
use crate::method::{Archive, BACKBONE, Position, State};
use crate::model::weights::{self, named_variables};
use crate::random::fingerprint;
use crate::record::Record;
use crate::run_dir::replace_with;
use crate::tensors::{from_labels, to_labels};
use crate::train::checkpoint::{Checkpoint, CheckpointMeta};
use crate::train::output::write_model;

/// The checkpoint's group of what is the session's own, and its entries.
const SESSION: &str = "session";
const LABELS: &str = "labels";
const ORDER: &str = "order";

impl Session<'_> {
    /// Goes on from the run's checkpoint.
    pub fn restore(&mut self) -> Result<()> {
        let path = self.run.checkpoint();
        let mut saved = Checkpoint::read(&path).context("this run cannot be resumed")?;
        if saved.meta.images != fingerprint(self.env.data.names()) {
            bail!(
                "the images of '{}' are not those that this run began with (files were added, \
                 removed or renamed): put them back, or start a new run",
                self.env.config.run.input
            );
        }
        weights::load_into(&self.env.network.variables(), &saved.take(BACKBONE), &path)?;
        self.position = saved.meta.position;
        // First, because modules may have another size since.
        if self.position != Position::default() {
            let mut state = State {
                tensors: saved.take("method"),
                values: std::mem::take(&mut saved.meta.method),
            };
            self.method.archive(&mut Archive::restoring(&mut state))?;
        }
        for module in self.method.modules() {
            let variables = named_variables(module.store);
            weights::load_into(&variables, &saved.take(&module.name), &path)?;
            self.optimiser.reset(&module.name, module.store);
        }
        self.optimiser.restore(saved.take("optimiser"));
        // Not those of labels.jsonl, which a killed run may have written after its checkpoint.
        let mut own = saved.take(SESSION);
        self.labels = own.remove(LABELS).map(|labels| to_labels(&labels));
        self.meter.restore(&saved.meta.meter);
        self.micro_batches = self.micro_batches.max(saved.meta.micro_batches);
        if self.position != Position::default() {
            let (images, steps) = saved.meta.order;
            match own.remove(ORDER) {
                Some(order) => {
                    self.order = to_labels(&order);
                    self.order_place = Some((images, steps));
                }
                // Checkpoints of earlier versions do not hold it.
                None => self.make_order(images, steps),
            }
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
    pub fn save(&mut self) -> Result<()> {
        self.check_loss()?;
        if !weights::all_finite(&self.env.network.variables()) {
            return Err(self.diverged());
        }
        let mut state = State::default();
        self.method.archive(&mut Archive::saving(&mut state))?;
        let State { tensors, values } = state;
        let mut checkpoint = Checkpoint::new(CheckpointMeta {
            position: self.position,
            order: self.order_place.unwrap_or_default(),
            meter: self.meter.sums(),
            micro_batches: self.micro_batches,
            images: fingerprint(self.env.data.names()),
            method: values,
        });
        checkpoint.add(BACKBONE, self.env.network.variables());
        for module in self.method.modules() {
            checkpoint.add(&module.name, named_variables(module.store));
        }
        checkpoint.add("optimiser", self.optimiser.state());
        checkpoint.add("method", tensors);
        if let Some(labels) = &self.labels {
            checkpoint.add(SESSION, [(LABELS.into(), from_labels(labels))]);
        }
        let order = from_labels(&self.order).to_kind(Kind::Int);
        checkpoint.add(SESSION, [(ORDER.into(), order)]);
        self.run.write_metrics(&self.records)?;
        replace_with(&self.run.model(), |file| {
            write_model(
                self.env.network,
                self.method.as_ref(),
                self.env.config,
                file,
            )
        })?;
        replace_with(&self.run.checkpoint(), |file| checkpoint.write(file))
    }
}
