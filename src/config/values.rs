//! Values of single options that are more than a number or a text.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Paths of inputs; in TOML one is a text, several are a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct Inputs(pub Vec<String>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Inputs {
    fn from(inputs: OneOrMany) -> Self {
        match inputs {
            OneOrMany::One(input) => Self(vec![input]),
            OneOrMany::Many(inputs) => Self(inputs),
        }
    }
}

impl From<Inputs> for OneOrMany {
    fn from(Inputs(mut inputs): Inputs) -> Self {
        match inputs.len() {
            1 => Self::One(inputs.remove(0)),
            _ => Self::Many(inputs),
        }
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("', '"))
    }
}

/// Where decoded pixels are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheChoice {
    /// In memory where they fit, else on disk.
    #[default]
    Auto,
    Ram,
    /// In the cache directory, where the next run on the same images finds them.
    Disk,
    /// Nowhere: images are decoded each time that they are seen.
    Off,
}

/// What of a kept square the network sees when features are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainView {
    /// Its centre, as large as the input.
    #[default]
    Centre,
    /// All of it, resized: for methods that train on small pieces.
    Whole,
}

/// What a network's weights begin as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Init {
    /// Published weights where they are found and nothing is to be learned from scratch.
    Auto,
    /// Random numbers.
    #[default]
    None,
    /// Published weights that are found on this machine.
    ImageNet,
    /// Those of a file or a run.
    From(PathBuf),
}

impl From<String> for Init {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "none" => Self::None,
            "imagenet" => Self::ImageNet,
            _ => Self::From(text.into()),
        }
    }
}

impl From<Init> for String {
    fn from(init: Init) -> Self {
        match init {
            Init::Auto => "auto".into(),
            Init::None => "none".into(),
            Init::ImageNet => "imagenet".into(),
            Init::From(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// The file that a network's weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsFile {
    /// What they are called where they are published, or the file's name.
    pub name: String,
    /// Of the file, in hexadecimal.
    pub sha256: String,
    pub path: PathBuf,
}

/// How pixels between pixels are found where images are resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    #[default]
    Bilinear,
    /// Sharper: what most vision transformers were trained with.
    Bicubic,
}

/// How the learning rate falls over a run, or over what a warm-up leaves of it; `t` runs from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// lr throughout (DeepCluster).
    Constant,
    /// lr until t = 0.6, then in a straight line to 0.
    Linear,
    /// lr · (1 + cos πt) / 2
    Cosine,
    /// lr, divided by 5 at t = 0.3, 0.6 and 0.8 (rotation).
    Steps,
    /// lr, divided by 10 every 150 epochs of the run (SeLa's `lrdrop`).
    #[serde(rename = "step-decay", alias = "drops")]
    StepDecay,
}

impl Schedule {
    /// The share of the learning rate at `t` of a run of so many epochs, of which the first `warmup` rise from
    /// 0 in a straight line (Goyal et al., Accurate, Large Minibatch SGD, 2017; SwAV and DINO begin so).
    pub fn factor(self, t: f64, epochs: usize, warmup: f64) -> f64 {
        let of_run = t;
        let warm = warmup / epochs as f64;
        if t < warm {
            return t / warm;
        }
        let t = (t - warm) / (1.0 - warm);
        match self {
            Self::Constant => 1.0,
            Self::Linear => ((1.0 - t) / 0.4).clamp(0.0, 1.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * t.min(1.0)).cos()),
            Self::Steps => [0.3, 0.6, 0.8]
                .iter()
                .filter(|&&at| t >= at)
                .fold(1.0, |f, _| f / 5.0),
            Self::StepDecay => 0.1_f64.powf((of_run * epochs as f64 / 150.0).floor()),
        }
    }
}

/// How many label files of past steps are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Keep {
    Newest(usize),
    All,
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::Newest)
                .map_err(|_| format!("'{number}' is neither a number nor `all`")),
        }
    }
}

impl TryFrom<String> for Keep {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all"),
            Self::Newest(count) => write!(f, "{count}"),
        }
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        keep.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    fn at(schedule: Schedule, points: [f64; 5]) -> [f64; 5] {
        points.map(|t| schedule.factor(t, 300, 0.0))
    }

    fn near(found: [f64; 5], expected: [f64; 5]) {
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} beside {expected}");
        }
    }

    #[test]
    fn schedules_fall_as_they_say() {
        let quarters = [0.0, 0.25, 0.5, 0.75, 1.0];
        assert_eq!(at(Schedule::Constant, quarters), [1.0; 5]);
        let linear = at(Schedule::Linear, [0.0, 0.6, 0.7, 0.9, 1.0]);
        near(linear, [1.0, 1.0, 0.75, 0.25, 0.0]);
        let half = 0.5_f64.sqrt();
        let cosine = [1.0, 0.5 + half / 2.0, 0.5, 0.5 - half / 2.0, 0.0];
        near(at(Schedule::Cosine, quarters), cosine);
        let steps = at(Schedule::Steps, [0.29, 0.3, 0.6, 0.8, 1.0]);
        near(steps, [1.0, 0.2, 0.04, 0.008, 0.008]);
        // 300 epochs: a tenth from the 150th on.
        let decay = at(Schedule::StepDecay, [0.0, 0.499, 0.5, 0.999, 1.0]);
        near(decay, [1.0, 1.0, 0.1, 0.1, 0.01]);
    }

    #[test]
    fn a_warm_up_rises_to_where_the_schedule_begins() {
        // 10 of 100 epochs.
        let warmed = |schedule: Schedule, t| schedule.factor(t, 100, 10.0);
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            let rising = [0.0, 0.025, 0.05, 0.075, 0.1].map(|t| warmed(schedule, t));
            near(rising, [0.0, 0.25, 0.5, 0.75, 1.0]);
        }
        assert!((warmed(Schedule::Cosine, 0.55) - 0.5).abs() < 1e-9);
        assert!(warmed(Schedule::Cosine, 1.0).abs() < 1e-9);
        assert_eq!(Schedule::Cosine.factor(0.0, 100, 0.0), 1.0);
        // Steps are shares of what the warm-up leaves, decay counts the run's epochs.
        assert_eq!(warmed(Schedule::Steps, 0.36), 1.0);
        assert_eq!(warmed(Schedule::Steps, 0.38), 0.2);
        assert_eq!(Schedule::StepDecay.factor(0.495, 300, 30.0), 1.0);
        assert!((Schedule::StepDecay.factor(0.505, 300, 30.0) - 0.1).abs() < 1e-9);
    }
}
