//! `doctor`: what this machine offers and what will be used.

mod check;

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use tch::Device;

use super::ExitStatus;
use crate::cluster::kernel::Isa;
use crate::device;
use crate::device::DeviceChoice;

/// Show what this machine offers.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Compute a little of everything on the device and compare it with the CPU
    #[arg(long)]
    pub check: bool,
    /// The device to check: auto, cpu, cuda or cuda:INDEX
    #[arg(long, requires = "check")]
    pub device: Option<DeviceChoice>,
}

pub fn run(args: &DoctorArgs) -> Result<ExitStatus> {
    if args.check {
        return compare(args.device.unwrap_or_default());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "ssl-cluster  {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "libtorch     2.11.0, by tch 0.24.0")?;
    match device::cuda_devices() {
        Ok(0) => writeln!(
            out,
            "CUDA         libtorch has it, but the driver reports no device"
        )?,
        Ok(count) => {
            let cudnn = if tch::Cuda::cudnn_is_available() {
                "with"
            } else {
                "without"
            };
            writeln!(out, "CUDA         {count} device(s), {cudnn} cuDNN")?;
            for index in 0..count {
                let name = device::cuda_name(index).unwrap_or_else(|| "unknown".into());
                let memory = device::device_memory(Device::Cuda(index)).unwrap_or(0);
                let gigabytes = memory as f64 / 1e9;
                writeln!(out, "  cuda:{index}     {name}, {gigabytes:.1} GB")?;
            }
        }
        Err(reason) => writeln!(
            out,
            "CUDA         none ({reason}); with an NVIDIA GPU: scripts/libtorch.sh --cuda"
        )?,
    }
    let chosen = device::select(device::DeviceChoice::Auto)?;
    writeln!(
        out,
        "device       {} (--device changes it)",
        device::describe(chosen)
    )?;
    writeln!(
        out,
        "threads      {} (--threads changes it)",
        device::cores()
    )?;
    writeln!(
        out,
        "precision    {} (--precision changes it)",
        device::precision(device::PrecisionChoice::Auto, chosen)
    )?;
    writeln!(out, "SIMD         {}", simd())?;
    writeln!(out, "k-means      {}", Isa::best().name())?;
    match device::available_memory() {
        Some(bytes) => writeln!(out, "memory       {:.1} GB available", bytes as f64 / 1e9)?,
        None => writeln!(out, "memory       unknown")?,
    }
    Ok(ExitStatus::Done)
}

/// Prints a line for each part that was compared with the CPU.
fn compare(choice: device::DeviceChoice) -> Result<ExitStatus> {
    let device = device::select(choice)?;
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    check::check(device, &mut |verdict| {
        failed += usize::from(!verdict.ok);
        let word = if verdict.ok { "ok" } else { "FAILED" };
        writeln!(out, "{word:<7} {:<34} {}", verdict.name, verdict.figures)?;
        Ok(())
    })?;
    match failed {
        0 => Ok(ExitStatus::Done),
        _ => bail!(
            "{} computes something else than the CPU in {failed} of these parts: please report it with \
             this table",
            device::describe(device)
        ),
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> String {
    let features = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
        ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
    ];
    let found: Vec<&str> = features
        .iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| *name)
        .collect();
    if found.is_empty() {
        "SSE2".into()
    } else {
        found.join(", ")
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> String {
    std::env::consts::ARCH.into()
}
