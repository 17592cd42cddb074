//! Features that are extracted while images are decoded, beside those of a pass of its own.

use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use ssl_cluster::cluster::assigner::FeatureKind;
use ssl_cluster::comm::OneProcess;
use ssl_cluster::config::{CacheChoice, Config};
use ssl_cluster::data::Dataset;
use ssl_cluster::data::cache::{Cache, Watch};
use ssl_cluster::data::source::ImageSet;
use ssl_cluster::device::Precision;
use ssl_cluster::method::{
    Context, FeaturePrefetch, FeatureRequest, Position, PrefetchedFeatures, View,
};
use ssl_cluster::model::BACKBONES;
use ssl_cluster::model::network::Network;
use ssl_cluster::monitor::Silent;
use ssl_cluster::profile::Profile;
use tch::{Device, Tensor};

const CONFIG: &str = r#"
[run]
version = "0"
command = ""
input = "images"
images = 1
[data]
size = 28
store = 32
crop_scale = [0.3, 1.0]
flip = true
jitter = 0.4
greyscale = 0.2
sobel = false
[model]
arch = "conv4"
[train]
method = "deepcluster"
epochs = 1
batch_size = 8
lr = 0.1
schedule = "constant"
momentum = 0.9
weight_decay = 0.0
seed = 5
device = "cpu"
threads = 2
[cluster]
clusters = 2
engine = "tensor"
iterations = 1
components = 4
[output]
keep_labels = "1"
"#;

/// More images than a group of the cache has, and some that are none.
fn images(folder: &Path) -> (usize, usize) {
    let (all, broken) = (1_100, [3, 511, 512, 1_099]);
    for number in 0..all {
        let path = folder.join(format!("{number}.png"));
        if broken.contains(&number) {
            std::fs::write(path, "no image").unwrap();
        } else {
            let side = 20 + number % 20;
            let pixel = |x: u32, y: u32| Rgb([x, y, number].map(|value| (value * 7 % 256) as u8));
            RgbImage::from_fn(side, side, pixel).save(path).unwrap();
        }
    }
    (all as usize, all as usize - broken.len())
}

#[test]
fn features_extracted_while_decoding_are_those_of_a_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (all, readable) = images(folder.path());
    let mut config: Config = toml::from_str(CONFIG).unwrap();
    config.run.images = readable;
    tch::set_num_threads(2);
    tch::manual_seed(1);
    let entry = BACKBONES.iter().find(|entry| entry.name == "conv4");
    let network = Network::new(entry.unwrap(), 28, false, Device::Cpu, Precision::F32).unwrap();
    let (profile, monitor) = (Profile::off(), Silent);
    for choice in [CacheChoice::Ram, CacheChoice::Disk, CacheChoice::Off] {
        for (kind, view) in [
            (FeatureKind::Hidden, View::Plain),
            (FeatureKind::Activation, View::Augmented),
        ] {
            let wanted = FeatureRequest { kind, view };
            let cache_folder = tempfile::tempdir().unwrap();
            let cache = Cache {
                choice,
                directory: Some(cache_folder.path().into()),
            };
            let set = ImageSet::find(folder.path()).unwrap();
            let mut ahead = FeaturePrefetch::new(&config, &network, &profile, all, wanted);
            let mut see = |pixels, rows| ahead.see(pixels, rows);
            let watch = Some(&mut see as &mut Watch);
            let data = Dataset::load(Arc::new(set), 32, &cache, watch, &Silent).unwrap();
            assert_eq!(data.len(), readable);
            let prefetched = ahead.finish(data.len());
            let early: Tensor = prefetched.take(Position::default(), wanted).unwrap();
            let context = Context {
                config: &config,
                network: &network,
                data: &data,
                position: Position::default(),
                monitor: &monitor,
                profile: &profile,
                prefetched: &PrefetchedFeatures::default(),
                comm: &OneProcess,
            };
            let later = context.features(kind, view).unwrap();
            assert_eq!(early, later, "{choice:?} {kind:?} {view:?}");
        }
    }
}

#[test]
fn features_of_another_kind_or_of_too_few_images_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (all, readable) = images(folder.path());
    let config: Config = toml::from_str(CONFIG).unwrap();
    let entry = BACKBONES.iter().find(|entry| entry.name == "conv4");
    let network = Network::new(entry.unwrap(), 28, false, Device::Cpu, Precision::F32).unwrap();
    let profile = Profile::off();
    let wanted = FeatureRequest {
        kind: FeatureKind::Hidden,
        view: View::Plain,
    };
    let seen = || {
        let cache = Cache {
            choice: CacheChoice::Ram,
            directory: None,
        };
        let mut ahead = FeaturePrefetch::new(&config, &network, &profile, all, wanted);
        let mut see = |pixels, rows| ahead.see(pixels, rows);
        let set = ImageSet::find(folder.path()).unwrap();
        Dataset::load(
            Arc::new(set),
            32,
            &cache,
            Some(&mut see as &mut Watch),
            &Silent,
        )
        .unwrap();
        ahead
    };
    let begun = Position {
        images: 8,
        ..Position::default()
    };
    let other = FeatureRequest {
        view: View::Augmented,
        ..wanted
    };
    assert!(
        seen()
            .finish(readable + 1)
            .take(Position::default(), wanted)
            .is_none()
    );
    assert!(seen().finish(readable).take(begun, wanted).is_none());
    assert!(
        seen()
            .finish(readable)
            .take(Position::default(), other)
            .is_none()
    );
    let prefetched = seen().finish(readable);
    assert!(prefetched.take(Position::default(), wanted).is_some());
    assert!(prefetched.take(Position::default(), wanted).is_none());
}
