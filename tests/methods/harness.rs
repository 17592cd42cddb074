//! A training of any method in this process, on a folder of images.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ssl_cluster::comm::OneProcess;
use ssl_cluster::config::defaults::{Facts, complete};
use ssl_cluster::config::{CacheChoice, Config, Inputs, RunInfo, Settings};
use ssl_cluster::data::Dataset;
use ssl_cluster::data::cache::Cache;
use ssl_cluster::data::loader::PixelBatch;
use ssl_cluster::data::source::ImageSet;
use ssl_cluster::device::Precision;
use ssl_cluster::method::{
    Archive, Aside, Batch, Build, Context, Method, MethodEntry, PrefetchedFeatures, REGISTRY,
    State, learn_dictionary,
};
use ssl_cluster::model::beside::Beside;
use ssl_cluster::model::network::Network;
use ssl_cluster::model::{BACKBONES, find};
use ssl_cluster::monitor::{Monitor, Phase, Silent};
use ssl_cluster::profile::Profile;
use ssl_cluster::run_dir::RunDir;
use ssl_cluster::train::{Outcome, RunEnv, Session, train};
use tch::Device;

/// Options of a method that cannot do without.
fn needed(entry: &MethodEntry) -> toml::Table {
    match entry.name {
        "multitask" => toml::from_str("tasks = 'rotation, deepcluster, context'\n").unwrap(),
        _ => toml::Table::new(),
    }
}

/// The options of a run of `entry` on the images of `folder`, changed by `edit`.
pub fn config(entry: &MethodEntry, images: usize, edit: impl Fn(&mut Config)) -> Config {
    let facts = Facts {
        images,
        width: 32,
        height: 32,
        device: Device::Cpu,
        threads: 1,
        ready: None,
        registry: REGISTRY,
    };
    let info = RunInfo {
        version: String::new(),
        command: String::new(),
        directory: None,
        input: Inputs(Vec::new()),
        images,
    };
    let settings = Settings {
        method: needed(entry),
        ..Settings::default()
    };
    let (mut config, _) = complete(settings.over((entry.preset)(&facts)), &facts, info);
    config.train.method = entry.name.into();
    config.train.batch_size = 16;
    config.train.epochs = 3;
    config.train.seed = 4;
    config.cluster.clusters = 6;
    config.model.arch = BACKBONES[0].name.into();
    edit(&mut config);
    entry.complete_in(&mut config).unwrap();
    config
}

pub fn dataset(entry: &MethodEntry, folder: &Path, config: &Config) -> Dataset {
    let cache = Cache::of_user(CacheChoice::Ram);
    let set = Arc::new(ImageSet::find(folder).unwrap());
    let items = (entry.items)(&config.method, set);
    Dataset::load(items, config.data.store, &cache, None, &Silent).unwrap()
}

/// Until it is dropped, no other test of this process draws: libtorch has one generator for all threads,
/// and a test that drew between another's seed and its weights would change them.
fn generator() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn network(config: &Config) -> Network {
    tch::set_num_threads(1);
    tch::manual_seed(7);
    let entry = BACKBONES
        .iter()
        .find(|entry| entry.name == config.model.arch);
    let size = config.data.size;
    let beside = find(&config.model.beside)
        .map(|entry| Beside::new(entry, config.model.beside_length, Device::Cpu).unwrap());
    Network::new(entry.unwrap(), size, false, Device::Cpu, Precision::F32)
        .unwrap()
        .seeing_grey(config.data.grey)
        .beside(beside)
}

fn method(entry: &MethodEntry, config: &Config, network: &Network) -> Box<dyn Method> {
    tch::manual_seed(8);
    (entry.build)(&Build {
        config,
        options: &config.method,
        network,
        images: config.run.images,
    })
    .unwrap()
}

/// Asks to stop after so many batches.
struct Stop {
    left: AtomicUsize,
}

impl Monitor for Stop {
    fn begin(&self, _: Phase, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn stopping(&self) -> bool {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(1))
            });
        left == Ok(0)
    }
}

/// Trains in `place`, from its checkpoint where it has one, until the end or for so many looks at Ctrl-C.
pub fn run(
    entry: &MethodEntry,
    config: &Config,
    data: &Dataset,
    place: &Path,
    looks: Option<usize>,
) -> Outcome {
    let _alone = generator();
    let network = network(config);
    let method = method(entry, config, &network);
    let (profile, prefetched) = (Profile::off(), PrefetchedFeatures::default());
    let monitor = Stop {
        left: AtomicUsize::new(looks.unwrap_or(usize::MAX)),
    };
    let env = RunEnv {
        config,
        data,
        network: &network,
        monitor: &monitor,
        profile: &profile,
        prefetched: &prefetched,
        comm: &OneProcess,
    };
    let resumes = place.join("checkpoint").is_dir();
    let directory = if resumes {
        RunDir::open(place).unwrap().locked().unwrap()
    } else {
        let directory = RunDir::create(place).unwrap();
        directory.write_config(config).unwrap();
        directory
    };
    let mut session = Session::new(env, method, &directory);
    if resumes {
        session.restore().unwrap();
    }
    train(&mut session).unwrap()
}

/// Everything that a method has at the beginning of a run, for a look at single losses.
pub struct Look<'a> {
    pub config: &'a Config,
    pub data: &'a Dataset,
    pub network: Network,
    pub method: Box<dyn Method>,
}

impl<'a> Look<'a> {
    pub fn new(entry: &MethodEntry, config: &'a Config, data: &'a Dataset) -> Self {
        let _alone = generator();
        let network = network(config);
        let mut method = method(entry, config, &network);
        let aside = Aside::default();
        let context = aside.context(config, &network, data, &Silent);
        learn_dictionary(&context).unwrap();
        method.begin(&context).unwrap();
        if method.next_label_step() == Some(0) {
            method.label_step(&context).unwrap();
        }
        Self {
            config,
            data,
            network,
            method,
        }
    }

    /// Does `work` in the context of these images.
    pub fn at<T>(
        &mut self,
        images: &[u32],
        work: impl FnOnce(&mut dyn Method, &Context, &Batch) -> T,
    ) -> T {
        let _alone = generator();
        let aside = Aside::default();
        let context = aside.context(self.config, &self.network, self.data, &Silent);
        let pixels = PixelBatch::new(&self.data.pixels, images, Device::Cpu).unwrap();
        let batch = Batch::new(pixels, &self.network);
        work(self.method.as_mut(), &context, &batch)
    }

    pub fn state(&mut self) -> State {
        let mut state = State::default();
        self.method
            .archive(&mut Archive::saving(&mut state))
            .unwrap();
        state
    }
}
