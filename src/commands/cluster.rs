//! `cluster`: k-means or Sinkhorn-Knopp on any matrix, no network in sight.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::output::Output;
use super::{ExitStatus, machine, matrix, mended_by_options};
use crate::cli::{self, ClusterMethod, Scores};
use crate::cluster::preprocess::{Pca, l2_rows};
use crate::cluster::sinkhorn::{self, SinkhornOptions};
use crate::cluster::{self, Assignment, ENGINES, Init, KMeansOptions};
use crate::error::usage;
use crate::monitor::Monitor;
use crate::ui::Ui;

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

pub fn run(args: cli::Cluster, ui: &Ui) -> Result<ExitStatus> {
    refuse_options_of_the_other_method(&args)?;
    let device = machine(&args.machine)?;
    let matrix = matrix::read(&args.features)?;
    let open = |path: &Option<PathBuf>| path.as_deref().map(Output::file).transpose();
    let (of_stats, of_centroids) = (open(&args.stats)?, open(&args.centroids)?);
    let place = || format!("'{}'", args.features.display());
    let (labels, stats) = match args.method {
        ClusterMethod::Kmeans => {
            kmeans(&args, &matrix, device, of_centroids).with_context(place)?
        }
        ClusterMethod::Sinkhorn => transport(&args, &matrix, ui).with_context(place)?,
    };
    let empty = stats.sizes.iter().filter(|&&size| size == 0).count();
    if empty > 0 {
        ui.warn(&format!(
            "{empty} of {} clusters are empty: {}",
            stats.sizes.len(),
            match args.method {
                ClusterMethod::Kmeans => "too many rows are alike",
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
fn refuse_options_of_the_other_method(args: &cli::Cluster) -> Result<()> {
    let (other, given) = match args.method {
        ClusterMethod::Kmeans => (
            "sinkhorn",
            vec![
                ("--input", args.input.is_some()),
                ("--lambda", args.lambda.is_some()),
                ("--solver", args.solver.is_some()),
                ("--exact-balance", args.exact_balance),
            ],
        ),
        ClusterMethod::Sinkhorn => (
            "kmeans",
            vec![
                ("--engine", args.engine.is_some()),
                ("--init", args.init.is_some()),
                ("--restarts", args.restarts.is_some()),
                ("--empty", args.empty.is_some()),
                (
                    "--max-points-per-centroid",
                    args.max_points_per_centroid.is_some(),
                ),
                ("--spherical", args.spherical),
                ("--pca", args.pca.is_some()),
                ("--whiten", args.whiten),
                ("--l2", args.l2),
                ("--centroids", args.centroids.is_some()),
            ],
        ),
    };
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(usage(format!("{name} belongs to --method {other}"))),
        None => Ok(()),
    }
}

fn kmeans(
    args: &cli::Cluster,
    matrix: &Tensor,
    device: Device,
    of_centroids: Option<Output>,
) -> Result<(Vec<RowLabel>, Stats)> {
    let name = args.engine.as_deref().unwrap_or(ENGINES[0].name);
    let engine = cluster::engine(name).ok_or_else(|| {
        let known: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
        usage(format!(
            "there is no engine '{name}': use {}",
            known.join(" or ")
        ))
    })?;
    let started = std::time::Instant::now();
    let mut points = matrix.to_device(device);
    if args.pca.is_some() || args.whiten {
        let pca = Pca::fit(&points, args.pca.unwrap_or(usize::MAX), args.whiten)?;
        points = pca.apply(&points, Kind::Float);
    }
    if args.l2 {
        points = l2_rows(&points);
    }
    let prepared = started.elapsed().as_secs_f64();
    let start = args.init.as_deref().unwrap_or("random");
    let given = match start {
        "random" | "kmeans++" | "kmeans-par" => None,
        file => Some(matrix::read(Path::new(file))?.to_device(device)),
    };
    let init = match (&given, start) {
        (Some(centroids), _) => Init::Given(centroids),
        (None, "kmeans++") => Init::PlusPlus,
        (None, "kmeans-par") => Init::Parallel,
        (None, _) => Init::Random,
    };
    let clusters = match (args.clusters, &given) {
        (Some(clusters), _) => clusters,
        (None, Some(centroids)) => centroids.size()[0] as usize,
        (None, None) => return Err(usage("k-means needs --clusters")),
    };
    let options = KMeansOptions {
        clusters,
        iterations: args.iterations.unwrap_or(20),
        tolerance: args.tolerance.unwrap_or(0.0),
        seed: args.seed,
        spherical: args.spherical,
        init,
        empty: args.empty.map(Into::into).unwrap_or_default(),
        restarts: args.restarts.unwrap_or(1),
        max_points_per_centroid: args.max_points_per_centroid,
    };
    if given.is_some() && options.restarts > 1 {
        return Err(usage(
            "--restarts draws other centroids each time, --init gives them: leave one out",
        ));
    }
    let result = cluster::cluster(engine, &points, &options).map_err(mended_by_options)?;
    if let Some(output) = of_centroids {
        output.finish(&matrix::to_npy(&result.centroids)?)?;
    }
    let labels: Vec<i64> = Vec::try_from(&result.labels)?;
    let points = if args.spherical {
        l2_rows(&points)
    } else {
        points
    };
    let distances = distances(&points, &result.centroids, &result.labels)?;
    let labels = labels
        .into_iter()
        .zip(distances)
        .enumerate()
        .map(|(index, (label, distance))| RowLabel {
            index,
            label: label as u32,
            distance: Some((distance * 1e6).round() / 1e6),
        })
        .collect();
    let statistics = result.statistics;
    let stats = Stats {
        objective: Some(statistics.objective()),
        iterations: statistics.iterations,
        seconds: statistics.seconds + prepared,
        reassigned: Some(statistics.reassigned()),
        sizes: result.sizes,
        history: statistics.history,
        ..Stats::default()
    };
    Ok((labels, stats))
}

/// Euclidean distance of every point to its centroid.
fn distances(points: &Tensor, centroids: &Tensor, labels: &Tensor) -> Result<Vec<f64>> {
    const ROWS: i64 = 16_384;
    let mut all = Vec::new();
    for start in (0..points.size()[0]).step_by(ROWS as usize) {
        let rows = points.narrow(0, start, ROWS.min(points.size()[0] - start));
        let own = centroids.index_select(0, &labels.narrow(0, start, rows.size()[0]));
        let squared = (rows - own)
            .square()
            .sum_dim_intlist(1, false, Kind::Double);
        all.extend(Vec::<f64>::try_from(&squared.sqrt())?);
    }
    Ok(all)
}

fn transport(args: &cli::Cluster, scores: &Tensor, ui: &Ui) -> Result<(Vec<RowLabel>, Stats)> {
    let started = std::time::Instant::now();
    let (_, k) = match scores.size()[..] {
        [n, k] if n > 0 && k > 0 => (n, k),
        _ => bail!("it holds no scores"),
    };
    if args.clusters.is_some_and(|clusters| clusters as i64 != k) {
        return Err(usage(format!(
            "the scores have {k} columns: leave --clusters out"
        )));
    }
    let log_p = match args.input.unwrap_or(Scores::Logits) {
        Scores::Logits => scores.log_softmax(1, Kind::Float),
        Scores::Probabilities => {
            let negative = scores.lt(0.0).any_dim(1, false).to_kind(Kind::Int);
            if negative.max().int64_value(&[]) != 0 {
                let row = negative.argmax(0, false).int64_value(&[]);
                bail!(
                    "row {row} has a negative probability (are these logits? use --input logits)"
                );
            }
            scores.log()
        }
    };
    let log_p: Vec<f32> = Vec::try_from(&log_p.contiguous().view(-1))?;
    let defaults = SinkhornOptions::default();
    let options = SinkhornOptions {
        lambda: args.lambda.unwrap_or(defaults.lambda),
        solver: args.solver.map_or(defaults.solver, Into::into),
        exact_balance: args.exact_balance,
        tolerance: args.tolerance.unwrap_or(defaults.tolerance),
        max_iterations: args.iterations.unwrap_or(defaults.max_iterations),
        ..defaults
    };
    let solved = sinkhorn::solve(&log_p, k as usize, &options).map_err(mended_by_options)?;
    if !solved.converged {
        ui.warn(&format!(
            "stopped after {} iterations at error {:.3}, tolerance {}: raise --iterations or --tolerance",
            solved.iterations, solved.error, options.tolerance
        ));
    }
    let stats = Stats {
        iterations: solved.iterations,
        seconds: started.elapsed().as_secs_f64(),
        error: Some(solved.error),
        cost: Some(solved.cost),
        newton_steps: Some(solved.newton_steps),
        moved: args.exact_balance.then_some(solved.moved),
        sizes: solved.sizes,
        ..Stats::default()
    };
    let label = |(index, label)| RowLabel {
        index,
        label,
        distance: None,
    };
    Ok((
        solved.labels.into_iter().enumerate().map(label).collect(),
        stats,
    ))
}
