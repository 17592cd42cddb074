//! Several tasks on one backbone, each with its own head: their losses are added with weights.
//!
//! Doersch, Zisserman: Multi-task Self-Supervised Visual Learning, ICCV 2017,
//! <https://arxiv.org/abs/1708.07860>. A task is any other method; the first one that makes labels
//! (deepcluster, sela) decides about the order of images and the labels in the end.

use anyhow::{Result, bail};
use rand_xoshiro::Xoshiro256PlusPlus;
use tch::Device;
use toml::{Table, Value};

use super::{
    Archive, Batch, Beginning, Build, Context, Kept, LabelStep, Labelling, Loss, METHODS, Method,
    MethodEntry, MethodOption, Module, ModuleTraining, Panel, REGISTRY, Update, as_they_are,
    label_by_clusters, tables_of,
};
use crate::cluster::Empty;
use crate::config::defaults::{Choice, Facts};
use crate::config::{Config, DataSettings, Schedule, Settings, TrainSettings};
use crate::data::sampler;
use crate::method::Flag;

/// The registry entry.
pub const ENTRY: MethodEntry = MethodEntry {
    name: "multitask",
    help: "several methods at once on one backbone, each with a head of its own",
    paper: "Doersch and Zisserman, Multi-task Self-Supervised Visual Learning, ICCV 2017, https://arxiv.org/abs/1708.07860",
    // Rotation by itself wants a rate that falls and crops that leave the image whole, DeepCluster small ones.
    // Between the two both learn: kNN 84.3 % (README; the mean of three seeds), with the rate as it is and
    // crops from 0.3 on 82.9 %, with the falling rate alone 83.3 %, with crops from 0.8 on 83.4 %.
    preset: |facts| Settings {
        data: DataSettings {
            crop_scale: facts.thumbnails().then_some([0.6, 1.0]),
            ..DataSettings::default()
        },
        train: TrainSettings {
            schedule: Some(Schedule::Linear),
            ..TrainSettings::default()
        },
        ..Settings::default()
    },
    first: |_| None,
    items: as_they_are,
    options: &[MethodOption {
        key: TASKS,
        help: "methods between commas; their options are tasks.NAME.KEY=VALUE, and weight is one of each; none leaves the choice to the program",
        flag: Flag::None,
    }],
    defaults: || Table::from_iter([(TASKS.to_string(), Value::Table(Table::new()))]),
    resolve,
    build: |build| Ok(Box::new(MultiTask::new(build)?)),
    pretext: true,
};

const TASKS: &str = "tasks";
/// Of a task, beside the options of its method.
const WEIGHT: &str = "weight";

/// The tasks of a table, each with its weight and its own options.
fn tasks(table: &Table) -> Result<Vec<(&'static MethodEntry, f64, Table)>> {
    let Some(Value::Table(tasks)) = table.get(TASKS) else {
        bail!(crate::error::usage("tasks must be a list of methods"));
    };
    let mut all = Vec::new();
    for (name, options) in tasks {
        let possible = || {
            METHODS
                .iter()
                .copied()
                .filter(|entry| entry.name != ENTRY.name)
        };
        let Some(entry) = possible().find(|entry| entry.name == name) else {
            let known = possible().map(|entry| entry.name);
            return Err(crate::error::unknown("task", name, known));
        };
        let Value::Table(options) = options else {
            bail!(crate::error::usage(format!(
                "tasks.{name} must hold its options"
            )));
        };
        let mut options = options.clone();
        let weight = match options.remove(WEIGHT) {
            None => 1.0,
            Some(Value::Integer(weight)) => weight as f64,
            Some(Value::Float(weight)) => weight,
            Some(other) => bail!(crate::error::usage(format!(
                "tasks.{name}.weight must be a number, not {other}"
            ))),
        };
        if !(weight > 0.0 && weight.is_finite()) {
            bail!(crate::error::usage(format!(
                "tasks.{name}.weight must be positive"
            )));
        }
        all.push((entry, weight, options));
    }
    Ok(all)
}

