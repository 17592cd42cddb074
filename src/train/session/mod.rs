//! A run in progress: what the lines of the loop do.

mod learn;
mod save;

use std::time::Instant;

use anyhow::Result;

use super::meter::Meter;
use super::narrate::narrate;
use super::optim::{Optimiser, Rule, Training};
use super::output::final_records;
use crate::cluster::assigner::Stored;
use crate::cluster::metrics::nmi;
use crate::comm::Comm;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::loader::{Batches, PixelBatch, batches, training_lengths};
use crate::labels::LabelRecord;
use crate::method::{
    BACKBONE, Batch, Context, LabelStep, Method, ModuleTraining, Panel, Position,
    PrefetchedFeatures, learn_dictionary,
};
use crate::model::network::Network;
use crate::model::weights;
use crate::monitor::{Interrupted, Monitor, Phase};
use crate::profile::{Part, Profile};
use crate::random::{Purpose, stream};
use crate::record::{EpochRecord, LabelStepRecord, Record};
use crate::run_dir::{RunDir, replace};

/// What does not change during a run.
#[derive(Clone, Copy)]
pub struct RunEnv<'a> {
    pub config: &'a Config,
    pub data: &'a Dataset,
    pub network: &'a Network,
    pub monitor: &'a dyn Monitor,
    pub profile: &'a Profile,
    /// Features for the first label step.
    pub prefetched: &'a PrefetchedFeatures,
    /// The processes that the images are divided among.
    pub comm: &'static dyn Comm,
}

impl<'a> RunEnv<'a> {
    fn at(self, position: Position) -> Context<'a> {
        let Self {
            config,
            data,
            network,
            monitor,
            profile,
            prefetched,
            comm,
        } = self;
        Context {
            config,
            network,
            data,
            position,
            monitor,
            profile,
            prefetched,
            comm,
        }
    }
}

/// A run in progress.
pub struct Session<'a> {
    env: RunEnv<'a>,
    method: Box<dyn Method>,
    optimiser: Optimiser,
    run: &'a RunDir,
    position: Position,
    /// The order of images, and where it began.
    order: Vec<u32>,
    order_place: Option<(u64, u64)>,
    /// The first head's labels of the step before.
    labels: Option<Vec<u32>>,
    records: Vec<Record>,
    meter: Meter,
    /// Parts in which a batch goes through the network.
    micro_batches: usize,
    /// The stretch of batches since the last label step or epoch, for the speed.
    segment_start: Instant,
    segment_batches: u64,
    segment_images: u64,
    seconds_a_step: f64,
    forecast_given: bool,
}

impl<'a> Session<'a> {
    /// A run at its beginning.
    pub fn new(env: RunEnv<'a>, method: Box<dyn Method>, run: &'a RunDir) -> Self {
        let RunEnv {
            config, network, ..
        } = env;
        let mut optimiser = Optimiser::default();
        let of_run = Training {
            rule: Rule::Sgd {
                momentum: config.train.momentum,
            },
            lr: 1.0,
            weight_decay: config.train.weight_decay,
        };
        let own = |module: ModuleTraining| Training {
            rule: module.rule.unwrap_or(of_run.rule),
            lr: module.lr.unwrap_or(of_run.lr),
            weight_decay: module.weight_decay.unwrap_or(of_run.weight_decay),
        };
        optimiser.add(BACKBONE, &network.store, own(method.backbone()));
        for module in method.modules() {
            optimiser.add(&module.name, module.store, own(module.training));
        }
        Self {
            env,
            method,
            optimiser,
            run,
            position: Position::default(),
            order: Vec::new(),
            order_place: None,
            labels: None,
            records: Vec::new(),
            meter: Meter::new(network.device()),
            micro_batches: config.train.accumulate,
            segment_start: Instant::now(),
            segment_batches: 0,
            segment_images: 0,
            seconds_a_step: 0.0,
            forecast_given: false,
        }
    }

    /// Epochs done, with fractions.
    fn epoch(&self) -> f64 {
        self.env.at(self.position).epoch()
    }

    fn images_an_epoch(&self) -> u64 {
        self.env.data.len() as u64
    }

    fn all_images(&self) -> u64 {
        self.images_an_epoch() * self.env.config.train.epochs as u64
    }

