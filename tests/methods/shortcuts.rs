//! What the papers say of single methods.

use ssl_cluster::method::{METHODS, MethodEntry};
use ssl_cluster::record::Record;
use ssl_cluster::run_dir::RunDir;
use ssl_cluster::train::Outcome;
use tempfile::TempDir;

use crate::drawings::{discs, fringed_noise};
use crate::harness::{Look, config, dataset, run};

fn method(name: &str) -> &'static MethodEntry {
    METHODS.iter().find(|entry| entry.name == name).unwrap()
}

const LEARNED: u32 = 200;
const SIDE: u32 = 48;

/// How often context prediction is right on images of noise that it has not seen, after it has learned on
/// others with the fringes of a lens.
fn right_on_fringed_noise(cure: &str) -> f64 {
    let folder = TempDir::new().unwrap();
    let [known, others] = ["known", "others"].map(|name| folder.path().join(name));
    for (place, numbers) in [(&known, 0..LEARNED), (&others, LEARNED..LEARNED + 40)] {
        std::fs::create_dir(place).unwrap();
        fringed_noise(place, numbers, SIDE);
    }
    let entry = method("context");
    let config = config(entry, LEARNED as usize, |config| {
        config.data.size = SIDE as usize;
        config.data.store = SIDE as usize;
        config.train.epochs = 8;
        config.method.insert("cure".into(), cure.into());
        config.method.insert("coarse".into(), 0.0.into());
    });
    let data = dataset(entry, &known, &config);
    let place = folder.path().join("run");
    assert_eq!(run(entry, &config, &data, &place, None), Outcome::Finished);
    let unseen = dataset(entry, &others, &config);
    let mut look = Look::new(entry, &config, &unseen);
    let model = ssl_cluster::model::weights::read(&place.join("model.safetensors")).unwrap();
    look.network.load(&place.join("model.safetensors")).unwrap();
    for module in look.method.modules() {
        for (name, mut variable) in ssl_cluster::model::weights::named_variables(module.store) {
            let saved = &model.tensors[&format!("{}.{name}", module.name)];
            tch::no_grad(|| variable.copy_(saved));
        }
    }
    let images: Vec<u32> = (0..unseen.len() as u32).collect();
    let (right, asked) = look.at(&images, |method, context, batch| {
        method.pretext_accuracy(context, batch).unwrap()
    });
    right as f64 / asked as f64
}

/// Doersch et al., section 3.1: "the ConvNet learns to localize ... by the separation between green and
/// magenta"; and the cures.
#[test]
fn fringes_tell_the_place_unless_they_are_cured() {
    let [none, projection, dropping] =
        ["none", "projection", "dropping"].map(right_on_fringed_noise);
    let told = format!("none {none}, projection {projection}, dropping {dropping}; chance 0.125");
    assert!(none > 0.4, "{told}");
    assert!(projection < 0.2 && dropping < 0.2, "{told}");
}

#[test]
fn colours_are_nearer_than_grey() {
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    discs(&images, 160, 32);
    let entry = method("colorization");
    let config = config(entry, 160, |config| config.train.epochs = 10);
    let data = dataset(entry, &images, &config);
    let place = folder.path().join("run");
    assert_eq!(run(entry, &config, &data, &place, None), Outcome::Finished);
    let records = RunDir::open(&place).unwrap().read_metrics().unwrap();
    let last = records.iter().rev().find_map(|record| match record {
        Record::Epoch(epoch) => Some(&epoch.metrics),
        Record::Labels(_) => None,
    });
    let metrics = last.unwrap();
    let (ours, grey) = (metrics["ab_error"], metrics["ab_error_of_grey"]);
    assert!(ours < 0.5 * grey, "{ours}, of grey {grey}");
}
