//! `eval`: how good features and labels are, where folder names are classes.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::ExitStatus;
use super::inputs::{find_images, images_of_run, place_of_run, report_skipped};
use super::options::{Machine, Numbers, machine};
use crate::cluster::assigner::FeatureKind;
use crate::cluster::metrics::{ari, balance, matched_accuracy, nmi, purity};
use crate::cluster::preprocess::Pca;
use crate::comm::OneProcess;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::cache::Cache;
use crate::data::items::Items;
use crate::data::loader::{batches, equal_lengths};
use crate::data::source::ImageSet;
use crate::error::usage;
use crate::eval::knn::{KnnOptions, accuracy, classify};
use crate::labels::significant;
use crate::method::{Aside, Batch, extract_size};
use crate::monitor::{Monitor, Silent};
use crate::run_dir::RunDir;
use crate::trained::{Extractor, assigner, find_method, initial, items, method_of_run, open_in};
use crate::ui::Ui;

/// Measure features and labels.
#[derive(Debug, Args)]
#[command(after_help = EVAL_EXAMPLES)]
pub struct EvalArgs {
    /// The run to measure
    pub run: PathBuf,
    /// Images in class folders
    pub input: PathBuf,
    /// Images in class folders whose features vote [default: those of the training]
    #[arg(long, value_name = "DIR")]
    pub train: Option<PathBuf>,
    /// Neighbours that vote
    #[arg(long, default_value_t = 20)]
    pub neighbours: usize,
    /// A vote weighs exp(similarity / temperature)
    #[arg(long, default_value_t = 0.07)]
    pub temperature: f64,
    /// Also measure the features of the same network before training
    #[arg(long)]
    pub untrained: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub numbers: Numbers,
}

const EVAL_EXAMPLES: &str = "\
Examples:
  ssl-cluster eval runs/photos test/ --train photos/
  ssl-cluster eval runs/photos test/ --untrained | jq '.knn_accuracy - .knn_untrained'

A table on a terminal, JSON in a pipe.";

