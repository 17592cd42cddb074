//! `cluster --method kmeans`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::args::ClusterArgs;
use super::{Output, RowLabel, Stats};
use crate::cluster::{self, Init, KMeansOptions};
use crate::comm::OneProcess;
use crate::commands::mended_by_options;
use crate::error::usage;
use crate::labels::significant;
use crate::matrix;
use crate::monitor::Monitor;
use crate::tensors::l2_rows;
use crate::ui::Ui;

pub fn run(
    args: &ClusterArgs,
    matrix: &Tensor,
    device: Device,
    of_centroids: Option<Output>,
    ui: &Ui,
) -> Result<(Vec<RowLabel>, Stats)> {
    let engine = super::engine(args)?;
    let started = Instant::now();
    let points = super::prepared(args, matrix, device, ui)?;
    let prepared = started.elapsed().as_secs_f64();
    if let Some(warning) = far_from_origin(&points) {
        ui.warn(&warning);
    }
    let start = args.init.as_deref().unwrap_or("random");
    let given = match start {
        "random" | "kmeans++" | "kmeans-par" => None,
        file if file == "-" || Path::new(file).exists() => {
            Some(initial(file, args)?.to_device(device))
        }
        other => {
            return Err(usage(format!(
                "--init is random, kmeans++, kmeans-par or a file; there is no file '{other}'"
            )));
        }
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
    let weights = super::weights(args, points.size()[0])?;
    let options = KMeansOptions {
        clusters,
        iterations: args.iterations.unwrap_or(20),
        tolerance: args.tolerance.unwrap_or(0.0),
        seed: args.seed,
        spherical: args.spherical,
        init,
        empty: args.empty.unwrap_or_default(),
        restarts: args.restarts.unwrap_or(1),
        max_points_per_centroid: args.max_points_per_centroid,
        weights: weights.as_ref(),
        device: Some(device),
        comm: &OneProcess,
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
            distance: Some(significant(distance)),
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

/// The centroids in a file.
fn initial(file: &str, args: &ClusterArgs) -> Result<Tensor> {
    let centroids = matrix::read(Path::new(file))?;
    cluster::check_finite(&centroids).with_context(|| format!("'{file}'"))?;
    let rows = centroids.size()[0] as usize;
    match args.clusters {
        Some(clusters) if clusters != rows => Err(usage(format!(
            "'{file}' holds {rows} centroids, not {clusters}: leave --clusters out"
        ))),
        _ => Ok(centroids),
    }
}

/// Rows this many times farther from the origin than from each other lose digits that matter.
const FAR: f64 = 1e4;
/// Rows that are looked at for that.
const SAMPLE: i64 = 2_000;

/// A warning for points that lie together far from the origin, where single precision is coarse.
fn far_from_origin(points: &Tensor) -> Option<String> {
    if points.numel() == 0 {
        return None;
    }
    let step = (points.size()[0] / SAMPLE).max(1);
    let points = points.slice(0, None, None, step);
    let (mean, deviation) = (
        points.mean_dim(0, false, Kind::Double),
        points.std_dim(0, false, false).to_kind(Kind::Double),
    );
    let (distance, spread) = (
        mean.square().sum(Kind::Double).double_value(&[]).sqrt(),
        deviation
            .square()
            .sum(Kind::Double)
            .double_value(&[])
            .sqrt(),
    );
    (distance > FAR * spread && spread > 0.0).then(|| {
        format!(
            "rows lie {:.0e} times as far from the origin as from each other, which single precision \
             cannot tell well apart: subtract their mean first",
            distance / spread
        )
    })
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