    /// What must be known before the first batch; a run that goes on knows it.
    pub fn begin(&mut self) -> Result<()> {
        if self.position == Position::default() {
            let context = self.env.at(self.position);
            learn_dictionary(&context)?;
            self.method.begin(&context)?;
        }
        if self.env.config.train.epochs == 0 {
            // No epoch will do so at its end.
            self.save()?;
        }
        Ok(())
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
        if self.env.monitor.stopping() {
            self.end_segment();
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// The last batch before the end of the epoch, or before new labels, is done.
    pub fn end_segment(&mut self) {
        self.meter.trained_since(self.segment_start);
        self.env.monitor.end();
    }

    /// Makes pseudo-labels, writes and records them.
    pub fn label_step(&mut self) -> Result<()> {
        let started = Instant::now();
        let context = self.env.at(self.position);
        let profile = self.env.profile;
        let step = profile.time(Part::Cluster, || self.method.label_step(&context))?;
        let LabelStep {
            labels,
            record,
            reset,
            new_order,
        } = step;
        self.position.label_steps += 1;
        for module in self.method.modules() {
            if reset.contains(&module.name) {
                self.optimiser.reset(&module.name, module.store);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        self.seconds_a_step = seconds;
        let record = self.complete_record(record, &labels[0], seconds);
        self.meter.spent(&record.seconds);
        self.warn_of_collapse(&record);
        let records = self.label_records(&labels);
        let keep = self.env.config.output.keep_labels;
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
            .env
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
            self.env.monitor.warn(
                "all images fell into one cluster: the features have collapsed; \
                 try a lower --lr, a larger --batch-size or other images",
            );
        }
    }

    fn label_records(&self, labels: &[Vec<u32>]) -> Vec<LabelRecord> {
        let several = labels.len() > 1;
        (0..self.env.data.len())
            .map(|image| LabelRecord {
                path: self.env.data.name(image).into(),
                label: labels[0][image],
                score: None,
                distance: None,
                labels: several.then(|| labels.iter().map(|head| head[image]).collect()),
            })
            .collect()
    }

    fn make_order(&mut self, images: u64, label_steps: u64) {
        let mut rng = stream(
            self.env.config.train.seed,
            Purpose::Order,
            images,
            label_steps,
        );
        self.order = self.method.order(self.env.data.len(), &mut rng);
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
        let size = self.env.config.train.batch_size as u64;
        let whole = |due: u64| here + due.saturating_sub(here).max(1).div_ceil(size) * size;
        let end = match self.method.next_label_step().map(whole) {
            Some(due) if due + size / 4 < end => due,
            _ => end,
        };
        let rows = self.order[(here - start) as usize..(end - start) as usize].to_vec();
        let epoch = here / n + 1;
        let label = format!("epoch {epoch}/{}", self.env.config.train.epochs);
        self.env
            .monitor
            .begin(Phase::Train, &label, rows.len() as u64);
        self.segment_start = Instant::now();
        (self.segment_batches, self.segment_images) = (0, 0);
        let lengths = training_lengths(rows.len(), self.env.config.train.batch_size);
        let device = self.env.network.device();
        batches(&self.env.data.pixels, rows, lengths, device)
    }

    /// The next of these batches.
    pub fn next(&self, batches: &mut Batches) -> Option<std::io::Result<PixelBatch>> {
        self.env.profile.time(Part::Wait, || batches.next())
    }

    fn last_step(&self) -> Option<&LabelStepRecord> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Labels(step) => Some(step),
            Record::Epoch(_) => None,
        })
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
            metrics: self.meter.metrics(),
            lr: self.lr(progress),
            images_per_second: self.meter.images_per_second(),
            seconds: self.meter.seconds(),
            profile: self.env.profile.take(),
        };
        narrate(self.env.config, &record, self.last_step(), self.env.monitor);
        self.records.push(Record::Epoch(record));
        self.meter = Meter::new(self.env.network.device());
        self.env.profile.time(Part::Write, || self.save())
    }

    /// What the method shows of the images `rows`: for people, it changes nothing.
    pub fn preview(&self, rows: &[u32]) -> Result<Vec<Panel>> {
        let network = self.env.network;
        let pixels = PixelBatch::new(&self.env.data.pixels, rows, network.device())?;
        let batch = Batch::new(pixels, network);
        tch::no_grad(|| self.method.preview(&self.env.at(self.position), &batch))
    }

    /// Labels the images with the final network and writes what `assign` needs.
    pub fn last_labels(&mut self) -> Result<()> {
        let started = Instant::now();
        let context = self.env.at(self.position);
        let labelling = self
            .env
            .profile
            .time(Part::Cluster, || self.method.last_labels(&context))?;
        self.position.label_steps += 1;
        let seconds = started.elapsed().as_secs_f64();
        let labels = &labelling.assignments.labels[0];
        let record = self.complete_record(labelling.record, labels, seconds);
        self.env.monitor.note(&format!(
            "final labels: {} of {} clusters in use, sizes {} to {}",
            record.nonempty, record.clusters, record.size_min, record.size_max
        ));
        self.run
            .write_labels(&final_records(self.env.data, &labelling.assignments))?;
        self.records.push(Record::Labels(record));
        self.run.write_metrics(&self.records)?;
        // The last file: its presence says that the run is complete.
        let mut stored = Stored::default();
        labelling.assigner.store(&mut stored);
        let tensors: Vec<_> = stored.tensors.into_iter().collect();
        replace(
            &self.run.clustering(),
            &weights::save_bytes(&tensors, &stored.metadata)?,
        )
    }
}