pub fn run(args: EvalArgs, ui: &Ui) -> Result<ExitStatus> {
    if args.neighbours == 0 || !(args.temperature > 0.0 && args.temperature.is_finite()) {
        return Err(usage(
            "--neighbours must be at least 1 and --temperature positive",
        ));
    }
    let device = machine(&args.machine)?;
    let (run, config) = open_in(&args.run, args.numbers.precision)?;
    let assigner = assigner(&run, device)?;
    let extractor = Extractor::of_run(&run, &config, device)?;
    let known_place = args.train.clone().unwrap_or_else(|| place_of_run(&config));
    let known = match &args.train {
        Some(place) => find_images(&[place])?,
        None => images_of_run(&config)
            .context("the run's images are not where they were: name others with --train")?,
    };
    let (queries, known) = (
        with_classes(&config, find_images(&[&args.input])?, &args.input)?,
        with_classes(&config, known, &known_place)?,
    );
    let same = same_place(&args.input, &known_place);
    skipped_folders(queries.as_ref(), ui)?;
    if !same {
        skipped_folders(known.as_ref(), ui)?;
    }
    let options = KnnOptions {
        neighbours: args.neighbours,
        temperature: args.temperature,
    };

    let mut report = Map::new();
    let of_queries = extractor.all(queries.as_ref(), FeatureKind::Hidden, ui)?;
    report_skipped(&of_queries.skipped, queries.len(), false, ui)?;
    let classes = classes_of(queries.as_ref(), &of_queries.rows, known.classes());
    warn_of_unknown(queries.classes(), known.classes(), &known_place, ui)?;
    report.insert("images".into(), of_queries.rows.len().into());
    report.insert("classes".into(), queries.classes().len().into());

    let of_known = if same {
        None
    } else {
        Some(extractor.all(known.as_ref(), FeatureKind::Hidden, ui)?)
    };
    let known_classes = of_known
        .as_ref()
        .map(|e| classes_of(known.as_ref(), &e.rows, known.classes()));
    if let Some(of_known) = &of_known {
        report_skipped(&of_known.skipped, known.len(), false, ui)?;
    }
    let own = match &of_known {
        None => (0..of_queries.rows.len()).map(Some).collect(),
        Some(of_known) => shared(
            queries.as_ref(),
            &of_queries.rows,
            known.as_ref(),
            &of_known.rows,
        ),
    };
    let common = own.iter().flatten().count();
    if !same && common > 0 {
        ui.note(&format!(
            "{common} of the images are among those that vote: they have no vote on themselves"
        ));
    }
    // Accuracy on the features as they are, and whitened as DeepCluster clusters them.
    let knn = |queries: &Tensor, known: Option<&Tensor>| -> Result<[f64; 2]> {
        let votes = known_classes.as_ref().unwrap_or(&classes);
        let share = |queries: &Tensor, known: Option<&Tensor>| {
            let found = classify(known.unwrap_or(queries), votes, queries, &own, options);
            accuracy(&found, &classes)
        };
        let (features, most) = (known.unwrap_or(queries), config.cluster.components);
        let rounding = extractor.network.precision.rounding();
        let pca = Pca::whitening(features.device(), &OneProcess, features, most, rounding)?;
        let project = |features: &Tensor| pca.apply(features, Kind::Float);
        let whitened = share(&project(queries), known.map(project).as_ref());
        Ok([share(queries, known), whitened])
    };
    let [plain, whitened] = knn(&of_queries.features, of_known.as_ref().map(|e| &e.features))?;
    report.insert("knn_accuracy".into(), rounded(plain));
    report.insert("knn_accuracy_whitened".into(), rounded(whitened));
    if args.untrained {
        let fresh = Extractor {
            network: initial(&config, device)?,
            size: config.data.size,
            store: config.data.store,
            plain: config.data.plain,
        };
        fresh.learn_dictionary(known.as_ref(), ui)?;
        let features = |items: &dyn Items| -> Result<Tensor> {
            Ok(fresh.all(items, FeatureKind::Hidden, ui)?.features)
        };
        let known = if same {
            None
        } else {
            Some(features(known.as_ref())?)
        };
        let [plain, whitened] = knn(&features(queries.as_ref())?, known.as_ref())?;
        report.insert("knn_untrained".into(), rounded(plain));
        report.insert("knn_untrained_whitened".into(), rounded(whitened));
    }

    let seen = match assigner.feature_kind() {
        FeatureKind::Hidden => of_queries.features.shallow_clone(),
        FeatureKind::Activation if extractor.network.beside.is_none() => {
            extractor.network.backbone.activate(&of_queries.features)
        }
        kind => extractor.all(queries.as_ref(), kind, ui)?.features,
    };
    let labels = assigner.assign(&seen).labels.swap_remove(0);
    report.insert("nmi".into(), rounded(nmi(&labels, &classes)));
    report.insert("ari".into(), rounded(ari(&labels, &classes)));
    report.insert(
        "matched_accuracy".into(),
        rounded(matched_accuracy(&labels, &classes)),
    );
    report.insert("purity".into(), rounded(purity(&labels, &classes)));
    let mut sizes = vec![0_usize; assigner.clusters()];
    labels.iter().for_each(|&label| sizes[label as usize] += 1);
    report.insert("balance".into(), rounded(balance(&sizes)));
    report.insert("clusters".into(), assigner.clusters().into());
    report.insert(
        "nonempty".into(),
        sizes.iter().filter(|&&size| size > 0).count().into(),
    );
    report.insert("size_min".into(), sizes.iter().min().copied().into());
    report.insert("size_max".into(), sizes.iter().max().copied().into());
    if let Some(share) = pretext_accuracy(&run, &config, &extractor, queries)? {
        report.insert("pretext_accuracy".into(), rounded(share));
    }
    print(&report)
}

fn rounded(value: f64) -> Value {
    json!(significant(value))
}

