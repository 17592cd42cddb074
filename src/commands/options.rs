//! Options that several commands have.

use anyhow::Result;
use clap::Args;
use clap::builder::{StringValueParser, TypedValueParser};

use crate::cluster::ENGINES;
use crate::config::Init;
use crate::device::{self, DeviceChoice, PrecisionChoice};

/// Where to compute.
#[derive(Debug, Args)]
pub struct Machine {
    /// auto, cpu, cuda or cuda:INDEX
    #[arg(long, env = "SSL_CLUSTER_DEVICE")]
    pub device: Option<DeviceChoice>,
    /// CPU threads [default: one for each core]
    #[arg(long, value_parser = at_least_one)]
    pub threads: Option<usize>,
}

/// What networks compute in.
#[derive(Debug, Args)]
pub struct Numbers {
    /// f32, bf16, or auto: bf16 where the processor multiplies in it (`doctor` tells)
    /// [default: auto, or the run's]
    #[arg(long)]
    pub precision: Option<PrecisionChoice>,
}

/// Sets the threads and gives the device.
pub(super) fn machine(machine: &Machine) -> Result<tch::Device> {
    let device = device::select(machine.device.unwrap_or_default())?;
    device::set_threads(machine.threads);
    Ok(device)
}

/// Reads a number that must not be 0.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("it must be a whole number".into()),
    }
}

/// Reads `--init`.
pub(super) fn init() -> impl TypedValueParser<Value = Init> {
    StringValueParser::new().map(Init::from)
}

/// The help of an option that takes one of a registry's names.
pub(super) fn listed(what: &str, names: impl IntoIterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    format!("{what}: {}", names.join(", "))
}

pub(super) fn engines() -> String {
    listed(
        "K-means engine, the first by default",
        ENGINES.iter().map(|engine| engine.name),
    )
}