fn resolve(config: &Config, table: &mut Table) -> Result<Vec<Choice>> {
    // A list of names in a TOML file, or from `--set`.
    let named = match table.get(TASKS) {
        Some(Value::String(names)) => Some(tables_of(names.split(','))),
        Some(Value::Array(names)) => Some(tables_of(names.iter().filter_map(Value::as_str))),
        _ => None,
    };
    if let Some(named) = named {
        table.insert(TASKS.into(), Value::Table(named));
    }
    let mut choices = Vec::new();
    if table
        .get(TASKS)
        .and_then(Value::as_table)
        .is_some_and(Table::is_empty)
    {
        // The default method, and the first one whose task needs no labels.
        let other = METHODS.iter().find(|entry| entry.pretext);
        let chosen = METHODS.iter().take(1).chain(other);
        let named = tables_of(chosen.map(|entry| entry.name));
        choices.push(Choice {
            name: TASKS,
            value: named.keys().cloned().collect::<Vec<_>>().join(","),
            reason: "a task that makes labels, and one that needs none".into(),
        });
        table.insert(TASKS.into(), Value::Table(named));
    }
    let mut complete = Table::new();
    for (entry, weight, typed) in tasks(table)? {
        // Defaults that fit the images are a task's as they are a method's.
        let mut options = (entry.preset)(&seen(config)).method;
        options.extend(typed);
        let chosen = entry.complete(config, &mut options)?;
        choices.extend(chosen);
        options.insert(WEIGHT.into(), weight.into());
        complete.insert(entry.name.into(), Value::Table(options));
    }
    table.insert(TASKS.into(), Value::Table(complete));
    Ok(choices)
}

/// What a preset sees of the images of a run that is being put together.
fn seen(config: &Config) -> Facts {
    let side = config.data.size as u32;
    Facts {
        images: config.run.images,
        width: side,
        height: side,
        device: Device::Cpu,
        threads: config.train.threads,
        registry: REGISTRY,
        ready: None,
    }
}

struct Task {
    name: &'static str,
    weight: f64,
    method: Box<dyn Method>,
}

struct MultiTask {
    tasks: Vec<Task>,
    /// The first one that makes labels.
    labeller: Option<usize>,
}

impl MultiTask {
    fn new(build: &Build) -> Result<Self> {
        let mut all = Vec::new();
        for (entry, weight, options) in tasks(build.options)? {
            let method = (entry.build)(&Build {
                options: &options,
                ..*build
            })?;
            if method.updates(super::Position::default()) != [Update::default()] {
                bail!(crate::error::usage(format!(
                    "'{}' trains networks in turn and cannot be a task",
                    entry.name
                )));
            }
            all.push(Task {
                name: entry.name,
                weight,
                method,
            });
        }
        let makes_labels = |task: &Task| task.method.next_label_step().is_some();
        Ok(Self {
            labeller: all.iter().position(makes_labels),
            tasks: all,
        })
    }

    fn weights(&self) -> f64 {
        self.tasks.iter().map(|task| task.weight).sum()
    }
}

impl Task {
    /// The name of one of its modules, or of anything that is kept.
    fn of(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }
}

impl Method for MultiTask {
    fn begin(&mut self, context: &Context) -> Result<()> {
        self.tasks
            .iter_mut()
            .try_for_each(|task| task.method.begin(context))
    }

    fn next_label_step(&self) -> Option<u64> {
        let due = self.tasks.iter();
        due.filter_map(|task| task.method.next_label_step()).min()
    }

    /// What all tasks agree on; else what the run's options say.
    fn backbone(&self) -> ModuleTraining {
        let mut wanted = self.tasks.iter().map(|task| task.method.backbone());
        let first = wanted.next().unwrap_or_default();
        match wanted.all(|other| other == first) {
            true => first,
            false => ModuleTraining::default(),
        }
    }

