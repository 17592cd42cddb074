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
    ("model.", ""),
    ("backbone.", ""),
    ("features.module.", "features."),
];

/// What stands before the names of each network where self-distillation (DINO, DINOv2) saves two, the better one
/// first: the teacher is the average of the student, and what the papers evaluate.
const TWINS: &[&str] = &["teacher.", "student."];

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

impl LoadReport {
    /// The first of [`unexpected`](Self::unexpected), and how many more there are.
    pub fn unused(&self) -> String {
        list(&self.unexpected, ", ")
    }
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
    load_adapted(variables, tensors, &|tensors| tensors, path)
}

/// The same after `adapt` has given the tensors the names and shapes of the variables; it is given those of one
/// network, without prefixes.
///
/// # Errors
/// As of [`load_into`].
pub fn load_adapted(
    variables: &[(String, Tensor)],
    tensors: &BTreeMap<String, Tensor>,
    adapt: &dyn Fn(BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor>,
    path: &Path,
) -> Result<LoadReport, WeightsError> {
    let variables: Vec<_> = variables
        .iter()
        .filter(|(name, _)| !is_counter(name))
        .collect();
    let mut best = Reading::of(tensors, adapt, |name| Some(name.to_owned()));
    let twins = TWINS.iter().copied().map(Some);
    for twin in std::iter::once(None).chain(twins) {
        if best.found(&variables) < variables.len() {
            let reading = Reading::of(tensors, adapt, |name| within(name, twin));
            if reading.found(&variables) > best.found(&variables) {
                best = reading;
            }
        }
    }
    let mut used = BTreeSet::new();
    let mut copies = Vec::with_capacity(variables.len());
    let mut problems = Vec::new();
    for (name, variable) in variables {
        let Some((read, tensor)) = best.tensor(name) else {
            problems.push(Problem::Missing { name: name.clone() });
            continue;
        };
        used.insert(read);
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
    let unexpected = best.unexpected(&used);
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

/// What a file holds, taken for the weights of one network.
struct Reading {
    tensors: BTreeMap<String, Tensor>,
    /// The file's name of each tensor that `adapt` was given.
    in_file: BTreeMap<String, String>,
    /// What is not the network's, in the file's names.
    others: BTreeSet<String>,
}

impl Reading {
    /// Of the tensors that `rename` gives a name.
    fn of(
        tensors: &BTreeMap<String, Tensor>,
        adapt: &dyn Fn(BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor>,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut own = BTreeMap::new();
        let mut in_file = BTreeMap::new();
        let mut others = BTreeSet::new();
        for (name, tensor) in tensors {
            match rename(name) {
                Some(renamed) => {
                    own.insert(renamed.clone(), tensor.shallow_clone());
                    in_file.insert(renamed, name.clone());
                }
                None => {
                    let twin = TWINS.iter().find(|twin| within(name, Some(twin)).is_some());
                    others.insert(twin.map_or(name.clone(), |twin| format!("{twin}*")));
                }
            }
        }
        Self {
            tensors: adapt(own),
            in_file,
            others,
        }
    }

    /// The tensor for a variable, and the name that it has here.
    fn tensor(&self, variable: &str) -> Option<(&str, &Tensor)> {
        let found = self.tensors.get_key_value(variable);
        let (name, tensor) =
            found.or_else(|| self.tensors.get_key_value(&canonical_name(variable)))?;
        Some((name, tensor))
    }

    fn found(&self, variables: &[&(String, Tensor)]) -> usize {
        let found = |(name, _): &&&(String, Tensor)| self.tensor(name).is_some();
        variables.iter().filter(found).count()
    }

    /// What is not among the `used`, in the file's names where they are known.
    fn unexpected(&self, used: &BTreeSet<&str>) -> Vec<String> {
        let unused = self.tensors.keys().map(String::as_str);
        let unused = unused.filter(|name| !used.contains(name) && !is_counter(name));
        unused
            .map(|name| self.in_file.get(name).map_or(name, String::as_str))
            .chain(self.others.iter().map(String::as_str))
            .map(str::to_owned)
            .collect()
    }
}

/// The name of a tensor within the network of that twin (within the only one, for None), if it belongs to it.
fn within(name: &str, twin: Option<&str>) -> Option<String> {
    let name = canonical_name(name);
    match twin {
        Some(twin) => name.strip_prefix(twin).map(canonical_name),
        None => (!TWINS.iter().any(|twin| name.starts_with(twin))).then_some(name),
    }
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