fn print(report: &Map<String, Value>) -> Result<ExitStatus> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() {
        for (key, value) in report {
            let text = match value.as_f64().filter(|_| value.is_f64()) {
                Some(share)
                    if key.contains("accuracy") || key == "purity" || key.contains("untrained") =>
                {
                    format!("{:.2} %", 100.0 * share)
                }
                Some(number) => format!("{number:.4}"),
                None => value.to_string(),
            };
            writeln!(out, "{:<22} {text}", key.replace('_', " "))?;
        }
    } else {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    }
    Ok(ExitStatus::Done)
}

/// What the run's method makes of images whose folders are classes.
fn with_classes(config: &Config, set: ImageSet, place: &Path) -> Result<Arc<dyn Items>> {
    let items = items(config, set)?;
    if items.classes().is_empty() {
        bail!(
            "'{}' has no classes: eval needs images in at least two folders, one for each class",
            place.display()
        );
    }
    Ok(items)
}

/// Class numbers of `rows`, by the names in `names`; names that are new there come after them.
fn classes_of(items: &dyn Items, rows: &[usize], names: &[String]) -> Vec<u32> {
    let mut numbers: HashMap<&str, u32> = names
        .iter()
        .zip(0..)
        .map(|(name, number)| (name.as_str(), number))
        .collect();
    let of_class: Vec<u32> = items
        .classes()
        .iter()
        .map(|name| {
            let next = numbers.len() as u32;
            *numbers.entry(name).or_insert(next)
        })
        .collect();
    rows.iter()
        .map(|&row| items.class(row).map_or(0, |class| of_class[class as usize]))
        .collect()
}

fn same_place(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Classes that no voting image has can never be found.
fn warn_of_unknown(classes: &[String], known: &[String], place: &Path, ui: &Ui) -> Result<()> {
    let unknown: Vec<&str> = classes
        .iter()
        .filter(|class| !known.contains(class))
        .map(String::as_str)
        .collect();
    let list = unknown.join("', '");
    if unknown.len() == classes.len() {
        bail!(
            "none of the folders '{list}' is a class of '{}', whose images vote: \
             give others of the same classes with --train DIR",
            place.display()
        );
    }
    if !unknown.is_empty() {
        ui.warn(&format!(
            "'{list}' is no class of '{}': such images count as wrong in the kNN accuracy",
            place.display()
        ));
    }
    Ok(())
}

/// For each of the queries' images that were read its row among the known ones, where the two are one
/// file.
fn shared(
    queries: &dyn Items,
    of_queries: &[usize],
    known: &dyn Items,
    of_known: &[usize],
) -> Vec<Option<usize>> {
    let rows: HashMap<PathBuf, usize> = of_known
        .iter()
        .enumerate()
        .filter_map(|(index, &row)| Some((known.identity(row)?, index)))
        .collect();
    of_queries
        .iter()
        .map(|&row| rows.get(&queries.identity(row)?).copied())
        .collect()
}

/// Names what could not be listed.
fn skipped_folders(items: &dyn Items, ui: &Ui) -> Result<()> {
    let skipped = items.skipped();
    report_skipped(skipped, items.len() + skipped.len(), false, ui)
}

/// How often the method's pretext task is solved on images that were not trained on.
fn pretext_accuracy(
    run: &RunDir,
    config: &Config,
    extractor: &Extractor,
    items: Arc<dyn Items>,
) -> Result<Option<f64>> {
    if !find_method(&config.train.method)?.pretext {
        return Ok(None);
    }
    let method = method_of_run(run, config, &extractor.network)?;
    let cache = Cache::of_user(config.data.cache);
    let data = Dataset::load(items, extractor.store, &cache, None, &Silent)?;
    let aside = Aside::default();
    let context = aside.context(config, &extractor.network, &data, &Silent);
    let (mut right, mut asked) = (0, 0);
    let order = (0..data.len() as u32).collect();
    let device = extractor.network.device();
    let lengths = equal_lengths(data.len(), extract_size(config.data.size, device));
    for batch in batches(&data.pixels, order, lengths, device) {
        let batch = Batch::new(batch?, &extractor.network);
        let Some((correct, count)) = method.pretext_accuracy(&context, &batch) else {
            return Ok(None);
        };
        right += correct;
        asked += count;
    }
    Ok((asked > 0).then(|| right as f64 / asked as f64))
}
