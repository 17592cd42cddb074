//! A method whose two networks are trained in turn, each by a rule of its own: a judge that tells features
//! from noise by SGD, and a drawer of that noise, which deceives it, by AdamW.

use anyhow::Result;
use ssl_cluster::config::Settings;
use ssl_cluster::method::{
    Archive, BACKBONE, Batch, Context, Kept, Loss, Method, MethodEntry, Module, Panel, Position,
    Rule, Update, as_they_are,
};
use ssl_cluster::model::{LinearHead, store_on};
use ssl_cluster::random::{Purpose, key};
use tch::{Kind, Reduction, Tensor, nn};
use tempfile::TempDir;

use crate::drawings::discs;
use crate::harness::{config, dataset, run};

pub const ENTRY: MethodEntry = MethodEntry {
    name: "turns",
    help: "",
    paper: "",
    preset: |_| Settings::default(),
    first: |_| None,
    items: as_they_are,
    options: &[],
    defaults: toml::Table::new,
    resolve: |_, _| Ok(Vec::new()),
    build: |build| {
        let (device, dim) = (build.network.device(), build.network.dim());
        let (judge_store, judge) = store_on(device, |root| LinearHead::new(root, dim, 1));
        let (drawer_store, drawer) = store_on(device, |root| LinearHead::new(root, NOISE, dim));
        let mut turns = Turns {
            judge_store,
            judge,
            drawer_store,
            drawer,
            before: Vec::new(),
            moved: Vec::new(),
        };
        turns.before = turns.sums(build.network);
        Ok(Box::new(turns))
    },
    pretext: false,
};

const NOISE: i64 = 8;
/// Judge, drawer, backbone.
const UPDATED: [[bool; 3]; 2] = [[true, false, false], [false, true, true]];

struct Turns {
    judge_store: nn::VarStore,
    judge: LinearHead,
    drawer_store: nn::VarStore,
    drawer: LinearHead,
    /// Sums of the parameters after the last update, and which of them it has moved.
    before: Vec<f64>,
    moved: Vec<u32>,
}

impl Turns {
    fn sums(&self, network: &ssl_cluster::model::network::Network) -> Vec<f64> {
        [&self.judge_store, &self.drawer_store, &network.store]
            .map(|store| {
                let trained = store.trainable_variables();
                trained
                    .iter()
                    .map(|tensor| tensor.abs().sum(Kind::Double).double_value(&[]))
                    .sum()
            })
            .to_vec()
    }
}

impl Method for Turns {
    fn updates(&self, _position: Position) -> Vec<Update> {
        let of = |modules: &[&str]| Update {
            modules: modules.iter().map(|name| name.to_string()).collect(),
        };
        vec![of(&["judge"]), of(&["drawer", BACKBONE])]
    }

    fn loss(&self, context: &Context, batch: &Batch, update: usize) -> Result<Loss> {
        let input = context.network.prepare(&context.view(batch, 0));
        let real = context.network.activation(&input, true);
        let Position { images, .. } = context.position;
        tch::manual_seed(key(3, Purpose::Step, images, 0) as i64);
        let noise = Tensor::randn([real.size()[0], NOISE], (Kind::Float, real.device()));
        let drawn = self.drawer.forward(&noise);
        let judged = |features: &Tensor, truth: f64| {
            let score = self.judge.forward(features);
            let target = score.full_like(truth);
            score.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, Reduction::Mean)
        };
        Ok(Loss::of(match update {
            0 => judged(&real, 1.0) + judged(&drawn, 0.0),
            _ => judged(&drawn, 1.0) + judged(&real, 0.0),
        }))
    }

    fn after_update(&mut self, context: &Context, update: usize, _kept: Vec<Kept>) -> Result<()> {
        let now = self.sums(context.network);
        let moved: Vec<bool> = now.iter().zip(&self.before).map(|(a, b)| a != b).collect();
        assert_eq!(moved, UPDATED[update], "update {update}");
        self.moved.push(update as u32);
        self.before = now;
        Ok(())
    }

    fn modules(&self) -> Vec<Module<'_>> {
        vec![
            Module::new("judge", &self.judge_store),
            Module::new("drawer", &self.drawer_store).by(Rule::AdamW { betas: [0.5, 0.9] }),
        ]
    }

    fn preview(&self, _context: &Context, _batch: &Batch) -> Result<Vec<Panel>> {
        Ok(Vec::new())
    }

    fn archive(&mut self, archive: &mut Archive) -> Result<()> {
        archive.value("before", &mut self.before)?;
        archive.labels("moved", &mut self.moved)
    }
}

#[test]
fn networks_are_trained_in_turn_and_the_other_one_rests() {
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    discs(&images, 40, 32);
    let config = config(&ENTRY, 40, |config| config.train.accumulate = 2);
    let data = dataset(&ENTRY, &images, &config);
    let place = folder.path().join("run");
    run(&ENTRY, &config, &data, &place, Some(3));
    let file = place.join("checkpoint/state.safetensors");
    let saved = ssl_cluster::model::weights::read(&file).unwrap();
    let moved: Vec<i64> = Vec::try_from(&saved.tensors["method/moved"]).unwrap();
    assert_eq!(moved, [0, 1, 0, 1, 0, 1]);
    let adam = saved
        .tensors
        .keys()
        .filter(|name| name.starts_with("optimiser/drawer/"));
    assert!(
        adam.clone().any(|name| name.ends_with(".second")),
        "{:?}",
        adam.collect::<Vec<_>>()
    );
}
