//! The options of `train` as they were typed, over those of a `--config` file.

use anyhow::{Context, Result};

use super::args::TrainArgs;
use crate::config::{
    ClusterSettings, DataSettings, Init, ModelSettings, OutputSettings, Settings, TrainSettings,
};
use crate::error::usage;
use crate::method::tables_of;

/// What was typed, over what `--config` says.
pub fn settings(args: &TrainArgs) -> Result<Settings> {
    let mut file = match &args.config {
        None => Settings::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read '{}'", path.display()))?;
            toml::from_str(&text)
                .map_err(|error| usage(format!("'{}': {error}", path.display())))?
        }
    };
    if args.method.is_some() && args.method != file.train.method {
        // The other method's own options mean nothing to this one.
        file.method = toml::Table::new();
    }
    // They are found anew.
    file.model.weights = None;
    let flag = |given: bool| given.then_some(true);
    let typed = Settings {
        run: None,
        data: DataSettings {
            size: args.size,
            cache: args.cache,
            crop_scale: args.crop_scale.map(|low| [low, 1.0]),
            sobel: flag(args.sobel),
            flip: args.no_flip.then_some(false),
            jitter: args.jitter,
            greyscale: args.greyscale,
            blur: args.blur,
            solarise: args.solarise,
            ..DataSettings::default()
        },
        model: ModelSettings {
            arch: args.arch.clone(),
            init: args.init.clone().map(|init| match init {
                Init::From(path) => Init::From(path.canonicalize().unwrap_or(path)),
                named => named,
            }),
            weights: None,
            beside: args.beside.clone(),
            beside_length: None,
        },
        train: TrainSettings {
            method: args.method.clone(),
            epochs: args.epochs,
            batch_size: args.batch_size,
            accumulate: args.accumulate,
            lr: args.lr,
            schedule: args.schedule,
            warmup: args.warmup,
            seed: args.seed,
            device: args.machine.device,
            precision: args.numbers.precision,
            threads: args.machine.threads,
            ..TrainSettings::default()
        },
        cluster: ClusterSettings {
            clusters: args.clusters,
            engine: args.engine.clone(),
            components: args.components,
            whiten: args.whiten,
            ..ClusterSettings::default()
        },
        output: OutputSettings {
            keep_labels: args.keep_labels,
        },
        method: method_options(args)?,
    };
    Ok(typed.over(file))
}

/// The flags of single methods and `--set`, as the `[method]` table.
fn method_options(args: &TrainArgs) -> Result<toml::Table> {
    let mut table = args.own.0.clone();
    put_pairs(&mut table, &args.set)?;
    Ok(table)
}

/// `--set` alone, as the `[method]` table.
pub fn settings_of_pairs(pairs: &[String]) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    put_pairs(&mut table, pairs)?;
    Ok(table)
}

fn put_pairs(table: &mut toml::Table, pairs: &[String]) -> Result<()> {
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| usage(format!("--set wants KEY=VALUE, not '{pair}'")))?;
        put(table, key, toml_value(value))?;
    }
    Ok(())
}

/// Puts `value` at `key`, which names tables on the way by dots (`tasks.rotation.weight`). A list of names
/// where a table stands, or the other way round, is a table of these names: `tasks=rotation,context` and
/// `tasks.rotation.weight=2` may both be given.
fn put(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<()> {
    let Some((first, rest)) = key.split_once('.') else {
        match (table.get_mut(key), &value) {
            (Some(toml::Value::Table(inner)), toml::Value::String(names)) => {
                for (name, empty) in tables_of(names.split(',')) {
                    inner.entry(name).or_insert(empty);
                }
            }
            _ => {
                table.insert(key.into(), value);
            }
        }
        return Ok(());
    };
    let inner = table
        .entry(first)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::String(names) = inner {
        *inner = toml::Value::Table(tables_of(names.split(',')));
    }
    match inner {
        toml::Value::Table(inner) => put(inner, rest, value),
        _ => Err(usage(format!("--set {key}: '{first}' is no table"))),
    }
}

/// Numbers and booleans as TOML reads them; anything else is text.
pub fn toml_value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| text.into())
}
