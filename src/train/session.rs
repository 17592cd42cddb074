//! A run in progress: what the lines of the loop do.

use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use tch::Tensor;

use super::checkpoint::{Checkpoint, Place};
use super::meter::Meter;
use super::narrate::narrate;
use super::optim::Sgd;
use super::output::{final_records, model_bytes};
use crate::cluster::metrics::nmi;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::loader::{Batches, PixelBatch, batches, training_lengths};
use crate::labels::LabelRecord;
use crate::method::{BACKBONE, Batch, Context, LabelStep, Method, Position, State};
use crate::model::network::Network;
use crate::model::weights::{self, named_variables};
use crate::monitor::{Interrupted, Monitor, Phase, duration};
use crate::profile::{Part, Profile};
use crate::random::{Purpose, fingerprint, key, stream};
use crate::record::{EpochRecord, LabelStepRecord, Record};
use crate::run_dir::{RunDir, replace};

/// Batches between two looks at the loss: each waits for the device.
const LOSS_EVERY: u64 = 50;
/// Batches after which the speed is known well enough to say how long the run will take.
const WARM_UP: u64 = 8;
/// The checkpoint's group of what is the session's own, and its entry.
const SESSION: &str = "session";
const LABELS: &str = "labels";

/// What does not change during a run.
#[derive(Clone, Copy)]
struct Stage<'a> {
    config: &'a Config,
    data: &'a Dataset,
    network: &'a Network,
    monitor: &'a dyn Monitor,
    profile: &'a Profile,
}

impl<'a> Stage<'a> {
    fn at(self, position: Position) -> Context<'a> {
        let Self {
            config,
            data,
            network,
            monitor,
            profile,
        } = self;
        Context {
            config,
            network,
            data,
            position,
            monitor,
            profile,
        }
    }
}

/// A run in progress.
pub struct Session<'a> {
    stage: Stage<'a>,
    method: Box<dyn Method>,
    optimiser: Sgd,
    run: &'a RunDir,
    position: Position,
    /// The order of images, and where it began.
    order: Vec<u32>,
    order_place: Option<(u64, u64)>,
    /// The first head's labels of the step before.
    labels: Option<Vec<u32>>,
    records: Vec<Record>,
    meter: Meter,
    /// The stretch of batches since the last label step or epoch, for the speed.
    segment_start: Instant,
    segment_batches: u64,
    segment_images: u64,
    seconds_a_step: f64,
    forecast_given: bool,
}

impl<'a> Session<'a> {
    /// A run at its beginning.
    pub fn new(
        config: &'a Config,
        data: &'a Dataset,
        network: &'a Network,
        method: Box<dyn Method>,
        run: &'a RunDir,
        monitor: &'a dyn Monitor,
        profile: &'a Profile,
    ) -> Self {
        let mut optimiser = Sgd::new(config.train.weight_decay);
        optimiser.add(BACKBONE, &network.store, config.train.momentum);
        for module in method.modules() {
            let momentum = module.momentum.unwrap_or(config.train.momentum);
            optimiser.add(module.name, module.store, momentum);
        }
        Self {
            stage: Stage {
                config,
                data,
                network,
                monitor,
                profile,
            },
            method,
            optimiser,
            run,
            position: Position::default(),
            order: Vec::new(),
            order_place: None,
            labels: None,
            records: Vec::new(),
            meter: Meter::new(network.device()),
            segment_start: Instant::now(),
            segment_batches: 0,
            segment_images: 0,
            seconds_a_step: 0.0,
            forecast_given: false,
        }
    }

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

    /// Epochs done, with fractions.
    fn epoch(&self) -> f64 {
        self.stage.at(self.position).epoch()
    }

    fn images_an_epoch(&self) -> u64 {
        self.stage.data.len() as u64
    }

    fn all_images(&self) -> u64 {
        self.images_an_epoch() * self.stage.config.train.epochs as u64
    }

    /// Whether every epoch is done.
    pub fn finished(&self) -> bool {
        self.position.images >= self.all_images()
    }

    /// Whether the method wants new labels before the next batch.
    pub fn labels_are_due(&self) -> bool {
        self.method
            .next_label_step()
            .is_some_and(|due| due <= self.position.images)
    }

    /// Whether the last batch ended an epoch.
    pub fn epoch_ended(&self) -> bool {
        self.position.images.is_multiple_of(self.images_an_epoch())
    }

