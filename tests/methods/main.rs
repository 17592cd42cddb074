//! Every method of the registry, and three that are registered here alone, in runs that are cut short and
//! go on.

mod drawings;
mod halves;
mod harness;
mod queue;
mod resume;
mod shortcuts;
mod turns;
