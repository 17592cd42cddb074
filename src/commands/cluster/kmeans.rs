//! `cluster --method kmeans`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

use super::{Output, RowLabel, Stats};
use crate::cli;
use crate::cluster::preprocess::l2_rows;
use crate::cluster::{self, ENGINES, Init, KMeansOptions};
use crate::commands::{matrix, mended_by_options};
use crate::error::usage;

pub fn run(
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
    let started = Instant::now();
    let points = super::prepared(args, matrix, device)?;
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
    let weights = match &args.weights {
        None => None,
        Some(file) => {
            let column = matrix::read(file)?;
            let n = points.size()[0];
            if column.numel() as i64 != n {
                bail!(
                    "'{}' holds {} weights for {n} rows",
                    file.display(),
                    column.numel()
                );
            }
            Some(column.flatten(0, -1))
        }
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
        weights: weights.as_ref(),
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