    /// # Errors
    /// [`Interrupted`] once the user asked to stop.
    pub fn check_interrupt(&mut self) -> Result<()> {
        if self.stage.monitor.stopping() {
            self.end_segment();
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// The last batch before the end of the epoch, or before new labels, is done.
    pub fn end_segment(&mut self) {
        self.meter.trained_since(self.segment_start);
        self.stage.monitor.end();
    }

    /// Makes pseudo-labels, writes and records them.
    pub fn label_step(&mut self) -> Result<()> {
        let started = Instant::now();
        let context = self.stage.at(self.position);
        let profile = self.stage.profile;
        let step = profile.time(Part::Cluster, || self.method.label_step(&context))?;
        let LabelStep {
            labels,
            record,
            fresh,
            new_order,
        } = step;
        self.position.label_steps += 1;
        for module in self.method.modules() {
            if fresh.contains(&module.name) {
                self.optimiser.reset(module.name, module.store);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        self.seconds_a_step = seconds;
        let record = self.complete_record(record, &labels[0], seconds);
        self.meter.spent(&record.seconds);
        self.warn_of_collapse(&record);
        let records = self.label_records(&labels);
        let keep = self.stage.config.output.keep_labels;
        profile.time(Part::Write, || {
            self.run.write_labels(&records)?;
            self.run.keep_step_labels(&records, self.epoch(), keep)
        })?;
        self.labels = labels.into_iter().next();
        self.records.push(Record::Labels(record));
        self.run.write_metrics(&self.records)?;
        if new_order {
            self.make_order(self.position.images, self.position.label_steps);
        }
        Ok(())
    }

    fn complete_record(
        &self,
        mut record: LabelStepRecord,
        labels: &[u32],
        seconds: f64,
    ) -> LabelStepRecord {
        let mut sizes = vec![0; record.clusters];
        labels.iter().for_each(|&label| sizes[label as usize] += 1);
        record.step = self.position.label_steps;
        record.epoch = self.epoch();
        record.images_seen = self.position.images;
        record.nonempty = sizes.iter().filter(|&&size| size > 0).count();
        record.size_min = sizes.iter().copied().min().unwrap_or(0);
        record.size_max = sizes.iter().copied().max().unwrap_or(0);
        record.nmi_previous = self.labels.as_ref().map(|before| nmi(before, labels));
        record.nmi_classes = self
            .stage
            .data
            .class_of
            .as_ref()
            .map(|classes| nmi(labels, classes));
        let rest = seconds - record.seconds.values().sum::<f64>();
        record
            .seconds
            .insert(Phase::Extract.name().into(), rest.max(0.0));
        record
    }

    fn warn_of_collapse(&self, record: &LabelStepRecord) {
        if record.nonempty < 2 {
            self.stage.monitor.warn(
                "all images fell into one cluster: the features have collapsed; \
                 try a lower --lr, a larger --batch-size or other images",
            );
        }
    }

    fn label_records(&self, labels: &[Vec<u32>]) -> Vec<LabelRecord> {
        let several = labels.len() > 1;
        (0..self.stage.data.len())
            .map(|image| LabelRecord {
                path: self.stage.data.name(image).into(),
                label: labels[0][image],
                score: None,
                distance: None,
                labels: several.then(|| labels.iter().map(|head| head[image]).collect()),
            })
            .collect()
    }

    fn make_order(&mut self, images: u64, label_steps: u64) {
        let mut rng = stream(
            self.stage.config.train.seed,
            Purpose::Order,
            images,
            label_steps,
        );
        self.order = self.method.order(self.stage.data.len(), &mut rng);
        self.order_place = Some((images, label_steps));
    }

    /// The batches up to the end of the epoch or the next label step, whichever is nearer.
    pub fn batches(&mut self) -> Batches {
        let here = self.position.images;
        let n = self.images_an_epoch();
        if self
            .order_place
            .is_none_or(|(start, _)| here >= start / n * n + n)
        {
            self.make_order(here, self.position.label_steps);
        }
        let start = self.order_place.map_or(0, |(start, _)| start);
        let end = (here / n + 1) * n;
        // Labels come between whole batches: a batch of a few images has no statistics.
        let size = self.stage.config.train.batch_size as u64;
        let whole = |due: u64| here + due.saturating_sub(here).max(1).div_ceil(size) * size;
        let end = match self.method.next_label_step().map(whole) {
            Some(due) if due + size / 4 < end => due,
            _ => end,
        };
        let rows = self.order[(here - start) as usize..(end - start) as usize].to_vec();
        let epoch = here / n + 1;
        let label = format!("epoch {epoch}/{}", self.stage.config.train.epochs);
        self.stage
            .monitor
            .begin(Phase::Train, &label, rows.len() as u64);
        self.segment_start = Instant::now();
        (self.segment_batches, self.segment_images) = (0, 0);
        let lengths = training_lengths(rows.len(), self.stage.config.train.batch_size);
        let device = self.stage.network.device();
        batches(&self.stage.data.pixels, rows, lengths, device)
    }

    /// The next of these batches.
    pub fn next(&self, batches: &mut Batches) -> Option<std::io::Result<PixelBatch>> {
        self.stage.profile.time(Part::Wait, || batches.next())
    }

    /// Learns from one batch.
    pub fn learn(&mut self, batch: PixelBatch) -> Result<()> {
        let profile = self.stage.profile;
        let batch = profile.time(Part::Copy, || Batch::new(batch, self.stage.network));
        // Dropout draws from libtorch's generator: seeded for each batch, it needs no saving.
        let seed = key(
            self.stage.config.train.seed,
            Purpose::Step,
            self.position.batches,
            0,
        );
        tch::manual_seed(seed as i64);
        let progress = self.position.images as f64 / self.all_images() as f64;
        let lr = self.lr(progress);
        let parts = batch.split(self.stage.config.train.accumulate);
        for phase in 0..self.method.phases() {
            let mut trains = Default::default();
            self.optimiser.zero_grad();
            let mut position = self.position;
            for part in &parts {
                let context = self.stage.at(position);
                let forward = || self.method.loss(&context, part, phase);
                let loss = profile.time(Part::Forward, forward)?;
                let share = part.rows.len() as f64 / batch.rows.len() as f64;
                profile.time(Part::Backward, || (&loss.value * share).backward());
                if phase == 0 {
                    self.meter
                        .add(&loss.value, part.rows.len() as u64, loss.correct);
                }
                position.images += part.rows.len() as u64;
                trains = loss.trains;
            }
            profile.time(Part::Optimiser, || self.optimiser.step(trains, lr));
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

    /// The learning rate at this share of the run.
    fn lr(&self, progress: f64) -> f64 {
        let train = &self.stage.config.train;
        train.lr * train.schedule.factor(progress, train.epochs)
    }

    fn last_step(&self) -> Option<&LabelStepRecord> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Labels(step) => Some(step),
            Record::Epoch(_) => None,
        })
    }

    fn check_loss(&self) -> Result<f64> {
        let loss = self.meter.mean_loss();
        if !loss.is_finite() {
            return Err(self.diverged());
        }
        Ok(loss)
    }

    fn diverged(&self) -> anyhow::Error {
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

    /// Reports and saves an epoch.
    pub fn end_epoch(&mut self) -> Result<()> {
        let loss = self.check_loss()?;
        let epoch = self.position.images / self.images_an_epoch();
        let progress = (self.position.images - 1) as f64 / self.all_images() as f64;
        let record = EpochRecord {
            epoch,
            images_seen: self.position.images,
            loss,
            accuracy: self.meter.accuracy(),
            lr: self.lr(progress),
            images_per_second: self.meter.images_per_second(),
            seconds: self.meter.seconds(),
            profile: self.stage.profile.take(),
        };
        narrate(
            self.stage.config,
            &record,
            self.last_step(),
            self.stage.monitor,
        );
        self.records.push(Record::Epoch(record));
        self.meter = Meter::new(self.stage.network.device());
        self.stage.profile.time(Part::Write, || self.save())
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

    /// Labels the images with the final network and writes what `assign` needs.
    pub fn last_labels(&mut self) -> Result<()> {
        let started = Instant::now();
        let context = self.stage.at(self.position);
        let labelling = self
            .stage
            .profile
            .time(Part::Cluster, || self.method.last_labels(&context))?;
        self.position.label_steps += 1;
        let seconds = started.elapsed().as_secs_f64();
        let labels = &labelling.assignments.labels[0];
        let record = self.complete_record(labelling.record, labels, seconds);
        self.stage.monitor.note(&format!(
            "final labels: {} of {} clusters in use, sizes {} to {}",
            record.nonempty, record.clusters, record.size_min, record.size_max
        ));
        self.run
            .write_labels(&final_records(self.stage.data, &labelling.assignments))?;
        self.records.push(Record::Labels(record));
        self.run.write_metrics(&self.records)?;
        // The last file: its presence says that the run is complete.
        let (tensors, metadata) = labelling.assigner.to_tensors();
        replace(
            &self.run.clustering(),
            &weights::save_bytes(&tensors, &metadata)?,
        )
    }
}
