//! Every method of the registry, and two that are registered here alone, in runs that are cut short and
//! go on.

mod drawings;
mod harness;
mod queue;
mod resume;
mod shortcuts;
mod turns;
