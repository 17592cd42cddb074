//! `cluster --method pic`.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Tensor};

use super::args::ClusterArgs;
use super::{RowLabel, Stats, plain, prepared};
use crate::cluster::pic::{self, PicOptions};
use crate::commands::mended_by_options;
use crate::error::usage;
use crate::monitor::Monitor;
use crate::ui::Ui;

pub fn run(
    args: &ClusterArgs,
    matrix: &Tensor,
    device: Device,
    ui: &Ui,
) -> Result<(Vec<RowLabel>, Stats)> {
    if args.clusters.is_some() {
        return Err(usage(
            "power iteration finds the number of clusters itself: leave --clusters out \
             (--neighbours and --sigma change it)",
        ));
    }
    let started = Instant::now();
    let points = prepared(args, matrix, device, ui)?;
    let defaults = PicOptions::default();
    let options = PicOptions {
        neighbours: args.neighbours.unwrap_or(defaults.neighbours),
        sigma: args.sigma.unwrap_or(defaults.sigma),
        alpha: args.alpha.unwrap_or(defaults.alpha),
        iterations: args.iterations.unwrap_or(defaults.iterations),
    };
    let found = pic::cluster(&points, &options).map_err(mended_by_options)?;
    if let Some(warning) = found.loneliness(options.sigma) {
        ui.warn(&format!("{warning} (--sigma, --l2)"));
    }
    let stats = Stats {
        iterations: found.iterations,
        seconds: started.elapsed().as_secs_f64(),
        sizes: found.sizes,
        ..Stats::default()
    };
    Ok((plain(found.labels), stats))
}