    fn label_step(&mut self, context: &Context) -> Result<LabelStep> {
        let due = |task: &Task| {
            let next = task.method.next_label_step();
            next.is_some_and(|next| next <= context.position.images)
        };
        let (mut first, mut reset, mut new_order) = (None, Vec::new(), false);
        for task in self.tasks.iter_mut().filter(|task| due(task)) {
            let step = task.method.label_step(context)?;
            reset.extend(step.reset.iter().map(|name| task.of(name)));
            new_order |= step.new_order;
            first.get_or_insert(step);
        }
        match first {
            Some(step) => Ok(LabelStep {
                reset,
                new_order,
                ..step
            }),
            None => bail!("no task has a label step now"),
        }
    }

    fn order(&self, images: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
        match self.labeller {
            Some(task) => self.tasks[task].method.order(images, rng),
            None => sampler::shuffled(images, rng),
        }
    }

    fn loss(&self, context: &Context, batch: &Batch, update: usize) -> Result<Loss> {
        let mut sum: Option<Loss> = None;
        for task in &self.tasks {
            let mut loss = task.method.loss(context, batch, update)?;
            let share = &loss.value * (task.weight / self.weights());
            let all = sum.get_or_insert_with(|| Loss::of(share.zeros_like()));
            all.value = &all.value + share;
            all.metrics.insert(task.of("loss"), loss.value.detach());
            if let Some((count, asked)) = &loss.correct {
                all.metrics
                    .insert(task.of("accuracy"), count / (*asked).max(1) as f64);
            }
            for (name, value) in std::mem::take(&mut loss.metrics) {
                all.metrics.insert(task.of(&name), value);
            }
            for (name, tensor) in std::mem::take(&mut loss.kept) {
                all.kept.insert(task.of(&name), tensor);
            }
            all.correct = match (all.correct.take(), loss.correct) {
                (Some((a, of_a)), Some((b, of_b))) => Some((a + b, of_a + of_b)),
                (one, other) => one.or(other),
            };
        }
        match sum {
            Some(loss) => Ok(loss),
            None => bail!("there are no tasks"),
        }
    }

    fn after_update(&mut self, context: &Context, update: usize, kept: Vec<Kept>) -> Result<()> {
        for task in &mut self.tasks {
            let prefix = format!("{}.", task.name);
            let own = kept.iter().map(|part| Kept {
                indices: part.indices.clone(),
                tensors: part
                    .tensors
                    .iter()
                    .filter_map(|(name, tensor)| {
                        let name = name.strip_prefix(&prefix)?;
                        Some((name.to_string(), tensor.shallow_clone()))
                    })
                    .collect(),
            });
            task.method.after_update(context, update, own.collect())?;
        }
        Ok(())
    }

    fn modules(&self) -> Vec<Module<'_>> {
        let modules = self.tasks.iter().flat_map(|task| {
            let own = task.method.modules().into_iter();
            own.map(|module| Module {
                name: task.of(&module.name),
                ..module
            })
        });
        modules.collect()
    }

    fn last_labels(&mut self, context: &Context) -> Result<Labelling> {
        match self.labeller {
            Some(task) => self.tasks[task].method.last_labels(context),
            None => label_by_clusters(
                context,
                Beginning::for_last_labels(context),
                Empty::default(),
            ),
        }
    }

    fn pretext_accuracy(&self, context: &Context, batch: &Batch) -> Option<(i64, i64)> {
        let answers = self.tasks.iter();
        answers
            .filter_map(|task| task.method.pretext_accuracy(context, batch))
            .reduce(|(right, asked), more| (right + more.0, asked + more.1))
    }

    fn preview(&self, context: &Context, batch: &Batch) -> Result<Vec<Panel>> {
        let mut panels = Vec::new();
        for task in &self.tasks {
            panels.extend(task.method.preview(context, batch)?);
        }
        Ok(panels)
    }

    fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        self.tasks
            .iter_mut()
            .try_for_each(|task| task.method.archive(&mut archive.child(task.name)))
    }
}
