//! Anderson acceleration of a fixed-point iteration (Anderson 1965; Walker and Ni, SIAM J. Numer.
//! Anal. 2011): the next point is where a combination of the last steps would have come to, had the
//! iteration been linear. Sinkhorn-Knopp nearly is, close to its solution.

use std::collections::VecDeque;

use tch::Tensor;

/// Differences of past steps that are combined.
const DEPTH: usize = 6;
/// Steps longer than this are far from where the iteration is linear.
const FAR: f64 = 1.0;

/// The last points and the steps that were made from them.
#[derive(Debug, Default)]
pub(super) struct Anderson {
    past: VecDeque<(Vec<f64>, Vec<f64>)>,
}

impl Anderson {
    /// Changes `step`, the plain step from `point`, into a better one, where the past tells of one.
    pub fn improve(&mut self, point: &[f64], step: &mut [f64]) {
        let longest = |step: &[f64]| step.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        let far = longest(step);
        let worse = self
            .past
            .back()
            .is_some_and(|(_, before)| far > 2.0 * longest(before));
        if far > FAR || worse {
            self.past.clear();
            return;
        }
        self.past.push_back((point.to_vec(), step.to_vec()));
        if self.past.len() > DEPTH + 1 {
            self.past.pop_front();
        }
        if let Some(correction) = self.correction(step) {
            step.iter_mut()
                .zip(correction)
                .for_each(|(step, c)| *step -= c);
        }
    }

    /// `(ΔX + ΔF) γ`, where γ makes `step − ΔF γ` smallest.
    fn correction(&self, step: &[f64]) -> Option<Vec<f64>> {
        let (mut of_steps, mut of_both) = (Vec::new(), Vec::new());
        for (before, after) in self.past.iter().zip(self.past.iter().skip(1)) {
            for j in 0..step.len() {
                let of_step = after.1[j] - before.1[j];
                of_steps.push(of_step);
                of_both.push(of_step + after.0[j] - before.0[j]);
            }
        }
        let count = self.past.len() as i64 - 1;
        if count < 1 {
            return None;
        }
        let matrix = |flat: &[f64]| Tensor::from_slice(flat).view([count, -1]).transpose(0, 1);
        let target = Tensor::from_slice(step).unsqueeze(1);
        let (gamma, ..) = matrix(&of_steps).linalg_lstsq(&target, 1e-8, "gelsd");
        let correction = matrix(&of_both).matmul(&gamma).squeeze_dim(1);
        let values: Vec<f64> = Vec::try_from(&correction).ok()?;
        let bounded = |value: &f64| value.abs() < 10.0 * FAR;
        values.iter().all(bounded).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::Anderson;

    #[test]
    fn a_linear_iteration_is_solved_in_as_many_steps_as_it_has_rates() {
        // x ← r x, whose fixed point is 0, with three rates.
        let rates = [0.99, 0.9, 0.5, 0.99, 0.9, 0.5, 0.99];
        let mut point = vec![1.0; rates.len()];
        let mut anderson = Anderson::default();
        for _ in 0..6 {
            let pairs = point.iter().zip(rates);
            let mut step: Vec<f64> = pairs.map(|(x, rate)| (rate - 1.0) * x).collect();
            anderson.improve(&point, &mut step);
            point.iter_mut().zip(&step).for_each(|(x, step)| *x += step);
        }
        assert!(point.iter().all(|x| x.abs() < 1e-6), "{point:?}");
    }
}
