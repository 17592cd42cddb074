//! The options of `train` as they were typed, over those of a `--config` file.

use anyhow::{Context, Result};

use crate::cli;
use crate::config::{
    ClusterSettings, DataSettings, ModelSettings, OutputSettings, Settings, TrainSettings,
};
use crate::error::usage;

/// What was typed, over what `--config` says.
pub(super) fn settings(args: &cli::Train) -> Result<Settings> {
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
            init: args
                .init
                .as_deref()
                .map(|init| Some(init.canonicalize().unwrap_or_else(|_| init.into()))),
        },
        train: TrainSettings {
            method: args.method.clone(),
            epochs: args.epochs,
            batch_size: args.batch_size,
            accumulate: args.accumulate,
            lr: args.lr,
            schedule: args.schedule.map(Into::into),
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
fn method_options(args: &cli::Train) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: Option<toml::Value>| {
        if let Some(value) = value {
            table.insert(key.into(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(toml::Value::from);
    let count = |value: Option<usize>| value.map(|value| toml::Value::from(value as i64));
    put("balance", text(&args.balance));
    put("clusterer", text(&args.clusterer));
    put("reassign", args.reassign.map(Into::into));
    put("warm_start", args.warm_start.then(|| true.into()));
    put("empty", text(&args.empty));
    put("heads", count(args.heads));
    put("lambda", args.lambda.map(Into::into));
    put("tolerance", args.tolerance.map(Into::into));
    put("memory", args.memory.map(Into::into));
    put("label_steps", count(args.label_steps));
    put("label_schedule", text(&args.label_schedule));
    put("gather", text(&args.gather));
    put("features_from", text(&args.features_from));
    for pair in &args.set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| usage(format!("--set wants KEY=VALUE, not '{pair}'")))?;
        // Numbers and booleans are read as TOML reads them, anything else is text.
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
        let value = parsed.ok().and_then(|mut table| table.remove("value"));
        put(
            key,
            Some(value.unwrap_or_else(|| pair[key.len() + 1..].into())),
        );
    }
    Ok(table)
}
