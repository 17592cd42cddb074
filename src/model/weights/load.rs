//! Named tensors into a network's variables, after a check of every name and shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use tch::{Kind, Tensor, nn};

use super::WeightsError;

/// What other programs put before a backbone's names, and what stands there instead:
/// `DataParallel`, training scripts, and DeepCluster's checkpoints (`util.py`).
pub const PREFIXES: &[(&str, &str)] = &[
    ("module.", ""),
    ("state_dict.", ""),
    ("backbone.", ""),
    ("features.module.", "features."),
];

/// PyTorch's counter beside each batch norm; tch's batch norm has none.
const BATCHES_TRACKED: &str = "num_batches_tracked";

/// Names listed in a message before the rest is only counted.
const LISTED: usize = 12;

/// What loading did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Number of variables that were filled: all of them.
    pub loaded: usize,
    /// Tensors of the file that no variable asked for, such as another head (`fc.weight`).
    pub unexpected: Vec<String>,
}

/// Why one variable cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The file has no such tensor.
    Missing { name: String },
    /// The file's tensor has another shape.
    Shape {
        name: String,
        network: Vec<i64>,
        file: Vec<i64>,
    },
    /// The file's tensor does not hold floating-point numbers.
    Kind { name: String, file: Kind },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name } => write!(f, "{name} is missing"),
            Self::Shape {
                name,
                network,
                file,
            } => write!(f, "{name} is {file:?}, the network needs {network:?}"),
            Self::Kind { name, file } => write!(f, "{name} holds {file:?}, not floats"),
        }
    }
}

/// `name` without the prefixes of [`PREFIXES`], however they are nested.
pub fn canonical_name(name: &str) -> String {
    let mut name = name.to_owned();
    while let Some(shorter) = PREFIXES
        .iter()
        .find_map(|(prefix, instead)| Some(format!("{instead}{}", name.strip_prefix(prefix)?)))
    {
        name = shorter;
    }
    name
}

/// Whether no tensor holds NaN or infinity; waits for the device.
pub fn all_finite(tensors: &[(String, Tensor)]) -> bool {
    let sums: Vec<Tensor> = tensors
        .iter()
        .filter(|(_, tensor)| tensor.is_floating_point())
        .map(|(_, tensor)| (tensor * 0.0).sum(Kind::Float))
        .collect();
    sums.is_empty()
        || tch::no_grad(|| Tensor::stack(&sums, 0).sum(Kind::Float)).double_value(&[]) == 0.0
}

/// A variable store's tensors by name, in the order of their names. The tensors share
/// the network's memory.
pub fn named_variables(vs: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut named: Vec<_> = vs.variables().into_iter().collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    named
}

/// The same under `module.`.
pub fn prefixed(module: &str, store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let named = named_variables(store).into_iter();
    named
        .map(|(name, tensor)| (format!("{module}.{name}"), tensor))
        .collect()
}

/// Copies `tensors` into `variables` of the same names ([`canonical_name`]s count as the
/// same, an exact match goes first). Half, bfloat16 and f64 are converted: the variables
/// keep their dtype and device. `num_batches_tracked` is ignored. `path` is the file that
/// messages name.
///
/// # Errors
/// [`WeightsError::Misfit`] lists every variable that is missing in the file or differs
/// in shape or kind; then nothing was copied. Tensors that no variable asks for are no
/// error, they are in the report.
pub fn load_into(
    variables: &[(String, Tensor)],
    tensors: &BTreeMap<String, Tensor>,
    path: &Path,
) -> Result<LoadReport, WeightsError> {
    let by_canonical_name: BTreeMap<String, &str> = tensors
        .keys()
        .map(|name| (canonical_name(name), name.as_str()))
        .collect();
    let mut used = BTreeSet::new();
    let mut copies = Vec::with_capacity(variables.len());
    let mut problems = Vec::new();
    for (name, variable) in variables {
        if is_counter(name) {
            continue;
        }
        let found = tensors.get_key_value(name).or_else(|| {
            let in_file = by_canonical_name.get(&canonical_name(name))?;
            tensors.get_key_value(*in_file)
        });
        let Some((in_file, tensor)) = found else {
            problems.push(Problem::Missing { name: name.clone() });
            continue;
        };
        used.insert(in_file.as_str());
        if tensor.size() != variable.size() {
            problems.push(Problem::Shape {
                name: name.clone(),
                network: variable.size(),
                file: tensor.size(),
            });
        } else if !is_float(tensor.kind()) {
            problems.push(Problem::Kind {
                name: name.clone(),
                file: tensor.kind(),
            });
        } else {
            copies.push((name, variable, tensor));
        }
    }
    let unexpected = tensors
        .keys()
        .filter(|name| !used.contains(name.as_str()) && !is_counter(name))
        .cloned()
        .collect();
    if !problems.is_empty() {
        return Err(WeightsError::Misfit {
            path: path.into(),
            problems,
            unexpected,
        });
    }
    for (name, variable, tensor) in &copies {
        tch::no_grad(|| variable.shallow_clone().f_copy_(tensor)).map_err(|source| {
            WeightsError::Copy {
                path: path.into(),
                name: (*name).clone(),
                source,
            }
        })?;
    }
    Ok(LoadReport {
        loaded: copies.len(),
        unexpected,
    })
}

fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some(BATCHES_TRACKED)
}

fn is_float(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double
    )
}

/// The message of [`WeightsError::Misfit`]: what differs, and what it looks like.
pub(super) fn describe_misfit(path: &Path, problems: &[Problem], unexpected: &[String]) -> String {
    let all_missing = problems
        .iter()
        .all(|problem| matches!(problem, Problem::Missing { .. }));
    let hint = if all_missing && !unexpected.is_empty() {
        "are these the weights of another architecture?"
    } else if all_missing {
        "is the file complete?"
    } else {
        "check the architecture, the image size (a small-image stem is 3x3), \
         and colour against Sobel input"
    };
    let mut message = format!(
        "{} does not fit the network: {}",
        path.display(),
        list(problems, "; ")
    );
    if !unexpected.is_empty() {
        message += &format!(". The file also holds: {}", list(unexpected, ", "));
    }
    message + ". Hint: " + hint
}

fn list<T: fmt::Display>(items: &[T], separator: &str) -> String {
    let mut parts: Vec<String> = items.iter().take(LISTED).map(T::to_string).collect();
    if items.len() > LISTED {
        parts.push(format!("and {} more", items.len() - LISTED));
    }
    parts.join(separator)
}
