//! `cluster`: k-means, Ward's linkage, Sinkhorn-Knopp or power iteration on any matrix, no network in sight.

mod args;
mod kmeans;
mod pic;
mod sinkhorn;
mod ward;

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::ExitStatus;
use super::options::machine;
use super::output::{Output, ends_in};
use crate::cluster::preprocess::Pca;
use crate::cluster::{self, Assignment, ENGINES, Empty, Engine};
use crate::comm::OneProcess;
use crate::config::defaults::ROWS_FOR_A_COMPONENT;
use crate::device::holds;
use crate::error::{unknown, usage};
use crate::matrix;
use crate::monitor::Monitor;
use crate::tensors::l2_rows;
use crate::ui::Ui;
pub use args::ClusterArgs;
use args::ClusterMethod;

/// A label of a row.
#[derive(Debug, Serialize)]
struct RowLabel {
    index: usize,
    label: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f64>,
}

/// What `--stats` holds.
#[derive(Debug, Default, Serialize)]
struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    objective: Option<f64>,
    iterations: usize,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reassigned: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newton_steps: Option<usize>,
    /// Rows moved for exact balance.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<usize>,
    sizes: Vec<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<Assignment>,
}

pub fn run(args: ClusterArgs, ui: &Ui) -> Result<ExitStatus> {
    refuse_options_of_other_methods(&args)?;
    if let Some(path) = &args.centroids {
        ends_in(path, "npy", "--centroids writes NumPy's format")?;
    }
    let device = machine(&args.machine)?;
    let matrix = matrix::read(&args.features)?;
    let open = |path: &Option<PathBuf>| path.as_deref().map(Output::file).transpose();
    let (of_stats, of_centroids) = (open(&args.stats)?, open(&args.centroids)?);
    let place = || format!("'{}'", args.features.display());
    let (labels, stats) = match args.method {
        ClusterMethod::Kmeans => {
            kmeans::run(&args, &matrix, device, of_centroids, ui).with_context(place)?
        }
        ClusterMethod::Sinkhorn => sinkhorn::run(&args, matrix, ui).with_context(place)?,
        ClusterMethod::Pic => pic::run(&args, &matrix, device, ui).with_context(place)?,
        ClusterMethod::Ward => ward::run(&args, &matrix, device, ui).with_context(place)?,
    };
    let empty = stats.sizes.iter().filter(|&&size| size == 0).count();
    if empty > 0 {
        ui.warn(&format!(
            "{empty} of {} clusters are empty: {}",
            stats.sizes.len(),
            match args.method {
                ClusterMethod::Kmeans if args.empty == Some(Empty::Keep) =>
                    "no row is nearest to their centroids, and --empty keep leaves them so",
                ClusterMethod::Kmeans if args.empty.is_none_or(|empty| empty == Empty::Split) =>
                    "there are few different rows (--empty farthest fills what can be filled)",
                ClusterMethod::Kmeans | ClusterMethod::Pic | ClusterMethod::Ward => {
                    "there are few different rows"
                }
                ClusterMethod::Sinkhorn if args.exact_balance =>
                    "there are fewer rows than columns",
                ClusterMethod::Sinkhorn =>
                    "no row has its largest score there (see --exact-balance)",
            }
        ));
    }
    if let Some(output) = of_stats {
        output.finish(&serde_json::to_vec_pretty(&stats)?)?;
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for label in &labels {
        serde_json::to_writer(&mut out, label)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

/// An option that does nothing must not look as if it did.
fn refuse_options_of_other_methods(args: &ClusterArgs) -> Result<()> {
    use ClusterMethod::{Kmeans, Pic, Sinkhorn, Ward};
    let limit = args.max_points_per_centroid;
    let options: &[(&str, bool, &[ClusterMethod])] = &[
        ("--input", args.input.is_some(), &[Sinkhorn]),
        ("--lambda", args.lambda.is_some(), &[Sinkhorn]),
        ("--solver", args.solver.is_some(), &[Sinkhorn]),
        ("--exact-balance", args.exact_balance, &[Sinkhorn]),
        ("--memory", args.memory.is_some(), &[Sinkhorn]),
        ("--neighbours", args.neighbours.is_some(), &[Pic]),
        ("--sigma", args.sigma.is_some(), &[Pic]),
        ("--alpha", args.alpha.is_some(), &[Pic]),
        ("--engine", args.engine.is_some(), &[Kmeans, Ward]),
        ("--init", args.init.is_some(), &[Kmeans]),
        ("--restarts", args.restarts.is_some(), &[Kmeans]),
        ("--empty", args.empty.is_some(), &[Kmeans]),
        ("--weights", args.weights.is_some(), &[Kmeans, Ward]),
        ("--max-points-per-centroid", limit.is_some(), &[Kmeans]),
        ("--spherical", args.spherical, &[Kmeans]),
        ("--centroids", args.centroids.is_some(), &[Kmeans]),
        ("--tolerance", args.tolerance.is_some(), &[Kmeans, Sinkhorn]),
        ("--pca", args.pca.is_some(), &[Kmeans, Pic, Ward]),
        ("--whiten", args.whiten, &[Kmeans, Pic, Ward]),
        ("--l2", args.l2, &[Kmeans, Pic, Ward]),
    ];
    let wrong = options
        .iter()
        .find(|(_, given, methods)| *given && !methods.contains(&args.method));
    match wrong {
        Some((name, _, methods)) => {
            let methods: Vec<&str> = methods.iter().map(|method| method.name()).collect();
            let methods = methods.join(" or ");
            Err(usage(format!("{name} belongs to --method {methods}")))
        }
        None => Ok(()),
    }
}

/// The k-means engine that is asked for.
fn engine(args: &ClusterArgs) -> Result<&'static Engine> {
    let name = args.engine.as_deref().unwrap_or(ENGINES[0].name);
    let known = ENGINES.iter().map(|engine| engine.name);
    cluster::engine(name).ok_or_else(|| unknown("engine", name, known))
}

/// The weights `[n]` that are given for `n` rows.
fn weights(args: &ClusterArgs, n: i64) -> Result<Option<Tensor>> {
    let Some(file) = &args.weights else {
        return Ok(None);
    };
    let column = matrix::read(file)?;
    if column.size() != [n, 1] {
        bail!(
            "'{}' holds {} rows of {} for {n} rows of points: it should be one column of weights",
            file.display(),
            column.size()[0],
            column.size()[1]
        );
    }
    let column = column.flatten(0, -1);
    cluster::check_weights(&column, n as usize)
        .and_then(|()| cluster::check_total(cluster::total(&column)))
        .with_context(|| format!("'{}'", file.display()))?;
    Ok(Some(column))
}

/// The points on `device`, or where they are if they take too much of it, as --pca, --whiten and --l2 want
/// them.
fn prepared(args: &ClusterArgs, matrix: &Tensor, device: Device, ui: &Ui) -> Result<Tensor> {
    let mut points = if holds(device, 4.0 * matrix.numel() as f64) {
        matrix.to_device(device)
    } else {
        matrix.shallow_clone()
    };
    if args.pca.is_some() || args.whiten {
        let most = args.pca.unwrap_or(usize::MAX);
        let pca = Pca::fit_on(device, &OneProcess, &points, most, args.whiten)?;
        let (rows, rank) = (points.size()[0] as usize, pca.rank());
        if args.whiten && rows < ROWS_FOR_A_COMPONENT * rank {
            ui.warn(&format!(
                "{rank} whitened components of {rows} rows are mostly noise: with --pca {} each would have \
                 {ROWS_FOR_A_COMPONENT} rows to be told from, and without --whiten large ones count more",
                (rows / ROWS_FOR_A_COMPONENT).max(2)
            ));
        }
        points = pca.apply(&points, Kind::Float);
    }
    if args.l2 {
        points = l2_rows(&points);
    }
    Ok(points)
}

/// Labels without distances.
fn plain(labels: Vec<u32>) -> Vec<RowLabel> {
    let label = |(index, label)| RowLabel {
        index,
        label,
        distance: None,
    };
    labels.into_iter().enumerate().map(label).collect()
}
