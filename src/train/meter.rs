//! Running figures of an epoch, read from the device as rarely as possible.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::method::Loss;

/// The sums as a checkpoint holds them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MeterSums {
    loss: f64,
    images: u64,
    correct: Option<i64>,
    asked: i64,
    #[serde(default)]
    metrics: BTreeMap<String, (f64, u64)>,
    train_seconds: f64,
    seconds: BTreeMap<String, f64>,
}

/// Sums over the batches of an epoch.
#[derive(Debug)]
pub struct Meter {
    /// Sum of loss · images, on the device.
    loss: Tensor,
    images: u64,
    correct: Option<Tensor>,
    asked: i64,
    /// Of each metric the sum over images, on the device, and their number.
    metrics: BTreeMap<String, (Tensor, u64)>,
    train_seconds: f64,
    seconds: BTreeMap<String, f64>,
}

impl Meter {
    pub fn new(device: Device) -> Self {
        Self {
            loss: Tensor::zeros(1, (Kind::Double, device)),
            images: 0,
            correct: None,
            asked: 0,
            metrics: BTreeMap::new(),
            train_seconds: 0.0,
            seconds: BTreeMap::new(),
        }
    }

    /// The sums so far; waits for the device.
    pub fn sums(&self) -> MeterSums {
        MeterSums {
            loss: self.loss.double_value(&[0]),
            images: self.images,
            correct: self
                .correct
                .as_ref()
                .map(|correct| correct.int64_value(&[])),
            asked: self.asked,
            metrics: self
                .metrics
                .iter()
                .map(|(name, (sum, images))| (name.clone(), (sum.double_value(&[]), *images)))
                .collect(),
            train_seconds: self.train_seconds,
            seconds: self.seconds.clone(),
        }
    }

    /// Takes over what [`Self::sums`] gave.
    pub fn restore(&mut self, sums: &MeterSums) {
        let device = self.loss.device();
        self.loss = Tensor::from_slice(&[sums.loss]).to_device(device);
        self.images = sums.images;
        self.correct = sums
            .correct
            .map(|correct| Tensor::from(correct).to_device(device));
        self.asked = sums.asked;
        let metrics = sums.metrics.iter();
        self.metrics = metrics
            .map(|(name, &(sum, images))| {
                (name.clone(), (Tensor::from(sum).to_device(device), images))
            })
            .collect();
        self.train_seconds = sums.train_seconds;
        self.seconds = sums.seconds.clone();
    }

    /// Adds what so many images came to in the update of that number. The first one's loss is the
    /// epoch's.
    pub fn add(&mut self, update: usize, loss: &Loss, images: u64) {
        let weighed = |value: &Tensor| value.detach().to_kind(Kind::Double) * images as f64;
        tch::no_grad(|| {
            for (name, value) in &loss.metrics {
                let (sum, count) = match self.metrics.remove(name) {
                    Some((sum, count)) => (sum + weighed(value), count + images),
                    None => (weighed(value), images),
                };
                self.metrics.insert(name.clone(), (sum, count));
            }
            if update > 0 {
                return;
            }
            self.loss += weighed(&loss.value);
            self.images += images;
            if let Some((count, asked)) = &loss.correct {
                self.correct = Some(match self.correct.take() {
                    Some(sum) => sum + count,
                    None => count.shallow_clone(),
                });
                self.asked += asked;
            }
        });
    }

    /// Means of the metrics over the images; waits for the device.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let means = self.metrics.iter();
        means
            .map(|(name, (sum, images))| (name.clone(), sum.double_value(&[]) / *images as f64))
            .collect()
    }

    /// Adds the time since `start` to training.
    pub fn trained_since(&mut self, start: Instant) {
        self.train_seconds += start.elapsed().as_secs_f64();
    }

    /// Adds the seconds of other phases.
    pub fn spent(&mut self, seconds: &BTreeMap<String, f64>) {
        for (phase, spent) in seconds {
            *self.seconds.entry(phase.clone()).or_default() += spent;
        }
    }

    /// Mean loss so far; waits for the device.
    pub fn mean_loss(&self) -> f64 {
        self.loss.double_value(&[0]) / self.images.max(1) as f64
    }

    /// Share of right predictions.
    pub fn accuracy(&self) -> Option<f64> {
        let correct = self.correct.as_ref()?.int64_value(&[]);
        (self.asked > 0).then(|| correct as f64 / self.asked as f64)
    }

    pub fn images_per_second(&self) -> f64 {
        self.images as f64 / self.train_seconds.max(1e-9)
    }

    /// Seconds by phase, training among them.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        let mut seconds = self.seconds.clone();
        seconds.insert("train".into(), self.train_seconds);
        seconds
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::Meter;
    use crate::method::Loss;

    fn loss(value: f64, correct: i64, asked: i64, metric: f64) -> Loss {
        Loss {
            correct: Some((Tensor::from(correct), asked)),
            metrics: [("ab".to_string(), Tensor::from(metric))].into(),
            ..Loss::of(Tensor::from(value).to_kind(Kind::Float))
        }
    }

    fn add_all(meter: &mut Meter, from: usize) {
        // Parts of batches of other lengths, the second update of each in between.
        let parts = [(4, 2.0, 3, 1.0), (1, 7.0, 0, 5.0), (3, 1.0, 2, 2.0)];
        for (images, value, correct, metric) in parts.into_iter().skip(from) {
            meter.add(0, &loss(value, correct, images as i64, metric), images);
            meter.add(1, &loss(100.0, 100, 100, metric), images);
        }
    }

    #[test]
    fn means_are_over_images_and_the_loss_is_the_first_updates() {
        let mut meter = Meter::new(Device::Cpu);
        assert_eq!((meter.mean_loss(), meter.accuracy()), (0.0, None));
        add_all(&mut meter, 0);
        assert_eq!(meter.mean_loss(), (4.0 * 2.0 + 7.0 + 3.0 * 1.0) / 8.0);
        assert_eq!(meter.accuracy(), Some(5.0 / 8.0));
        assert_eq!(meter.metrics()["ab"], (4.0 + 5.0 + 3.0 * 2.0) / 8.0);
    }

    #[test]
    fn a_meter_goes_on_from_its_sums() {
        let mut whole = Meter::new(Device::Cpu);
        add_all(&mut whole, 0);
        let mut begun = Meter::new(Device::Cpu);
        begun.add(0, &loss(2.0, 3, 4, 1.0), 4);
        begun.add(1, &loss(100.0, 100, 100, 1.0), 4);
        let saved = serde_json::to_string(&begun.sums()).unwrap();
        let mut resumed = Meter::new(Device::Cpu);
        resumed.restore(&serde_json::from_str(&saved).unwrap());
        add_all(&mut resumed, 1);
        assert_eq!(resumed.sums(), whole.sums());
    }
}
