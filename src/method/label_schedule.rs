//! When labels are due, for methods whose label steps are spread over the whole training.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Archive;

/// How label steps spread over the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelSchedule {
    /// Dense at first, sparse later: images (epochs + 1.01)·n·t².
    #[default]
    Quadratic,
    /// Evenly: (epochs + 1.01)·n·t.
    Linear,
}

/// The density of SeLa's authors: 100 label steps in 200 epochs; short runs get more for each epoch, since
/// the first steps matter most.
pub fn default_label_steps(epochs: usize) -> usize {
    (epochs / 2).max(epochs.min(20)).max(2)
}

/// The label steps of a run, in images seen.
#[derive(Debug)]
pub struct LabelTimes {
    due: Vec<u64>,
    /// How many of them are past.
    done: usize,
}

impl LabelTimes {
    /// `steps` of them, without those beyond the end (yukimasano/self-label `main.py: optimize_times`).
    pub fn new(schedule: LabelSchedule, steps: usize, epochs: usize, images: usize) -> Self {
        let span = (epochs as f64 + 1.01) * images as f64;
        let last = steps.saturating_sub(1).max(1) as f64;
        let end = (epochs * images) as u64;
        let time = |step| {
            let t = step as f64 / last;
            let share = match schedule {
                LabelSchedule::Quadratic => t * t,
                LabelSchedule::Linear => t,
            };
            (span * share) as u64
        };
        let due = (0..steps).map(time).filter(|&time| time < end).collect();
        Self { due, done: 0 }
    }

    /// When the next is due; `None` after the last.
    pub fn next(&self) -> Option<u64> {
        self.due.get(self.done).copied()
    }

    /// Those that are due after so many images are past.
    pub fn pass(&mut self, images: u64) {
        while self.next().is_some_and(|due| due <= images) {
            self.done += 1;
        }
    }

    /// What a resumed run needs of it.
    pub fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        archive.value("done", &mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::{LabelSchedule, LabelTimes};

    fn all(schedule: LabelSchedule, steps: usize, epochs: usize, images: usize) -> Vec<u64> {
        let mut times = LabelTimes::new(schedule, steps, epochs, images);
        let mut all = Vec::new();
        while let Some(due) = times.next() {
            all.push(due);
            times.pass(due);
        }
        all
    }

    /// `main.py`: `[(args.epochs+2)*N*(np.linspace(0,1,args.nopts))**2]` with 1.01 in place of 2, counted by
    /// hand: 10 epochs of 100 images, a span of 1,101.
    #[test]
    fn label_steps_are_dense_at_first_or_even() {
        let quadratic = all(LabelSchedule::Quadratic, 5, 10, 100);
        assert_eq!(quadratic, [0, 68, 275, 619]);
        let even = all(LabelSchedule::Linear, 5, 10, 100);
        assert_eq!(even, [0, 275, 550, 825]);
    }

    #[test]
    fn steps_that_came_together_are_past_together() {
        let mut times = LabelTimes::new(LabelSchedule::Quadratic, 100, 1, 100);
        times.pass(50);
        assert!(times.next().is_some_and(|due| due > 50));
        times.pass(100);
        assert_eq!(times.next(), None);
        assert_eq!(all(LabelSchedule::Linear, 1, 3, 10), [0]);
    }
}
