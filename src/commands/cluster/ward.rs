//! `cluster --method ward`.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Tensor};

use super::args::ClusterArgs;
use super::{RowLabel, Stats, engine, plain, prepared, weights};
use crate::cluster::linkage::{self, MOST_POINTS};
use crate::cluster::sizes;
use crate::commands::mended_by_options;
use crate::error::usage;
use crate::monitor::Monitor;
use crate::tensors::from_labels;
use crate::ui::Ui;

pub fn run(
    args: &ClusterArgs,
    matrix: &Tensor,
    device: Device,
    ui: &Ui,
) -> Result<(Vec<RowLabel>, Stats)> {
    let clusters = args
        .clusters
        .ok_or_else(|| usage("Ward's linkage needs --clusters"))?;
    let started = Instant::now();
    let points = prepared(args, matrix, device, ui)?;
    let weights = weights(args, points.size()[0])?;
    if points.size()[0] as usize > MOST_POINTS {
        ui.note(&format!(
            "above {MOST_POINTS} rows Ward's linkage joins the centroids of a fine k-means"
        ));
    }
    let stop = || ui.stopping();
    let engine = engine(args)?;
    let found = linkage::labels(
        &points,
        weights.as_ref(),
        clusters,
        engine,
        args.seed,
        &stop,
    );
    let labels = found.map_err(mended_by_options)?;
    let stats = Stats {
        seconds: started.elapsed().as_secs_f64(),
        sizes: sizes(&from_labels(&labels), clusters),
        ..Stats::default()
    };
    Ok((plain(labels), stats))
}
