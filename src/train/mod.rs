//! The loop: label, learn, again.
//!
//! The paper's loop is [`train`], on one screen; what each line does stands in [`session`].

pub mod checkpoint;
mod meter;
mod narrate;
pub mod optim;
pub mod output;
pub mod session;

use anyhow::Result;

use crate::monitor::Interrupted;
pub use session::{RunEnv, Session};

/// How a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// The user stopped it; the state is saved.
    Interrupted,
}

/// Trains to the last epoch and labels the images with the final network.
pub fn train(session: &mut Session) -> Result<Outcome> {
    match label_and_learn(session) {
        Ok(()) => Ok(Outcome::Finished),
        Err(error) if error.is::<Interrupted>() => {
            session.save()?;
            Ok(Outcome::Interrupted)
        }
        Err(error) => Err(error),
    }
}

fn label_and_learn(session: &mut Session) -> Result<()> {
    session.begin()?; // what the method must know of all images
    while !session.finished() {
        if session.labels_are_due() {
            session.label_step()?; // extract features, cluster them, write the pseudo-labels
        }
        let mut batches = session.batches();
        while let Some(batch) = session.next(&mut batches) {
            session.check_interrupt()?;
            session.learn(batch?)?; // predict the pseudo-labels of random views
        }
        session.end_segment();
        if session.epoch_ended() {
            session.end_epoch()?; // report, save
        }
    }
    session.last_labels() // the labels that fit the final network
}
