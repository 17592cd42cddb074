//! What long work says of itself. The lower layers (data, clustering, methods) report through this
//! trait and never print; `ui` is the implementation that a terminal sees.

/// A stretch of work whose progress is worth showing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Read,
    Extract,
    Cluster,
    Train,
}

impl Phase {
    /// The word shown to the user, also the key under `seconds` in `metrics.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Read => "read",
            Phase::Extract => "extract",
            Phase::Cluster => "cluster",
            Phase::Train => "train",
        }
    }
}

/// Receives progress, notes and warnings, and is asked whether to stop.
pub trait Monitor: Sync {
    /// A phase begins; `total` counts images (or iterations, for [`Phase::Cluster`]).
    fn begin(&self, phase: Phase, label: &str, total: u64);
    /// `count` more are done.
    fn advance(&self, count: u64);
    /// The phase is over.
    fn end(&self);
    /// A line of information, shown unless `--quiet`.
    fn note(&self, text: &str);
    /// A line that a user should act on.
    fn warn(&self, text: &str);
    /// True once the user asked to stop (Ctrl-C): long work returns early with [`Interrupted`].
    fn stopping(&self) -> bool;
}

/// Long work was left early because the user asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// A monitor that shows nothing and never stops: for library use and tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn begin(&self, _: Phase, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn stopping(&self) -> bool {
        false
    }
}

/// Seconds in words: `45 s`, `12 min`, `3 h 20 min`.
pub fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match seconds {
        s if s < 1.0 => "under 1 s".into(),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}
