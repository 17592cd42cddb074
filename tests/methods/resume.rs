//! What holds for every method: losses that change nothing, and runs that end alike whether they were
//! cut short or not.

use std::path::Path;

use ssl_cluster::config::Keep;
use ssl_cluster::method::{METHODS, MethodEntry};
use ssl_cluster::model::weights;
use ssl_cluster::train::Outcome;
use tempfile::TempDir;

use crate::drawings::discs;
use crate::harness::{Look, config, dataset, run};
use crate::{halves, queue, turns};

/// Those of the registry, and those of these tests.
pub fn all() -> Vec<&'static MethodEntry> {
    let mut all = METHODS.to_vec();
    all.extend([&queue::ENTRY, &turns::ENTRY, &halves::ENTRY]);
    all
}

#[test]
fn a_loss_is_a_pure_function_with_a_gradient() {
    let folder = TempDir::new().unwrap();
    discs(folder.path(), 24, 32);
    for entry in all() {
        let mut config = config(entry, 24, |_| {});
        let data = dataset(entry, folder.path(), &config);
        config.run.images = data.len();
        let mut look = Look::new(entry, &config, &data);
        let images: Vec<u32> = (0..8).collect();
        let before = look.state();
        let loss = |look: &mut Look| {
            look.at(&images, |method, context, batch| {
                method.loss(context, batch, 0).unwrap().value
            })
        };
        let first = loss(&mut look);
        let second = loss(&mut look).double_value(&[]);
        assert_eq!(first.double_value(&[]), second, "{}", entry.name);
        assert!(second.is_finite(), "{}", entry.name);
        let after = look.state();
        assert_eq!(before.values, after.values, "{}", entry.name);
        assert_eq!(before.tensors, after.tensors, "{}", entry.name);
        assert!(first.requires_grad(), "{}", entry.name);
    }
}

#[test]
fn a_preview_has_a_row_for_every_image_and_says_something() {
    let folder = TempDir::new().unwrap();
    discs(folder.path(), 24, 32);
    for entry in METHODS.iter().chain(&[&halves::ENTRY]) {
        let config = config(entry, 24, |_| {});
        let data = dataset(entry, folder.path(), &config);
        let mut look = Look::new(entry, &config, &data);
        let panels = look.at(&[0, 5, 7], |method, context, batch| {
            tch::no_grad(|| method.preview(context, batch).unwrap())
        });
        assert!(
            panels.len() >= 3 && panels.len().is_multiple_of(3),
            "{}",
            entry.name
        );
        for tile in panels.iter().flat_map(|panel| &panel.0) {
            assert!(!tile.caption.is_empty(), "{}", entry.name);
            assert!(tile.image.width() >= 16, "{}", entry.name);
        }
    }
}

#[test]
fn a_run_that_was_cut_short_anywhere_ends_as_if_it_had_not_been() {
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    discs(&images, 60, 32);
    for entry in all() {
        // In the middle of epochs, with a batch in four parts.
        let mut config = config(entry, 60, |config| {
            config.train.accumulate = 4;
            // The first rate of a warm-up is 0, and this one looks at what each update moves.
            config.train.warmup = if entry.name == turns::ENTRY.name {
                0.0
            } else {
                1.3
            };
            config.train.lr = config.train.lr.min(0.01);
            config.output.keep_labels = Keep::Newest(1);
        });
        let data = dataset(entry, &images, &config);
        config.run.images = data.len();
        let whole = folder.path().join(format!("{}-whole", entry.name));
        let cut = folder.path().join(format!("{}-cut", entry.name));
        assert_eq!(run(entry, &config, &data, &whole, None), Outcome::Finished);
        let mut stops = 0;
        for (looks, kept) in [(2, Keep::All), (3, Keep::Newest(0)), (5, Keep::Newest(2))] {
            // How many label files stay changes nothing but that.
            config.output.keep_labels = kept;
            // A label step looks for Ctrl-C as well, so that a stop is where it falls.
            let outcome = run(entry, &config, &data, &cut, Some(looks));
            stops += usize::from(outcome == Outcome::Interrupted);
        }
        assert!(stops >= 2, "{}: {stops} stops", entry.name);
        assert_eq!(run(entry, &config, &data, &cut, None), Outcome::Finished);
        for file in ["model.safetensors", "clustering.safetensors"] {
            same_tensors(&whole.join(file), &cut.join(file), entry.name);
        }
        let labels = |run: &Path| std::fs::read(run.join("labels.jsonl")).unwrap();
        assert!(labels(&whole) == labels(&cut), "{}", entry.name);
    }
}

/// Whether two files hold the same tensors to the bit.
fn same_tensors(one: &Path, other: &Path, name: &str) {
    let (one, other) = (weights::read(one).unwrap(), weights::read(other).unwrap());
    assert_eq!(
        one.tensors.keys().collect::<Vec<_>>(),
        other.tensors.keys().collect::<Vec<_>>(),
        "{name}"
    );
    for (tensor, value) in &one.tensors {
        assert!(*value == other.tensors[tensor], "{name}: {tensor} differs");
    }
}
