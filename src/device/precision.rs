//! What networks compute in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::cuda;

/// What the user asked for with `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 where the processor multiplies in it, else f32.
    #[default]
    Auto,
    F32,
    Bf16,
}

impl FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(format!("'{other}' is no precision: auto, f32 or bf16")),
        }
    }
}

/// What networks compute in. Parameters, batch norm's statistics, features and losses are f32
/// either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    F32,
    Bf16,
}

impl Precision {
    /// The kind of a network's maps.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// The standard deviation of the errors of a network's features, relative to the features' size, where that
    /// counts. (Features in bf16 less those in f32, along principal components: the median of 256 is 0.064 for
    /// MobileNetV2, 0.005 for conv4.)
    pub fn rounding(self) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::Bf16 => 0.06,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// Resolves `choice` for `device`. Nothing is timed: the same machine must give the same labels
/// each time.
pub fn precision(choice: PrecisionChoice, device: Device) -> Precision {
    match choice {
        PrecisionChoice::F32 => Precision::F32,
        PrecisionChoice::Bf16 => Precision::Bf16,
        PrecisionChoice::Auto if multiplies_bf16(device) => Precision::Bf16,
        PrecisionChoice::Auto => Precision::F32,
    }
}

/// Whether `device` multiplies bf16 faster than f32.
fn multiplies_bf16(device: Device) -> bool {
    match device {
        #[cfg(target_arch = "x86_64")]
        Device::Cpu => is_x86_feature_detected!("avx512bf16"),
        // From NVIDIA's Ampere on (compute capability 8).
        Device::Cuda(index) => cuda::compute_capability(index).is_some_and(|major| major >= 8),
        _ => false,
    }
}
