//! `doctor`: what this machine offers and what will be used.

use std::io::Write;

use anyhow::Result;

use super::ExitStatus;
use crate::cluster::kernel::Path;
use crate::device;

pub fn run() -> Result<ExitStatus> {
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
    writeln!(out, "k-means      {}", Path::best().name())?;
    match device::available_memory() {
        Some(bytes) => writeln!(out, "memory       {:.1} GB available", bytes as f64 / 1e9)?,
        None => writeln!(out, "memory       unknown")?,
    }
    Ok(ExitStatus::Done)
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
